"""Requirements: each behaviour that Midwatch promises, by id. Tests name the id: `@pytest.mark.req("STORE-3")`.

In:   `REQUIREMENTS` of every file in `tests/requirements_d/`, one file a room.
Out:  `load()`, the merged table; `used()`, the ids that tests name, read from their source.
Why read from the source: the two directions must agree even when only a part of the suite is collected.
`tests/unit/test_project_requirements.py` compares them.
"""

import ast
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "Use", "load", "used"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Use:
    """One id named by one marker.

    Attributes:
        id: as written in the marker.
        where: `file:line` of the marker, for messages.
    """

    id: str
    where: str


def load(folder: Path = FOLDER / "requirements_d") -> dict[str, str]:
    """Merge the rooms' tables.

    Raises:
        ValueError: two files, or two lines of one file, claim the same id; or a file has no table. The author of the
            later one chooses another id.
    """
    merged: dict[str, str] = {}
    for path in sorted(folder.glob("*.py")):
        _refuse_repeated_keys(path)
        table = runpy.run_path(str(path)).get("REQUIREMENTS")
        if not isinstance(table, dict):
            raise ValueError(f"`{path.name}` has no `REQUIREMENTS` table")
        for name, sentence in table.items():
            if name in merged:
                raise ValueError(f"`{name}` in `{path.name}` is taken by another file; choose another number")
            merged[name] = sentence
    return merged


def used(folder: Path = FOLDER) -> list[Use]:
    """Find each id in a `pytest.mark.req(...)` below `folder`: decorators, `pytestmark`, and `marks=` alike."""
    return [use for path in sorted(folder.rglob("*.py")) for use in _uses_of(path)]


def _refuse_repeated_keys(path: Path) -> None:
    # A dict display silently keeps the last of two equal keys, so they are looked for before it is built.
    seen: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Dict):
            for key in node.keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    if key.value in seen:
                        raise ValueError(f"`{key.value}` stands twice in `{path.name}`; choose another number")
                    seen.add(key.value)


def _uses_of(path: Path) -> Iterator[Use]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"pytest.mark.req", "mark.req"}:
            where = f"{path.name}:{node.lineno}"
            for argument in node.args:
                value = argument.value if isinstance(argument, ast.Constant) else None
                yield Use(value if isinstance(value, str) else ast.unparse(argument), where)
