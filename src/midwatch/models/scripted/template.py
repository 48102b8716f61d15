"""Templates: what a scenario answers with, as plain YAML in which `${ CEL }` stands for computed values.

In:   a YAML value, compiled once; at each request the values of the variables.
Out:  a JSON value; `ExpressionFault` when an expression in it has none.
May import: siblings `expressions`, `functions`. Must not know: rules, requests, HTTP.

The forms:

    "${ CEL }"                        the computed value itself, of whatever type
    "text ${ CEL } text"              a string with the value's text in it; `$${` is a literal `${`
    {for: LIST, as: x, do: T}         one T for each item; `where: CEL` keeps only some. In a list it is spliced in
    {if: CEL, then: T, else: T}       without `else`: nothing, so that a list loses the item and a map loses the key
    other maps and lists              themselves, with their values rendered

Why forms and not a template language: a scenario is checked when it is loaded, every expression compiled in the scope
it stands in, so that a typing error is found before the first request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from midwatch.models.scripted.expressions import ExpressionFault, Program, compile_expression, is_name
from midwatch.models.scripted.functions import Json, text

__all__ = ["OMIT", "Template", "compile_condition", "compile_template"]

Scope = Mapping[str, Json]
Report = Callable[[tuple[str | int, ...], str], None]
"""Called with the path inside the template and the problem found there."""


class _Omit:
    """The value of an `if` without `else` whose condition is false."""


OMIT: Final = _Omit()


@dataclass(frozen=True, slots=True)
class Constant:
    """A value without expressions."""

    value: Json

    def render(self, scope: Scope) -> Json:
        return self.value


@dataclass(frozen=True, slots=True)
class Computed:
    """`${ CEL }` alone: the value itself."""

    program: Program

    def render(self, scope: Scope) -> Json:
        return self.program.value(scope)


@dataclass(frozen=True, slots=True)
class Text:
    """Text with computed values in it."""

    parts: tuple[str | Program, ...]

    def render(self, scope: Scope) -> Json:
        return "".join(part if isinstance(part, str) else text(part.value(scope)) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Items:
    """A list; loops in it are spliced, omitted items left out."""

    items: tuple[Template, ...]

    def render(self, scope: Scope) -> Json:
        result: list[Json] = []
        for item in self.items:
            value = item.render(scope)
            if isinstance(item, Loop) and isinstance(value, list):
                result.extend(value)
            elif value is not OMIT:
                result.append(value)
        return result


@dataclass(frozen=True, slots=True)
class Entries:
    """A map, in the order of the file; omitted values leave their keys out."""

    entries: tuple[tuple[str, Template], ...]

    def render(self, scope: Scope) -> Json:
        rendered = ((key, template.render(scope)) for key, template in self.entries)
        return {key: value for key, value in rendered if value is not OMIT}


@dataclass(frozen=True, slots=True)
class Loop:
    """`{for, as, do, where}`: a list with one rendering of `do` for each item."""

    items: Program
    name: str
    where: Program | None
    do: Template

    def render(self, scope: Scope) -> Json:
        items = self.items.value(scope)
        if not isinstance(items, list):
            raise ExpressionFault(self.items.source, "`for` wants a list")
        result: list[Json] = []
        for item in items:
            inner = {**scope, self.name: item}
            if self.where is None or self.where.truth(inner):
                value = self.do.render(inner)
                if value is not OMIT:
                    result.append(value)
        return result


@dataclass(frozen=True, slots=True)
class Choice:
    """`{if, then, else}`."""

    condition: Program
    then: Template
    otherwise: Template

    def render(self, scope: Scope) -> Json:
        return (self.then if self.condition.truth(scope) else self.otherwise).render(scope)


Template = Constant | Computed | Text | Items | Entries | Loop | Choice


class _Compiler:
    """Compiles one template, reporting every problem and going on."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def template(self, value: object, names: frozenset[str], path: tuple[str | int, ...]) -> Template:
        if isinstance(value, str):
            return self.string(value, names, path)
        if isinstance(value, list):
            return Items(tuple(self.template(item, names, (*path, index)) for index, item in enumerate(value)))
        if isinstance(value, dict):
            if "for" in value:
                return self.loop(value, names, path)
            if "if" in value:
                return self.choice(value, names, path)
            return Entries(tuple((str(key), self.template(item, names, (*path, key))) for key, item in value.items()))
        return Constant(value)

    def string(self, value: str, names: frozenset[str], path: tuple[str | int, ...]) -> Template:
        try:
            parts = split(value)
        except ValueError as failure:
            self.report(path, str(failure))
            return Constant(value)
        compiled = tuple(part if literal else self.program(part, names, path) for literal, part in parts)
        if any(part is None for part in compiled):
            return Constant(value)
        kept = tuple(part for part in compiled if part is not None)
        if all(isinstance(part, str) for part in kept):
            return Constant("".join(part for part in kept if isinstance(part, str)))
        if len(kept) == 1 and isinstance(kept[0], Program):
            return Computed(kept[0])
        return Text(kept)

    def loop(self, value: Mapping[str, object], names: frozenset[str], path: tuple[str | int, ...]) -> Template:
        if not self.exactly(value, {"for", "as", "do"}, {"where"}, path):
            return Constant(None)
        name = value["as"]
        if not isinstance(name, str) or not is_name(name):
            self.report((*path, "as"), f"`{name}` cannot name a loop variable; choose a word that is not taken")
            return Constant(None)
        items = self.program(value["for"], names, (*path, "for"))
        inner = names | {name}
        where = self.condition(value["where"], inner, (*path, "where")) if "where" in value else None
        body = self.template(value["do"], inner, (*path, "do"))
        return Constant(None) if items is None else Loop(items, name, where, body)

    def choice(self, value: Mapping[str, object], names: frozenset[str], path: tuple[str | int, ...]) -> Template:
        if not self.exactly(value, {"if", "then"}, {"else"}, path):
            return Constant(None)
        condition = self.condition(value["if"], names, (*path, "if"))
        then = self.template(value["then"], names, (*path, "then"))
        otherwise = self.template(value["else"], names, (*path, "else")) if "else" in value else Constant(OMIT)
        return Constant(None) if condition is None else Choice(condition, then, otherwise)

    def exactly(
        self, value: Mapping[str, object], needed: set[str], allowed: set[str], path: tuple[str | int, ...]
    ) -> bool:
        first = "for" if "for" in needed else "if"
        missing, unknown = sorted(needed - value.keys()), sorted(value.keys() - needed - allowed)
        for key in missing:
            self.report(path, f"a map with `{first}` needs `{key}` too")
        for key in unknown:
            self.report((*path, key), f"`{key}` does not belong into a map with `{first}`; remove it")
        return not missing and not unknown

    def program(self, value: object, names: frozenset[str], path: tuple[str | int, ...]) -> Program | None:
        """An expression, written bare or inside one `${ }`."""
        if not isinstance(value, str):
            self.report(path, "an expression must be a string")
            return None
        source = value.strip()
        if source.startswith("${") and source.endswith("}"):
            source = source[2:-1].strip()
        try:
            return compile_expression(source, names)
        except ExpressionFault as failure:
            self.report(path, str(failure))
            return None

    def condition(self, value: object, names: frozenset[str], path: tuple[str | int, ...]) -> Program | None:
        program = self.program("true" if value is True else "false" if value is False else value, names, path)
        if program is not None and not program.may_be_bool:
            self.report(path, f"expression `{program.source}`: a condition must be true or false; compare something")
            return None
        return program


def compile_template(value: object, names: frozenset[str], report: Report) -> Template:
    """Compile a YAML value in which `names` may be used besides the request's own variables."""
    return _Compiler(report).template(value, names, ())


def compile_condition(value: object, names: frozenset[str], report: Report) -> Program | None:
    """Compile a condition; None when it was reported."""
    return _Compiler(report).condition(value, names, ())


def split(value: str) -> list[tuple[bool, str]]:
    """Cut a string at its `${ }`: (True, literal text) and (False, expression), in order.

    Raises:
        ValueError: a `${` is never closed; the compiler reports it.
    """
    parts: list[tuple[bool, str]] = []
    literal, position = "", 0
    while (start := value.find("${", position)) >= 0:
        if start > 0 and value[start - 1] == "$" and start - 1 >= position:
            literal, position = literal + value[position : start - 1] + "${", start + 2
            continue
        literal += value[position:start]
        end = _closing(value, start + 2)
        if literal:
            parts.append((True, literal))
        parts.append((False, value[start + 2 : end].strip()))
        literal, position = "", end + 1
    literal += value[position:]
    if literal or not parts:
        parts.append((True, literal))
    return parts


def _closing(value: str, position: int) -> int:
    """Index of the brace that closes an expression, past nested braces and quoted strings."""
    depth, quote = 0, ""
    while position < len(value):
        char = value[position]
        if quote:
            if char == "\\":
                position += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return position
            depth -= 1
        position += 1
    raise ValueError("`${` is not closed with `}`; write `$${` for a literal `${`")
