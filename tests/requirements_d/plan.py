"""What the written-out form of a sandbox promises."""

REQUIREMENTS: dict[str, str] = {
    "PLAN-1": "a profile is written out as one known command line, and the line that others can read says nothing of the machine",
    "PLAN-2": "rules for the network add one socket and a bridge; no secret's value is in a plan or a profile's text",
}
