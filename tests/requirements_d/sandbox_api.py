"""Requirements of the sandbox port as others use it: from Python, from a backend of their own, from other frameworks."""

REQUIREMENTS: dict[str, str] = {
    "SBXAPI-1": "the public names of `midwatch.sandbox` are complete, sorted, and cost nothing until they are used",
    "SBXAPI-2": "a sandbox is opened and closed by one context manager, async or blocking, and nothing is weakened in silence",
    "SBXAPI-3": "what the how-to shows runs as it stands there",
    "SBXAPI-4": "deepagents' own sandbox suite passes on the full profile, but for what the two packages disagree about",
    "SBXAPI-5": "Inspect's own sandbox suite passes on the full profile, but for what a sandbox refuses on purpose",
    "SBXAPI-6": "an adapter without its framework says which extra to install",
    "PORT-1": "a call gives the worker's answer, and whatever a tool does gives a result, never an exception",
    "PORT-2": "at its deadline a call and every process it started are dead, and the sandbox takes the next call",
    "PORT-3": "a program's output, input, exit code and environment are as the port says",
    "PORT-4": "effects name every change exactly, with what was there before, and nothing else",
    "PORT-5": "a second call sees the first one's files; so does a new sandbox started with the layers, and no other",
    "PORT-6": "pause stops all progress, resume lets it go on, kill ends all of it, frozen or not",
    "PORT-7": "memory, processes, disk and processor time are bounded, and the counters tell of it",
    "PORT-8": "nothing is left after close, nor when the supervisor is killed",
    "PORT-9": "a sandbox that isolates shows neither this machine's files and processes nor a network",
    "PORT-10": "a third party can run the suite as it is, and it finds a backend that does not keep the port",
}
