"""What holds when a run is killed, wherever the kill falls."""

REQUIREMENTS: dict[str, str] = {
    "CRASH-1": "A run that is killed at any stage of a tool call or between writes is resumed to its end, no finished node again.",
    "CRASH-2": "A killed call happens once where its target takes a key; else at most once, and it is in doubt until a person speaks.",
    "CRASH-3": "A kill in a model call bills twice at most the call whose answer it lost, and the bill never passes the run's cost.",
    "CRASH-4": "No acknowledged event is lost by a kill, the chain verifies, and at the end no scope holds anything.",
    "CRASH-5": "Under kills at random the first answer to a gate holds, and exactly what was approved happens.",
}
