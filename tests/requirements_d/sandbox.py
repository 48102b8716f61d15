"""Requirements of the sandbox room: what bounds the processes that tools act in."""

REQUIREMENTS: dict[str, str] = {
    "SANDBOX-1": "a worker that crashes, is killed, prints or answers garbage gives a result, never an exception",
    "SANDBOX-2": "at the deadline, and when the caller is cancelled, every process of the call's group is dead",
    "SANDBOX-3": "a worker sees an allow-listed environment, no standard input, its working directory, and its limits",
    "SANDBOX-4": "what a tool prints never mixes with its answer, and both are bounded",
    "SANDBOX-5": "the process sandbox says that it does not isolate",
    "SANDBOX-6": "when the kernel dies, its workers die",
    "SANDBOX-7": "a file in the working directory is never imported in place of a module",
}
