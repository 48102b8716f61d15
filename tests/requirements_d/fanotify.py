"""Requirements of what is observed of a sandbox: which files were read, written, executed."""

REQUIREMENTS: dict[str, str] = {
    "OBSERVE-1": "what a process in another mount and process namespace reads, writes and executes is told, relative to the workspace",
    "OBSERVE-2": "windows do not leak into each other, and what this process does itself is not told",
    "OBSERVE-3": "many events are told without loss; what is lost or cannot be named is reported as such, never silently",
    "OBSERVE-4": "a listener that ends, is stuck or cannot keep up says so to its owner",
    "OBSERVE-5": "where it cannot be observed, or more than the run would be, it is refused with the remedy",
    "OBSERVE-7": "when the listener dies its sandbox is killed at once, nothing of the call counts, and the run stops",
    "OBSERVE-6": "names that mislead (deleted, odd bytes, a FIFO, a mount that went away) are told as they were, and stop nothing",
}
