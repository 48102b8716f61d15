"""The example of an agent that is a program: it checks clean, works with and without the SDK, and its file is staged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.engine.staging import staged_of

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "any-agent"


@pytest.mark.req("COMMAND-15")
def test_it_has_no_problem() -> None:
    """Nothing to correct, nothing to warn of."""
    fleet, _ = wiring.load_fleet(EXAMPLE, environ={})
    errors, warnings, _ = wiring.check_fleet(fleet, {})
    assert ([], []) == (list(errors), list(warnings))


@pytest.mark.req("COMMAND-1")
@pytest.mark.req("COMMAND-3")
@pytest.mark.parametrize("library", ["openai", "nothing"])
def test_its_index_is_staged_and_shown_by_its_own_run(tmp_path: Path, library: str) -> None:
    """The program's own write is a layer of the run, and what the planner asked for is met by it."""
    fleet, work = tmp_path / "fleet", tmp_path / "work"
    shutil.copytree(EXAMPLE, fleet)
    program = fleet / "agent.py"
    program.write_text(program.read_text().replace("import openai", f"import {library}"))
    work.mkdir()
    (work / "one.txt").write_text("1")
    with wiring.open(fleet, home=tmp_path / "home", workdir=work, environ={"USER": "ann"}) as kernel:
        result = kernel.run({"ask": "index this folder"})
        staged = kernel.store.read(lambda tx: staged_of(tx, result.run, tmp_path / "home" / "layers" / result.run))
        notes = [
            event.data["status"]
            for event in kernel.store.read(lambda tx: tx.ledger.read(run=result.run, kinds=("handoff",)))
        ]
    created = [change.path for item in staged for change in item.layer.changes if change.op == "created"]
    assert ("done", ["complete", "complete"], ["INDEX.md"]) == (result.status, notes, created)
    assert not (work / "INDEX.md").exists()
