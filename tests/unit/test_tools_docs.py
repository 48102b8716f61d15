"""The pages about tools: their program works, and each builtin tool and declaration has its row."""

import inspect
import re
from pathlib import Path

import pytest

from midwatch.tools.decorate import tool
from midwatch.tools.lint import lint
from midwatch.tools.outcome import AUTHOR_CODES
from midwatch.tools.registry import BUILTIN_GROUPS, Registry

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.req("TOOLS-11")
def test_the_how_tos_program_is_a_tool(tmp_path: Path) -> None:
    """What the page shows loads, passes the lint, and answers."""
    page = (DOCS / "how-to" / "write-a-tool.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert program is not None
    (tmp_path / "tools.py").write_text(program[1], encoding="utf-8")
    made = Registry.load(["python:tools.py"], tmp_path).get("tools.service_state")
    assert ([], "down") == (lint(made.contract), made("db"))


@pytest.mark.req("TOOLS-3")
def test_the_reference_names_everything() -> None:
    """Each builtin tool with its effect and place, each keyword of `@tool`, each code of an author stands on the page."""
    page = (DOCS / "reference" / "tools.md").read_text(encoding="utf-8")
    registry = Registry.load([f"builtin.{group}" for group in BUILTIN_GROUPS], DOCS)
    for name in registry.names():
        contract = registry.get(name).contract
        assert f"| `{name}` | {contract.effect} | {contract.runs} |" in page
    documented = re.findall(r"^        (\w+): ", inspect.getdoc(tool) or "", re.MULTILINE)
    named = {"name", "effect", "idempotent", "reversible", "open_world", "runs", "observers", "timeout", "version"}
    assert [] == [key for key in named | set(documented) if f"`{key}`" not in page]
    assert [] == [code for code in sorted(AUTHOR_CODES) if f"`{code}`" not in page]
