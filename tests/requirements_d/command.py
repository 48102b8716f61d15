"""Requirements of agents that are programs: whole foreign agents in a sandbox, whose calls reach the kernel through the broker."""

REQUIREMENTS: dict[str, str] = {
    "COMMAND-1": "an agent's program gets its brief as input and as a file, and its answer is its role's, read as a model's would be",
    "COMMAND-2": "a program's run is one effect: in the journal, with what it changed as a staged layer and what the machine counted",
    "COMMAND-3": "a client of the OpenAI API works inside unchanged: models, tools, streams, shaped answers; the route decides the model",
    "COMMAND-4": "a program reaches the tools that its agent is given, in its agent's name whatever it claims, past every guard",
    "COMMAND-5": "where a person must speak the program is stopped, and started again after; nothing is billed or done twice",
    "COMMAND-6": "a program that does not repeat what it had done ends its agent; the run and the others' work stand",
    "COMMAND-7": "an agent's bound stops its program, a run's bound the run; no bound is overshot",
    "COMMAND-8": "a program that answers garbage, ends badly, floods or never ends is a failed agent without effects",
    "COMMAND-9": "what a program leaves running dies with it; no socket, name or key of others is within its reach",
    "COMMAND-10": "when the kernel dies the program dies; resumed, no answered call of its model is billed again",
    "COMMAND-11": "the fleet's digest covers the program's bytes, and another program than was loaded is not run",
    "COMMAND-12": "a cancelled run's program is dead at once, with all that it started",
    "COMMAND-13": "a program's tools act in a sandbox beside its own; what both change is refused, and nothing is overwritten",
    "COMMAND-14": "a program runs in Docker as it does in bubblewrap",
    "COMMAND-15": "a fleet whose program could not be held, or not be started again safely, is refused with its line",
    "COMMAND-16": "a request that breaks the API, or wants what is not served, is refused by name; settings of habit are passed over",
    "COMMAND-17": "what a program reads by itself is seen by nobody, so from its start it counts as a third party's words",
}
