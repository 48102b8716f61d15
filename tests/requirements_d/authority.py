"""What the authority detectors promise: what an effect grants, and to whom, is said before it leaves its sandbox."""

REQUIREMENTS: dict[str, str] = {
    "AUTHORITY-1": "each family's detector says what a change grants, and to whom; its benign twin is inert, and says why",
    "AUTHORITY-2": "what cannot be read, could be read in two ways, or makes a detector fail counts as granting",
    "AUTHORITY-3": "no other spelling of a name, encoding, comment, anchor or duplicate key hides a grant",
    "AUTHORITY-4": "a finding quotes names, never values",
    "AUTHORITY-5": "packages can bring detectors; these can add findings and take none away, and one that does not load counts as granting",
}

REQUIREMENTS |= {
    "RETRY-1": "the same resource and effect, by any tool, agent or spelling, after a change of authority is an escalation",
    "RETRY-2": "only what the outcome depended on counts, all where that is unknown, and nothing that a person did or overruled",
    "RETRY-3": "a look-up costs the same however long the tree has run",
    "ACQUIRED-1": "a credential of a known form that the broker did not issue to this run is found in arguments, headers and files",
    "ACQUIRED-2": "ordinary text holds none; what is only random is marked, and nobody is denied for it",
    "ACQUIRED-3": "a finding holds no value; its marker is keyed",
}

REQUIREMENTS |= {
    "AUTHORITY-6": "what a commit adds to the workspace, file by file and request by request, is judged before any of it leaves",
    "ESCALATION-1": "a chain whose first steps grant what later ones use stops before the power is outside of the sandbox; people are told",
    "ESCALATION-2": "a chain's benign twin goes through without a person",
    "ESCALATION-4": "a chain of causes, mandates, handles or retries stops before the call that uses the power; its twin goes through alone",
    "ESCALATION-3": "the escalation suite has at least 60 chains, over agents and sessions, for every family of detectors",
}
