"""Trial: one made-up call, judged as a real one would be; nothing is run, no store is opened.

In:   a fleet, its tools, a `Trial`: who calls what, and which causes stand behind it. Out: a `Ruling`.
May import: `grants`, `policies`, `reach`, `mandates`, `roles`, `verdict`; config, tools, records, errors. Must not know: how it is shown.
Causes are given, not found: what a run would find out about the origin of a value is the kernel's work. What an argument refers to is
unknown unless it is given, as it would be for a file that nobody has labelled.
Source: CONTAINMENT.md, section D.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError

from midwatch.config.file_types import Block, Line, Lines, or_empty
from midwatch.config.fleet import Fleet
from midwatch.config.yaml_source import Source as Written
from midwatch.containment import grants
from midwatch.containment.mandates import Balance, issue
from midwatch.containment.policies import closed, mandates, rights, sources
from midwatch.containment.reach import Reach
from midwatch.containment.roles import Place, TooMany, places
from midwatch.containment.verdict import Action, Authority, Ruling, decide
from midwatch.errors import Problem, UsageProblem
from midwatch.records.label import Cause, Label, join, label
from midwatch.tools.registry import Registry

__all__ = ["Case", "Trial", "judge", "read_cases", "word_of"]

REQUESTER: Final = "requester"


@dataclass(frozen=True, slots=True)
class Trial:
    """One call that nobody makes.

    Attributes:
        context: causes of what the agent has seen besides the request. values, refers: per argument, the causes of its values, and of
            what they refer to; an argument without an entry has the causes of the context, a referent without one is unknown.
        requester: name of the person who asked. confined: it acts in a disposable overlay, without a way out.
    """

    agent: str
    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    context: tuple[Cause, ...] = ()
    values: Mapping[str, tuple[Cause, ...]] = field(default_factory=dict)
    refers: Mapping[str, tuple[Cause, ...]] = field(default_factory=dict)
    requester: str = REQUESTER
    confined: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A trial with the verdict that its author expects: `allowed`, `ask` or `denied`."""

    name: str
    trial: Trial
    expect: str


def judge(fleet: Fleet, registry: Registry, trial: Trial) -> Ruling:
    """Judge it as `containment: enforce` would.

    Raises:
        UsageProblem: no such agent, tool or argument.
    """
    _known(fleet, registry, trial)
    contract = registry.get(trial.tool).contract
    try:
        found = places(contract, trial.arguments)
    except TooMany:
        found = ()  # the verdict refuses it by itself

    def of(causes: Iterable[Cause]) -> Label:
        return join(*(_label(fleet, registry, cause, trial.requester) for cause in causes))

    request = Cause("person", trial.requester)
    balance, issued = Balance(), mandates(fleet, registry, trial.agent)
    for mandate in issued:
        made = issue(balance, mandate)
        balance = made if isinstance(made, Balance) else balance
    action = Action(
        agent=trial.agent,
        contract=contract,
        arguments=trial.arguments,
        context=of((request, *trial.context)),
        labels={place.key: of(causes) for place, causes in _of(found, trial.values)},
        referents={place.key: of(causes) for place, causes in _of(found, trial.refers)},
        confined=trial.confined,
    )
    authority = Authority(
        do=grants.decide(fleet.grants, agent=trial.agent, tool=trial.tool, arguments=trial.arguments),
        reach=Reach(rights(fleet, registry), requester=trial.requester),
        balance=balance,
        mandates=tuple(mandate.id for mandate in issued),
        principals=(Cause("operator"),),
        who=fleet.containment.ask,
        expires_us=fleet.containment.timeout_us,
    )
    return decide(action, authority)


def word_of(ruling: Ruling) -> str:
    """Give the verdict in the word that cases use."""
    return {"Allowed": "allowed", "Ask": "ask", "Denied": "denied"}[type(ruling.verdict).__name__]


def _of(found: Iterable[Place], given: Mapping[str, tuple[Cause, ...]]) -> Iterator[tuple[Place, tuple[Cause, ...]]]:
    for place in found:
        causes = given.get(place.name)
        if causes is not None:
            yield place, causes


def _label(fleet: Fleet, registry: Registry, cause: Cause, requester: str) -> Label:
    """Give a cause the readers that what it says would have in a run."""
    declared = sources(fleet, registry, requester=requester, closed=closed(fleet, requester=requester))
    if cause.kind == "unknown":
        return label((cause,), ())
    if cause.kind == "source":
        named = [source.readers for source in declared if source.name == cause.name]
        return join(*(label((cause,), readers) for readers in named)) if named else label((cause,), ())
    if cause.kind in {"service", "third_party"} and cause.name in registry.names():
        for source in declared:
            if fnmatchcase(f"tool:{cause.name}", source.pattern):
                return label((cause,), source.readers)
    return label((cause,))


def _known(fleet: Fleet, registry: Registry, trial: Trial) -> None:
    problems = []
    if trial.agent not in fleet.agents:
        known = ", ".join(f"`{name}`" for name in fleet.agents)
        problems.append(Problem("", f"there is no agent `{trial.agent}`; known: {known}", "unknown-agent"))
    if trial.tool not in registry.names():
        known = ", ".join(f"`{name}`" for name in registry.names()) or "none"
        problems.append(Problem("", f"there is no tool `{trial.tool}`; known: {known}", "unknown-tool"))
    else:
        has = set(registry.get(trial.tool).contract.input_schema.get("properties", {}))
        for name in dict.fromkeys((*trial.arguments, *trial.values, *trial.refers)):
            if name.split(".")[0] not in has:
                known = ", ".join(f"`{word}`" for word in sorted(has)) or "none"
                message = f"`{trial.tool}` has no argument `{name}`; known: {known}"
                problems.append(Problem("", message, "unknown-argument"))
    if problems:
        raise UsageProblem(tuple(problems))


_Args = Annotated[dict[str, Any], BeforeValidator(or_empty)]
_ByArgument = Annotated[dict[str, Lines], BeforeValidator(or_empty)]


class _CaseFile(Block):
    name: Line
    agent: Line
    tool: Line
    arguments: _Args = Field({})
    context: Lines = ()
    values: _ByArgument = Field({})
    refers: _ByArgument = Field({})
    requester: Line = REQUESTER
    confined: bool = False
    expect: Literal["allowed", "ask", "denied"]


class _File(Block):
    cases: list[_CaseFile] = Field(min_length=1)


def read_cases(written: Written) -> tuple[Case, ...]:
    """Read a file of cases.

    Raises:
        UsageProblem: everything that is wrong with it, with its lines.
    """
    try:
        read = _File.model_validate(written.value)
    except ValidationError as failure:
        problems = (
            Problem(
                written.where(tuple(error["loc"])),
                f"`{'.'.join(str(part) for part in error['loc']) or 'this file'}`: {error['msg']}",
                "bad-case",
            )
            for error in failure.errors(include_url=False, include_input=False)
        )
        raise UsageProblem(tuple(problems)) from failure
    wrong: list[Problem] = []
    cases = tuple(_case(written, index, case, wrong) for index, case in enumerate(read.cases))
    if wrong:
        raise UsageProblem(tuple(wrong))
    return cases


def _case(written: Written, index: int, case: _CaseFile, wrong: list[Problem]) -> Case:
    def causes(texts: Iterable[str], *place: str) -> tuple[Cause, ...]:
        made = []
        for text in texts:
            try:
                made.append(Cause.parse(text))
            except ValueError as fault:
                wrong.append(Problem(written.where(("cases", index, *place)), f"`{text}`: {fault}", "bad-cause"))
        return tuple(made)

    trial = Trial(
        agent=case.agent,
        tool=case.tool,
        arguments=case.arguments,
        context=causes(case.context, "context"),
        values={name: causes(texts, "values", name) for name, texts in case.values.items()},
        refers={name: causes(texts, "refers", name) for name, texts in case.refers.items()},
        requester=case.requester,
        confined=case.confined,
    )
    return Case(case.name, trial, case.expect)
