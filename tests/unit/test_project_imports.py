"""The import contracts of pyproject.toml: kept here, and broken where a room breaks them."""

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUARDS = ("gates", "governor", "containment")
LOWER = ("tools", "models", "recovery", "sandbox", "tracing", "store", "config", "records")
ROOMS = ("surfaces", "adapters", "engine", "graph", "agents", *GUARDS, *LOWER)
MODULES = (
    "errors",
    "wiring",
    "checking",
    "isolating",
    "store.port",
    "store.sqlite",
    "store.memory",
    "store.postgres",
    "store.choice",
)


def _tree(folder: Path, imports: Mapping[str, str]) -> None:
    """Write an empty package of every room under `folder`; `imports` gives a module's source by its dotted name."""
    imports = {"wiring": "import langgraph", **imports}  # a contract wants each module it names to be there
    names = [*ROOMS, *MODULES, *imports]
    for name in ["", *names]:
        path = folder / "midwatch" / Path(*name.split(".") if name else [])
        is_package = name in {"", *ROOMS}
        file = path / "__init__.py" if is_package else path.with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(imports.get(name, ""), encoding="utf-8")


def _lint(folder: Path) -> tuple[int, str]:
    program = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--config", str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.req("PROJECT-4")
def test_the_rooms_of_this_checkout_keep_every_contract() -> None:
    """The direction of imports that the documents draw is the one that the code has."""
    code, output = _lint(ROOT / "src")
    assert 0 == code, output


@pytest.mark.req("PROJECT-4")
def test_allowed_imports_are_allowed(tmp_path: Path) -> None:
    """Left may import right, the wiring names adapters, graph and engine know LangGraph."""
    _tree(
        tmp_path,
        {
            "surfaces": "import midwatch.wiring",
            "wiring": "import langgraph, midwatch.store.sqlite, midwatch.engine",
            "engine": "import langgraph, midwatch.gates, midwatch.governor",
            "graph": "import langgraph, midwatch.agents",
            "agents": "import midwatch.tools.envelope",
            "tools.envelope": "import midwatch.store.port, midwatch.errors",
        },
    )
    code, output = _lint(tmp_path)
    assert 0 == code, output


@pytest.mark.req("PROJECT-4")
@pytest.mark.parametrize(
    ("module", "source", "contract"),
    [
        ("records", "import midwatch.config", "imports go one way"),
        ("gates", "import midwatch.governor", "imports go one way"),
        ("tools", "from midwatch import models", "imports go one way"),
        ("tracing.export", "def f():\n    import midwatch.engine", "imports go one way"),
        ("helpers", "", "imports go one way"),
        ("agents.step", "from midwatch.store import port", "agents do not import the store"),
        ("models.chat", "from langgraph.graph import StateGraph", "only graph and engine"),
        ("engine.runs", "from midwatch.store.sqlite import Store", "only the wiring names adapters"),
        ("tracing.queries", "import midwatch.store.memory", "only the wiring names adapters"),
        ("engine.runs", "from midwatch.store.postgres import Store", "only the wiring names adapters"),
        ("surfaces.cli", "from midwatch.store import choice", "only the wiring names adapters"),
    ],
    ids=[
        "upwards",
        "between guards",
        "between siblings",
        "hidden in a function",
        "a room that no layer names",
        "agents and the store",
        "LangGraph",
        "sqlite",
        "memory",
        "postgres",
        "the choice of one",
    ],
)
def test_each_forbidden_import_is_reported(module: str, source: str, contract: str, tmp_path: Path) -> None:
    """One line in one module is enough to break exactly the contract that is meant."""
    _tree(tmp_path, {module: source})
    code, output = _lint(tmp_path)
    broken = [line for line in output.splitlines() if line.endswith("BROKEN")]
    assert 1 == code, output
    assert 1 == len(broken), output
    assert broken[0].startswith(contract)


@pytest.mark.req("PROJECT-4")
def test_the_tree_of_these_tests_has_every_layer() -> None:
    """A layer that is added to the contract is added here too."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = " ".join(table["tool"]["importlinter"]["contracts"][0]["layers"])
    assert sorted([*ROOMS, "wiring", "governing_child", "checking", "isolating", "errors"]) == sorted(
        layers.replace("|", " ").replace("(", "").replace(")", "").split()
    )
