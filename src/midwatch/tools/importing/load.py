"""Load: every source of a fleet is asked, and all of its problems are told together.

In:   a fleet, the environment. Out: what came of each source; problems of those that gave nothing.
May import: the sources, late; config, errors. Must not know: the registry, who asked.
Why late: a fleet without such tools loads none of the libraries, which are extras.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from midwatch.config.fleet import Fleet
from midwatch.errors import InvalidTool, MissingExtra, Problem
from midwatch.tools.importing.foreign import Brought

__all__ = ["load"]


def load(fleet: Fleet, environ: Mapping[str, str]) -> tuple[list[Brought], list[Problem]]:
    """Ask every source that the fleet names.

    Raises:
        MissingExtra: a library that one of them needs is not installed.
    """
    found: list[Brought] = []
    problems: list[Problem] = []
    for ask in _sources(fleet, environ):
        try:
            found.append(ask())
        except InvalidTool as invalid:
            problems += invalid.problems
    return found, problems


def _sources(fleet: Fleet, environ: Mapping[str, str]) -> Iterator[Callable[[], Brought]]:
    for kind, specs in (("mcp", fleet.mcp), ("openapi", fleet.openapi), ("langchain", fleet.langchain)):
        for spec in specs.values():
            yield partial(_bring, kind, spec, fleet, environ)


def _bring(kind: str, spec: Any, fleet: Fleet, environ: Mapping[str, str]) -> Brought:
    try:
        if kind == "mcp":
            from midwatch.tools.importing import mcp  # noqa: PLC0415 - an extra

            return mcp.bring(spec, fleet.base, environ)
        if kind == "openapi":
            from midwatch.tools.importing import openapi  # noqa: PLC0415 - TLS and YAML, only where they are needed

            return openapi.bring(spec, fleet.base, environ)
        if kind == "langchain":
            from midwatch.tools.importing import langchain  # noqa: PLC0415 - takes a second

            return langchain.bring(spec, fleet.base)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("midwatch"):
            raise
        raise MissingExtra(kind, f"`{kind}.{spec.name}` in the fleet file") from None
    raise InvalidTool((Problem(f"{kind}.{spec.name}", "is no known kind of source", "bad-tools"),))
