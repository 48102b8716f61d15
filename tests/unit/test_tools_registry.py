"""The registry: groups, files and modules of tools, and everything that is wrong with all of them."""

from pathlib import Path

import pytest

from midwatch.errors import InvalidTool, NotFound
from midwatch.tools.registry import Registry

ONE = '''
from midwatch.tools.decorate import tool
from helper_of_registry_test import WORD

@tool(effect="pure")
def hello() -> str:
    """Say a word."""
    return WORD
'''


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A fleet's folder with a file of tools and what it imports."""
    (tmp_path / "greetings.py").write_text(ONE, encoding="utf-8")
    (tmp_path / "helper_of_registry_test.py").write_text('WORD = "hi"', encoding="utf-8")
    return tmp_path


@pytest.mark.req("TOOLS-11")
def test_a_file_and_a_group_are_loaded(base: Path) -> None:
    """Tools come by name; a pattern finds them; a worker can import them by reference; offers show kernel arguments."""
    registry = Registry.load(["builtin.git", "python:greetings.py"], base)
    assert ("git.churn", "git.log", "greetings.hello") == registry.names()
    assert ("git.churn", "git.log") == registry.match("git.*")
    assert f"{base.resolve()}/greetings.py:hello" == registry.get("greetings.hello").ref
    offer = registry.offers(["git.log"])[0]
    assert {"repo", "since_hours", "fields", "cursor"} == set(offer.input_schema["properties"])
    with pytest.raises(NotFound):
        registry.get("git.push")


@pytest.mark.req("TOOLS-11")
def test_everything_wrong_is_told_at_once(base: Path) -> None:
    """Missing modules, files without tools, code that raises or exits, bad groups and names twice: one report."""
    files = {
        "empty.py": "x = 1",
        "raises.py": "raise ValueError('the reason')",
        "leaves.py": "import sys; sys.exit(2)",
        "broken.py": "def (",
        "twice.py": ONE.replace('@tool(effect="pure")', '@tool(effect="pure", name="greetings.hello")'),
    }
    for name, text in files.items():
        (base / name).write_text(text, encoding="utf-8")
    specs = [f"python:{name}" for name in ["greetings.py", *files, "gone.py"]]
    with pytest.raises(InvalidTool) as caught:
        Registry.load([*specs, "python:no.such.module", "builtin.nope", "tools.py"], base)
    codes = [problem.code for problem in caught.value.problems]
    expected = ["no-tools", "import-failed", "import-failed", "import-failed", "missing-file", "no-module", "no-builtin",
                "bad-tools", "duplicate-tool"]  # fmt: skip
    assert expected == codes
    told = str(caught.value)
    assert "raises.py:1: raises while it is loaded: ValueError: the reason" in told
    assert "Traceback" not in told
