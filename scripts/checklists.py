"""Checklists: `docs/reference/checklists.md` from `tests/checklists.yaml`, one row a point.

In:   the data file. Out: the page; with `--check`, exit code 1 where the page is another one.
Why a page that is made: a table that is written by hand names tests that are gone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

__all__ = ["DATA", "PAGE", "main", "page", "read"]

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "checklists.yaml"
PAGE = ROOT / "docs" / "reference" / "checklists.md"

HEAD = """\
# Checklists

What public lists ask of a system that lets agents act, and what tries it here. A point names tests, which fail if it does not hold; where
something of it is not covered, the last column says so, and why. Made by `scripts/checklists.py` from `tests/checklists.yaml`.

    .venv/bin/pytest tests/attack        # most of them
"""


def read(path: Path = DATA) -> list[dict[str, Any]]:
    """Read the lists."""
    lists: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["lists"]
    return lists


def page(lists: list[dict[str, Any]]) -> str:
    """Write the page."""
    parts = [HEAD]
    for item in lists:
        parts.append(
            f"\n## {item['name']}\n\n{item['about']}\n\n| Point | Says | Tried by | Not covered |\n|---|---|---|---|\n"
        )
        for point in item["points"]:
            tried = "<br>".join(f"`{name}`" for name in point.get("tests", ()))
            parts.append(f"| {point['id']} | {point['says']} | {tried} | {point.get('limit', '')} |\n")
    return "".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page, or check it."""
    made = page(read())
    if "--check" in arguments:
        return 0 if PAGE.read_text(encoding="utf-8") == made else 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
