"""What a run did is taken back as far as tools say how; and what became of a cut effect is asked of the tool first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.errors import Denied, RunHeld
from midwatch.tracing import queries
from midwatch.tracing.facts import ToolItem
from tests.scenario.office import Office

SHOP = ("ops.place", {"service": "shop", "version": "v2"})
SHOP_3 = ("ops.place", {"service": "shop", "version": "v3"})
NOTE = ("ops.note", {"text": "began"})
NOBODY = "- {when: {tool: nothing.at_all}, ask: operator}"

RUNNER = """
import sys
from pathlib import Path
from midwatch import wiring
with wiring.open(sys.argv[1], home=sys.argv[2], workdir=Path(sys.argv[3]), environ={"USER": "ann"}) as kernel:
    kernel.run({"n": 1}) if len(sys.argv) < 5 else kernel.resume(sys.argv[4])
"""


def killed(office: Office, *extra: str) -> str:
    """Run in a process of its own that the tool kills; gives the run."""
    argv = [sys.executable, "-c", RUNNER, str(office.fleet), str(office.home), str(office.work), *extra]
    (office.work / "die").write_text("")
    made = subprocess.run(argv, env=os.environ, capture_output=True, timeout=60, check=False)
    (office.work / "die").unlink()
    assert -signal.SIGKILL == made.returncode, made.stderr
    with wiring.open_store(office.home) as store:
        run = store.read(lambda tx: tx.runs.list())[0].id
        epoch = store.write(lambda tx: tx.fences.take(run, owner="other", at_us=wiring.clock() + 10**9, ttl_us=1))
        store.write(lambda tx: tx.fences.release(run, epoch=epoch))
    return run


@pytest.mark.req("UNDO-1")
def test_undo_goes_backwards_and_says_what_stays(tmp_path: Path) -> None:
    """Two placings are taken back newest first with the values of then; the note cannot be; a second undo does nothing."""
    office = Office(tmp_path, [[SHOP], [NOTE], [SHOP_3]], gates=NOBODY)
    (office.work / "shop.version").write_text("v1")
    result = office.run()
    assert "done" == result.status
    with office.opened() as kernel:
        planned = kernel.plan_undo(result.run)
        assert ["planned", "cannot", "planned"] == [item.outcome for item in planned]
        assert "v3" == (office.work / "shop.version").read_text()
        told = kernel.undo(result.run)
    assert [
        ("ops.place", "undone", "ops.restore"),
        ("ops.note", "cannot", None),
        ("ops.place", "undone", "ops.restore"),
    ] == [(item.tool, item.outcome, item.by) for item in told]
    assert ("v1", ["restore shop v2", "restore shop v1"]) == (
        (office.work / "shop.version").read_text(),
        office.calls("restore"),
    )
    with office.opened() as kernel:
        assert ["already", "cannot", "already"] == [item.outcome for item in kernel.undo(result.run)]
        assert kernel.store.read(lambda tx: tx.ledger.verify()).ok
    assert 2 == len(office.calls("restore"))
    assert [True, True] == [event.data["ok"] for event in office.events(result.run, "effect.undone")]
    with office.opened() as kernel:
        tree = queries.trace(kernel.store, result.run)
        done = {row.id for row in kernel.store.read(lambda tx: tx.effects.list(result.run)) if row.task != "undo"}
    shown = {item.effect for part in tree.nodes for item in part.items if isinstance(item, ToolItem)}
    assert shown <= done


@pytest.mark.req("UNDO-1")
def test_undo_takes_an_operator_and_a_run_that_nobody_works_on(tmp_path: Path) -> None:
    """A viewer is refused, and so is everybody while a live process holds the run."""
    office = Office(tmp_path, [[SHOP]], gates=NOBODY)
    office.person("boss", "admin")
    eve = office.person("eve", "viewer")
    result = office.run(speaks="boss")
    with office.opened(token=office.tokens["boss"]) as kernel:
        with pytest.raises(Denied, match="operator"):
            kernel.undo(result.run, speaker=eve)
        now = wiring.clock()
        epoch = kernel.store.write(lambda tx: tx.fences.take(result.run, owner="x", at_us=now, ttl_us=10**8))
        with pytest.raises(RunHeld):
            kernel.undo(result.run)
        kernel.store.write(lambda tx: tx.fences.release(result.run, epoch=epoch))
    assert [] == office.calls("restore")


@pytest.mark.req("UNDO-1")
def test_undo_does_not_touch_what_another_version_of_the_tool_did(tmp_path: Path) -> None:
    """The contract is another one now, so what would take it back is unknown."""
    office = Office(tmp_path, [[SHOP]], gates=NOBODY)
    result = office.run()
    source = office.fleet / "ops.py"
    source.write_text(source.read_text().replace("Put a version of a service in place", "Replace a service"))
    with office.opened() as kernel:
        assert ["changed"] == [item.outcome for item in kernel.undo(result.run)]
    assert [] == office.calls("restore")


@pytest.mark.req("UNDO-2")
@pytest.mark.parametrize(("word", "status"), [("done", "done"), ("unknown", "waiting")])
def test_the_tools_own_reconciler_is_asked_first(tmp_path: Path, word: str, status: str) -> None:
    """A placing cut by a kill: `done` by the register is taken as its result, `unknown` waits for a person; nothing is repeated."""
    office = Office(tmp_path, [[SHOP]], gates=NOBODY)
    run = killed(office)
    (office.work / "register").write_text(word)
    result = office.run(run)
    assert (status, 1) == (result.status, len(office.calls("place")))
    if status == "done":
        resolved = office.events(run, "effect.resolved")
        assert [("done", "reconciler:ops.outcome")] == [(event.data["word"], event.data["by"]) for event in resolved]


@pytest.mark.req("UNDO-2")
def test_what_the_reconciler_says_was_not_done_is_done_once(tmp_path: Path) -> None:
    """The register has no such key: the placing is tried again, under the same key."""
    office = Office(tmp_path, [[SHOP]], gates=NOBODY)
    run = killed(office)
    (office.work / "register").write_text("not_done")
    assert ("done", 2) == (office.run(run).status, len(office.calls("place")))


@pytest.mark.req("UNDO-2")
def test_a_used_yes_does_not_cover_what_is_tried_again(tmp_path: Path) -> None:
    """Gated, cut, not done by the register: a person is asked again before it is repeated."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0])
    killed(office, waiting.run)
    (office.work / "register").write_text("not_done")
    again = office.run(waiting.run)
    assert ("waiting", waiting.gates, 1) == (again.status, again.gates, len(office.calls("place")))


@pytest.mark.req("GATES-1")
def test_words_ask_where_no_rule_does(tmp_path: Path) -> None:
    """A tool that only writes, and no rule: the version that is about production waits, the plain one does not."""
    office = Office(tmp_path, [[("ops.place", {"service": "pr\u200bod-eu", "version": "v2"})]], gates=NOBODY)
    waiting = office.run()
    assert ("waiting", "floor", []) == (
        waiting.status,
        office.gate(waiting.gates[0])[0].asks.needs[0].by,
        office.calls(),
    )
