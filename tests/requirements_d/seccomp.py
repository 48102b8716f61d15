"""Requirements of the list of refused system calls."""

REQUIREMENTS: dict[str, str] = {
    "SECCOMP-1": "What the list names is refused with its error on both machines, all else passes, other ABIs end the process.",
    "SECCOMP-2": "Docker's form of the list answers as our own program does.",
    "SECCOMP-3": "Loaded by the kernel, the program refuses each listed call, and ordinary work does not notice it.",
}
