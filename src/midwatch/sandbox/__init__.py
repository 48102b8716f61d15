"""Sandbox: where tools act, and what bounds the processes they act in.

In:   a reference to a tool and its canonical arguments, or a program with its arguments; limits.
Out:  `SandboxResult`, `RunResult`; a sandbox's own trouble is a value too.
May import: config (limits), errors. Must not know: contracts, envelopes, guards, who asks.
Why a port: `process` bounds a tool and does not isolate it; what isolates comes later and answers in the same words.
"""
