"""What the watch outside the runs promises: signs of life, baselines, policies, actions."""

REQUIREMENTS: dict[str, str] = {
    "WATCH-1": "The store keeps baselines, the governor's place in the ledger, each governor's signs of life and the rates that it sets.",
    "WATCH-2": "What an agent does far out of its own usual is found, per policy, and each finding is explained by its numbers.",
    "WATCH-3": "A fresh agent is only learned from; hard limits hold from its first call.",
    "WATCH-4": "What grows too slowly for any window is found against the agent's own past days, also where it moves its own median.",
    "WATCH-5": "A finding is acted on once in its cool-down, is not learned, and does at most what was declared.",
    "WATCH-6": "A baseline is robust, bounded, and the same after it was written down.",
    "WATCH-7": "Of an event only sizes, places and the machine's counters are kept, whatever its payload says.",
    "WATCH-8": "Each event is taken in once: over restarts, kills between deciding and recording, and several governors.",
    "WATCH-9": "What is found warns, slows, pauses or kills, in the transaction of the event that says why.",
    "WATCH-10": "Without a sign of life of any governor that watches this store no effect begins, whoever should have started it.",
    "WATCH-11": "The governor is run as a service or from cron, asked for its state and its reasons, and told to learn anew.",
    "WATCH-12": "At most one false pause in an agent-month of simulated traffic, and at least 95 % of injected anomalies found.",
}
