"""The examples under containment: they do what they are for, and nobody is asked for more than they ask by rule."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.engine import control

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ASKED = {"messages": [{"role": "user", "content": "how full are the disks?"}]}


def _copied(tmp_path: Path, name: str, mode: str) -> Path:
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    file = tmp_path / name / "fleet.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("containment:")]
    file.write_text("\n".join([*lines, f"containment: {mode}", ""]))
    return tmp_path / name


@pytest.mark.req("CONTAIN-12")
@pytest.mark.parametrize("mode", ["record", "enforce"])
def test_nightwatch_needs_nobody(tmp_path: Path, mode: str) -> None:
    """The report is written and committed without a person, and the commit says whose words are behind it."""
    fleet, work = _copied(tmp_path, "nightwatch", mode), tmp_path / "work"
    subprocess.run(["git", "init", "-q", str(work)], check=True, timeout=30)
    with wiring.open(fleet, home=tmp_path / "home", workdir=work, environ={"USER": "ann"}) as kernel:
        result = kernel.run({"repo": "."})
        events = kernel.store.read(lambda tx: tx.ledger.read(run=result.run, kinds=("effects.releasing",), limit=10))
        gates = kernel.store.read(lambda tx: tx.gates.list(run=result.run, limit=10))
    assert ("done", [], True) == (result.status, list(gates), (work / "reports" / "nightwatch.md").exists())
    assert "third_party:host.processes" in events[0].data["label"]["causes"]


@pytest.mark.req("CONTAIN-12")
@pytest.mark.parametrize("mode", ["record", "enforce"])
def test_a_graph_of_ones_own_asks_what_its_rule_asks_and_nothing_else(tmp_path: Path, mode: str) -> None:
    """One question, that of its own gate; after a yes the note is written and committed."""
    fleet, work = _copied(tmp_path, "own-graph", mode), tmp_path / "work"
    work.mkdir()
    with wiring.open(fleet, home=tmp_path / "home", workdir=work, environ={"USER": "ann"}) as kernel:
        waiting = kernel.run(ASKED)
        assert ("waiting", 1) == (waiting.status, len(waiting.gates))
        control.answer(kernel.store, waiting.gates[0], approve=True, by="ann", reason="", at_us=wiring.clock())
        result = kernel.resume(waiting.run)
        gates = kernel.store.read(lambda tx: tx.gates.list(run=result.run, limit=10))
    assert ("done", 1, True) == (result.status, len(gates), (work / "notes" / "disks.md").exists())
