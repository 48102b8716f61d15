"""Requirements of tracing: what can be asked about a run, from the ledger alone."""

REQUIREMENTS: dict[str, str] = {
    "TRACING-1": "a trace puts every verdict, intent, result, gate and signal with the proposal that caused it",
    "TRACING-2": "a fragment of output leads to the newest model call that wrote it, with its prompt, as JSON or not",
    "TRACING-3": "a fragment that only a tool returned leads to that call and to the model call that asked for it",
    "TRACING-4": "the spend of a run is told by agent, by model and against its caps",
}
