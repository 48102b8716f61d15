"""What drawings of graphs promise."""

REQUIREMENTS: dict[str, str] = {
    "GRAPH-1": "`graph` draws teams and imported graphs with roles, routes, tools, gates and unguarded parts.",
    "GRAPH-2": "Pictures are made offline, well-formed whatever the names, and the same each time.",
}
