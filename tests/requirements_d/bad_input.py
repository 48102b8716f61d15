"""What holds when models, providers, files, disks and databases are bad."""

REQUIREMENTS: dict[str, str] = {
    "BAD-1": "An effect whose end nobody saw (a time-out, a crash) is in doubt: neither done nor failed nor repeated, until a word.",
    "BAD-2": "Nothing is changed on a guess: arguments out of prose and calls of a cut answer are told back, with a signal.",
    "BAD-3": "The fleet's sandbox limits are those of the processes that the engine starts.",
    "BAD-4": "A fault of the provider is charged for what it may have cost, each retry anew, and only the part that needed it ends.",
    "BAD-5": "A malformed answer of any agent is told to it or recovered with a signal; it neither ends the run nor is paid for twice.",
    "BAD-6": "Malformed arguments that have one reading are read for a read; all others are refused as data.",
    "BAD-7": "A model without tool calls carries a whole run by the constrained protocol, and a step in prose changes nothing.",
    "BAD-8": "A disk that fills up stops a run with a clear error wherever it happens; with space again it goes on and nothing is lost.",
    "BAD-9": "A locked or corrupt database is a clear error before anything goes out; two processes share one home without loss.",
    "BAD-10": "Files that are not UTF-8 are an answer to an agent, and a refusal before the start where they are the fleet's own.",
}
