"""What an operator can do to one living sandbox."""

REQUIREMENTS: dict[str, str] = {
    "STEER-1": "a sandbox that an operator holds does nothing, no time counts against its call, and who held it and why is on record",
    "STEER-2": "a killed sandbox ends its call, also while it is held, and leaves no process",
    "STEER-3": "steering takes an operator and a sandbox that can be held; else nothing is changed or recorded",
}
