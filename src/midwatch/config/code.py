"""Code: which Python files beside a fleet file are loaded with it, told by reading them, not by running them.

In:   the folder of the fleet file, the modules that it names. Out: paths.
May import: the standard library only. Must not know: what tools are in them.
Why not by importing: it is asked whether this code may be loaded at all. What an import inside a function or a condition names counts;
what is named only while the code runs (`importlib.import_module(text)`) is not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["closure"]


def closure(base: Path, roots: Iterable[str]) -> tuple[Path, ...]:
    """Give the files of these modules, and of all that they import from below `base`, sorted; missing ones are left out.

    Args:
        roots: `FILE.py` or `package.module`.
    """
    found: dict[Path, None] = {}
    waiting: list[Path] = []
    for root in roots:
        waiting += [base / root] if root.endswith(".py") else list(_module(base, root))
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found[path] = None
        for name in _imports(base, path):
            waiting += _module(base, name)
    return tuple(sorted(found))


def _module(base: Path, name: str) -> Iterator[Path]:
    """Give the file of a module below `base`, and those of the packages that it is in."""
    parts = [part for part in name.split(".") if part]
    for length in range(1, len(parts) + 1):
        place = base.joinpath(*parts[:length])
        yield place / "__init__.py"
        yield place.with_name(f"{place.name}.py")


def _imports(base: Path, path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # it will not load either
    try:
        package = list(path.parent.relative_to(base).parts)
    except ValueError:
        package = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*above, *([node.module] if node.module else [])])
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)
