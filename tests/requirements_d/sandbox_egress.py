"""Requirements of the sandbox's way out: rules, broker, bridge."""

REQUIREMENTS: dict[str, str] = {
    "EGRESS-1": "a literal address, or a host that no rule names, is refused in every spelling",
    "EGRESS-2": "a path that servers read in more than one way is refused before it is held against globs",
    "EGRESS-3": "what a rule describes is allowed, with its method, port, scheme and path, and nothing besides",
    "EGRESS-4": "a tunnel is opened only to a host of which no rule has methods, paths, headers or stage",
    "EGRESS-5": "a name is resolved once, each of its addresses is checked, and exactly one of those is connected to",
    "EGRESS-6": "a rule that is wrong, or a secret that is not there, is refused before the sandbox starts",
}
