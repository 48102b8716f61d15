"""Sandbox: where tools act, and what bounds the processes they act in. Its public names are those of `__all__`.

In:   a profile; then a reference to a tool and its canonical arguments, or a program with its arguments; limits.
Out:  `SandboxResult`, `RunResult`, `Layer`; a sandbox's own trouble is `SandboxError`.
May import: config (limits, specs), errors. Must not know: contracts, envelopes, guards, who asks.
Why a port: `process` bounds a tool and does not isolate it, what isolates answers in the same words, and a third party can add a
backend (`tests/contract/sandbox_suite.py` says when it is one).
Why lazy: whoever needs one module of this room pays for that module; nothing is imported until a name is used (PEP 562).
`open_sandbox` is the wiring's, since only the wiring names backends; it is given a place here for those who look for it.
"""

TYPE_CHECKING = False  # as type checkers read it; `typing` itself would be a third of what a sandbox takes to start
if TYPE_CHECKING:
    from midwatch.config.specs import EgressRule, MountSpec, SandboxLimits
    from midwatch.sandbox.blocking import SyncSandbox
    from midwatch.sandbox.effects import Change, Request
    from midwatch.sandbox.layers import Layer
    from midwatch.sandbox.port import Backend, Egress, RunResult, Sandbox, SandboxResult, Stats
    from midwatch.sandbox.profile import INSIDE, SandboxProfile
    from midwatch.wiring import open_sandbox

__all__ = [
    "INSIDE",
    "Backend",
    "Change",
    "Egress",
    "EgressRule",
    "Layer",
    "MountSpec",
    "Request",
    "RunResult",
    "Sandbox",
    "SandboxLimits",
    "SandboxProfile",
    "SandboxResult",
    "Stats",
    "SyncSandbox",
    "open_sandbox",
]

_HOMES = {
    "INSIDE": "midwatch.sandbox.profile",
    "Backend": "midwatch.sandbox.port",
    "Change": "midwatch.sandbox.effects",
    "Egress": "midwatch.sandbox.port",
    "EgressRule": "midwatch.config.specs",
    "Layer": "midwatch.sandbox.layers",
    "MountSpec": "midwatch.config.specs",
    "Request": "midwatch.sandbox.effects",
    "RunResult": "midwatch.sandbox.port",
    "Sandbox": "midwatch.sandbox.port",
    "SandboxLimits": "midwatch.config.specs",
    "SandboxProfile": "midwatch.sandbox.profile",
    "SandboxResult": "midwatch.sandbox.port",
    "Stats": "midwatch.sandbox.port",
    "SyncSandbox": "midwatch.sandbox.blocking",
    "open_sandbox": "midwatch.wiring",
}


if not TYPE_CHECKING:  # a type checker that saw this function would accept every misspelt name

    def __getattr__(name: str) -> object:
        """Import a public name from its room, once.

        Raises:
            AttributeError: for a name that is not public; a module of this room is then looked for, as usual.
        """
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(
                f"module `midwatch.sandbox` has no attribute `{name}`; public names: {', '.join(__all__)}"
            )
        import importlib  # noqa: PLC0415  nothing at all is imported for the package alone

        value: object = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, without importing any."""
    return list(__all__)
