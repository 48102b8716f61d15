"""What `midwatch init` promises."""

REQUIREMENTS: dict[str, str] = {
    "INIT-1": "A new fleet checks without a warning, runs, replays and passes its own test at once.",
    "INIT-2": "`init` overwrites nothing and refuses a folder that holds anything.",
}
