"""Requirements of the escape self-test."""

REQUIREMENTS: dict[str, str] = {
    "ESCAPE-1": "The self-test finds what is open where little or nothing holds, and counts silence as open.",
    "ESCAPE-2": "In bubblewrap every attack is held, but at most two that only tell something of the host.",
    "ESCAPE-3": "In Docker every attack is held, but at most three that only tell something of the host.",
    "ESCAPE-4": "Each layer that is taken away from the plan is noticed by an attack.",
}
