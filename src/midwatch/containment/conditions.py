"""Conditions: CEL over `args`, the arguments of one call; compiled once, and a yes only when the value is true itself.

In:   the text of a condition; later, the arguments as the tool would be given them. Out: `Condition`, or `ConditionFault` with the reason.
May import: `cel_expr_python`. Must not know: tools' schemas (`condition_types`), whose condition it is.
Why so strict: the library gives an error as a *value*, and that value is truthy; it gives texts and lists, which are truthy, too. So the
type of what comes back is looked at, and everything but true is a no. An argument that the call leaves out is such an error:
`has(args.x)` asks for it.
Source: DESIGN.md, section 3; CONTAINMENT.md, clause 32.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel  # type: ignore[import-untyped]  # it ships stubs without a py.typed
from cel_expr_python.ext import ext_strings  # type: ignore[import-untyped]  # as above

__all__ = ["ARGS", "Condition", "ConditionFault", "compile_condition", "compile_with", "holds", "literal"]

ARGS: Final = "args"
LONGEST: Final = 4_000
_ANY: Final = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
_LOCK: Final = threading.Lock()
_PLACE: Final = re.compile(r"^.*?ERROR: <input>:\d+:\d+: ")


class ConditionFault(ValueError):
    """A condition that does not compile, or is nothing that can be true; its text is the reason, for the fleet's author."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition; asked by calling it."""

    source: str
    _compiled: Any = field(repr=False, compare=False)

    def __call__(self, arguments: Mapping[str, Any]) -> bool:
        """Say whether it is true of these arguments; whatever goes wrong, it is not."""
        try:
            with _LOCK:
                found = self._compiled.eval(data={ARGS: dict(arguments)})
                return found.type().name() == "BOOL" and found.plain_value() is True
        except (RuntimeError, TypeError, ValueError):  # what the library cannot take in, such as a tuple
            return False


@lru_cache(maxsize=4096)
def compile_condition(source: str) -> Condition:
    """Compile, with every argument taken for a value of any type.

    Raises:
        ConditionFault: it does not compile, or can be nothing that is true.
    """
    return Condition(source, compile_with(source, {}, open_=True))


def holds(source: str, arguments: Mapping[str, Any]) -> bool:
    """Say whether a condition is true; one that does not compile never is."""
    try:
        condition = compile_condition(source)
    except ConditionFault:
        return False
    return condition(arguments)


def compile_with(source: str, types: Mapping[str, Any], *, open_: bool = False) -> Any:
    """Compile against the types of dotted names below `args`.

    Args:
        open_: the type may stay open until it is evaluated, as that of `args.flag` does where no schema is known.

    Raises:
        ConditionFault: as `compile_condition`.
    """
    if len(source) > LONGEST:
        raise ConditionFault(f"it is longer than {LONGEST:,} characters; write several policies")
    variables = {ARGS: _ANY, **{f"{ARGS}.{name}": kind for name, kind in types.items()}}
    try:
        with _LOCK:
            made = (_environment(variables) if types else _plain()).compile(source)
            kind = made.return_type().name()
    except (RuntimeError, TypeError, ValueError) as failure:
        first = (str(failure).splitlines() or ["it does not compile"])[0]
        raise ConditionFault(_PLACE.sub("", first)) from failure
    if kind != "BOOL" and not (open_ and kind == "DYN"):
        raise ConditionFault(f"its type is {kind.lower()} and must be bool; compare it with something")
    return made


def _environment(variables: Mapping[str, Any]) -> Any:
    return cel.NewEnv(variables=dict(variables), extensions=[ext_strings.ExtStrings()])


@lru_cache(maxsize=1)
def _plain() -> Any:
    """Give the environment in which nothing is known of the arguments."""
    return _environment({ARGS: _ANY})


@lru_cache(maxsize=4096)
def literal(text: str) -> Any:
    """Give the value of a literal as it is written in a condition; None when it is none."""
    try:
        with _LOCK:
            found = _plain().compile(text).eval(data={ARGS: {}})
            return None if found.type().name() in {"ERROR", "UNKNOWN"} else found.plain_value()
    except (RuntimeError, TypeError, ValueError):
        return None
