"""What undo and reconcilers promise."""

REQUIREMENTS: dict[str, str] = {
    "UNDO-1": "What a run did is taken back newest first, as far as its tools say how, once, and what stays is said.",
    "UNDO-2": "The outcome of a cut effect is asked of the tool's own reconciler before a person, and a used yes covers no repetition.",
}
