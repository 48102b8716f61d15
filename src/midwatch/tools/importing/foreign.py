"""Foreign: a tool that somebody else describes becomes a `Tool` with a contract, under what the fleet declares of it.

In:   `Described`, what a source says of one tool; `ToolRules`, what the fleet says; a function that makes the call.
Out:  `Tool`; `digest_of`, what a source's tools are pinned by; `Brought`, what came of one source.
May import: `binding`, `contract`, `decorate`, `outcome`, schemas, config's specs, records, errors. Must not know: protocols.
Why what a source says of effects only makes it worse: it is a claim of whoever would profit. Source: CONTAINMENT.md, 6 and 31.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import TypeAdapter

from midwatch.config.specs_imports import ToolRules
from midwatch.errors import InvalidTool, Problem
from midwatch.records.effect import WORST_EFFECT, EffectClass, is_worse
from midwatch.recovery.schema import SchemaRefused
from midwatch.tools.binding import Binding
from midwatch.tools.contract import (
    DEFAULT_MAX_BYTES,
    DEFAULT_TIMEOUT_US,
    EVERYONE,
    ArgContract,
    OutContract,
    ToolContract,
)
from midwatch.tools.decorate import Tool
from midwatch.tools.importing.schemas import closed, input_schema, pruned, renamed

__all__ = ["Brought", "Call", "Described", "Words", "brought", "digest_of"]

Call = Callable[[dict[str, Any], str], Awaitable[Any] | Any]
"""Arguments by the source's own names, and the idempotency key, to plain JSON data that the output schema describes."""

Ref = Callable[[str, Mapping[str, str]], str]
"""A tool's name and its renamed arguments, to what a worker imports to perform it."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]{0,63}")
_MAX_DESCRIPTION: Final = 2_000
_MOST: Final = 512
_ARGUMENTS: Final[TypeAdapter[dict[str, Any]]] = TypeAdapter(dict[str, Any])
_ANY: Final[TypeAdapter[Any]] = TypeAdapter(Any)


class Words(Exception):
    """What a source said of its own failure: it may quote anything, so it stands behind a `ToolFailure`, in the trace only."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a source says of one tool.

    Attributes:
        input, output: JSON Schemas as given.
        said: an effect class that its annotations claim, when they say anything; it counts only where it is worse.
        open_world, idempotent: the same, True and False as said; None: it says nothing.
        default: the class where the fleet declares none and the protocol itself tells; None: the worst.
        pin: everything of it that must not change unseen.
    """

    name: str
    description: str
    input: Any
    output: Any
    pin: Mapping[str, Any]
    said: EffectClass | None = None
    open_world: bool | None = None
    idempotent: bool | None = None
    default: EffectClass | None = None


@dataclass(frozen=True, slots=True)
class Brought:
    """What came of one source.

    Attributes:
        digest: of all that it described. pending: names of tools that differ from the pin, and so may not be called.
        notes: what was left out and why, and what the operator should know; never an error by itself.
        close: ends what the source holds open, or None. files: what a sandbox must show so that its tools can be loaded there.
    """

    source: str
    digest: str
    tools: tuple[Tool[..., Any], ...]
    pending: frozenset[str] = frozenset()
    notes: tuple[Problem, ...] = ()
    close: Callable[[], None] | None = field(default=None, compare=False)
    files: tuple[Path, ...] = ()


def digest_of(found: Iterable[Described]) -> str:
    """Digest what a source says of its tools, in whatever order it says it."""
    pins = sorted(orjson.dumps(one.pin, option=orjson.OPT_SORT_KEYS) for one in found)
    return "sha256:" + hashlib.sha256(b"\n".join(pins)).hexdigest()


def brought(
    source: str,
    found: Iterable[Described],
    call: Callable[[Described], Call],
    *,
    rules: ToolRules,
    pin: str | None,
    close: Callable[[], None] | None = None,
    ref: Ref | None = None,
    threaded: bool = False,
) -> Brought:
    """Make tools of all that a source describes and the fleet takes.

    Args:
        source: `mcp.NAME` and the like; what follows the dot is the namespace.
        call: makes the function that calls one of them.
        pin: digest that the fleet names, or None.
        ref: for tools that act in a sandbox; None: the broker performs them.
        threaded: `call` gives functions that block, each to be run in a thread of its own.
    """
    namespace = source.partition(".")[2]
    listed = list(found)
    taken = [one for one in listed if rules.take is None or any(fnmatchcase(one.name, glob) for glob in rules.take)]
    digest = digest_of(taken)
    notes: list[Problem] = []
    made: dict[str, Tool[..., Any]] = {}
    if len(taken) > _MOST:
        raise InvalidTool(
            (Problem(source, f"has {len(taken)} tools; take at most {_MOST} with `tools:`", "many-tools"),)
        )
    for one in taken:
        try:
            tool = _tool(namespace.replace("-", "_"), one, call(one), rules, ref=ref, threaded=threaded)
        except (InvalidTool, SchemaRefused) as refused:
            notes.append(Problem(source, f"`{_sentence(one.name[:64])}` is left out: {refused}"[:600], "tool-left-out"))
            continue
        name = tool.contract.name
        if name in made:
            raise InvalidTool(
                (
                    Problem(
                        source, f"two of its tools would be `{name}`; take one of them with `tools:`", "duplicate-tool"
                    ),
                )
            )
        made[name] = tool
    notes += [*_unknown(source, rules, {one.name for one in listed}), *_about_pin(source, pin, digest)]
    pending = frozenset(made) if pin is not None and pin != digest else frozenset()
    return Brought(source, digest, tuple(made.values()), pending, tuple(notes), close)


def _about_pin(source: str, pin: str | None, digest: str) -> list[Problem]:
    if pin is None:
        told = "is not pinned, so it may change unseen; `midwatch tools pin` writes the pin"
        return [Problem(source, told, "unpinned-source")]
    if pin != digest:
        told = (
            "its tools are not those that were pinned, and none may be called; look at them, then `midwatch tools pin`"
        )
        return [Problem(source, told, "tool-drift")]
    return []


def _unknown(source: str, rules: ToolRules, names: set[str]) -> list[Problem]:
    """Say which declarations are about no tool: a mistyped one would leave the tool at its worst, or a stranger's at better."""
    lost = sorted({*rules.effects, *rules.args} - names)
    return [
        Problem(source, f"declares `{name[:80]}`, which it does not bring; correct the name", "unknown-tool-name")
        for name in lost
    ]


def _tool(
    namespace: str, one: Described, call: Call, rules: ToolRules, *, ref: Ref | None, threaded: bool
) -> Tool[..., Any]:
    if _NAME.fullmatch(one.name) is None:
        raise SchemaRefused(
            "its name holds other than letters, digits, `_`, `-`, `.` and `/`, or is longer than 64 characters"
        )
    taken, given = input_schema(one.input), closed(one.output)
    names = {renamed(name): name for name in (one.input.get("properties") or {}) if renamed(name) != name}
    contract = _contract(f"{namespace}.{_plain(one.name)}", one, taken, given, rules)
    contract = contract if ref is None else replace(contract, runs="sandbox")

    def begun(arguments: dict[str, Any]) -> Any:
        context = arguments.pop(_CONTEXT)
        return call({names.get(name, name): value for name, value in arguments.items()}, context.idempotency_key)

    async def foreign(**arguments: Any) -> Any:
        return pruned(await begun(arguments), given)

    def blocking(**arguments: Any) -> Any:
        return pruned(begun(arguments), given)

    place = None if ref is None else ref(one.name, names)
    binding = Binding(_ARGUMENTS, _ANY, _CONTEXT)
    return Tool(contract, blocking if threaded else foreign, place, is_async=not threaded, binding=binding)


_CONTEXT: Final = "\0context"
"""No argument can be called so: the schema's names come out of JSON that a contract has accepted."""


def _contract(
    name: str, one: Described, taken: Mapping[str, Any], given: Mapping[str, Any], rules: ToolRules
) -> ToolContract:
    declared = rules.effects.get(one.name)
    effect: EffectClass = declared or one.default or WORST_EFFECT
    if one.said is not None and is_worse(one.said, effect):
        effect = one.said
    roles = rules.args.get(one.name, {})
    properties = taken["properties"]
    closed_world = any(fnmatchcase(one.name, glob) for glob in rules.closed_world) and one.open_world is not True
    open_world = effect != "pure" and not closed_world
    idempotent = any(fnmatchcase(one.name, glob) for glob in rules.idempotent) and one.idempotent is not False
    silent = {f"args.{arg}.role" for arg in properties if arg not in roles} | {"outs"}
    silent |= {"effect"} if declared is None and one.default is None else set()
    silent |= {"timeout"} if rules.timeout_us is None else set()
    return ToolContract(
        name=name,
        version="1",
        description=_sentence(one.description),
        input_schema=taken,
        output_schema=given,
        effect=effect,
        idempotent=idempotent,
        open_world=open_world,
        args=tuple(ArgContract(renamed(arg), role) for arg, role in roles.items()),
        outs=(OutContract(""),),
        observers=(EVERYONE,) if open_world else (),
        runs="broker",
        max_bytes=rules.max_bytes or DEFAULT_MAX_BYTES,
        timeout_us=rules.timeout_us or DEFAULT_TIMEOUT_US,
        undeclared=frozenset(silent),
    )


def _plain(name: str) -> str:
    """Make a name of the kernel's form out of `getUser`, `get-user` or `repos/get`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    made = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
    return made if made[:1].isalpha() else f"t_{made}"


def _sentence(text: str) -> str:
    """Keep what can be printed of a description, and not more than a model needs."""
    kept = "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text[: 2 * _MAX_DESCRIPTION])
    return kept.strip()[:_MAX_DESCRIPTION]
