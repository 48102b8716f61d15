"""Requirements of the causal history: what led to what, and what follows from it."""

REQUIREMENTS: dict[str, str] = {
    "CAUSES-1": "every event is indexed by its causes in its own transaction; `verify` finds an index that says otherwise",
    "CAUSES-2": "a call leads back to the calls whose files it read, executed or changed, in its run or through a commit",
    "CAUSES-3": "a home of an older version gets the index that this version would have written",
    "CAUSES-4": "no false explanation: each edge that `why` tells is one that the events themselves prove",
    "CAUSES-5": "`blast` tells everything that follows, counts it, and says where it stopped counting",
    "CAUSES-6": "neither shows arguments, results, prompts or reasons",
    "CAUSES-7": "nothing follows from what is quarantined: no model call, no tool call, no commit, in any run",
    "CAUSES-8": "a quarantine takes an operator and a reason, and somebody else lifts it",
    "CAUSES-9": "`reach` tells what an agent could cause, itself and through others, and who could stop it",
    "CAUSES-10": "an event is named by number, effect, place in its run, or a fragment of output",
}
