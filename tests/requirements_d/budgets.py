"""What budgets promise."""

REQUIREMENTS: dict[str, str] = {
    "BUDGET-1": "Every unit is bounded on every scope of the tree; no scope uses more than one around it has.",
    "BUDGET-2": "The last unit goes to one claim, whoever asks at the same time, in whichever thread or process.",
    "BUDGET-3": "What a killed worker had begun is charged in full; what it had not begun is given back.",
    "BUDGET-4": "A run that stopped at a bound goes on after a top-up, the same run, and repeats nothing that was done.",
    "BUDGET-5": "A window that begins during a run has its caps at once; a clock that goes back is closed.",
    "BUDGET-6": "A shadow counts and records what it would have stopped, and stops nothing.",
    "BUDGET-7": "No amount that is negative, fractional, no number or too large is taken.",
    "BUDGET-8": "Only a person in the right role changes a cap, by one event that says who, why and by how much.",
    "BUDGET-9": "A cap that was set holds until the file says something else; what was added is on top, in that window.",
    "BUDGET-10": "Ladders make calls cheaper before a cap stops them, and say so with the numbers.",
    "BUDGET-11": "A bill that arrives later moves every scope of the call by the same, never below zero.",
    "BUDGET-12": "Scopes in Python nest, bound runs and other code alike, and say which one was hit.",
    "BUDGET-13": "A claim that fits once others give back what they only hold waits for it.",
    "BUDGET-14": "`midwatch budget` and `midwatch top` show where every scope stands.",
    "BUDGET-18": "In random schedules of faults, lies, races and kills no bill goes past a cap, and an affordable cap can be used.",
    "BUDGET-19": "A report of usage that is far too low is not believed: the call is charged in full, with a signal.",
}
