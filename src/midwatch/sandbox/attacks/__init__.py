"""Attacks: what a hostile program would try inside a sandbox, each one small, harmless where it succeeds, and able to fail.

In:   what the host laid out as bait (`common.Told`). Out: one line of JSON for each attack.
May import: the standard library only, and each other: `sandbox.escape` sends them in as text, so they run where nothing is installed.
Must not know: which sandbox they are in.
An attack that gets out changes nothing but the bait: it opens what it could write, asks for what it could take, and stops there.
"""
