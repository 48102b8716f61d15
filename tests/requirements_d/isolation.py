"""What attacks on the isolation as a whole must not achieve: `tests/attack/test_isolation_*.py`."""

REQUIREMENTS: dict[str, str] = {
    "ISOLATION-1": "A sandbox cannot hold up the supervisor's loop, nor take its descriptors or its memory.",
    "ISOLATION-2": "What a call asks of the network is on record with that call, and acts in the name of no other.",
    "ISOLATION-3": "No call can change what the next one imports or executes as a tool.",
    "ISOLATION-4": "What a sandbox is shown to import from holds neither Midwatch's home nor the folder a person works in.",
    "ISOLATION-5": "Whoever must say yes to a commit sees what needs that yes, and is told of everything that is not shown.",
    "ISOLATION-6": "What needs a person needs one under every name that leads to it.",
    "ISOLATION-7": "Nothing that a sandbox answers, prints or leaves ends a run, or keeps its commit from being made or dropped.",
}
