"""Level: says of an open sandbox whether it is the full profile, so that no suite can pass against less."""

from __future__ import annotations

from midwatch.sandbox import RunResult, SandboxLimits, Stats

__all__ = ["ASK", "LIMITS", "lacking"]

ASK = ("/bin/sh", "-c", "id -u; cat /proc/self/status; grep ' /workspace ' /proc/self/mountinfo; cat /proc/net/dev")
LIMITS = SandboxLimits()

_STATUS = {"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"}


def lacking(told: RunResult, stats: Stats) -> list[str]:
    """Name each part of the full profile that does not hold; `told` is what `ASK` said inside."""
    lines = told.stdout.decode().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    found = [
        f"{name} is {status.get(name)}" for name, value in _STATUS.items() if status.get(name, "").strip() != value
    ]
    if not lines or lines[0] == "0":
        found.append("the agent is root")
    if not any(" - overlay " in line for line in lines):
        found.append("the workspace is no overlay")
    if any(line.strip().startswith(("eth", "en", "wl")) for line in lines):
        found.append("there is a network")
    if stats.memory_peak is None or stats.processes_peak is None:
        found.append("no control group counts")
    return found
