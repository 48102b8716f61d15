"""Each point of a checklist names tests that exist and run, or says why there is none; the page says the same."""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("checklists", ROOT / "scripts" / "checklists.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()
LISTS: list[dict[str, Any]] = SCRIPT.read()
POINTS: list[dict[str, Any]] = [point for item in LISTS for point in item["points"]]


@lru_cache
def _tests(path: Path) -> dict[str, ast.FunctionDef]:
    """Give what pytest collects of a file: functions at its top whose names begin with `test`, in files named so."""
    if not path.name.startswith("test_") or not path.is_file():
        return {}
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {item.name: item for item in body if isinstance(item, ast.FunctionDef) and item.name.startswith("test")}


@pytest.mark.req("CHECKLIST-1")
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point["id"])
def test_each_point_names_tests_that_are_there_and_run(point: dict[str, Any]) -> None:
    """No name is dead, and none of the tests is left out on purpose; a point without tests says why."""
    assert set(point) <= {"id", "says", "tests", "limit"}
    assert point.get("tests") or point.get("limit")
    for name in point.get("tests", ()):
        path, _, function = name.partition("::")
        found = _tests(ROOT / path).get(function)
        assert found is not None, f"{point['id']}: {name} is not there"
        assert not any("skip" in ast.unparse(item) for item in found.decorator_list), name


@pytest.mark.req("CHECKLIST-1")
def test_the_lists_are_whole() -> None:
    """OWASP's ten and the guidance's 25, each once and in order."""
    ids = [point["id"] for point in POINTS]
    assert [f"ASI{n:02}" for n in range(1, 11)] == [name for name in ids if name.startswith("ASI")]
    assert [f"FE-{n}" for n in range(1, 26)] == [name for name in ids if name.startswith("FE-")]
    assert len(ids) == len(set(ids))


@pytest.mark.req("CHECKLIST-1")
def test_the_page_is_made_from_the_data() -> None:
    """What readers see is what is tested; a name that is misspelt in one of them is noticed."""
    assert SCRIPT.page(LISTS) == (ROOT / "docs" / "reference" / "checklists.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[^`:]+::[^`]+)`", SCRIPT.page(LISTS)))
    assert {name for point in POINTS for name in point.get("tests", ())} == named
