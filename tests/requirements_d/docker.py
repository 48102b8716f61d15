"""Requirements of the `docker` backend: what it asks of an engine, what it checks, what it refuses."""

REQUIREMENTS: dict[str, str] = {
    "DOCKER-1": "a profile leads to one written-out container: no network, no capability, read-only, bounded, our list of system calls",
    "DOCKER-2": "an engine is spoken to over a Unix socket only; its refusals reach the operator in its own words",
    "DOCKER-3": "what an engine cannot hold is refused before anything starts, with what to do",
    "DOCKER-4": "what an engine did not do is found at the kernel, and the container is killed before anything ran in it",
    "DOCKER-5": "a container of ours has a user of its own, nothing of this machine's environment, and no way to another container's files",
    "DOCKER-6": "memory, processes, disk and file size are bounded, and the kernel's counters say what was refused",
    "DOCKER-7": "a container is frozen and killed by its control groups: whole, also while frozen, also with sixty processes",
    "DOCKER-8": "when the supervisor dies its containers and mounts go; were its launcher killed, too, the next start takes them away",
    "DOCKER-9": "the image of this machine's Python is made once; its tag is a digest of what it holds",
    "DOCKER-10": "an operator's image is taken when its Python is compatible, and refused in words when it is not; nothing is pulled",
    "DOCKER-11": "a sandbox in a container is the port's: calls, programs, effects, layers, counters",
    "DOCKER-12": "a private engine for tests starts from Debian's packages, twice is once, and leaves nothing when it stops",
    "DOCKER-14": "under gVisor's runtime a sandbox is the port's as well, and its kernel is gVisor's",
    "DOCKER-13": "the only way out of a container is the broker's socket, reached at a loopback port",
}
