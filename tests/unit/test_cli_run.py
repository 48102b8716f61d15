"""`midwatch run`: its input, its display, how it tells the end."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from midwatch import wiring
from midwatch.errors import UsageProblem
from midwatch.records.event import Event
from midwatch.records.run import RunResult, RunStatus
from midwatch.surfaces.cli import main
from midwatch.surfaces.cli.drawing import styled
from midwatch.surfaces.cli.live import picture
from midwatch.surfaces.cli.progress import AgentLine, Progress, line_of
from midwatch.surfaces.cli.run import read_input
from tests.recorded_run import DOUBT, GATE, NOW, RUN, record


class _Fleet:
    """What the display reads of a fleet."""

    name = "nightwatch"
    graph = None
    agents: dict[str, Any] = {}  # noqa: RUF012 - read only
    budgets: dict[str, Any] = {}  # noqa: RUF012 - read only


class _Kernel:
    """Gives back a prepared result, after telling the events that the home holds."""

    def __init__(self, result: RunResult, tell: Callable[[], None]) -> None:
        self._result, self._tell = result, tell

    def run(self, request: Any) -> RunResult:
        self._tell()
        return self._result


def _tell_all(on_event: Callable[[Event], None], events: Sequence[Event]) -> None:
    for event in events:
        on_event(event)


def _result(status: RunStatus, output: Any = None) -> RunResult:
    return RunResult(RUN, status, output, None, None, 500, 240, 1, 2, "f" * 64, (GATE,), ())


@pytest.fixture(name="play")
def _play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command on a prepared result, over a real recorded home."""
    home = tmp_path / "home"
    with wiring.open_store(home, create=True) as store:
        record(store)
    monkeypatch.setattr(wiring, "clock", lambda: NOW + 60_000_000)
    monkeypatch.setattr(wiring, "load_fleet", lambda *_, **__: (_Fleet(), "model: none"))

    def play(result: RunResult, *options: str) -> Any:
        @contextlib.contextmanager
        def opened(*_: Any, on_event: Callable[[Event], None], **__: Any) -> Iterator[_Kernel]:
            with wiring.open_store(home) as store:
                events = store.read(lambda tx: tx.ledger.read(run=RUN))
                yield _Kernel(result, functools.partial(_tell_all, on_event, events))

        monkeypatch.setattr(wiring, "open", opened)
        return CliRunner().invoke(main, ["--home", str(home), "run", "fleet", *options])

    return play


@pytest.mark.req("CLI-3")
def test_the_report_alone_is_on_stdout(play: Callable[..., Any]) -> None:
    """A report can be piped; id, cost, head and the next command are beside it."""
    done = play(_result("done", {"answer": "# Night\n\nAll quiet."}))
    assert (0, "# Night\n\nAll quiet.\n") == (done.exit_code, done.stdout)
    for part in (RUN[:7], "done", "$0.0005", "f" * 64, f"midwatch trace {RUN[:7]}"):
        assert part in done.stderr


@pytest.mark.req("CLI-3", "CLI-5")
def test_a_waiting_run_shows_its_cards_and_ends_in_3(play: Callable[..., Any]) -> None:
    """What a person must answer is told with the exact commands."""
    done = play(_result("waiting"), "--quiet")
    assert (3, "") == (done.exit_code, done.stdout)
    assert f"midwatch approve {GATE}" in done.stderr
    assert f"midwatch resolve {DOUBT} --not-done" in done.stderr


@pytest.mark.req("CLI-2")
@pytest.mark.parametrize(("status", "code"), [("done", 0), ("failed", 1), ("waiting", 3), ("denied", 4), ("paused", 5)])
def test_json_is_one_object_with_the_status_as_exit_code(
    play: Callable[..., Any], status: RunStatus, code: int
) -> None:
    """A script needs no text: status, output, spend, gates and head in one object."""
    done = play(_result(status, {"answer": "x"} if status == "done" else None), "--json")
    body = json.loads(done.stdout)
    assert (code, code == 0, status) == (done.exit_code, body["ok"], body["status"])
    assert (500, [GATE]) == (body["cost"], [gate["gate"] for gate in body["gates"]])


@pytest.mark.req("CLI-11")
def test_without_a_terminal_each_event_is_a_line(play: Callable[..., Any]) -> None:
    """A log shows who proposed what and what came of it; `--quiet` shows none of it."""
    done = play(_result("done", "text"))
    assert "storage.act         proposed        host.disks" in done.stderr
    assert "files.write denied" in done.stderr
    assert "proposed" not in play(_result("done", "text"), "--quiet").stderr


@pytest.mark.req("CLI-7")
def test_input_is_json_a_file_or_pairs(tmp_path: Path) -> None:
    """Pairs are text and go over the JSON object."""
    file = tmp_path / "input.json"
    file.write_text('{"repo": "/a", "n": 1}', encoding="utf-8")
    assert {} == read_input(None, ())
    assert {"repo": "/b=c", "n": 1} == read_input(f"@{file}", ("repo=/b=c",))
    assert [1, "two"] == read_input('[1, "two"]', ())


@pytest.mark.req("CLI-7")
@pytest.mark.parametrize(
    ("whole", "pairs"),
    [
        ("{", ()),
        ("NaN", ()),
        ("@/no/such/file", ()),
        ("[]", ("a=b",)),
        (None, ("a",)),
        (None, ("=b",)),
        ("[" * 100_000, ()),
    ],
)
def test_other_input_is_refused(whole: str | None, pairs: tuple[str, ...]) -> None:
    """Each mistake is a usage problem, never a stack trace."""
    with pytest.raises(UsageProblem):
        read_input(whole, pairs)


@pytest.mark.req("CLI-7")
def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """Bytes that are no text are told as such."""
    file = tmp_path / "input.json"
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UsageProblem, match="UTF-8"):
        read_input(f"@{file}", ())


def _event(kind: Any, agent: str | None = "storage", node: str = "storage.act", run: str = RUN, **data: Any) -> Event:
    return Event(1, kind, run, NOW, data, node, agent, 1, None, (), "", "")


@pytest.mark.req("CLI-11")
def test_states_and_spend_follow_the_events() -> None:
    """Thinking, acting, asking, done; sums by agent and run; other runs of the home change nothing."""
    progress = Progress("nightwatch", {"storage": AgentLine("storage", "specialist")}, {"cost": 1000})
    line = progress.agents["storage"]
    seen = [line.state]
    for event in (
        _event("run.created", None),
        _event("node.started", node="storage.think"),
        _event("finished", effect="1", usage={"input": 5, "output": 2}, cost=40),
        _event("node.started"),
        _event("gate.opened"),
        _event("finished", effect="2", tool="host.disks", ok=True),
        _event("finished", run="f" * 32, effect="3", cost=1_000_000),
        _event("handoff", status="complete"),
    ):
        progress.add(event)
        seen.append(line.state)
    assert ["waiting", "waiting", "thinking", "thinking", "acting", "asking", "asking", "asking", "done"] == seen
    assert (40, 7, 1) == (progress.cost, progress.tokens, progress.tools) == (line.cost, line.tokens, line.tools)


@pytest.mark.req("CLI-10", "CLI-11")
def test_the_picture_shows_agents_caps_and_no_foreign_control_characters() -> None:
    """What a model named a tool is text in the picture, whatever is in it."""
    progress = Progress(
        "nightwatch", {"storage": AgentLine("storage", "specialist", "acting")}, {"cost": 1000}, run=RUN
    )
    progress.add(_event("intent", tool="evil\x1b[2J[bold]"))
    progress.add(_event("finished", effect="1", cost=400))
    shown = "\n".join(styled(item, colour=False) for item in picture(progress, "*", 120))
    assert "\x1b" not in shown
    for part in ("storage", "acting", "evil\\x1b[2J[bold]", "$0.0004 of $0.0010", "no cap"):
        assert part in shown


@pytest.mark.req("CLI-11")
def test_lines_are_left_out_where_they_tell_nothing_new() -> None:
    """A log of a run is read by people."""
    assert None is line_of(_event("decided", call="x"))
    assert "13" not in (line_of(_event("node.finished", bytes=13)) or "")
