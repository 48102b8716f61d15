"""What `midwatch purity` promises."""

REQUIREMENTS: dict[str, str] = {
    "PURITY-1": "A step whose bytes depend on hash seed, clock, time zone, user or order is found by running it twice apart.",
}
