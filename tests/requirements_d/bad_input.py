"""What holds when models, providers, files, disks and databases are bad."""

REQUIREMENTS: dict[str, str] = {
    "BAD-1": "An effect whose end nobody saw (a time-out, a crash) is in doubt: neither done nor failed nor repeated, until a word.",
    "BAD-2": "Nothing is changed on a guess: arguments out of prose and calls of a cut answer are told back, with a signal.",
    "BAD-3": "The fleet's sandbox limits are those of the processes that the engine starts.",
}
