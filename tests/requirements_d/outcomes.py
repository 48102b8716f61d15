"""Requirements of outcomes, acquired credentials and commit targets: clauses 26, 29 and 30 over whole runs."""

REQUIREMENTS: dict[str, str] = {
    "CLAUSE-30": "Denied, then something of authority changed, then the same again: by any tool, agent or process, it waits for a person.",
    "CLAUSE-29": "What nobody issued to the run is used nowhere: no argument, header, address or body of a request, no tunnel.",
}
