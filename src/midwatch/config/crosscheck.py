"""Cross-checks: what no single block of a fleet file can know about itself.

In:   the draft, and the aliases that exist. Out: problems: dangling names, wrong roles, doubles, missing shapes.
May import: `draft`, `file_model`, `files`, `policy_rules`, `routing`, `sandbox_rules`, `specs`, `yaml_source`; errors.
Must not know: tools (the wiring checks globs against the tools that exist), prices.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, TypeVar

from midwatch.config.breakers_rules import check_breakers
from midwatch.config.command_rules import check_command
from midwatch.config.draft import Draft
from midwatch.config.file_model import AgentFile, BudgetFile, WhenFile
from midwatch.config.files import locate
from midwatch.config.imports_rules import check_imports
from midwatch.config.policy_rules import check_commits, check_mandates, check_policies, check_sources
from midwatch.config.routing import aliases
from midwatch.config.sandbox_rules import check_sandbox
from midwatch.config.watch_rules import check_governor
from midwatch.config.yaml_source import Place
from midwatch.errors import Problem
from midwatch.records.spend import UNITS

__all__ = ["IMPORT_PATTERN", "RESERVED_SCOPES", "cross_check", "is_glob"]

RESERVED_SCOPES: Final = ("fleet", "run")
IMPORT_PATTERN: Final = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*", re.ASCII
)
_T = TypeVar("_T")
_BUILTIN = re.compile(r"builtin\.[a-z_]+")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


def cross_check(draft: Draft, *, base: Path, environ: Mapping[str, str]) -> list[Problem]:
    """Check everything that takes more than one block to see, in the order of the file's blocks."""
    checks = (
        _names(draft),
        _tools(draft, base),
        check_imports(draft, base),
        _agents(draft),
        _own_sandboxes(draft, base, environ),
        _graph(draft),
        _verticals(draft),
        _budgets(draft),
        check_sources(draft),
        check_policies(draft),
        check_mandates(draft, aliases(draft)),
        check_commits(draft),
        _grants(draft),
        _gates(draft),
        _review(draft),
        check_sandbox(draft, ("sandbox",), draft.file.sandbox, base=base, environ=environ),
        _schedules(draft),
        check_governor(draft),
        check_breakers(draft),
    )
    return [problem for check in checks for problem in check]


def is_glob(text: str) -> bool:
    """Say whether a name holds a wildcard."""
    return any(sign in text for sign in "*?[")


def _names(draft: Draft) -> Iterator[Problem]:
    """One scope name must mean one scope."""
    for block in ("agents", "verticals"):
        for name in sorted(draft.names(block) & set(RESERVED_SCOPES)):
            message = f"`{name}` is the name of a budget scope; choose another name"
            yield draft.problem((block, name), message, "reserved-name")
    for name in sorted(draft.names("agents") & draft.names("verticals")):
        message = f"`{name}` is also an agent; a vertical needs a name of its own"
        yield draft.problem(("verticals", name), message, "duplicate-name")


def _tools(draft: Draft, base: Path) -> Iterator[Problem]:
    yield from _doubles(draft, ("tools",), draft.file.tools, draft.kept.get("tools"))
    for place, spec in _entries(draft, "tools", draft.file.tools):
        kind, _, rest = spec.partition(":")
        if _BUILTIN.fullmatch(spec):
            continue
        if kind == "python" and rest.endswith(".py"):
            found = locate(base, rest)
            if found.reason is not None:
                yield draft.problem(place, f"the tools file `{rest}` {found.reason}", found.code)
        elif kind != "python" or not _MODULE.fullmatch(rest):
            message = f"`{spec}` names no tools; write `builtin.NAME`, `python:FILE.py` or `python:MODULE`"
            yield draft.problem(place, message, "bad-tools")


def _agents(draft: Draft) -> Iterator[Problem]:
    known = aliases(draft)
    for name, agent in draft.file.agents.items():
        place: Place = ("agents", name)
        if agent.route not in known:
            yield _dangling(draft, (*place, "route"), "route", agent.route, known)
        if agent.role == "ceo" and agent.tools:
            message = f"`{name}` is a CEO and has tools; a CEO plans only, give the tools to a specialist"
            yield draft.problem((*place, "tools"), message, "ceo-with-tools")
        if agent.command:
            yield from check_command(draft, place, name, agent)
        else:
            yield from _prompt_shape(draft, place, name, agent)
        yield from _doubles(draft, (*place, "tools"), agent.tools)


def _prompt_shape(draft: Draft, place: Place, name: str, agent: AgentFile) -> Iterator[Problem]:
    if agent.prompt is None and agent.prompt_text is None:
        yield draft.problem(
            place, f"`{name}` has no prompt; name its file in `prompt`, or a program in `command`", "missing-prompt"
        )
    elif agent.prompt is not None and agent.prompt_text is not None:
        message = f"`{name}` has both `prompt` and `prompt_text`; keep one"
        yield draft.problem((*place, "prompt_text"), message, "two-prompts")
    elif agent.prompt_text is not None and not agent.prompt_text.strip():
        yield draft.problem((*place, "prompt_text"), f"the prompt of `{name}` is empty; write it", "missing-prompt")


def _graph(draft: Draft) -> Iterator[Problem]:
    graph = draft.file.graph
    place: Place = ("graph", "import")
    if graph.import_ is not None and not IMPORT_PATTERN.fullmatch(graph.import_):
        message = f"`{graph.import_}` cannot be imported; write `module:attribute`, such as `mygraph:build`"
        yield draft.problem(place, message, "bad-import")
    if graph.team is None:
        return
    place = ("graph", "team")
    yield from _member(draft, (*place, "ceo"), graph.team.ceo, "ceo")
    yield from _member(draft, (*place, "synthesis"), graph.team.synthesis, "synthesis")
    if not graph.team.specialists:
        yield draft.problem((*place, "specialists"), "the team has no specialists; name at least one", "no-specialists")
    yield from _doubles(draft, (*place, "specialists"), graph.team.specialists)
    for index, name in enumerate(graph.team.specialists):
        yield from _member(draft, (*place, "specialists", index), name, "specialist")


def _member(draft: Draft, place: Place, name: str, role: str) -> Iterator[Problem]:
    known = draft.names("agents")
    if name not in known:
        yield _dangling(draft, place, "agent", name, known)
        return
    agent = draft.file.agents.get(name)  # None: its own block is broken, which has been said
    if agent is not None and agent.role != role:
        message = f"`{name}` stands here as {role} and has the role `{agent.role}`; change one of them"
        yield draft.problem(place, message, "wrong-role")


def _verticals(draft: Draft) -> Iterator[Problem]:
    known = draft.names("agents")
    home: dict[str, str] = {}
    for vertical, members in draft.file.verticals.items():
        place: Place = ("verticals", vertical)
        if not members:
            yield draft.problem(place, f"`{vertical}` has no agents; name them, or take it away", "empty-vertical")
        yield from _doubles(draft, place, members)
        for index, name in enumerate(members):
            if name not in known:
                yield _dangling(draft, (*place, index), "agent", name, known)
            elif home.setdefault(name, vertical) != vertical:
                message = f"`{name}` is already in `{home[name]}`; an agent belongs to one vertical"
                yield draft.problem((*place, index), message, "two-verticals")


def _budgets(draft: Draft) -> Iterator[Problem]:
    known = draft.names("agents") | draft.names("verticals") | set(RESERVED_SCOPES)
    for scope, budget in draft.file.budgets.items():
        place: Place = ("budgets", scope)
        if scope not in known and not scope.startswith("node:"):
            yield _dangling(draft, place, "scope", scope, known)
        if all(getattr(budget, unit) is None for unit in UNITS):
            message = f"the budget of `{scope}` bounds nothing; name at least one of {', '.join(UNITS)}"
            yield draft.problem(place, message, "empty-budget")
        if budget.per is not None and (scope == "run" or scope.startswith("node:")):
            yield draft.problem(
                (*place, "per"), "it lasts as long as a run and has no window; take `per` away", "window-of-run"
            )
        yield from _ladder(draft, place, budget)


def _ladder(draft: Draft, place: Place, budget: BudgetFile) -> Iterator[Problem]:
    routes = aliases(draft)
    for index, rung in enumerate(budget.degrade):
        where: Place = (*place, "degrade", index)
        if rung.route is None and rung.context is None and rung.specialists is None:
            message = "this rung makes nothing cheaper; name `route`, `context` or `specialists`, or take it away"
            yield draft.problem(where, message, "idle-rung")
        if rung.route is not None and rung.route not in routes:
            yield _dangling(draft, where, "route", rung.route, routes)


def _grants(draft: Draft) -> Iterator[Problem]:
    seen: dict[str, Place] = {}
    for place, grant in _entries(draft, "grants", draft.file.grants):
        yield from _repeated(draft, seen, place, grant.model_dump_json(), "grant")
        yield from _doubles(draft, (*place, "who"), grant.who)
        yield from _doubles(draft, (*place, "may"), grant.may)
        for index, who in enumerate(grant.who):
            yield from _matches_agent(draft, (*place, "who", index), who.removeprefix("agent:"))
        if not grant.where and "where" in grant.model_fields_set:
            message = "`where` bounds no argument; name one, or take `where` away to leave them unbound"
            yield draft.problem((*place, "where"), message, "empty-where")


def _gates(draft: Draft) -> Iterator[Problem]:
    seen: dict[str, Place] = {}
    for place, gate in _entries(draft, "gates", draft.file.gates):
        yield from _repeated(draft, seen, place, gate.model_dump_json(), "gate")
        when = gate.when
        if not any(value not in (None, (), {}) for value in when.model_dump().values()):
            message = "`when` says nothing; name an effect, tool, agent or keyword that the gate is for"
            yield draft.problem((*place, "when"), message, "empty-when")
        for key in ("effect", "tool", "agent", "keywords"):
            yield from _doubles(draft, (*place, "when", key), getattr(when, key))
        for index, name in enumerate(when.agent):
            yield from _matches_agent(draft, (*place, "when", "agent", index), name.removeprefix("agent:"))
        yield from _observed(draft, (*place, "when", "observed"), when)
        yield from _doubles(draft, (*place, "channels"), gate.channels)
        known = draft.names("channels")
        for index, name in enumerate(gate.channels):
            if name not in known:
                yield _dangling(draft, (*place, "channels", index), "channel", name, known)
        if gate.escalate is not None and gate.escalate.after >= gate.timeout:
            message = "`escalate.after` must be shorter than `timeout`, or nobody is asked in time"
            yield draft.problem((*place, "escalate", "after"), message, "late-escalation")
        if when.environment and draft.file.environment is None:
            message = "the rule asks for an environment and the fleet names none; set `environment:`"
            yield draft.problem((*place, "when", "environment"), message, "no-environment")


def _review(draft: Draft) -> Iterator[Problem]:
    review = draft.file.review
    for index, exempt in enumerate(() if review is None else review.exempt):
        place = ("review", "exempt", index)
        if not exempt.tool:
            yield draft.problem(
                (*place, "tool"), "`exempt` names no tool; name one, or take the entry away", "empty-exempt"
            )
        if not exempt.where and "*" in exempt.tool:
            message = "`exempt` lets every call pass; name tools, or bound their arguments with `where`"
            yield draft.problem((*place, "tool"), message, "wide-exempt")


def _own_sandboxes(draft: Draft, base: Path, environ: Mapping[str, str]) -> Iterator[Problem]:
    for name, agent in draft.file.agents.items():
        yield from check_sandbox(draft, ("agents", name, "sandbox"), agent.sandbox, base=base, environ=environ)


def _observed(draft: Draft, place: Place, when: WhenFile) -> Iterator[Problem]:
    observed = when.observed
    if observed is None:
        return
    of_files = bool(observed.ops or observed.paths or observed.watched)
    if not of_files and not observed.hosts:
        message = "`observed` says nothing; name `ops`, `paths`, `hosts`, or `watched: true`"
        yield draft.problem(place, message, "empty-observed")
    if of_files and observed.hosts:
        message = "`hosts` is about requests and the other keys about files; write two rules"
        yield draft.problem((*place, "hosts"), message, "mixed-observed")
    for key in ("keywords", "label", "role", "cost", "reversible"):
        if getattr(when, key) not in (None, (), {}):
            message = f"`{key}` is about a call that is to come and `observed` about what was done; write two rules"
            yield draft.problem((*place[:-1], key), message, "mixed-observed")
    for key in ("ops", "paths", "hosts"):
        yield from _doubles(draft, (*place, key), getattr(observed, key))
    for index, glob in enumerate(observed.paths):
        if glob.startswith(("/", "./", "../")):
            message = f"`{glob}` matches no path; paths are relative to the workspace, such as `src/*`"
            yield draft.problem((*place, "paths", index), message, "bad-form")


def _schedules(draft: Draft) -> Iterator[Problem]:
    seen: dict[str, Place] = {}
    for place, schedule in _entries(draft, "schedules", draft.file.schedules):
        yield from _repeated(draft, seen, (*place, "name"), schedule.name, "schedule")


def _matches_agent(draft: Draft, place: Place, pattern: str) -> Iterator[Problem]:
    known = draft.names("agents")
    if not is_glob(pattern) and pattern not in known:
        yield _dangling(draft, place, "agent", pattern, known)
    elif is_glob(pattern) and not any(fnmatchcase(name, pattern) for name in known):
        yield draft.problem(place, f"`{pattern}` matches no agent; correct it, or take it away", "unknown-agent")


def _entries(draft: Draft, block: str, entries: Sequence[_T]) -> Iterator[tuple[Place, _T]]:
    """Give each kept entry of a list with its place in the file."""
    kept = draft.kept.get(block)
    for index, entry in enumerate(entries):
        yield (block, kept[index]) if kept is not None else (block,), entry


def _doubles(draft: Draft, place: Place, words: Iterable[str], kept: Sequence[int] | None = None) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, word in enumerate(words):
        if word in seen:
            at = (*place, kept[index] if kept is not None else index)
            yield draft.problem(at, f"`{word}` stands twice in this list; remove one of them", "duplicate-entry")
        seen.add(word)


def _repeated(draft: Draft, seen: dict[str, Place], place: Place, key: str, what: str) -> Iterator[Problem]:
    if key in seen:
        first = draft.source.where(seen[key])
        yield draft.problem(place, f"this {what} stands already in {first}; remove one of them", "duplicate-entry")
    seen.setdefault(key, place)


def _dangling(draft: Draft, place: Place, what: str, name: str, known: frozenset[str] | set[str]) -> Problem:
    near = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(f"`{word}`" for word in sorted(known)) or "none"
    help_ = f"did you mean `{near[0]}`?" if near else f"known: {listed}"
    return draft.problem(place, f"there is no {what} `{name}`; {help_}", f"unknown-{what}")
