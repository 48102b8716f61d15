"""Requirements of the probe: what it says of this machine is what this machine does."""

REQUIREMENTS: dict[str, str] = {
    "PROBE-1": "Each layer is tried for real in bounded time, nothing is left behind, and what fails names its remedy.",
    "PROBE-2": "A level is claimed only when everything that its backend needs was seen to work.",
    "PROBE-3": "`doctor --expect` fails where that level cannot be enforced; `doctor --escape` fails when something gets out.",
}
