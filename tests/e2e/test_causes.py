"""What led to what, in real runs: from a line of a report to the request, across runs through a committed file, and stopped."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import midwatch
from midwatch import wiring
from midwatch.engine import quarantine
from midwatch.engine.governing import Governing
from midwatch.engine.identity import local
from midwatch.gates.review import Speaker
from midwatch.records.run import RunResult
from midwatch.surfaces.cli import main
from midwatch.tracing import causes
from tests.causal_truth import indexed, proved, truth

ROOT = Path(__file__).resolve().parents[2]
TRIAL = ROOT / "tests" / "fixtures" / "home_r2"
ANN, BOB = local("ann", "cli"), local("bob", "cli")


class Place:
    """One home and workspace; the fleet writes, reads or deletes `notes/a.md`, as the request says."""

    def __init__(self, folder: Path) -> None:
        self.fleet, self.home, self.work = folder / "fleet", folder / "home", folder / "work"
        self.work.mkdir()
        shutil.copytree(TRIAL, self.fleet)

    def commits(self, word: str) -> None:
        file = self.fleet / "fleet.yaml"
        file.write_text(
            file.read_text().replace("sandbox: bubblewrap", f"sandbox: {{backend: bubblewrap, commit: {word}}}")
        )

    def kernel(self) -> Any:
        return wiring.open(self.fleet, home=self.home, workdir=self.work, environ={})

    def run(self, what: str) -> RunResult:
        with self.kernel() as kernel:
            result: RunResult = kernel.run({"want": f"do-{what}"})
        return result

    def resume(self, run: str) -> RunResult:
        with self.kernel() as kernel:
            result: RunResult = kernel.resume(run)
        return result

    def ask(self, question: Callable[[Any], Any]) -> Any:
        with wiring.open_store(self.home) as store:
            return question(store)

    def call(self, run: str, tool: str) -> int:
        """Give the event with which a tool's call ended."""
        found = self.ask(lambda store: store.read(lambda tx: tx.ledger.read(run=run, kinds=("finished",))))
        seqs: list[int] = [event.seq for event in found if event.data.get("tool") == tool]
        return seqs[-1]

    def stop(self, event: int, speaker: Speaker = ANN) -> Any:
        return self.ask(
            lambda store: quarantine.quarantine(store, event, speaker=speaker, reason="poisoned", at_us=wiring.clock())
        )

    def let_go(self, event: int, speaker: Speaker) -> Any:
        return self.ask(
            lambda store: quarantine.lift(store, event, speaker=speaker, reason="it was not", at_us=wiring.clock())
        )

    def cli(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["--home", str(self.home), *words], env={"USER": "ann"}, catch_exceptions=False)

    def kinds(self, run: str) -> list[str]:
        found = self.ask(lambda store: store.read(lambda tx: tx.ledger.read(run=run)))
        return [event.kind for event in found]


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.req("CAUSES-2", "CAUSES-4", "CAUSES-6", "CAUSES-10")
def test_a_line_of_the_nightwatch_report_leads_to_the_request(tmp_path: Path) -> None:
    """From a fragment of the report, by name: every printed step is proved, the first is the request, no value is told."""
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    with midwatch.open(ROOT / "examples" / "nightwatch", home=home, workdir=work, environ={}) as kernel:
        result = kernel.run({"repo": "a-secret-word"})
        assert proved(truth(kernel.store)) == proved(indexed(kernel.store))
    line = next(item for item in result.output["answer"].splitlines() if "memory are available" in item)
    asked = ["--home", str(home), "why", result.run[:8], line.strip("- ").partition(" (`e:")[0]]
    shown = CliRunner().invoke(main, asked, catch_exceptions=False)
    first, *steps = shown.stdout.splitlines()
    assert (0, True) == (shown.exit_code, re.search(r"the request to fleet nightwatch  \[\d+, run", first) is not None)
    assert {"ceo.think", "editor.think"} <= {word for item in steps for word in item.split()}
    assert "a-secret-word" not in shown.stdout
    assert not re.search(r"\d+(\.\d+)? [KMGT]iB", shown.stdout)
    told = json.loads(CliRunner().invoke(main, [*asked, "--json"], catch_exceptions=False).stdout)
    assert {"plan", "handoff"} <= {step["kind"] for chain in told["chains"] for step in chain["steps"]}


@pytest.mark.req("CAUSES-2", "CAUSES-5", "CAUSES-10")
def test_a_committed_file_leads_from_one_run_to_the_next(place: Place) -> None:
    """The second run's end has two requests behind it; the first one's write tells of the second run, its agents and the file."""
    first = place.run("write").run
    assert 0 == place.cli("effects", "commit", "last", "--yes").exit_code
    second = place.run("read").run
    wrote = place.call(first, "files.write")
    found = place.ask(lambda store: causes.why(store, causes.of_run(store, second, first=False)))
    assert {first, second} == {chain.steps[0].run for chain in found.chains}
    assert ["the request to fleet trial"] * 2 == [chain.steps[0].what for chain in found.chains]
    told = place.ask(lambda store: causes.blast(store, wrote))
    assert ([first, second], ["notes/a.md"]) == (list(told.runs), [item.path for item in told.files])
    assert {(second, "worker"), (second, "writer")} <= set(told.agents)
    begun = place.ask(lambda store: store.read(lambda tx: tx.ledger.read(run=first, limit=1)))[0].seq
    shown = place.cli("blast", f"{first[:8]}+{wrote - begun + 1}").stdout
    assert f"committed    notes/a.md in {place.work}; whoever reads these is reached, too" in shown
    assert place.cli("blast", str(wrote)).stdout == shown
    assert proved(place.ask(truth)) == proved(place.ask(indexed))


@pytest.mark.req("CAUSES-7", "CAUSES-8")
def test_a_run_does_not_go_on_from_what_is_quarantined(place: Place) -> None:
    """It waits for a yes, gets it, and still calls neither tool nor model until somebody else has lifted the quarantine."""
    (place.work / "notes").mkdir()
    (place.work / "notes" / "a.md").write_text("here\n")
    waiting = place.run("delete")
    assert "waiting" == waiting.status
    assert 0 == place.cli("approve", waiting.gates[0], "--reason", "it may go").exit_code
    plan = place.ask(lambda store: store.read(lambda tx: tx.ledger.read(run=waiting.run, kinds=("plan",))))[0].seq
    stopped = place.stop(plan)
    before = place.kinds(waiting.run).count("intent")
    held = place.resume(waiting.run)
    assert ("waiting", "done") != (held.status, held.status)
    assert f"event {plan}, from which this follows, was quarantined by `local:ann`: poisoned" in str(held.error_message)
    assert before == place.kinds(waiting.run).count("intent")
    with pytest.raises(midwatch.MidwatchError, match="somebody else must lift it"):
        place.let_go(plan, ANN)
    assert stopped.marked > 5
    assert place.let_go(plan, BOB).marked >= stopped.marked
    assert "done" == place.resume(waiting.run).status


@pytest.mark.req("CAUSES-7")
def test_what_is_quarantined_is_not_committed_and_nobody_goes_on_from_reading_it(place: Place) -> None:
    """Staged: refused, nothing is written. Committed before: whoever reads it in another run stops at the next step."""
    first = place.run("write").run
    place.stop(place.call(first, "files.write"))
    refused = place.cli("effects", "commit", "last", "--yes")
    assert (4, False) == (refused.exit_code, (place.work / "notes").exists())
    only = place.cli("effects", "commit", "last", "--yes", "--only", "notes/*")
    assert (4, False) == (only.exit_code, (place.work / "notes").exists())
    place.let_go(place.call(first, "files.write"), BOB)
    assert 0 == place.cli("effects", "commit", "last", "--yes").exit_code
    place.stop(place.call(first, "files.write"))
    second = place.run("read")
    read = place.call(second.run, "files.read")
    assert read == place.ask(lambda store: store.read(lambda tx: max(tx.causes.quarantined(range(1, read + 1)))))
    assert ("done" == second.status, True) == (False, "was quarantined by `local:ann`" in str(second.error_message))
    assert "files.write" not in [
        event.data.get("tool")
        for event in place.ask(lambda store: store.read(lambda tx: tx.ledger.read(run=second.run, kinds=("intent",))))
    ]


@pytest.mark.req("CAUSES-7")
def test_a_quarantine_that_comes_after_the_check_still_stops_the_call(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 2 let it pass; the transaction in which it would begin does not, and nothing of it is left."""
    real = Governing.reserve

    def late(self: Governing, passage: Any) -> Any:
        store, run = self._seg.store, self._seg.run
        plan = store.read(lambda tx: tx.ledger.read(run=run, kinds=("plan",)))[0].seq
        quarantine.quarantine(store, plan, speaker=ANN, reason="late", at_us=wiring.clock())
        return real(self, passage)

    monkeypatch.setattr(Governing, "reserve", late)
    stopped = place.run("write")
    assert (True, False) == ("`local:ann`: late" in str(stopped.error_message), (place.work / "notes").exists())
    begun = place.ask(lambda store: store.read(lambda tx: tx.ledger.read(run=stopped.run, kinds=("intent",))))
    assert [] == [event.seq for event in begun if "tool" in event.data]
    monkeypatch.undo()
    plan = place.ask(lambda store: store.read(lambda tx: tx.ledger.read(run=stopped.run, kinds=("plan",))))[0].seq
    place.let_go(plan, BOB)
    assert "done" == place.resume(stopped.run).status


@pytest.mark.req("CAUSES-7")
def test_a_commit_that_nobody_orders_is_refused_too(place: Place) -> None:
    """`commit: done` brings nothing in that follows from what is quarantined."""
    place.commits("done")
    first = place.run("write").run
    assert "first\n" == (place.work / "notes" / "a.md").read_text()
    place.stop(place.call(first, "files.write"))
    second = place.run("read")
    assert ("first\n", False) == ((place.work / "notes" / "a.md").read_text(), second.status == "done")


@pytest.mark.req("CAUSES-8")
def test_a_quarantine_takes_an_operator_and_a_reason(place: Place) -> None:
    """A viewer may not; without a reason nobody; the same event twice is one order; what only follows is not lifted by itself."""
    run = place.run("write").run
    event = place.call(run, "files.write")
    assert 2 == place.cli("quarantine", str(event)).exit_code
    added = place.cli("principals", "add", "ada", "--role", "admin", "--json")
    token = json.loads(added.stdout)["token"]
    assert 4 == place.cli("quarantine", str(event), "--reason", "x").exit_code
    env = {"MIDWATCH_TOKEN": token}
    words = ["--home", str(place.home), "quarantine"]
    viewer = CliRunner().invoke(
        main, ["--home", str(place.home), "principals", "add", "vic", "--role", "viewer", "--json"], env=env
    )
    other = {"MIDWATCH_TOKEN": json.loads(viewer.stdout)["token"]}
    assert 4 == CliRunner().invoke(main, [*words, str(event), "--reason", "x"], env=other).exit_code
    done = CliRunner().invoke(main, [*words, str(event), "--reason", "poisoned", "--json"], env=env)
    again = CliRunner().invoke(main, [*words, str(event), "--reason", "poisoned", "--json"], env=env)
    assert (False, True) == (json.loads(done.stdout)["already"], json.loads(again.stdout)["already"])
    below = CliRunner().invoke(main, [*words, f"{run[:8]}", "--lift"], env=env)
    assert (6, True) == (below.exit_code, "is not quarantined itself" in below.stderr)
    assert 4 == CliRunner().invoke(main, [*words, str(event), "--lift"], env=env).exit_code
