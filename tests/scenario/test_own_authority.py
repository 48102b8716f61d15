"""An agent in a real sandbox writes its own fleet file, and the commit brings it into the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.engine import endorsing
from midwatch.records.run import RunResult
from tests.scenario.studio import Studio


def carried(studio: Studio) -> tuple[RunResult, str]:
    """Run in the folder of the fleet file itself, commit what was staged, and give what the kernel said first."""
    with wiring.open(studio.fleet, home=studio.home, workdir=studio.fleet, environ={"USER": "ann"}) as kernel:
        result = kernel.run("tidy up")
        if result.status == "done":
            kernel.commit(result.run, reason="looks fine")
        return result, kernel.start_info


@pytest.mark.req("OWN-1")
def test_attack_an_agent_commits_a_wider_fleet_file(tmp_path: Path) -> None:
    """Committed by a person's own order, the file still counts for nothing until somebody endorses what it grants."""
    first = Studio(tmp_path / "s", [])
    text = (first.fleet / "fleet.yaml").read_text("utf-8").replace(str(tmp_path / "s"), str(tmp_path / "t"))
    wider = text.replace("tokens: 200k", "tokens: 900k")
    assert wider != text
    studio = Studio(tmp_path / "t", [[("put", {"path": "fleet.yaml", "text": wider})]])
    result, said = carried(studio)
    assert ("done", False) == (result.status, "without" in said)
    assert wider == (studio.fleet / "fleet.yaml").read_text("utf-8")
    again, said = carried(studio)
    assert "without budgets/budgets" in said
    with wiring.open_store(studio.home) as store:
        (row,) = endorsing.pending(store).versions
        digests = {store.read(lambda tx, run=run: tx.runs.get(run)).fleet_digest for run in (result.run, again.run)}  # type: ignore[misc]
        shown = endorsing.diff(store, row.id)[1]
    assert ("budgets", "budgets", "local:ann") == (row.kind, row.name, row.asked_by)
    assert 1 == len(digests)
    assert "900k" in shown
