"""Source: a YAML text as plain values that remember their lines.

In:   the text of a scenario file and the name to show for it.
Out:  a `Source`: the value, and the line of everything in it by its path.
May import: `errors`, PyYAML. Must not know: what a scenario contains.
Why not `yaml.safe_load`: it forgets lines, lets the last of two equal keys win, reads `no` as false and `12:30` as
a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import yaml

from midwatch.errors import InvalidScenario, Problem

__all__ = ["Path", "Source", "read_yaml"]

Path = tuple[str | int, ...]
"""Where something stands: `("rules", 2, "say")`."""

_DEEPEST: Final = 60


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file. `lines` holds the line (from 1) of each path; `name` is what problems are reported under."""

    name: str
    value: object
    lines: Mapping[Path, int]

    def where(self, path: Path) -> str:
        """`file.yaml:12` for the nearest enclosing thing whose line is known."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"


class _Loader(yaml.SafeLoader):
    """YAML with the booleans and numbers of JSON only; everything else is a string."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9][0-9_]*)$"), list("-0123456789"))


def read_yaml(text: str, name: str) -> Source:
    """Parse one YAML document.

    Raises:
        InvalidScenario: not YAML, more than one document, a key twice, a key that is no string, or nested too deeply.
            The caller shows it to the user.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            reader = _Reader(name, loader)
            value = reader.read(node, ()) if node is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        reason = getattr(failure, "problem", None) or str(failure).splitlines()[0]
        raise InvalidScenario((Problem(where, f"not YAML: {reason}", "yaml"),)) from failure
    if reader.problems:
        raise InvalidScenario(tuple(reader.problems))
    return Source(name, value, reader.lines)


class _Reader:
    """Turns nodes into values, noting lines and collecting what is wrong."""

    def __init__(self, name: str, loader: _Loader) -> None:
        self.name, self.loader = name, loader
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []

    def read(self, node: yaml.Node, path: Path) -> object:
        self.lines[path] = node.start_mark.line + 1
        if len(path) > _DEEPEST:
            self._problem(node, f"nested deeper than {_DEEPEST} levels; an alias may contain itself", "depth")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._problem(key_node, "a key must be a plain word", "key")
                continue
            if key in result:
                self._problem(key_node, f"`{key}` stands here twice; remove one of them", "duplicate-key")
            result[key] = self.read(value_node, (*path, key))
            self.lines[(*path, key)] = key_node.start_mark.line + 1
        return result

    def _scalar(self, node: yaml.Node) -> object:
        if node.tag not in {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str")}:
            self._problem(node, f"the tag `{node.tag}` is not used here; write a plain value", "tag")
            return None
        value: object = self.loader.construct_object(node, deep=True)
        return value

    def _problem(self, node: yaml.Node, message: str, code: str) -> None:
        self.problems.append(Problem(f"{self.name}:{node.start_mark.line + 1}", message, code))
