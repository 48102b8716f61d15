"""Registry: the tools of one fleet, loaded once and never changed.

In:   specifications of a fleet file: `builtin.host`, `python:tools.py`, `python:package.module`; sources that it imports tools from.
Out:  `Registry`: tools by name, and what a model is offered of them.
May import: `decorate`, the builtin groups, `importing`, config, records, errors. Must not know: agents, grants, who may use what.
Why loading runs code: a tool is Python. What it raises meanwhile is one of the fleet's problems, told like the others.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

from midwatch.config.fleet import Fleet
from midwatch.errors import InvalidTool, NotFound, Problem
from midwatch.records.chat import ToolOffer
from midwatch.tools.beside import Source, importable
from midwatch.tools.decorate import FILE_MARK, Tool
from midwatch.tools.helpers import helper_problems
from midwatch.tools.importing.foreign import Brought
from midwatch.tools.importing.load import load as load_imported

__all__ = ["BUILTIN_GROUPS", "Registry", "load_file"]

BUILTIN_GROUPS: Final = ("blocks", "files", "gates", "git", "host", "reader", "shell")


@dataclass(frozen=True, slots=True)
class Registry:
    """Tools by name. `of` makes one of tools at hand, `load` one of specifications, `of_fleet` one of all that a fleet names.

    Attributes:
        sources: what came of every source of imported tools.
    """

    tools: Mapping[str, Tool[..., Any]]
    sources: tuple[Brought, ...] = ()

    @property
    def pending(self) -> frozenset[str]:
        """Tools that differ from their pin: they are known, and may not be called until a person has looked at them."""
        return frozenset(name for source in self.sources for name in source.pending)

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What the operator should know of imported tools: what was left out, what is pending or not pinned."""
        return tuple(note for source in self.sources for note in source.notes)

    def close(self) -> None:
        """End the connections and programs that imported tools hold. A later call connects anew."""
        for source in self.sources:
            if source.close is not None:
                source.close()

    @staticmethod
    def of(tools: Iterable[Tool[..., Any]]) -> Registry:
        """Collect tools.

        Raises:
            InvalidTool: two of them have one name.
        """
        kept, problems = _unique(("", item) for item in tools)
        problems += helper_problems({name: item.contract for name, item in kept.items()})
        if problems:
            raise InvalidTool(tuple(problems))
        return Registry(MappingProxyType(kept))

    @staticmethod
    def of_fleet(fleet: Fleet, environ: Mapping[str, str] | None = None) -> Registry:
        """Load all tools of a fleet: its own and those that it imports, whose sources are asked for them now.

        Args:
            environ: where a source's secrets are looked up; this process's own unless given.

        Raises:
            InvalidTool: everything that is wrong with all of them. MissingExtra: a library is not installed.
        """
        problems: list[Problem] = []
        own: Mapping[str, Tool[..., Any]] = {}
        try:
            own = Registry.load(list(fleet.tools), fleet.base).tools
        except InvalidTool as invalid:
            problems += invalid.problems
        brought, lost = load_imported(fleet, os.environ if environ is None else environ)
        problems += lost
        found = [("tools", item) for item in own.values()]
        found += [(source.source, item) for source in brought for item in source.tools]
        kept, doubles = _unique(found)
        if problems or doubles:
            raise InvalidTool((*problems, *doubles))
        return Registry(MappingProxyType(kept), tuple(brought))

    @staticmethod
    def load(specs: Sequence[str], base: Path) -> Registry:
        """Load what a fleet file names under `tools:`.

        Args:
            specs: `builtin.GROUP`, `python:FILE.py` (below `base`) or `python:MODULE`. What they import from beside the fleet
                file is importable, see `beside`: `base` is added at the end of this process's import path.
            base: absolute.

        Raises:
            InvalidTool: everything that is wrong with all of them; the fleet's author corrects it.
        """
        problems: list[Problem] = []
        found: list[tuple[str, Tool[..., Any]]] = []
        for spec in specs:
            try:
                found += [(spec, item) for item in _tools_in(_module(spec, base), spec)]
            except InvalidTool as invalid:
                problems += invalid.problems
        kept, doubles = _unique(found)
        if not problems:  # a source that did not load is no reason to miss its tools
            doubles += helper_problems({name: item.contract for name, item in kept.items()})
        if problems or doubles:
            raise InvalidTool((*problems, *doubles))
        return Registry(MappingProxyType(kept))

    def get(self, name: str) -> Tool[..., Any]:
        """Give a tool.

        Raises:
            NotFound: there is none of that name.
        """
        try:
            return self.tools[name]
        except KeyError:
            raise NotFound(f"no tool is named `{name[:100]}`; add its source to `tools:`") from None

    def names(self) -> tuple[str, ...]:
        """List all names, sorted."""
        return tuple(sorted(self.tools))

    def match(self, glob: str) -> tuple[str, ...]:
        """List the names that fit a pattern such as `git.*`, sorted."""
        return tuple(name for name in self.names() if fnmatchcase(name, glob))

    def offers(self, names: Iterable[str]) -> tuple[ToolOffer, ...]:
        """Give what a model is shown: the author's description, and the input schema with the kernel's arguments.

        Raises:
            NotFound: a name is unknown.
        """
        tools = [self.get(name) for name in names]
        return tuple(ToolOffer(item.contract.name, item.contract.description, item.offered_schema) for item in tools)


def _unique(
    found: Iterable[tuple[str, Tool[..., Any]]],
) -> tuple[dict[str, Tool[..., Any]], list[Problem]]:
    kept: dict[str, Tool[..., Any]] = {}
    problems = []
    for spec, item in found:
        name = item.contract.name
        if name in kept and kept[name] is not item:
            problems.append(Problem(spec, f"two tools are named `{name}`; give one another name", "duplicate-tool"))
        kept.setdefault(name, item)
    return kept, problems


def _tools_in(module: ModuleType, spec: str) -> Iterator[Tool[..., Any]]:
    found = {id(item): item for item in vars(module).values() if isinstance(item, Tool)}
    if not found:
        raise InvalidTool((Problem(spec, "has no tools; put `@tool` above its functions", "no-tools"),))
    yield from found.values()


def _module(spec: str, base: Path) -> ModuleType:
    group = spec.removeprefix("builtin.")
    if group != spec:
        if group not in BUILTIN_GROUPS:
            known = ", ".join(f"`builtin.{name}`" for name in BUILTIN_GROUPS)
            raise InvalidTool((Problem(spec, f"there is no such builtin group; choose one of {known}", "no-builtin"),))
        return importlib.import_module(f"midwatch.tools.builtin.{group}")
    rest = spec.removeprefix("python:")
    if rest == spec or not rest:
        message = "names no tools; write `builtin.NAME`, `python:FILE.py` or `python:MODULE`"
        raise InvalidTool((Problem(spec, message, "bad-tools"),))
    importable(base, [rest])
    if rest.endswith(".py"):
        return load_file(base / rest, spec)
    try:
        return importlib.import_module(rest)
    except (Exception, SystemExit) as raised:  # noqa: BLE001  the boundary to foreign code: it becomes a problem
        raise InvalidTool(_raised(raised, spec, rest)) from None


def load_file(path: Path, spec: str) -> ModuleType:
    """Run a file of tools as a module of its own.

    Raises:
        InvalidTool: it does not exist, or raises while it runs.
    """
    file = path.resolve()
    if not file.is_file():
        raise InvalidTool((Problem(spec, f"the file `{path.name}` does not exist; correct its name", "missing-file"),))
    name = f"midwatch_tools_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    module_spec = spec_from_file_location(name, file, loader=Source(name, str(file)) if file.suffix == ".py" else None)
    if module_spec is None or module_spec.loader is None:
        raise InvalidTool((Problem(spec, "is no Python file; name a file that ends in `.py`", "not-python"),))
    module = module_from_spec(module_spec)
    setattr(module, FILE_MARK, str(file))
    before = sys.modules.get(name)
    sys.modules[name] = module  # pydantic resolves the hints of the module's classes through here
    try:
        module_spec.loader.exec_module(module)
    except BaseException as raised:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        if isinstance(raised, Exception | SystemExit):
            raise InvalidTool(_raised(raised, spec, str(file))) from None
        raise
    return module


def _raised(raised: BaseException, spec: str, source: str) -> tuple[Problem, ...]:
    if isinstance(raised, InvalidTool):
        return raised.problems
    if isinstance(raised, ModuleNotFoundError) and raised.name is not None and source.startswith(raised.name):
        return (Problem(spec, f"there is no module `{raised.name}`; correct its name, or install it", "no-module"),)
    if isinstance(raised, SyntaxError):
        where, message = f"{Path(raised.filename or spec).name}:{raised.lineno}", raised.msg
        return (Problem(where, f"is no valid Python ({message}); correct it", "import-failed"),)
    lines = [frame for frame in traceback.extract_tb(raised.__traceback__) if "importlib" not in frame.filename]
    where = f"{Path(lines[-1].filename).name}:{lines[-1].lineno}" if lines else spec
    text = (str(raised).strip().splitlines() or ["no message"])[0][:200]
    return (Problem(where, f"raises while it is loaded: {type(raised).__name__}: {text}", "import-failed"),)
