"""What attacks on gates, people and undo must not reach."""

REQUIREMENTS: dict[str, str] = {
    "ATTACK-1": "Who speaks is looked up again in the transaction in which the word counts: rights taken back meanwhile are gone.",
    "ATTACK-2": "A yes whose giver lost the role, the reach or every right before the action runs allows nothing: it is asked again.",
}
