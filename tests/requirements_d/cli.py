"""Requirements of the command line: what an operator types, reads and gets as exit code."""

REQUIREMENTS: dict[str, str] = {
    "CLI-1": "`midwatch --help` imports no heavy library and takes at most 150 ms of processor time",
    "CLI-2": "every command takes `--json` and then writes exactly one JSON object to stdout, errors included",
    "CLI-3": "data goes to stdout and all else to stderr; each error ends in the exit code of its class",
    "CLI-4": "a cancel is sticky, reaches a live worker by its mark, and ends a run that nobody holds at once",
    "CLI-5": "a gate takes one answer in time and none later, and the card shows the exact action and commands",
    "CLI-6": "only an effect that nobody can still be carrying out takes a person's word, once",
    "CLI-7": "the input of a run is JSON, a file or pairs; what is none of these is refused in plain words",
    "CLI-8": "`verify` fails when the chain does not hold the head that was noted earlier",
    "CLI-9": "`doctor` changes nothing, says that the process sandbox is no isolation, fails on what stops a run",
    "CLI-10": "text that a model or a tool wrote cannot steer the operator's terminal",
    "CLI-11": "the display of a run shows each agent's state and the spend against its caps, from the ledger's events",
    "CLI-12": "on a terminal a waiting run asks each open question once, records the words, and goes on in the same command",
    "CLI-13": "only admins change people, as their rights are at that moment; tokens are shown once and the last admin stays",
    "CLI-14": "`undo` ends in 0 when nothing is left, 3 when something is in doubt, 1 else, and asks before it acts",
    "CLI-15": "`resume --answered` goes on with what was answered and with nothing else, each run under its own fleet",
    "CLI-16": "how people answer is measured, and who waves questions through is named plainly",
    "CLI-17": "no text of an agent can pose as a line of a card, and every character that cannot be seen is shown",
}
