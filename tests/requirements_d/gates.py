"""Requirements of the gates room: when a person must say yes, and what exactly that yes is bound to."""

REQUIREMENTS: dict[str, str] = {
    "GATES-1": "A call about deploying, production, databases, billing or deleting waits for a person however the word is disguised.",
    "GATES-2": "Ordinary work does not wait: words that only look alike are no hit.",
}
