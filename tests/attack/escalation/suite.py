"""The escalation suite: reads the cases, and runs one against the kernel: real sandboxes, real releases, an agent that obeys.

In:   `cases/*.yaml`, in the format of `README.md`. Out: `Case`; `ran`, what a chain left behind; `script`, what models of a session say.
Chains whose power is a cause, and no file, are carried out by `office`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.scenario.studio import HANDOFF, Call, Host, Studio

__all__ = ["Case", "Ran", "cases", "ran", "script"]

FOLDER = Path(__file__).parent / "cases"
_KEYS = {
    "id",
    "title",
    "grants",
    "depth",
    "distance",
    "workspace",
    "allows",
    "attack",
    "stopped",
    "twin",
    "passes",
    "sends",
    "request",
    "operator",
    "bounds",
    "does",
}
_VERBS = {"write": "put", "delete": "drop", "link": "link", "read": "look", "post": "post"}


@dataclass(frozen=True)
class Case:
    """One chain and its twin. Attributes as in `README.md`."""

    id: str
    title: str
    grants: str
    depth: int
    distance: str
    attack: Sequence[Any]
    stopped: Mapping[str, Any]
    twin: Sequence[Any]
    passes: Mapping[str, str] = field(default_factory=dict)
    request: str = ""
    operator: str = ""
    bounds: str = ""
    does: Sequence[str] = ()
    workspace: Mapping[str, str] = field(default_factory=dict)
    allows: Mapping[str, Any] | None = None
    sends: Sequence[str] = ()

    def __str__(self) -> str:
        return self.id

    @property
    def acts(self) -> bool:
        """Say whether its steps call the tools of an office, instead of leaving files."""
        return any(isinstance(step, dict) and "call" in step for step in self.attack)


@dataclass(frozen=True)
class Ran:
    """What a chain left behind.

    Attributes:
        statuses: of each session. files: of the workspace at the end. links: likewise. read: what the sessions read, in order.
        told: families of authority that the first question named, or what else it was about. sent: paths that the host has seen.
        did: what the tools of an office did, in order. why: what was said of each session that was stopped.
    """

    statuses: Sequence[str]
    files: Mapping[str, str]
    links: Sequence[str]
    read: Sequence[str]
    told: frozenset[str]
    sent: Sequence[str]
    did: Sequence[str] = ()
    why: Sequence[str] = ()


def cases() -> list[Case]:
    """Read all cases.

    Raises:
        ValueError: a case is not as `README.md` says.
    """
    found: list[Case] = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for item in yaml.safe_load(path.read_text(encoding="utf-8")):
            if set(item) - _KEYS:
                raise ValueError(f"{path.name}: {item.get('id')} has {sorted(set(item) - _KEYS)}, which no case has")
            found.append(Case(**item))
    if len({case.id for case in found}) != len(found):
        raise ValueError("two cases have one id")
    return found


def ran(case: Case, steps: Sequence[Any], root: Path) -> Ran:
    """Carry out a chain, session by session, each in a kernel that was opened anew."""
    statuses: list[str] = []
    why: list[str] = []
    read: list[str] = []
    told: set[str] = set()
    with _host(case, steps) as (host, rule):
        studio = Studio(root, [[]], sandbox=", ".join(filter(None, ["commit: done", rule])))
        if host is not None:
            (studio.meeting / "host").write_text(f"http://localhost:{host.port}")
        for name, text in case.workspace.items():
            (studio.work / name).parent.mkdir(parents=True, exist_ok=True)
            (studio.work / name).write_text(text)
        for session in _sessions(steps):
            script(studio.fleet / "scenario.yaml", session)
            result = studio.carry()
            statuses.append(result.status)
            why += [result.error_message] if result.error_message else []
            read += [item["text"] for item in studio.results(result.run) if isinstance(item, dict) and "text" in item]
            told |= _told(studio, result.gates) if result.status == "waiting" else set()
        links = sorted(str(path.relative_to(studio.work)) for path in studio.work.rglob("*") if path.is_symlink())
        return Ran(
            statuses,
            studio.files(),
            links,
            read,
            frozenset(told),
            [] if host is None else [item[1] for item in host.seen],
            why=why,
        )


@contextlib.contextmanager
def _host(case: Case, steps: Sequence[Any]) -> Iterator[tuple[Host | None, str]]:
    if not any(isinstance(step, dict) and "post" in step for step in steps):
        yield None, ""
        return
    with Host() as host:
        more = "".join(f", {key}: {json.dumps(value)}" for key, value in (case.allows or {}).items())
        yield host, host.rule(f", stage: true{more}")


def _sessions(steps: Sequence[Any]) -> Iterator[list[Mapping[str, Any]]]:
    found: list[Mapping[str, Any]] = []
    for step in steps:
        if step == "session":
            yield found
            found = []
        else:
            found.append(step)
    yield found


def script(place: Path, session: Sequence[Mapping[str, Any]]) -> None:
    """Write what the models answer: one call a turn, by the agents that the steps name; `writer` is the one who comes after all others."""
    agents: dict[str, list[Call]] = {}
    for step in session:
        agents.setdefault(step.get("by", "worker"), []).append(_call(step))
    last = agents.pop("writer", [])
    tasks = [
        {"agent": name, "task": f"do {name}", "criteria": [{"text": "done", "shown_by": ["ops.put"]}]}
        for name in agents
    ]
    rules: list[dict[str, Any]] = [{"agent": "boss", "answer": {"goal": "go", "dispatches": tasks}}]
    for name, calls in {**agents, "writer": last}.items():
        for turn, (tool, arguments) in enumerate(calls):
            rules.append(
                {"agent": name, "turn": turn, "tool_calls": [{"name": f"ops_{tool}", "arguments": dict(arguments)}]}
            )
        rules.append({"agent": name, "answer": {**HANDOFF, **({"answer": "# Report"} if name == "writer" else {})}})
    place.write_text(json.dumps(json.loads(place.read_text()) | {"rules": rules}))


def _call(step: Mapping[str, Any]) -> Call:
    if "call" in step:
        return step["call"], step.get("with", {})
    verb = next(name for name in _VERBS if name in step)
    names = {
        "write": {"text": step.get("text", "")},
        "link": {"to": step.get("to", "")},
        "post": {"body": step.get("body", "")},
    }
    return _VERBS[verb], {"path": step[verb], **names.get(verb, {})}


def _told(studio: Studio, gates: Sequence[Any]) -> set[str]:
    return {
        item["how"]
        for gate in gates
        for item in studio.gate(gate if isinstance(gate, str) else gate.id)[1].get("grants", [])
    }
