"""Requirements of imported tools: what a stranger's tools are held to."""

REQUIREMENTS: dict[str, str] = {
    "IMPORT-1": "tools of an MCP server answer with the one envelope, failures, prose and giants included",
    "IMPORT-2": "what a source says of its tools only makes them worse; what nobody declares is the worst",
    "IMPORT-3": "a server that hangs, dies or changes a tool in a run is survived, and nobody is told what is not known",
    "IMPORT-4": "a started server has named variables only, and sees neither network nor files that are not its own",
    "IMPORT-5": "a hostile list of tools fetches nothing, hangs nothing, and costs only the tools that are bad",
    "IMPORT-6": "tools that differ from their pin are pending: known, and called by nobody",
    "IMPORT-7": "a server over HTTP is reached at the address that the fleet names, private ones only by its word",
    "IMPORT-8": "tools are listed, shown, linted and pinned from the command line, and a pin changes nothing else of the file",
    "IMPORT-9": "operations of an OpenAPI document are tools: closed schemas, the method's effect at least, one envelope for every answer",
    "IMPORT-10": "a described service is asked at its one host over checked TLS: no private address, no redirect, no secret comes back",
    "IMPORT-11": "a document that refers elsewhere, unfolds without end or is none costs its own tools and nothing else",
    "IMPORT-12": "LangChain tools act in a sandbox under the same contract; injected arguments are none, and their errors tell nothing",
    "IMPORT-13": "every execution of a tool of whatever source, errors and time-outs included, fits the envelope and the tool's own schema",
}
