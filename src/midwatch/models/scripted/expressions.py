"""Expressions: CEL, compiled once when the scenario is loaded and asked for a plain JSON value at each request.

In:   the source of an expression with the names it may use; later the values of those names.
Out:  a `Program`, whose `value()` is plain JSON; `ExpressionFault` with the reason when there is none.
May import: `errors`, sibling `functions`, `cel_expr_python`. Must not know: scenarios, HTTP.
Why a room of its own: the library returns an evaluation error as a *truthy value*, knows no order of map keys and
refuses
whole numbers beyond 64 bits anywhere in its input. Here each of these is met once: the type of every result is
looked at,
keys are sorted, numbers that do not fit become doubles.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cel_expr_python import cel  # type: ignore[import-untyped]  # it ships stubs without a py.typed
from cel_expr_python.ext import (  # type: ignore[import-untyped]  # as above
    ext_bindings,
    ext_math,
    ext_optional,
    ext_strings,
)

from midwatch.models.scripted.functions import Json, extension

__all__ = ["VARIABLES", "ExpressionFault", "Program", "compile_expression", "is_name", "plain"]

VARIABLES: Final[dict[str, cel.Type]] = {
    "agent": cel.Type.STRING,
    "model": cel.Type.STRING,
    "turn": cel.Type.INT,
    "schema": cel.Type.STRING,
    "system": cel.Type.STRING,
    "user": cel.Type.STRING,
    "messages": cel.Type.List(cel.Type.DYN),
    "results": cel.Type.List(cel.Type.DYN),
    "tools": cel.Type.List(cel.Type.DYN),
}
"""What every expression of a scenario may name."""

RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    ]
)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INT64: Final = 2**63
_LOCK: Final = threading.Lock()


class ExpressionFault(ValueError):
    """An expression that does not compile or has no value: a problem for the loader, an HTTP 500 for the server."""

    def __init__(self, source: str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"expression `{source}`: {reason}")


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression. `names` are the variables it may mention; only those are handed to the evaluator."""

    source: str
    names: frozenset[str]
    _compiled: cel.Expression = field(repr=False, compare=False)

    @property
    def may_be_bool(self) -> bool:
        """Whether its static type is bool, or open until it is evaluated."""
        return self._compiled.return_type().name() in ("BOOL", "DYN")

    def value(self, variables: Mapping[str, Json]) -> Json:
        """Its value as plain JSON.

        Raises:
            ExpressionFault: the evaluation failed, or the value is not JSON (bytes, a duration, an infinite number).
        """
        data = {name: variables[name] for name in self.names if name in variables}
        with _LOCK:  # one evaluation at a time: functions call back into Python, where another thread could step in
            try:
                result = self._compiled.eval(data=data)
                kind, raw = result.type().name(), result.plain_value()
            except (RuntimeError, TypeError, ValueError) as failure:
                raise ExpressionFault(self.source, f"no JSON value ({_first_line(failure)})") from failure
        if kind in ("ERROR", "UNKNOWN"):
            raise ExpressionFault(self.source, _first_line(raw))
        return _from_cel(raw, self.source)

    def truth(self, variables: Mapping[str, Json]) -> bool:
        """Its value, which must be a bool: nothing else counts as yes or no.

        Raises:
            ExpressionFault: it failed, or its value is not a bool.
        """
        value = self.value(variables)
        if not isinstance(value, bool):
            raise ExpressionFault(self.source, "a condition must be true or false; compare it with something")
        return value


def compile_expression(source: str, extra: frozenset[str] = frozenset()) -> Program:
    """Compile `source`, in which `VARIABLES` and the names in `extra` may be used.

    Raises:
        ExpressionFault: it does not compile; the loader collects these.
    """
    try:
        compiled = _environment(extra).compile(source)
    except (RuntimeError, TypeError, ValueError) as failure:
        raise ExpressionFault(source, _compile_reason(str(failure))) from failure
    mentioned = frozenset(_WORD.findall(source))
    return Program(source, mentioned & (frozenset(VARIABLES) | extra), compiled)


def is_name(word: str) -> bool:
    """Whether `word` can name a loop variable or a `let`: an identifier that is not taken already."""
    return _WORD.fullmatch(word) is not None and word not in RESERVED and word not in VARIABLES


def plain(value: Json) -> Json:
    """A JSON value that CEL takes: whole numbers beyond 64 bits, which would fail any expression, become doubles."""
    if isinstance(value, bool) or value is None or isinstance(value, str | float):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else float(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    raise ValueError(f"`{type(value).__name__}` is not a JSON value")


_ENVIRONMENTS: Final[dict[frozenset[str], cel.Env]] = {}


def _environment(extra: frozenset[str]) -> cel.Env:
    """One CEL environment for each set of names; a pure function, so that its cache holds no state."""
    with _LOCK:
        if extra not in _ENVIRONMENTS:
            _ENVIRONMENTS[extra] = cel.NewEnv(
                variables={**VARIABLES, **dict.fromkeys(extra, cel.Type.DYN)},
                extensions=[
                    ext_strings.ExtStrings(),
                    ext_math.ExtMath(),
                    ext_optional.ExtOptional(),
                    ext_bindings.ExtBindings(),
                    extension(_guarded),
                ],
            )
        return _ENVIRONMENTS[extra]


def _guarded(function: Callable[..., Json]) -> Callable[..., Json]:
    """`function` as CEL may call it: only `ValueError` leaves it, and what it returns fits into 64 bits."""

    def call(*arguments: Json) -> Json:
        try:
            return plain(function(*arguments))
        except (ArithmeticError, LookupError, RecursionError, TypeError, re.error) as failure:
            raise ValueError(f"{type(failure).__name__}: {failure}") from failure

    return call


def _from_cel(value: Json, source: str) -> Json:
    """A CEL result as JSON. Keys are sorted: CEL gives maps in an order that differs from run to run."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ExpressionFault(source, "the number is infinite or not a number")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_from_cel(item, source) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ExpressionFault(source, "the keys of a map must be strings")
        return {key: _from_cel(value[key], source) for key in sorted(value)}
    raise ExpressionFault(source, f"its value is of type `{type(value).__name__}`, which is not JSON; use string(...)")


def _first_line(reason: object) -> str:
    lines = str(reason).splitlines()
    return re.sub(r"^[A-Z_]+: ", "", lines[0]) if lines else "unknown reason"


def _compile_reason(message: str) -> str:
    """The library's message without its position inside the expression and its drawing."""
    return re.sub(r"^.*?ERROR: <input>:\d+:\d+: ", "", message.splitlines()[0]) if message else "does not compile"
