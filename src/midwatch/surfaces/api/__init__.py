"""API: gates over HTTP: pages behind signed links, JSON for who has a token; live events later.

May import: everything. Must not know: the command line.
"""
