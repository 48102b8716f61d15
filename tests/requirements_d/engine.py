"""What the engine promises."""

REQUIREMENTS: dict[str, str] = {
    "ENGINE-1": "A fleet runs from its input to a traced answer, and the run's cost is the provider's own bill.",
    "ENGINE-2": "A gated action waits for a person, happens once after a yes, and not at all after a no.",
    "ENGINE-3": "A process killed inside an effect leaves it in doubt; nothing repeats it until a person speaks.",
    "ENGINE-4": "What no grant allows is refused as data, and the target is not touched.",
    "ENGINE-5": "A bound is not passed: the run stops resumable and the provider has charged no more than the cap.",
    "ENGINE-6": "A CEO that asks for a tool is refused one.",
    "ENGINE-7": "A resumed run asks no model twice for a step that was answered.",
    "ENGINE-8": "A credential in a tool's result reaches neither the model nor the ledger.",
    "ENGINE-9": "A cancelled run stops, and a run that another live process holds is not taken.",
    "ENGINE-10": "A run has a working directory that `resume` returns to; which model it uses is decided once, and said with its reason.",
}
