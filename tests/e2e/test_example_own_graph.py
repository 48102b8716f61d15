"""The example of a graph of one's own: it checks clean, asks before it writes, and writes once."""

from __future__ import annotations

from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.engine import control

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own-graph"
REQUEST = {"messages": [{"role": "user", "content": "how full are the disks?"}]}


@pytest.mark.req("GOVERN-12")
def test_it_has_no_problem_and_no_unguarded_part() -> None:
    """Nothing to correct, nothing to warn of."""
    fleet, _ = wiring.load_fleet(EXAMPLE, environ={})
    errors, warnings, _ = wiring.check_fleet(fleet, {})
    assert ([], []) == (list(errors), list(warnings))


@pytest.mark.req("GOVERN-1")
@pytest.mark.parametrize(("approve", "said"), [(True, "noted in notes/disks.md"), (False, "was not written")])
def test_it_writes_the_note_after_a_yes_alone(tmp_path: Path, approve: bool, said: str) -> None:
    """A no is told to the model, which says so."""
    work = tmp_path / "work"
    work.mkdir()
    with wiring.open(EXAMPLE, home=tmp_path / "home", workdir=work, environ={"USER": "ann"}) as kernel:
        waiting = kernel.run(REQUEST)
        assert ("waiting", 1, False) == (waiting.status, len(waiting.gates), (work / "notes").exists())
        control.answer(kernel.store, waiting.gates[0], approve=approve, by="ann", reason="", at_us=wiring.clock())
        result = kernel.resume(waiting.run)
    assert ("done", approve) == (result.status, (work / "notes" / "disks.md").exists())
    assert said in result.output["messages"][-1]["content"]
