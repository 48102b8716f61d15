"""What breakers, and stopping by a person, promise."""

REQUIREMENTS: dict[str, str] = {
    "BREAKER-1": "The state of breakers is in the store, the same for every process, and shown while one is not closed.",
    "BREAKER-2": "A breaker opens by its rule, tries again with one call at a time, and each change is an event with the numbers.",
    "BREAKER-3": "What an open breaker refuses is data for the agent; after some refusals the run pauses, resumable.",
    "BREAKER-4": "An agent that goes round in circles, or fails with whichever tool, is paused.",
    "STOP-1": "A pause or a kill by agent, tool, vertical or all stands until the same is resumed; a kill goes further than a pause.",
    "STOP-2": "What a flag holds begins in no run, old or new, whatever else is resumed.",
    "STOP-3": "A stop cuts what is under way within a second, lists it as unknown, and charges it in full.",
}
