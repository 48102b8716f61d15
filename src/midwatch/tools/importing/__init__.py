"""Importing: tools that somebody else describes become tools like every other: MCP, OpenAPI, LangChain.

In:   what a fleet declares of a source; what the source says of itself. Out: `load`: tools, which of them are pending, what was left out.
Why one way for all: a guard that knew where a tool came from could be talked round by its source.
"""
