"""What holds for a graph that somebody else wrote with LangGraph, and where LangGraph alone does not hold it."""

REQUIREMENTS: dict[str, str] = {
    "GOVERN-1": "An imported graph runs from its input to its output, with its nodes as transitions and its calls in the ledger.",
    "GOVERN-2": "A yes lets the approved action run and no other, in whatever order calls of one answer reach the guard.",
    "GOVERN-3": "Each effect happens once, however often its node runs again.",
    "GOVERN-4": "A denial is an answer to the model; a halt holds through error handlers, retries and code that swallows it.",
    "GOVERN-5": "A process killed in a node repeats that node alone, and no effect or bill of it.",
    "GOVERN-6": "A secret in state or configuration of a foreign graph is not stored in clear.",
    "GOVERN-7": "Stored state makes nothing but the classes of the graph's own schemas.",
    "GOVERN-8": "A drain stops between supersteps and the run goes on from there.",
    "GOVERN-9": "State can be pruned, copied and deleted without silent loss.",
    "GOVERN-10": "Several processes work on one home at once.",
    "GOVERN-11": "State of a run is kept by the run's own saver; a graph with another one is refused or stopped.",
    "GOVERN-12": "`midwatch check` names each part of a foreign graph that can act past the guards, and can refuse it.",
    "GOVERN-13": "A model's calls are carried out with that agent's authority alone.",
    "GOVERN-14": "An imported graph that changed is not resumed unless a person says so.",
}
