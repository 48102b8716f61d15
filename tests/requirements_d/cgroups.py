"""Requirements of the control groups that bound a sandbox's process tree."""

REQUIREMENTS: dict[str, str] = {
    "CGROUP-1": "pure v2, a delegated subtree, hybrid, v1 and none are told apart from what the kernel says, wherever they are mounted",
    "CGROUP-2": "what a machine's control groups cannot bound is named, and a group that asks for it is refused, with nothing left behind",
    "CGROUP-3": "memory (swap included), processes and processor time of a whole tree are held, and what was refused is counted",
    "CGROUP-4": "a frozen tree does nothing; freezing is awaited, and bounded",
    "CGROUP-5": "a kill leaves no process, whatever it ignores, frozen or not, while it forks",
    "CGROUP-6": "groups that a killed supervisor left are killed and removed; those of a living one are not touched",
    "CGROUP-7": "60 deaf processes are frozen within 5 ms and gone within 150 ms, also while frozen",
}
