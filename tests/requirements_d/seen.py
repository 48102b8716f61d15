"""Requirements of what people see of a run's effects, and of what they say to them."""

REQUIREMENTS: dict[str, str] = {
    "SEEN-1": "`effects RUN` shows what each call was seen to do, in order, with what became of it, and reads nothing else to do so",
    "SEEN-2": "`sandbox ls` and `stats` show what lives and what the machine counts of it, in other processes, too",
    "SEEN-4": "`effects commit` and `discard` show what they would do, ask before, and end with 1 on a conflict, 3 where people must agree",
    "SEEN-3": "`sandbox shell` runs programs in a sandbox as an agent has it, without a way out, and keeps nothing of what they did",
}
