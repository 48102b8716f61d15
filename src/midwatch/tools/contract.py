"""Contract: what a tool takes, gives, and can do to the world; frozen, and named by one digest.

In:   what a tool's author declared, through `decorate` or an importer.
Out:  `ToolContract` and its parts; `Arg` and `Out`, the markers that authors write inside `typing.Annotated`.
May import: `shape`, recovery (to compile schemas), records, errors. Must not know: how a tool is called, by whom.
Why the undeclared is remembered: it counts as the worst everywhere, and the lint can still tell an author who chose
the worst from one who said nothing. Why one digest: an approval is for exactly this contract; whatever changes in it
makes another tool. Source: CONTAINMENT.md, section B and clause 31.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, get_args

import rfc8785

from midwatch.errors import InvalidTool, Problem
from midwatch.records.effect import EFFECT_CLASSES, ROLES, Author, EffectClass, Role, RunsIn
from midwatch.recovery.schema import SchemaRefused, compile_schema
from midwatch.tools.shape import KERNEL_ARGUMENTS, has_path, open_objects

__all__ = [
    "DEFAULT_BODY_LIMIT",
    "DEFAULT_MAX_BYTES",
    "DEFAULT_TIMEOUT_US",
    "EVERYONE",
    "HELPERS",
    "NAME_PATTERN",
    "Arg",
    "ArgContract",
    "Out",
    "OutContract",
    "ToolContract",
]

NAME_PATTERN: Final = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$"
MAX_NAME: Final = 64
DEFAULT_TIMEOUT_US: Final = 30_000_000
DEFAULT_MAX_BYTES: Final = 8 * 1024
DEFAULT_BODY_LIMIT: Final = 16 * 1024 * 1024
LEAST_MAX_BYTES: Final = 256
HELPERS: Final = ("reversible", "preview", "precondition", "reconcile")
"""Parts of a contract that name another tool; see `tools.helpers`."""
_LATER: Final = frozenset({"preview", "precondition", "reconcile", "cost", "lease"})
EVERYONE: Final = "everyone"
"""As an observer: nobody is known not to see it."""


@dataclass(frozen=True, slots=True)
class Arg:
    """Marker for a parameter, or for a field of a nested model: `path: Annotated[str, Arg(role="target")]`.

    Attributes:
        role: what the argument is for. Absent: `command`, the strictest.
        deref: the role in which the tool uses what the argument refers to (a path's file). Absent: it does not.
        interprets: whether somebody acts on the content. Absent: yes.
        executed_by: who executes what is written, such as `cron`. Absent: nobody is known to.
    """

    role: Role | None = None
    deref: Role | None = None
    interprets: bool | None = None
    executed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Out:
    """Marker for a return type, or for a field of it: `id: Annotated[str, Out(author="service", creates=True)]`.

    Attributes:
        author: who wrote the value. Absent: `third_party`, the least trusted.
        creates: the field names an object that this call made.
        role: `credential` for a secret; None for plain data.
    """

    author: Author | None = None
    creates: bool = False
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class ArgContract:
    """One argument as the guards see it.

    Attributes:
        name: of the parameter, or dotted (`order.amount`) for a marked field inside it.
    """

    name: str
    role: Role = "command"
    deref: Role | None = None
    interprets: bool = True
    executed_by: str | None = None


@dataclass(frozen=True, slots=True)
class OutContract:
    """One field of the result as the guards see it.

    Attributes:
        path: dotted (`packages.name`; lists add nothing), empty for the whole result. It covers what lies below it.
    """

    path: str
    author: Author = "third_party"
    creates: bool = False
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class ToolContract:
    """Everything that is known about a tool before it is called.

    Attributes:
        name: `namespace.name`.
        version: the author's own; it is part of the digest.
        input_schema, output_schema: JSON Schema 2020-12, closed objects, references inside only.
        effect: the worst that a call can do.
        idempotent: the same call with the same key changes the world once.
        reversible: name of the tool that undoes it, or None.
        preview: name of a reading tool that shows what a call would do, for the person who is asked; or None.
        precondition: name of a reading tool that gives the target's state; a yes holds only while it stays the same; or None.
        reconcile: name of a reading tool that can say what became of a call whose outcome is unknown; or None.
        cost: the most that one call may cost besides, micro-dollars; None when the author did not say.
        open_world: reaches what the operator does not control.
        observers: who sees that the action happened; `everyone` when nobody is known not to.
        max_bytes: of the JSON that a model is shown. body_limit: of the whole result, bytes; more breaks the contract.
        timeout_us: from start to outcome, microseconds, > 0.
        undeclared: which of the above the author did not say: `effect`, `timeout`, `args.path.role`.
        lease: whether a call has its targets to itself meanwhile; None: where it writes in the broker.
        digest: SHA-256 hex over the canonical JSON of all the others.

    Raises:
        InvalidTool: the declaration contradicts itself; all problems at once.
    """

    name: str
    version: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    effect: EffectClass
    idempotent: bool = False
    reversible: str | None = None
    preview: str | None = None
    precondition: str | None = None
    reconcile: str | None = None
    cost: int | None = None
    open_world: bool = True
    args: tuple[ArgContract, ...] = ()
    outs: tuple[OutContract, ...] = ()
    observers: tuple[str, ...] = (EVERYONE,)
    runs: RunsIn = "sandbox"
    max_bytes: int = DEFAULT_MAX_BYTES
    body_limit: int = DEFAULT_BODY_LIMIT
    timeout_us: int = DEFAULT_TIMEOUT_US
    undeclared: frozenset[str] = frozenset()
    lease: bool | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        problems = tuple(_problems(self))
        if problems:
            raise InvalidTool(problems)
        object.__setattr__(self, "digest", hashlib.sha256(rfc8785.dumps(self.to_json())).hexdigest())

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that is digested and shown; the digest itself is not part of it."""
        body = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "digest"}
        # What contracts did not have from the start is left out while it says nothing: a tool keeps its digest, and
        # what was approved stays approved, when Midwatch itself is updated.
        body = {name: value for name, value in body.items() if value is not None or name not in _LATER}
        return body | {
            "args": [asdict(arg) for arg in self.args],
            "outs": [asdict(out) for out in self.outs],
            "observers": list(self.observers),
            "undeclared": sorted(self.undeclared),
        }

    def arg(self, name: str) -> ArgContract:
        """Give what holds for an argument, or for a field inside it: its own entry, else that of what encloses it."""
        return _nearest(name, {arg.name: arg for arg in self.args}) or ArgContract(name)

    def out(self, path: str) -> OutContract:
        """Give what holds for a field of the result: its own entry, else that of what encloses it, else the worst."""
        known = {out.path: out for out in self.outs}
        return _nearest(path, known) or known.get("") or OutContract(path)


def _nearest(path: str, known: Mapping[str, Any]) -> Any:
    parts = path.split(".")
    found = (known.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
    return next((entry for entry in found if entry is not None), None)


def _problems(contract: ToolContract) -> Iterator[Problem]:
    where = f"tool `{contract.name}`"

    def wrong(message: str, code: str) -> Problem:
        return Problem(where, message, code)

    if re.fullmatch(NAME_PATTERN, contract.name) is None or len(contract.name) > MAX_NAME:
        yield wrong(
            f"the name must be `namespace.name` in lower-case letters, digits and `_`, at most {MAX_NAME} characters",
            "bad-name",
        )
    if contract.effect not in EFFECT_CLASSES:
        yield wrong(f"the effect must be one of {', '.join(EFFECT_CLASSES)}", "bad-effect")
    if contract.runs not in get_args(RunsIn):
        yield wrong("`runs` must be `sandbox` or `broker`", "bad-runs")
    if contract.effect == "pure" and "open_world" not in contract.undeclared and contract.open_world:
        yield wrong("a `pure` tool only computes and cannot be `open_world`; call it `read`", "pure-open-world")
    for key in HELPERS:
        name = getattr(contract, key)
        if name is not None and re.fullmatch(NAME_PATTERN, name) is None:
            yield wrong(f"`{key}` must name a tool, as `namespace.name`", f"bad-{key}")
    if contract.cost is not None and not 0 <= contract.cost < 2**53:
        yield wrong("`cost` must be an amount of money, such as `$0.25`", "bad-cost")
    if not contract.timeout_us > 0:
        yield wrong("the time-out must be longer than nothing; write it as `30s`", "bad-timeout")
    if not LEAST_MAX_BYTES <= contract.max_bytes <= contract.body_limit:
        yield wrong(f"`max_bytes` must lie between {LEAST_MAX_BYTES} bytes and the `body_limit`", "bad-size")
    yield from (wrong(message, "bad-schema") for message in _schema_problems(contract))
    yield from (wrong(message, code) for message, code in _part_problems(contract))


def _schema_problems(contract: ToolContract) -> Iterator[str]:
    for side, schema in (("input", contract.input_schema), ("output", contract.output_schema)):
        try:
            compile_schema(schema)
            rfc8785.dumps(dict(schema))
        except SchemaRefused as refused:
            yield from (f"the {side} schema is refused: {problem.message}" for problem in refused.problems)
            continue
        except (rfc8785.CanonicalizationError, TypeError, ValueError):
            yield f"the {side} schema has a number or a text that JSON cannot carry exactly; keep numbers below 2**53"
            continue
        for path in open_objects(schema):
            yield f"the {side} schema has an open object at `{path}`; set `additionalProperties` to false"
    if contract.input_schema.get("type") != "object":
        yield "the input schema must be an object, one property for each argument"


def _part_problems(contract: ToolContract) -> Iterator[tuple[str, str]]:
    for name in sorted(KERNEL_ARGUMENTS & set(contract.input_schema.get("properties", {}))):
        yield f"the argument name `{name}` belongs to the kernel; choose another", "reserved-argument"
    names = [arg.name for arg in contract.args]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"the argument `{name}` is described twice", "duplicate-argument"
    for arg in contract.args:
        if not has_path(contract.input_schema, arg.name):
            yield f"the argument `{arg.name}` is described and the input schema does not have it", "unknown-argument"
        for role in (arg.role, arg.deref):
            if role is not None and role not in ROLES:
                yield f"the argument `{arg.name}` has an unknown role; use one of {', '.join(ROLES)}", "bad-role"
    for out in contract.outs:
        if out.path and not has_path(contract.output_schema, out.path):
            yield f"the field `{out.path}` is described and the output schema does not have it", "unknown-field"
        if out.author not in get_args(Author):
            yield (
                f"the field `{out.path}` has an unknown author; use one of {', '.join(get_args(Author))}",
                "bad-author",
            )
        if out.role is not None and out.role not in ROLES:
            yield f"the field `{out.path}` has an unknown role; use one of {', '.join(ROLES)}", "bad-role"
