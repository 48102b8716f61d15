"""Resources: a fleet's own configuration, split into the parts that are versioned, endorsed and put back one by one.

In:   a fleet as it was loaded; earlier files of it. Out: `Found` per resource; the values of a file in which some parts are other ones.
May import: `fleet`, `specs`, `code`, records. Must not know: the store, who wrote what, who may endorse it.

A block of the file is a resource as it was written there (not as a preset or the environment resolve it, which are the choice of whoever
runs it), so that comments, order and new defaults change nothing. A key that this table does not know is a resource, too: what a later
version adds is never left out by mistake.
Source: CONTAINMENT.md, clause 24.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import rfc8785

from midwatch.config.code import closure
from midwatch.config.fleet import Fleet
from midwatch.config.specs import ImportSpec
from midwatch.records.authority import ABSENT, AuthorityKind

__all__ = ["CODE", "Found", "Resource", "digest_of", "found_in", "is_tool", "spliced", "text_of", "values_of"]

Resource = tuple[AuthorityKind, str]
"""Kind and name."""

_KINDS: Final[Mapping[str, AuthorityKind]] = {
    "grants": "grants",
    "policies": "policies",
    "sources": "policies",
    "containment": "policies",
    "budgets": "budgets",
    "governor": "budgets",
    "breakers": "budgets",
    "gates": "gates",
    "review": "gates",
    "channels": "gates",
    "environment": "gates",
    "tools": "tools",
    "mcp": "tools",
    "openapi": "tools",
    "langchain": "tools",
    "routes": "routes",
    "route_policy": "routes",
    "presets": "routes",
    "schedules": "schedules",
}
CODE: Final = ("code:", "program:", "scenario:")
"""How the names of resources begin that are files of their own, which cannot be put back for a run."""
_LARGEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """A resource as it is now.

    Attributes:
        body: what it says; None where only its digest is kept.
        files: where it stands.
    """

    digest: str
    body: bytes | None
    files: tuple[Path, ...]


def found_in(fleet: Fleet) -> dict[Resource, Found]:
    """Give every resource of a fleet. Nothing of it is executed."""
    file = () if fleet.path is None else (fleet.path,)
    made: dict[Resource, Found] = {}
    for resource, value in _blocks(values_of(fleet)):
        body = rfc8785.dumps(value)
        made[resource] = Found(digest_of(body), body, file)
    for name, agent in fleet.agents.items():
        body = rfc8785.dumps({"prompt": agent.prompt})
        where = file if agent.prompt_path is None else (_as_written(fleet, name, agent.prompt_path),)
        made["prompts", name] = Found(digest_of(body), body, where)
    for resource, path in _files(fleet):
        try:
            data = path.read_bytes()
        except OSError:
            continue  # whoever loads it says so
        made[resource] = Found(digest_of(data), data if len(data) <= _LARGEST else None, (path,))
    return made


def values_of(fleet: Fleet) -> dict[str, Any]:
    """Give the plain values of the fleet's file."""
    value = fleet.source.value
    return value if isinstance(value, dict) else {}


def is_tool(name: str) -> bool:
    """Say whether a resource of kind `tools` is one tool, not a block of the file or a file of code."""
    return "." in name and not name.startswith(CODE)


def digest_of(body: bytes | None) -> str:
    """Give the digest of what a resource says."""
    return ABSENT if body is None else hashlib.sha256(body).hexdigest()


def spliced(
    values: Mapping[str, Any], instead: Mapping[Resource, Mapping[str, Any] | None]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Put other versions of some resources in the place of those in a file.

    Args:
        instead: per resource, the values of the file in which the wanted version stands, or for a prompt what it says; None: it is gone.

    Returns:
        Values of a whole file, and the texts of prompts that are not to be read from their files.
    """
    made: dict[str, Any] = copy.deepcopy(dict(values))
    texts: dict[str, str] = {}
    for (kind, name), other in instead.items():
        if kind == "prompts":
            if other is not None:
                texts[name] = str(other["prompt"])
        elif kind == "agents":
            agents = dict(made.get("agents") or {})
            block = None if other is None else (other.get("agents") or {}).get(name)
            agents.pop(name, None)
            made["agents"] = agents if block is None else {**agents, name: copy.deepcopy(block)}
        else:
            made.pop(name, None)
            if other is not None and name in other:
                made[name] = copy.deepcopy(other[name])
    return made, texts


def _blocks(values: Mapping[str, Any]) -> Iterator[tuple[Resource, Any]]:
    for key, value in values.items():
        if key == "agents" and isinstance(value, Mapping):
            for name, agent in value.items():
                block = {part: each for part, each in agent.items() if part != "prompt_text"} if agent else {}
                yield ("agents", str(name)), block
        else:
            yield (_KINDS.get(key, "fleet"), key), value


def _files(fleet: Fleet) -> Iterator[tuple[Resource, Path]]:
    """Files that are loaded or run: tools and all that they import from beside the fleet file, agents' programs, scenarios."""
    roots = [spec.removeprefix("python:") for spec in fleet.tools if spec.startswith("python:")]
    named = [
        (word, fleet.base / word)
        for server in fleet.mcp.values()
        for word in server.command
        if not word.startswith("-")
    ]
    named = [
        (word, path) for word, path in named if path.is_file() and path.resolve().is_relative_to(fleet.base.resolve())
    ]
    roots += [word for word, _ in named if word.endswith(".py")]
    roots += [library.source.rpartition(":")[0] for library in fleet.langchain.values()]
    if isinstance(fleet.graph, ImportSpec):
        roots.append(fleet.graph.module)
    for path in closure(fleet.base, roots):
        yield ("tools", f"code:{_relative(path, fleet.base)}"), path
    for word, path in named:
        if not word.endswith(".py"):  # those stand above, with all that they import
            yield ("tools", f"code:{_relative(path, fleet.base)}"), path
    for service in fleet.openapi.values():
        if "://" not in service.document:
            path = fleet.base / service.document
            yield ("tools", f"code:{_relative(path, fleet.base)}"), path
    for agent in fleet.agents.values():
        for program in agent.programs:
            yield ("agents", f"program:{_relative(program.path, fleet.base)}"), program.path
    for route in fleet.routes.values():
        if route.scenario is not None:
            yield ("routes", f"scenario:{_relative(route.scenario, fleet.base)}"), route.scenario


def _as_written(fleet: Fleet, agent: str, path: Path) -> Path:
    """Give the path of a prompt as the file names it: a link on the way there is a change, too."""
    block = (values_of(fleet).get("agents") or {}).get(agent) or {}
    named = block.get("prompt")
    return fleet.base / named if isinstance(named, str) else path


def _relative(path: Path, base: Path) -> str:
    for root in (base, base.resolve()):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return str(path)


def text_of(values: Mapping[str, Any]) -> str:
    """Write values as the text of a fleet file: JSON is YAML."""
    return orjson.dumps(values, option=orjson.OPT_INDENT_2).decode()
