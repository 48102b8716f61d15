"""Requirements of mandates over whole runs: who issues them, who may use them, what is spent and what is left."""

REQUIREMENTS: dict[str, str] = {
    "MANDATE-1": "The request issues its mandate before anything else is read; what it binds passes after that, another value asks.",
    "MANDATE-2": "A planner sees the request and the tools' signatures alone; one untrue word, or what is no answer, is no mandate.",
    "MANDATE-3": "The last use is used once: by parallel calls, by several agents, by another plan, by another process.",
    "MANDATE-4": "A call that is begun again is one use; one that was cut stays spent; the balance is the same after a kill.",
    "MANDATE-5": "What triggered a run is data: it issues nothing, and what follows from it is a stranger's.",
    "MANDATE-6": "What changes between judgement and beginning is judged again, at most a few times, and then denied.",
    "MANDATE-7": "A source that is not open to the world has readers: others do not see what follows from it.",
    "MANDATE-8": "People and programs are shown issuer, slots, spent and left; a mandate that is read back is the same.",
}
