"""Signature: what a Python function says about itself, read into schemas, with every fault at once.

In:   a function with type hints and a docstring in Google style.
Out:  `Signature`: input and output schema, argument and result contracts, the binding.
May import: `binding`, `contract`, `shape`, errors; pydantic. Must not know: how tools are named, loaded or called.
Why the function is the source: a schema written beside it would drift; hints are checked by the author's own type
checker as well.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.json_schema import PydanticJsonSchemaWarning
from pydantic_core import PydanticSerializationError
from typing_extensions import TypedDict, is_typeddict

from midwatch.errors import Problem
from midwatch.tools.binding import Binding, ToolContext
from midwatch.tools.contract import Arg, ArgContract, Out, OutContract
from midwatch.tools.shape import KERNEL_ARGUMENTS, close

__all__ = ["Signature", "read_signature"]

_SECTION = re.compile(r"^(args|arguments|returns?|raises|yields?|notes?|examples?|attributes):\s*$", re.IGNORECASE)
_ENTRY = re.compile(r"^(\*{0,2}\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
_MAX_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function says.

    Attributes:
        description: the docstring's text before its first section; one paragraph is enough.
        undeclared: `args.NAME.role` for each argument without a role; `outs` when no field has an author.
    """

    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    args: tuple[ArgContract, ...]
    outs: tuple[OutContract, ...]
    undeclared: frozenset[str]
    binding: Binding


def read_signature(fn: Callable[..., Any], where: str) -> Signature | tuple[Problem, ...]:
    """Read a function.

    Args:
        where: what problems are reported under.

    Returns:
        All of its problems when there is one.
    """
    problems: list[Problem] = []
    wrong = _Wrong(where, problems)
    parameters = inspect.signature(fn).parameters
    try:
        hints = get_type_hints(fn, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as unknown:
        wrong(
            f"a type hint cannot be resolved ({_line(unknown)}); import what it names at the top of the module",
            "bad-hint",
        )
        return tuple(problems)
    _check_kinds(parameters, hints, wrong)
    contexts = [name for name in parameters if hints.get(name) is ToolContext]
    if len(contexts) > 1:
        wrong("takes more than one `ToolContext`; keep one", "two-contexts")
    own = {name: parameter for name, parameter in parameters.items() if name in hints and name not in contexts}
    described = _docstring(fn)
    properties = {name: _property(name, hints[name], own[name], described[1], wrong) for name in own}
    output = None if "return" not in hints else _output(hints["return"], wrong)
    if problems or output is None:
        return tuple(problems)
    arguments, input_schema = _arguments(own, hints, properties, wrong)
    if problems or arguments is None:
        return tuple(problems)
    args, outs = tuple(_args(own, hints)), tuple(_outs(hints["return"]))
    undeclared = {f"args.{name}.role" for name in own if _marked(hints[name], Arg).role is None}
    undeclared |= set() if outs else {"outs"}
    binding = Binding(arguments, output[0], contexts[0] if contexts else None)
    return Signature(described[0], input_schema, output[1], args, outs, frozenset(undeclared), binding)


class _Wrong:
    def __init__(self, where: str, problems: list[Problem]) -> None:
        self._where, self._problems = where, problems

    def __call__(self, message: str, code: str) -> None:
        self._problems.append(Problem(self._where, message, code))


def _check_kinds(parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any], wrong: _Wrong) -> None:
    for name, parameter in parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            wrong(f"takes `*{name}`; name each argument, or take a list", "var-positional")
        elif parameter.kind is parameter.VAR_KEYWORD:
            wrong(f"takes `**{name}`; name each argument, or take a model", "var-keyword")
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            wrong(f"the parameter `{name}` is positional-only; take away the `/`", "positional-only")
        elif name not in hints:
            wrong(f"the parameter `{name}` has no type hint; write one", "missing-hint")
        elif name in KERNEL_ARGUMENTS:
            wrong(f"the parameter name `{name}` belongs to the kernel; choose another", "reserved-argument")
    if "return" not in hints:
        wrong("has no return type; write what it returns, `None` if nothing", "missing-return")


def _schema(hint: Any, what: str, mode: typing.Literal["validation", "serialization"], wrong: _Wrong) -> Any:
    """Compile one type; give its adapter and JSON schema, or None after telling why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PydanticJsonSchemaWarning)
            adapter: TypeAdapter[Any] = TypeAdapter(hint)
            return adapter, adapter.json_schema(mode=mode)
    except PydanticSchemaGenerationError:
        wrong(f"the type of {what} has no JSON schema; use plain types, models, dataclasses or enums", "no-schema")
    except (PydanticUserError, PydanticJsonSchemaWarning, NameError, TypeError, KeyError, RecursionError) as refused:
        wrong(
            f"the type of {what} has no JSON schema ({_line(refused)}); use plain types, models or enums", "no-schema"
        )
    return None


def _property(
    name: str, hint: Any, parameter: inspect.Parameter, texts: Mapping[str, str], wrong: _Wrong
) -> dict[str, Any]:
    """Check one parameter by itself, so that its fault is told under its name; give what its property adds."""
    added: dict[str, Any] = {"description": texts[name]} if name in texts else {}
    made = _schema(hint, f"the parameter `{name}`", "validation", wrong)
    if made is not None and parameter.default is not parameter.empty:
        try:
            added["default"] = made[0].dump_python(made[0].validate_python(parameter.default), mode="json")
        except (ValidationError, PydanticSerializationError, ValueError):
            wrong(f"the default of `{name}` does not fit its type; correct one of them", "bad-default")
    return added


def _output(hint: Any, wrong: _Wrong) -> tuple[TypeAdapter[Any], dict[str, Any]] | None:
    made = _schema(hint, "the result", "serialization", wrong)
    return None if made is None else (made[0], close(made[1]))


def _arguments(
    own: Mapping[str, inspect.Parameter], hints: Mapping[str, Any], added: Mapping[str, dict[str, Any]], wrong: _Wrong
) -> tuple[TypeAdapter[Any] | None, dict[str, Any]]:
    """Make one closed typed dictionary of all parameters: the function itself fills in its defaults."""
    keys = {
        name: hints[name] if own[name].default is inspect.Parameter.empty else NotRequired[hints[name]] for name in own
    }
    made_type = with_config(ConfigDict(extra="forbid"))(TypedDict("Arguments", keys))  # type: ignore[operator]  # made at run time
    made = _schema(made_type, "the arguments", "validation", wrong)
    if made is None:
        return None, {}
    schema = close(made[1])
    schema.setdefault("properties", {})
    for name, extra in added.items():
        # A model's own description says what the model is; the parameter's says what it is for here.
        schema["properties"][name] = schema["properties"][name] | extra
    return made[0], schema


def _args(own: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]) -> Iterator[ArgContract]:
    for name in own:
        top = _marked(hints[name], Arg)
        yield _arg(name, top)
        for path, marker in _inside(hints[name], Arg):
            yield _arg(f"{name}.{path}", marker)


def _arg(name: str, marker: Arg) -> ArgContract:
    interprets = True if marker.interprets is None else marker.interprets
    return ArgContract(name, marker.role or "command", marker.deref, interprets, marker.executed_by)


def _outs(hint: Any) -> Iterator[OutContract]:
    for path, marker in [("", _marker(hint, Out)), *_inside(hint, Out)]:
        if marker is not None:
            yield OutContract(path, marker.author or "third_party", marker.creates, marker.role)


def _marker(hint: Any, kind: type[Any]) -> Any:
    """Give the marker of a hint: `Annotated[X, Arg(...)]`, also inside `X | None` and `NotRequired`."""
    if get_origin(hint) is Annotated:
        found = [item for item in hint.__metadata__ if isinstance(item, kind)]
        return found[-1] if found else _marker(get_args(hint)[0], kind)
    if get_origin(hint) in {Union, types.UnionType, NotRequired, typing.Required}:
        return next((found for part in get_args(hint) if (found := _marker(part, kind)) is not None), None)
    return None


def _marked(hint: Any, kind: type[Any]) -> Any:
    return _marker(hint, kind) or kind()


def _inside(hint: Any, kind: type[Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Find the markers of fields inside models, dataclasses and typed dictionaries, also within lists and unions."""
    if depth > _MAX_DEPTH:
        return
    if not isinstance(hint, type) or get_origin(hint) is not None:
        for part in get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint):
            yield from _inside(part, kind, depth + 1)
        return
    for name, part in _fields(hint).items():
        marker = _marker(part, kind)
        if marker is not None:
            yield name, marker
        for path, found in _inside(part, kind, depth + 1):
            yield f"{name}.{path}", found


def _fields(hint: type[Any]) -> Mapping[str, Any]:
    if is_typeddict(hint) or dataclasses.is_dataclass(hint) or issubclass(hint, BaseModel):
        hints = get_type_hints(hint, include_extras=True)
        if issubclass(hint, BaseModel):
            aliases = {name: field.serialization_alias or field.alias for name, field in hint.model_fields.items()}
            return {aliases[name] or name: part for name, part in hints.items() if name in aliases}
        return hints
    return {}


def _docstring(fn: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Split a Google style docstring into its text and the descriptions of its arguments."""
    text: list[str] = []
    entries: dict[str, str] = {}
    section, current, indent = "", "", 0
    for line in (inspect.getdoc(fn) or "").splitlines():
        found = _SECTION.match(line)
        if found is not None:
            section, current = found.group(1).lower(), ""
        elif not section:
            text.append(line)
        elif section in {"args", "arguments"} and line.strip():
            depth = len(line) - len(line.lstrip())
            entry = _ENTRY.match(line.strip())
            if entry is not None and (not current or depth <= indent):
                current, indent = entry.group(1).lstrip("*"), depth
                entries[current] = entry.group(2)
            elif current:
                entries[current] = f"{entries[current]} {line.strip()}".strip()
    return "\n".join(text).strip(), {name: told for name, told in entries.items() if told}


def _line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0][:200]
