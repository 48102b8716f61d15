"""Requirements of the models room."""

REQUIREMENTS: dict[str, str] = {
    "MODELS-1": "An answer without a finish reason or usage is a failure, and its reservation is charged.",
    "MODELS-2": "A failure says whether the request may have been charged; where that is not certain, it says yes.",
    "MODELS-3": "A model's client never retries by itself: one call of the port is one request.",
    "MODELS-4": "The output cap reaches the provider in the field that its server obeys.",
    "MODELS-5": "A stream is cut when its live meter says so, and when a server ignores its output cap.",
    "MODELS-6": "Tool names and arguments come back as the model wrote them, malformed ones included, in order.",
    "MODELS-7": "A key goes to its own route's address only, and is in no message, representation, log or state.",
    "MODELS-8": "The input bound is at least the bytes of what is sent, for every request and both protocols.",
    "MODELS-9": "A model without a known price is refused before anything is sent, with words on how to price it.",
    "MODELS-10": "A call never costs more than its worst case, whatever usage within the bounds is reported.",
    "MODELS-11": "An output cap is lowered to what the balance can pay, and refused below a floor.",
    "MODELS-12": "Models without native tool calls use one constrained answer; recovered text carries a signal.",
    "MODELS-13": "Many calls at once on one model do not mix.",
    "MODELS-14": "Cancelling a call passes through at once and is never turned into a failure.",
    "MODELS-15": "A key or server in the environment chooses a preset only where the fleet has it, and says so.",
}
