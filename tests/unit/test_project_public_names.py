"""The public surface of `midwatch`: complete, sorted, importable, and cheap until it is used."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import midwatch

HEAVY = ("pydantic", "sqlalchemy", "langgraph", "langchain_core", "yaml")

HOMES = {
    "Arg": "midwatch.tools.contract",
    "BoundReached": "midwatch.errors",
    "Envelope": "midwatch.records.envelope",
    "Fleet": "midwatch.config.fleet",
    "Kernel": "midwatch.engine.kernel",
    "Kit": "midwatch.graph.govern",
    "MidwatchError": "midwatch.errors",
    "Out": "midwatch.tools.contract",
    "RunResult": "midwatch.records.run",
    "ToolFailure": "midwatch.errors",
    "budget": "midwatch.wiring",
    "open": "midwatch.wiring",
    "team": "midwatch.graph.team",
    "tool": "midwatch.tools.decorate",
}


@pytest.mark.req("PROJECT-1")
def test_the_list_is_sorted_and_complete() -> None:
    """`__all__` names every public name, in order, and `dir()` tells the same."""
    assert sorted([*HOMES, "__version__"]) == midwatch.__all__
    assert sorted(midwatch.__all__) == dir(midwatch)


@pytest.mark.req("PROJECT-1")
def test_type_checkers_see_the_same_names() -> None:
    """What is imported for type checkers is what is found at run time: same names, same modules."""
    tree = ast.parse(Path(midwatch.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == HOMES


@pytest.mark.req("PROJECT-1")
@pytest.mark.parametrize("name", sorted(HOMES))
def test_each_name_can_be_imported(name: str) -> None:
    """A public name is the object in its room, not a copy."""
    assert getattr(importlib.import_module(HOMES[name]), name) is getattr(midwatch, name)


@pytest.mark.req("PROJECT-1")
def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    """A misspelt name says which names there are."""
    with pytest.raises(AttributeError, match=r"`Flete`.*Fleet"):
        _ = midwatch.Flete  # type: ignore[attr-defined]


@pytest.mark.req("PROJECT-2")
@pytest.mark.parametrize(
    "program",
    [
        "import midwatch",
        "import midwatch.surfaces.cli",
        "sys.argv = ['midwatch', '--help']; import midwatch.surfaces.cli as c; c.main()",
        "sys.argv = ['midwatch', '--version']; import midwatch.surfaces.cli as c; c.main()",
    ],
    ids=["import", "import of the cli", "--help", "--version"],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(program: str) -> None:
    """An operator who asks for help at 2 AM does not wait for LangGraph."""
    code = (
        "import json, sys\n"
        f"try:\n    {program}\n"
        "except SystemExit as end:\n    assert end.code in (0, None), end.code\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    assert 0 == done.returncode, done.stderr
    assert [] == json.loads(done.stderr.splitlines()[-1])
