"""Decorate: `@tool` makes a tool of a function; the function stays what it was.

In:   a function, and what its hints cannot say: its effect, its bounds, where it runs.
Out:  `Tool`: the contract, the function, and the way between JSON and the function's own types.
May import: `binding`, `contract`, `outcome`, `shape`, `signature`, config's quantities, recovery, records, errors.
Must not know: registries, sandboxes, envelopes, who calls.
Why faults end the import: a tool with half a contract would be bounded by half. All faults are told at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar, overload

from midwatch.config.quantities import QuantityError, parse_duration, parse_money, parse_size
from midwatch.errors import InvalidTool, Problem
from midwatch.records.effect import WORST_EFFECT, EffectClass, RunsIn
from midwatch.recovery.schema import Validator, compile_schema
from midwatch.tools.binding import BadArguments, Binding, ToolContext
from midwatch.tools.contract import (
    DEFAULT_BODY_LIMIT,
    DEFAULT_MAX_BYTES,
    DEFAULT_TIMEOUT_US,
    EVERYONE,
    ToolContract,
)
from midwatch.tools.outcome import Outcome, from_exception
from midwatch.tools.shape import pageable, paths
from midwatch.tools.signature import Signature, read_signature

__all__ = ["FILE_MARK", "Tool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

FILE_MARK: Final = "__midwatch_file__"
"""Set by the registry in a module that it loaded from a file: the file's path, by which a worker can load it again."""

_MAX_FIELDS: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Tool(Generic[P, R]):
    """A function with a contract. Called directly it is the plain function, past every guard, for its author's tests.

    Attributes:
        ref: `module:qualname` or `/path/file.py:qualname`, for a worker to import; None for a closure.
        offered_schema: the input schema plus the kernel's own arguments `fields` and `cursor`, as a model is shown it.
        accepts: validator of the offered schema. continues: the same where `cursor` is given and nothing else is needed.
        returns: validator of the output schema.
    """

    contract: ToolContract
    fn: Callable[P, R]
    ref: str | None
    is_async: bool
    binding: Binding = field(repr=False)
    offered_schema: Mapping[str, Any] = field(init=False, repr=False)
    accepts: Validator = field(init=False, repr=False)
    continues: Validator = field(init=False, repr=False)
    returns: Validator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        offered = _offered(self.contract)
        rest = {key: value for key, value in offered.items() if key != "required"}
        for name, value in (
            ("offered_schema", offered),
            ("accepts", compile_schema(offered)),
            ("continues", compile_schema(rest)),
            ("returns", compile_schema(self.contract.output_schema)),
        ):
            object.__setattr__(self, name, value)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function."""
        return self.fn(*args, **kwargs)

    def code(self) -> str:
        """Digest the file that the function stands in, as it is now: what a yes means besides the contract.

        Returns:
            SHA-256 hex; of the compiled function where there is no such file (a prompt, a zip). What the file imports is not in it.
        """
        made = self.fn.__code__
        try:
            source = Path(made.co_filename).read_bytes()
        except OSError:
            source = made.co_code + repr(made.co_names).encode()
        return hashlib.sha256(source).hexdigest()

    def work(self, arguments: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Perform one call in this process and thread, as a sandbox's worker does.

        Args:
            arguments: canonical JSON text of checked arguments.
            facts: what `ToolContext` is made of: `idempotency_key, run, agent, now_us, workdir`.

        Returns:
            `Outcome.to_wire()`. Only what ends a process is raised: KeyboardInterrupt, SystemExit.
        """
        start, began = int(facts["now_us"]), time.monotonic_ns()
        context = ToolContext(
            idempotency_key=facts["idempotency_key"],
            run=facts["run"],
            agent=facts["agent"],
            clock=lambda: start + (time.monotonic_ns() - began) // 1000,
            workdir=Path(facts["workdir"]),
        )
        try:
            values = self.binding.bind(arguments.encode(), context)
            made: Any = self.fn(**values)  # type: ignore[call-arg]  # bound to the very parameters of `fn`
            value = asyncio.run(made) if self.is_async else made
            outcome = Outcome(value=self.binding.carried(value))
        except BadArguments as refused:
            return Outcome(error=refused.error()).to_wire()
        except Exception as raised:  # noqa: BLE001  the boundary to foreign code: whatever it raises becomes a value
            outcome = from_exception(raised)
        return outcome.to_wire()


def _offered(contract: ToolContract) -> dict[str, Any]:
    known = paths(contract.output_schema)
    added: dict[str, Any] = {}
    if known:
        added["fields"] = {
            "type": "array",
            "items": {"enum": list(known)},
            "minItems": 1,
            "maxItems": _MAX_FIELDS,
            "description": "Only these parts of the result; absent: all of it.",
        }
    if pageable(contract.output_schema):
        added["cursor"] = {
            "type": "string",
            "maxLength": 400,
            "description": "`next_cursor` of an earlier result, to read on; nothing is executed again.",
        }
    properties = {**contract.input_schema.get("properties", {}), **added}
    return {**contract.input_schema, "properties": properties}


@overload
def tool(fn: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    effect: EffectClass | None = None,
    idempotent: bool | None = None,
    reversible: str | Literal[False] | None = None,
    preview: str | None = None,
    precondition: str | None = None,
    reconcile: str | None = None,
    cost: str | None = None,
    lease: bool | None = None,
    open_world: bool | None = None,
    runs: RunsIn | None = None,
    observers: tuple[str, ...] | None = None,
    timeout: str | None = None,
    max_bytes: str | None = None,
    body_limit: str | None = None,
    version: str = "1",
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(fn: Callable[P, R] | None = None, /, **declared: Any) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:
    """Make a tool of a function with type hints; use it bare, or with what the hints cannot say.

    Args:
        name: `namespace.name`, or `name` alone, which gets the file's stem as namespace. Absent: the function's name.
        effect: the worst that a call can do. Absent: `grants_authority`, the worst there is.
        idempotent: the same call with the same key changes the world once. Absent: no.
        reversible: name of the tool that undoes it; False: nothing does. Absent: nothing is known to.
        preview, precondition, reconcile: names of reading tools that show what a call would do, give the target's state,
            and say what became of a call (`tools.helpers` has the rules). Absent: there are none.
        cost: the most that one call may cost besides what models do, such as `$0.25`. Absent: unknown.
        lease: whether a call has its targets to itself until it ends. Absent: where it writes in the broker.
        open_world: reaches what the operator does not control. Absent: yes, unless the effect is `pure`.
        runs: `sandbox` (the default) or `broker`, in the kernel's own process, where credentials are held.
        observers: who sees that it happened. Absent: everyone when `open_world`, else nobody.
        timeout: `30s`, the default. max_bytes: what a model is shown, `8KiB`. body_limit: of the whole result, `16MiB`.
        version: the author's own.

    Raises:
        InvalidTool: everything that is wrong with the function and with what was declared; its author corrects it.
    """
    if fn is not None:
        return _make(fn, declared)
    return lambda found: _make(found, declared)


def _make(fn: Callable[P, R], declared: Mapping[str, Any]) -> Tool[P, R]:
    if not inspect.isfunction(fn):
        raise InvalidTool((Problem("", "`@tool` takes a function; put it directly above a `def`", "not-a-function"),))
    where = f"{Path(fn.__code__.co_filename).name}:{fn.__code__.co_firstlineno} `{fn.__name__}`"
    problems: list[Problem] = []
    numbers = _numbers(declared, where, problems)
    signature = read_signature(fn, where)
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        problems.append(Problem(where, "is a generator; return a list instead", "generator"))
    if not isinstance(signature, Signature):
        raise InvalidTool((*problems, *signature))
    try:
        contract = _contract(fn, declared, signature, numbers)
    except InvalidTool as invalid:
        raise InvalidTool((*problems, *invalid.problems)) from None
    if problems:
        raise InvalidTool(tuple(problems))
    return Tool(contract, fn, _ref(fn), inspect.iscoroutinefunction(fn), signature.binding)


def _numbers(declared: Mapping[str, Any], where: str, problems: list[Problem]) -> dict[str, int]:
    found = {}
    for key, parse in (
        ("timeout", parse_duration),
        ("max_bytes", parse_size),
        ("body_limit", parse_size),
        ("cost", parse_money),
    ):
        if declared.get(key) is not None:
            try:
                found[key] = parse(declared[key])
            except QuantityError as wrong:
                problems.append(Problem(where, f"`{key}`: {wrong}", f"bad-{key.replace('_', '-')}"))
    return found


def _contract(
    fn: Callable[..., Any], declared: Mapping[str, Any], signature: Signature, numbers: Mapping[str, int]
) -> ToolContract:
    effect: EffectClass = declared.get("effect") or WORST_EFFECT
    open_world = declared.get("open_world")
    open_world = effect != "pure" if open_world is None else bool(open_world)
    observers = declared.get("observers")
    said = ("effect", "idempotent", "reversible", "open_world", "observers", "timeout")
    missing = {key for key in said if declared.get(key) is None}
    return ToolContract(
        name=_name(fn, declared.get("name") or fn.__name__),
        version=str(declared.get("version") or "1"),
        description=signature.description,
        input_schema=signature.input_schema,
        output_schema=signature.output_schema,
        effect=effect,
        idempotent=declared.get("idempotent") is True,
        reversible=declared.get("reversible") or None,
        preview=declared.get("preview"),
        precondition=declared.get("precondition"),
        reconcile=declared.get("reconcile"),
        cost=numbers.get("cost"),
        open_world=open_world,
        args=signature.args,
        outs=signature.outs,
        observers=((EVERYONE,) if open_world else ()) if observers is None else tuple(observers),
        runs=declared.get("runs") or "sandbox",
        max_bytes=numbers.get("max_bytes", DEFAULT_MAX_BYTES),
        body_limit=numbers.get("body_limit", DEFAULT_BODY_LIMIT),
        timeout_us=numbers.get("timeout", DEFAULT_TIMEOUT_US),
        undeclared=signature.undeclared | missing,
        lease=declared.get("lease"),
    )


def _name(fn: Callable[..., Any], name: str) -> str:
    if "." in name:
        return name
    stem = re.sub(r"[^a-z0-9_]+", "_", Path(fn.__code__.co_filename).stem.lower()).strip("_")
    return f"{stem if stem[:1].isalpha() else f'tools_{stem}'}.{name}"


def _ref(fn: Callable[..., Any]) -> str | None:
    if "<" in fn.__qualname__:
        return None
    module = sys.modules.get(fn.__module__)
    file = getattr(module, FILE_MARK, None)
    if file is None and fn.__module__ == "__main__":
        file = getattr(module, "__file__", None)
    return f"{file or fn.__module__}:{fn.__qualname__}"
