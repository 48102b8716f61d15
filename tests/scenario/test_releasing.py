"""How what a run did leaves its sandboxes: requests that were held back, other processes and workspaces, lost layers, undo, the fence."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.engine import control
from midwatch.errors import Conflict, RunHeld, SandboxError
from midwatch.records.event import EventDraft
from midwatch.records.run import RunResult
from tests.scenario.studio import Call, Host, Studio, write

STAGED = ', stage: true, headers: {X-Key: "Bearer ${secret:KEY}"}'
KEY = {"KEY": "kb7-0123456789-abcdefgh"}
DROP = "[{when: {effect: [destructive]}, ask: operator}]"
RESUME = """
import sys
from pathlib import Path
from midwatch import wiring
with wiring.open(sys.argv[1], home=sys.argv[2], workdir=Path(sys.argv[3]), environ={}) as kernel:
    print(kernel.resume(sys.argv[4]).status)
"""


def _posting(root: Path, host: Host, more: str = "") -> tuple[Studio, RunResult]:
    """Run one that posts twice, and writes a file."""
    calls: list[list[Call]] = [
        [("post", {"path": "/one", "body": "1"})],
        [("post", {"path": "/two", "body": "2"})],
        write("a.txt"),
    ]
    studio = Studio(root / "s", calls, sandbox=f"{host.rule(STAGED)}, secrets: [KEY]{more}")
    (studio.meeting / "host").write_text(f"http://localhost:{host.port}")
    return studio, studio.carry(environ=KEY)


@pytest.mark.req("RELEASE-4")
def test_requests_that_were_held_back_are_sent_at_the_commit_once(tmp_path: Path) -> None:
    """Not before, not with some of the paths, in their order, with the secret that the sandbox never had; and not again."""
    with Host() as host:
        studio, result = _posting(tmp_path, host)
        assert ("done", []) == (result.status, host.seen)
        assert {"202"} == {item["status"] for item in studio.results(result.run) if "status" in item}
        assert "committed" == studio.commit(result.run, environ=KEY, only=("a.txt",)).status
        assert [] == host.seen
        done = studio.commit(result.run, environ=KEY)
        assert [("/one", "1"), ("/two", "2")] == [(path, body) for _, path, body, _ in host.seen]
        assert {f"Bearer {KEY['KEY']}"} == {key for *_, key in host.seen}
        assert ["sent", "sent"] == [word for _, word in done.requests]
        assert ("nothing", 2) == (studio.commit(result.run, environ=KEY).status, len(host.seen))
    assert not [path for path in studio.home.rglob("*") if path.is_file() and KEY["KEY"].encode() in path.read_bytes()]


@pytest.mark.req("RELEASE-4")
def test_requests_are_sent_by_the_rules_of_the_day_or_told_as_refused(tmp_path: Path) -> None:
    """The files are written; what no rule lets out any more is told with the reason, and is not asked for again."""
    with Host() as host:
        studio, result = _posting(tmp_path, host)
        studio.rules("stage: true", "stage: true, paths: [/two]")
        done = studio.commit(result.run, environ=KEY)
        assert (["refused", "sent"], ["/two"]) == ([word for _, word in done.requests], [item[1] for item in host.seen])
    told = [event.data for event in studio.events(result.run, "effects.sent")]
    assert (["refused", "sent"], True) == ([data["outcome"] for data in told], bool(told[0]["reason"]))
    assert ({"a.txt": "new\n"}, []) == (studio.files(), studio.staged(result.run))


@pytest.mark.req("RELEASE-4")
def test_a_discard_drops_requests_too(tmp_path: Path) -> None:
    """Nothing is ever sent of them."""
    with Host() as host:
        studio, result = _posting(tmp_path, host)
        with studio.opened(environ=KEY) as kernel:
            assert 1 == kernel.discard(result.run)
            assert "nothing" == kernel.commit(result.run).status
        assert ([], {}) == (host.seen, studio.files())


@pytest.mark.req("RELEASE-4", "RELEASE-2")
def test_a_request_is_part_of_what_a_yes_is_for(tmp_path: Path) -> None:
    """The card shows where it goes and its body; a run that asks for another meanwhile needs another yes."""
    with Host() as host:
        gates = f'[{{when: {{observed: {{hosts: ["localhost"]}}}}, ask: operator}}, {DROP[1:-1]}]'
        studio = Studio(
            tmp_path / "s",
            [
                [("post", {"path": "/one", "body": "first body"})],
                [("drop", {"path": "b"})],
                [("post", {"path": "/two", "body": "2"})],
            ],
            sandbox=f"{host.rule(STAGED)}, secrets: [KEY]",
            gates=gates,
        )
        (studio.meeting / "host").write_text(f"http://localhost:{host.port}")
        result = studio.carry(environ=KEY)
        gate = studio.commit(result.run, environ=KEY).gate or ""
        preview = studio.gate(gate)[1]["preview"]
        assert (True, True) == ("/one" in preview, "first body" in preview)
        studio.answer(gate)
        studio.answer(result.gates[0])
        assert "done" == studio.carry(result.run, environ=KEY).status
        assert ("waiting", []) == (studio.commit(result.run, environ=KEY).status, host.seen)
        studio.answer(gate)
        assert "committed" == studio.commit(result.run, environ=KEY).status
        assert ["/one", "/two"] == [item[1] for item in host.seen]


@contextlib.contextmanager
def _aside(studio: Studio) -> Iterator[list[RunResult]]:
    """Run beside the test, which sees the result when the block has ended."""
    results: list[RunResult] = []
    thread = threading.Thread(target=lambda: results.append(studio.carry()))
    thread.start()
    _until(lambda: studio.living() > 0)
    try:
        yield results
    finally:
        thread.join(30)


def _until(there: object) -> None:
    pause = threading.Event()
    for _ in range(1500):
        if there():  # type: ignore[operator]
            return
        pause.wait(0.01)
    raise AssertionError("it does not come")


def _only(studio: Studio) -> str:
    with wiring.open_store(studio.home) as store:
        return store.read(lambda tx: tx.runs.list())[0].id


@pytest.mark.req("RELEASE-6", "STAGE-7")
def test_a_living_run_is_not_committed_and_a_cancelled_one_lets_its_sandboxes_go(tmp_path: Path) -> None:
    """The commit and the discard are refused while it works; a second after the word its sandboxes are gone; then both go."""
    studio = Studio(tmp_path / "s", [write("a.txt"), [("meet", {"path": "b.txt", "text": ""})]])
    with _aside(studio) as results:
        _until(
            lambda: (
                (run := _only(studio)) and [e for e in studio.events(run, "intent") if e.data.get("tool") == "ops.meet"]
            )
        )
        run = _only(studio)
        with studio.opened() as kernel:
            for order in (kernel.commit, kernel.discard):
                with pytest.raises(RunHeld):
                    order(run)
            control.cancel(kernel.store, run, by="ann", reason="enough", at_us=wiring.clock())
            began = time.monotonic()
            _until(lambda: studio.living() == 0)
            took = time.monotonic() - began
    assert ("cancelled", {}) == (results[0].status, studio.files())
    assert took < 2, f"{took:.2f} s, of which the watcher sleeps 0.2"
    assert ("committed", {"a.txt": "new\n"}) == (studio.commit(run).status, studio.files())


@pytest.mark.req("RELEASE-6")
def test_of_two_commits_at_once_one_wins(tmp_path: Path) -> None:
    """The other is told that somebody works on the run; nothing is sent twice."""
    with Host() as host:
        studio, result = _posting(tmp_path, host)
        host.hold.clear()
        done: list[str] = []
        thread = threading.Thread(target=lambda: done.append(studio.commit(result.run, environ=KEY).status))
        thread.start()
        _until(lambda: host.seen)
        with pytest.raises(RunHeld):
            studio.commit(result.run, environ=KEY)
        host.hold.set()
        thread.join(30)
        assert (["committed"], ["/one", "/two"]) == (done, [item[1] for item in host.seen])


@pytest.mark.req("STAGE-5")
def test_a_run_goes_on_elsewhere_with_its_own_workspace(tmp_path: Path) -> None:
    """Another process, told another `--workdir`: its tools see the run's files over the run's workspace, and it is committed there."""
    studio = Studio(
        tmp_path / "s", [write("a.txt"), [("drop", {"path": "b.txt"})], [("look", {"path": "a.txt"})]], gates=DROP
    )
    (studio.work / "b.txt").write_text("old\n")
    result = studio.carry()
    studio.answer(result.gates[0])
    other = tmp_path / "other"
    other.mkdir()
    argv = [sys.executable, "-c", RESUME, str(studio.fleet), str(studio.home), str(other), result.run]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert "done\n" == done.stdout, done.stderr
    assert {"text": "new\n"} == studio.results(result.run)[-1]
    assert {"b.txt": "old\n"} == studio.files()
    with studio.opened(workdir=other) as kernel:
        assert "committed" == kernel.commit(result.run).status
    assert ({"a.txt": "new\n"}, []) == (studio.files(), list(other.iterdir()))


@pytest.mark.req("STAGE-5")
def test_a_commit_into_another_copy_of_the_workspace(tmp_path: Path) -> None:
    """Where that holds what the run found; where it does not it is a conflict, and nothing is written."""
    studio = Studio(tmp_path / "s", [[("drop", {"path": "b.txt"})], write("a.txt")])
    (studio.work / "b.txt").write_text("old\n")
    run = studio.carry().run
    same, differs = tmp_path / "same", tmp_path / "differs"
    for place, text in ((same, "old\n"), (differs, "edited\n")):
        place.mkdir()
        (place / "b.txt").write_text(text)
    with pytest.raises(Conflict, match=r"b\.txt"):
        studio.commit(run, workspace=differs)
    assert ["b.txt"] == [path.name for path in differs.iterdir()]
    studio.commit(run, workspace=same)
    assert (["a.txt"], {"b.txt": "old\n"}) == ([path.name for path in same.iterdir()], studio.files())


@pytest.mark.req("STAGE-5")
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_layer_that_is_lost_is_refused(tmp_path: Path, how: str) -> None:
    """The run does not go on as if it had never been; a commit writes nothing; both name the file."""
    studio = Studio(tmp_path / "s", [write("a.txt"), [("drop", {"path": "b.txt"})], write("c.txt")], gates=DROP)
    (studio.work / "b.txt").write_text("old\n")
    result = studio.carry()
    (file,) = (studio.home / "layers" / result.run).glob("*.layer")
    if how == "missing":
        file.unlink()
    else:
        body = bytearray(file.read_bytes())
        body[-1] ^= 1
        file.write_bytes(body)
    studio.answer(result.gates[0])
    resumed = studio.carry(result.run)
    assert ("failed", True) == (resumed.status, file.name in (resumed.error_message or ""))
    with pytest.raises(SandboxError, match=file.name):
        studio.commit(result.run)
    assert {"b.txt": "old\n"} == studio.files()
    with studio.opened() as kernel:
        assert 1 == kernel.discard(result.run)


@pytest.mark.req("STAGE-6")
def test_an_undo_is_staged_like_all_else(tmp_path: Path) -> None:
    """Of a committed file it is a new change, which takes a commit; of one that is only staged nothing is left to commit."""
    studio = Studio(tmp_path / "s", [write("a.txt")])
    first, second = studio.carry().run, studio.carry().run
    studio.commit(first)
    with studio.opened() as kernel:
        assert [("undone", "ops.drop")] == [(item.outcome, item.by) for item in kernel.undo(first)]
    assert ({"a.txt": "new\n"}, ["deleted a.txt"]) == (studio.files(), studio.paths(first))
    assert ("committed", {}) == (studio.commit(first).status, studio.files())
    with studio.opened() as kernel:
        assert ["undone"] == [item.outcome for item in kernel.undo(second)]
    assert ("nothing", {}, True) == (studio.commit(second).status, studio.files(), studio.kept(second))


@pytest.mark.req("STAGE-5")
def test_a_home_of_an_older_version_has_nothing_staged(tmp_path: Path) -> None:
    """Its runs say neither where they worked nor what was seen; a commit finds nothing, an undo is planned, nothing is written."""
    fixture = Path(__file__).parents[1] / "fixtures" / "home_r1"
    shutil.copytree(fixture, tmp_path / "fleet")
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir(mode=0o700)
    work.mkdir()
    raw = sqlite3.connect(home / wiring.DATABASE)
    raw.executescript(gzip.decompress((fixture / "home.sql.gz").read_bytes()).decode())
    raw.close()
    with wiring.open(tmp_path / "fleet", home=home, workdir=work, environ={"USER": "ann"}) as kernel:
        runs = [row.id for row in kernel.store.read(lambda tx: tx.runs.list())]
        assert {("nothing", 0)} == {(kernel.commit(run).status, kernel.discard(run)) for run in runs}
        assert all(item.outcome != "undone" for run in runs for item in kernel.plan_undo(run))
        ends = kernel.store.read(lambda tx: tx.ledger.read(kinds=("effects.committed", "effects.discarded"), limit=10))
        assert [] == list(ends)
    assert [] == list(work.iterdir())


@pytest.mark.req("STAGE-5", "RELEASE-5")
def test_a_commit_that_an_older_version_began_is_made_anew(tmp_path: Path) -> None:
    """Its event does not say what it was about, so nothing is taken for granted: people are asked again."""
    gates = '[{when: {observed: {paths: ["*"]}}, ask: operator}]'
    studio = Studio(tmp_path / "s", [write("a.txt")], gates=gates)
    run = studio.carry().run
    studio.answer(studio.commit(run).gate or "")
    with wiring.open_store(studio.home) as store:
        data = {"release": "0" * 64, "by": "ann", "reason": "", "gate": None, "workspace": str(studio.work)}
        event = EventDraft("effects.releasing", run, wiring.clock(), {**data, "paths_blob": ""}, task="release")
        store.write(lambda tx: tx.ledger.append(event))
    assert ("committed", 1) == (studio.commit(run).status, len(studio.events(run, "gate.used")))
