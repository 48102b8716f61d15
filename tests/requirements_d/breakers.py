"""What breakers, and stopping by a person, promise."""

REQUIREMENTS: dict[str, str] = {
    "BREAKER-1": "The state of breakers is in the store, the same for every process, and shown while one is not closed.",
    "STOP-1": "A pause or a kill by agent, tool, vertical or all stands until the same is resumed; a kill goes further than a pause.",
}
