"""Adapters: Midwatch's sandboxes in the words of other frameworks, each an extra.

In:   a sandbox of `midwatch.sandbox`. Out: what the framework takes: a deepagents backend, an Inspect sandbox provider.
May import: wiring, sandbox, and the one framework that the module is named for. Must not know: runs, guards, surfaces.
Why thin: what a sandbox does is the port's to promise; here it is only said in other words.
"""
