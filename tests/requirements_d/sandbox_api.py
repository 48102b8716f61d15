"""Requirements of the sandbox port as others use it: from Python, from a backend of their own, from other frameworks."""

REQUIREMENTS: dict[str, str] = {
    "SBXAPI-1": "the public names of `midwatch.sandbox` are complete, sorted, and cost nothing until they are used",
    "SBXAPI-2": "a sandbox is opened and closed by one context manager, async or blocking, and nothing is weakened in silence",
    "SBXAPI-6": "an adapter without its framework says which extra to install",
}
