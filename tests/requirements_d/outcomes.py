"""Requirements of outcomes, acquired credentials and commit targets: clauses 26, 29 and 30 over whole runs."""

REQUIREMENTS: dict[str, str] = {
    "CLAUSE-30": "Denied, then something of authority changed, then the same again: by any tool, agent or process, it waits for a person.",
    "CLAUSE-29": "What nobody issued to the run is used nowhere: no argument, header, address or body of a request, no tunnel.",
    "PEER-1": "Conditions match what they say, one of another language does not load, and one that fails allows nothing.",
    "PEER-2": "Without a rule nothing is allowed.",
    "PEER-3": "No payload labels itself, no label leaks between runs, a denial ends no work, and a yes is for one action once.",
    "PEER-4": "A configuration that became invalid lets nothing pass, and a change of one grants.",
    "PEER-5": "Commands, files and addresses that others warn of are grants or refused, and no refusal is forgotten by waiting.",
    "FAULT-1": "Each part of deciding fails in turn, and no effect happens.",
    "FAULT-2": "Errors, unknowns, missing labels, broken detectors and clocks that go back are a no.",
    "PROBE-30": "A run that is denied thirty times stands still until a person resumes it.",
    "PROBE-31": "Instructions that a run writes for later sessions or stronger agents wait, or stay the words of whoever wrote them.",
    "PROBE-32": "No name makes a tool but the fleet file's list.",
    "CHECKLIST-1": "Each point of the checklists names tests that exist and run, or says why there is none.",
    "CLAUSE-26": "A commit needs the reach of whoever executes what is committed: what the fleet says of the place, else the strongest.",
}
