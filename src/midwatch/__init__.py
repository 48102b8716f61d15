"""Midwatch: the operations kernel for AI agents.

In:   nothing. Out: the public names, sorted, nothing else.
May import: nothing when it is imported; each name's room when the name is first used. Must not know: what the rooms do.
Why lazy: LangGraph alone takes about a second to import, and `midwatch --help` has no use for it
(PEP 562; the test is `tests/unit/test_project_public_names.py`).
"""

TYPE_CHECKING = False  # as type checkers read it; `typing` itself would be a third of what a sandbox takes to start
if TYPE_CHECKING:
    from midwatch.config.fleet import Fleet
    from midwatch.engine.kernel import Kernel
    from midwatch.errors import BoundReached, MidwatchError, ToolFailure
    from midwatch.graph.govern import Kit
    from midwatch.graph.team import team
    from midwatch.records.envelope import Envelope
    from midwatch.records.run import RunResult
    from midwatch.tools.contract import Arg, Out
    from midwatch.tools.decorate import tool
    from midwatch.wiring import budget, open

__all__ = [
    "Arg",
    "BoundReached",
    "Envelope",
    "Fleet",
    "Kernel",
    "Kit",
    "MidwatchError",
    "Out",
    "RunResult",
    "ToolFailure",
    "__version__",
    "budget",
    "open",
    "team",
    "tool",
]

__version__ = "0.1.0"

_HOMES = {
    "Arg": "midwatch.tools.contract",
    "BoundReached": "midwatch.errors",
    "Envelope": "midwatch.records.envelope",
    "Fleet": "midwatch.config.fleet",
    "Kernel": "midwatch.engine.kernel",
    "Kit": "midwatch.graph.govern",
    "MidwatchError": "midwatch.errors",
    "Out": "midwatch.tools.contract",
    "RunResult": "midwatch.records.run",
    "ToolFailure": "midwatch.errors",
    "budget": "midwatch.wiring",
    "open": "midwatch.wiring",
    "team": "midwatch.graph.team",
    "tool": "midwatch.tools.decorate",
}


if not TYPE_CHECKING:  # a type checker that saw this function would accept every misspelt name

    def __getattr__(name: str) -> object:
        """Import a public name from its room, once: afterwards it is an ordinary attribute.

        Raises:
            AttributeError: for a name that is not public; the caller's spelling is at fault.
        """
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module `midwatch` has no attribute `{name}`; public names: {', '.join(__all__)}")
        import importlib  # noqa: PLC0415  nothing at all is imported for `import midwatch` alone

        value: object = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, without importing any."""
    return list(__all__)
