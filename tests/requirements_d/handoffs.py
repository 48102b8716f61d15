"""Requirements of handoffs: what items cite, what they carry, and what becomes of them."""

REQUIREMENTS: dict[str, str] = {
    "HANDOFF-1": "Each item cites executions that its agent may cite and that can show it; whatever else is refused.",
    "HANDOFF-2": "A refusal names field, index, code and hint, is counted, and after five the agent cannot finish.",
    "HANDOFF-3": "An item carries the label of all that its author had seen and of what it cites, whatever it cites.",
    "HANDOFF-4": "What goes round is refused: the same handoff for the same task, or more hops than a run may have.",
    "HANDOFF-5": "`midwatch runs handoffs` shows what was given, refused and why, consumed and ignored.",
}
