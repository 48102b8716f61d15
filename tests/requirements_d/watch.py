"""What the watch outside the runs promises: signs of life, baselines, policies, actions."""

REQUIREMENTS: dict[str, str] = {
    "WATCH-1": "The store keeps baselines, the governor's place in the ledger, each governor's signs of life and the rates that it sets.",
}
