"""Requirements of the example fleet and of what the README shows."""

REQUIREMENTS: dict[str, str] = {
    "EXAMPLE-1": "the nightwatch fleet loads under each preset, asks for nothing that is refused, and checks clean",
    "EXAMPLE-2": "nightwatch writes real facts of this machine and of the named repository below reports/",
    "EXAMPLE-3": "where a source is missing or may not be read, the report says so under what is not certain",
    "EXAMPLE-4": "what a run cost is what the provider billed, to the micro-dollar, and the ledger verifies afterwards",
    "EXAMPLE-5": "the Python program of the README runs as it is printed",
}
