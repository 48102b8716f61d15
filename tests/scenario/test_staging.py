"""What a run's tools do in their sandboxes: whose files they see, what counts, what leaves nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from midwatch import wiring
from midwatch.engine.observing import left_nothing
from midwatch.errors import SandboxError
from midwatch.sandbox.celled import CelledSandbox
from midwatch.sandbox.layers import Layer
from tests.scenario.studio import Host, Studio, write


@pytest.mark.req("STAGE-1", "STAGE-4")
def test_a_run_sees_its_own_files_and_of_other_runs_what_was_committed(tmp_path: Path) -> None:
    """The workspace is untouched, the next run begins from it; after the commit a run sees the file, and nothing is staged."""
    studio = Studio(tmp_path / "s", [[("look", {"path": "a.txt"})], write("a.txt"), [("look", {"path": "a.txt"})]])
    first, second = studio.carry(), studio.carry()
    seen = [{"text": ""}, {"path": "a.txt"}, {"text": "new\n"}]
    assert (seen, seen, {}) == (studio.results(first.run), studio.results(second.run), studio.files())
    assert (["created a.txt"], 0) == (studio.paths(first.run), studio.living())
    done = studio.commit(first.run)
    assert ("committed", ("a.txt",), {"a.txt": "new\n"}) == (done.status, done.paths, studio.files())
    assert ("nothing", []) == (studio.commit(first.run).status, studio.staged(first.run))
    with studio.opened() as kernel:
        assert 1 == kernel.discard(second.run)
        assert 0 == kernel.discard(second.run)
        assert kernel.store.read(lambda tx: tx.ledger.verify()).ok
    third = studio.carry()
    assert {"text": "new\n"} == studio.results(third.run)[0]
    finished = [event.data for event in studio.events(first.run, "finished") if "tool" in event.data]
    assert all(data["usage"]["memory_peak"] > 0 < data["usage"]["cpu_us"] for data in finished)
    intents = [event.data for event in studio.events(first.run, "intent") if "tool" in event.data]
    assert [("bubblewrap", True)] * 3 == [(data["isolation"], data["confined"]) for data in intents]


@pytest.mark.req("STAGE-1", "RELEASE-7")
def test_some_paths_are_committed_or_discarded_and_the_others_stay(tmp_path: Path) -> None:
    """By globs; a folder goes only with all that lies in it; a glob that fits nothing is refused."""
    files = [[("put", {"path": path, "text": path})] for path in ("docs/a", "docs/b", "tmp/c", "tmp/d")]
    studio = Studio(tmp_path / "s", files)
    run = studio.carry().run
    assert {"docs/a": "docs/a"} == (studio.commit(run, only=("docs/a",)) and studio.files())
    with studio.opened() as kernel:
        for only in (("no/*",), ("tmp",)):
            with pytest.raises(Exception, match=r"no staged path fits|lies in a folder"):
                kernel.discard(run, only=only)
        assert 1 == kernel.discard(run, only=("tmp/c",))
    assert {"docs/b", "tmp/d"} == {path.split()[1] for path in studio.paths(run) if "/" in path}
    studio.commit(run)
    assert ["docs/a", "docs/b", "tmp/d"] == list(studio.files())
    assert [] == studio.staged(run)


@pytest.mark.req("STAGE-1")
@pytest.mark.parametrize(
    ("mine", "theirs", "status", "files", "staged"),
    [
        ("done", "done", "committed", ["a.txt", "b.txt"], 0),
        ("discard", "discard", "discarded", [], 0),
        ("done", "ask", "staged", [], 2),
        ("done", "discard", "staged", [], 2),
    ],
)
def test_the_fleet_says_what_becomes_of_changes(
    tmp_path: Path, mine: str, theirs: str, status: str, files: list[str], staged: int
) -> None:
    """`done` writes at the end, `discard` drops; where agents' words differ, a person decides of all, since they share files."""
    both = [f", sandbox: {{backend: bubblewrap, commit: {word}}}" for word in (mine, theirs)]
    studio = Studio(tmp_path / "s", [write("a.txt")], [write("b.txt")], own=both[0], other=both[1])
    result = studio.carry()
    assert ("done", files, staged) == (result.status, list(studio.files()), len(studio.paths(result.run)))
    ends = [event.kind for event in studio.events(result.run, "effects.committed", "effects.discarded")]
    assert ([] if status == "staged" else [f"effects.{status}"]) == ends


@pytest.mark.req("STAGE-2")
def test_the_second_of_two_calls_that_meet_is_refused(tmp_path: Path) -> None:
    """It is told so, by path; its file is nowhere, and what both read afterwards is the first one's."""
    meet = [[("meet", {"path": "same.txt", "text": who})] for who in ("mine", "theirs")]
    look = [("look", {"path": "same.txt"})]
    studio = Studio(tmp_path / "s", [meet[0], look], [meet[1], look])
    thread = studio.gather(2)
    result = studio.carry()
    thread.join()
    texts = [item["text"] for item in studio.results(result.run) if isinstance(item, dict) and "text" in item]
    assert ("done", 1, 1) == (result.status, studio.results(result.run).count("conflict"), len(set(texts)))
    assert ["created same.txt"] == studio.paths(result.run)
    assert studio.kept(result.run), "the refused layer is not"
    refused = [event for event in studio.events(result.run, "finished") if event.data.get("code") == "conflict"]
    assert (1, True) == (len(refused), "observed" not in refused[0].data)
    studio.commit(result.run)
    assert {"same.txt": texts[0]} == studio.files()


@pytest.mark.req("STAGE-2")
def test_agents_at_different_paths_both_count_and_see_each_other(tmp_path: Path) -> None:
    """Also where both made the folder; each sees the other's file from its next call on."""
    studio = Studio(
        tmp_path / "s",
        [[("meet", {"path": "dir/a", "text": "A"})], [("look", {"path": "dir/b"})]],
        [[("meet", {"path": "dir/b", "text": "B"})], [("look", {"path": "dir/a"})]],
    )
    thread = studio.gather(2)
    result = studio.carry()
    thread.join()
    assert "conflict" not in studio.results(result.run)
    texts = {item["text"] for item in studio.results(result.run) if "text" in item}
    assert ({"created dir", "created dir/a", "created dir/b"}, True) == (
        set(studio.paths(result.run)),
        texts <= {"A", "B", ""},
    )
    assert texts & {"A", "B"}, "whoever looked last saw the other's"
    studio.commit(result.run)
    assert {"dir/a": "A", "dir/b": "B"} == studio.files()


@pytest.mark.req("STAGE-2")
def test_a_second_agent_sees_what_the_first_has_finished(tmp_path: Path) -> None:
    """From its next call on, although its sandbox lived before."""
    studio = Studio(
        tmp_path / "s", [write("a.txt")], [[("meet", {"path": "b.txt", "text": ""})], [("look", {"path": "a.txt"})]]
    )
    thread = studio.gather(until="ops.put")
    result = studio.carry()
    thread.join()
    assert {"text": "new\n"} in studio.results(result.run)


@pytest.mark.req("STAGE-3")
def test_a_call_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """Killed, garbage, too much, out of time: told as such, nothing in doubt, and the next call finds what the last good one left."""
    ends = {"crash": "crashed", "garbage": "contract", "big": "contract", "hang": "timeout"}
    calls = [[("bad", {"path": f"{how}.txt", "how": how})] for how in ends]
    studio = Studio(
        tmp_path / "s",
        [write("a.txt"), *calls, [("look", {"path": "crash.txt"}), ("look", {"path": "a.txt"})]],
        timeout="6s",
    )
    studio.rules("graph: ", "breakers: {enabled: false}\ngraph: ")  # what four failures in a row do is told elsewhere
    result = studio.carry()
    assert "done" == result.status
    expected = [{"path": "a.txt"}, *ends.values(), {"text": ""}, {"text": "new\n"}]
    assert (expected, ["created a.txt"]) == (studio.results(result.run), studio.paths(result.run))
    assert studio.kept(result.run)
    assert [] == studio.events(result.run, "effect.in_doubt")


@pytest.mark.req("STAGE-3")
@pytest.mark.parametrize("stage", [False, True], ids=["sent", "staged"])
def test_a_call_that_breaks_off_after_it_let_a_write_out_is_in_doubt(tmp_path: Path, stage: bool) -> None:
    """Nobody knows what that did, so a person is asked. Where the write was held back it is dropped, and nothing is in doubt."""
    with Host() as host:
        rule = host.rule(", stage: true" if stage else "")
        more = f"{rule}, mounts: [{{from: {tmp_path}/s/meeting, at: /meeting}}]"
        studio = Studio(
            tmp_path / "s",
            [[("bad", {"path": "x", "how": "post"})], write("a.txt")],
            sandbox=f"{{backend: bubblewrap, {more}}}",
            timeout="2s",
        )
        (studio.meeting / "host").write_text(f"http://localhost:{host.port}")
        result = studio.carry()
        intents = [event.data for event in studio.events(result.run, "intent") if event.data.get("tool") == "ops.bad"]
        assert [stage] == [data["confined"] for data in intents]
        if not stage:
            assert ("waiting", 1, ["/hung"]) == (result.status, len(result.in_doubt), [item[1] for item in host.seen])
            return
        outcomes = [request.outcome for item in studio.staged(result.run) for request in item.layer.requests]
        assert ("done", ["refused"]) == (result.status, outcomes)
        studio.commit(result.run)
        assert ({"a.txt": "new\n"}, []) == (studio.files(), host.seen)


@pytest.mark.req("STAGE-3")
def test_a_preview_leaves_nothing_but_the_record_of_what_it_asked(tmp_path: Path) -> None:
    """What it writes is not there for the call that follows, what it wanted held back is never sent; both are no secret."""
    with Host() as host:
        studio = Studio(
            tmp_path / "s",
            [[("drop", {"path": "b.txt"})], [("look", {"path": "sneaked"})]],
            sandbox=host.rule(", stage: true"),
            gates="[{when: {effect: [destructive]}, ask: operator}]",
        )
        (studio.work / "b.txt").write_text("old\n")
        (studio.meeting / "host").write_text(f"http://localhost:{host.port}")
        result = studio.carry()
        (gate,) = result.gates
        assert "b.txt" in studio.gate(gate)[1]["preview"]
        looked = studio.events(result.run, "run.waiting")[0].data["looked"]["worker"]
        assert [("POST", "/sneaked", "refused")] == [(item["method"], item["path"], item["outcome"]) for item in looked]
        studio.answer(gate)
        assert "done" == studio.carry(result.run).status
        assert ([{"path": "b.txt"}, {"text": ""}], ["deleted b.txt"]) == (
            studio.results(result.run),
            studio.paths(result.run),
        )
        studio.commit(result.run)
        assert ({}, [], True) == (studio.files(), host.seen, studio.kept(result.run))


@pytest.mark.req("STAGE-3")
@pytest.mark.parametrize("out", [False, True], ids=["confined", "may write outside"])
def test_a_call_of_which_nobody_can_tell_what_it_did_did_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: bool
) -> None:
    """It is told as crashed, and its sandbox goes with its file; where it may have written outside it is in doubt."""
    real, calls = CelledSandbox.effects, list[Path]()

    async def effects(self: CelledSandbox, into: Path) -> Layer:
        calls.append(into)
        if len(calls) == 2:
            raise SandboxError("it cannot be told")
        return await real(self, into)

    monkeypatch.setattr(CelledSandbox, "effects", effects)
    with Host() as host:
        rest = [("look", {"path": "b.txt"}), ("look", {"path": "a.txt"})]
        studio = Studio(tmp_path / "s", [write("a.txt"), write("b.txt"), rest], sandbox=host.rule() if out else "")
        result = studio.carry()
    if out:
        assert ("waiting", 1) == (result.status, len(result.in_doubt))
        return
    expected = [{"path": "a.txt"}, "crashed", {"text": ""}, {"text": "new\n"}]
    assert ("done", expected, ["created a.txt"], True) == (
        result.status,
        studio.results(result.run),
        studio.paths(result.run),
        studio.kept(result.run),
    )


@pytest.mark.req("STAGE-4")
def test_a_fleet_that_isolates_nothing_stages_nothing(tmp_path: Path) -> None:
    """Files are written at once, the intent says `process`, and no layer, sandbox or commit comes of it."""
    studio = Studio(
        tmp_path / "s",
        [write("a.txt"), [("look", {"path": "a.txt"})]],
        sandbox='{backend: process, because: "a trial"}',
    )
    result = studio.carry()
    assert ("done", {"a.txt": "new\n"}, []) == (result.status, studio.files(), studio.staged(result.run))
    intents = [event.data for event in studio.events(result.run, "intent") if "tool" in event.data]
    assert [("process", False)] * 2 == [(data["isolation"], data["confined"]) for data in intents]
    finished = [event.data for event in studio.events(result.run, "finished") if "tool" in event.data]
    assert not any("usage" in data or "observed" in data for data in finished)
    assert ("nothing", False) == (studio.commit(result.run).status, (studio.home / "layers").exists())


@pytest.mark.req("STAGE-3")
def test_a_cut_call_left_nothing_only_if_it_was_confined_then_and_is_now(tmp_path: Path) -> None:
    """A fleet that closed its ways out since says nothing of what had been let out."""
    rows = []
    for name, sandbox in (("in", ""), ("out", '{backend: process, because: "a trial"}')):
        studio = Studio(tmp_path / name, [write("a.txt")], sandbox=sandbox)
        (row,) = studio.effects(studio.carry().run)
        with wiring.open_store(studio.home) as store:
            for now in (True, False):
                isolation: Any = SimpleNamespace(confined=lambda _agent, now=now: now)
                rows.append((name, now, left_nothing(store, row, isolation)))
    assert [("in", True, True)] == [row for row in rows if row[2]]
