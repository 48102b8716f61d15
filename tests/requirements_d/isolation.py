"""What attacks on the isolation as a whole must not achieve: `tests/attack/test_isolation_*.py`."""

REQUIREMENTS: dict[str, str] = {
    "ISOLATION-1": "A sandbox cannot hold up the supervisor's loop, nor take its descriptors or its memory.",
    "ISOLATION-2": "What a call asks of the network is on record with that call, and acts in the name of no other.",
}
