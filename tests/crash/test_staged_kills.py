"""Kill -9 of runs that act in sandboxes: in a call, in a commit, in a request that is sent; what is left, what is done once more."""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.engine import control
from midwatch.engine.staged import staged_of
from midwatch.records.effect import EffectRow
from midwatch.sandbox.launching import runtime_folder
from tests.crash.harness import FLEET, LEASE_US, Case, Harness

TOOLS = '''
import os, urllib.request
from typing import Annotated
from pydantic import Field
from midwatch import Arg, tool
from midwatch.tools.binding import ToolContext

Item = Annotated[str, Field(max_length=100), Arg(role="content", interprets=False)]

@tool(effect="write", open_world=False)
def post(context: ToolContext, item: Item) -> dict[str, str]:
    """Write two files of a letter."""
    (context.workdir / item).mkdir()
    for name in ("one", "two"):
        (context.workdir / item / name).write_text(item)
    return {"done": item}

@tool(effect="write", open_world=False)
def pay(context: ToolContext, item: Item) -> dict[str, str]:
    """Ask the other side to pay."""
    url = (context.workdir / "target").read_text() + "/plain"
    request = urllib.request.Request(url, data=item.encode(), method="POST")
    request.set_proxy(os.environ["HTTP_PROXY"].removeprefix("http://"), "http")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return {"done": item, "status": str(answer.status)}

@tool(effect="read", open_world=False)
def look(context: ToolContext, item: Item) -> dict[str, str]:
    """Look at an item."""
    return {"done": item}
'''

CALL = [
    *("after tool.journal", "after stage.start", "after stage.call", "after stage.gather"),
    *("after tool.envelope", "after stage.close"),
]
COMMIT = [
    *(
        ("before release.begin", 1),
        ("after release.begin", 1),
        ("after release.journal", 1),
        ("before release.write", 1),
    ),
    *(("after release.write", 1), ("after release.journal", 2), ("after release.files", 1), ("before release.end", 1)),
    ("after release.end", 1),
]
SEND = {
    "before release.request": (0, ["sent", "sent"]),
    "before release.send": (0, ["in doubt", "sent"]),
    "after release.send": (1, ["in doubt", "sent"]),
    "after release.request": (1, ["sent", "sent"]),
}


def _harness(folder: Path, plan: Any, sandbox: str = "", gates: str = "") -> Harness:
    lines = [line for line in FLEET.splitlines() if not line.startswith(("sandbox:", "gates:"))]
    fleet = "\n".join([*lines, f"sandbox: {{backend: bubblewrap{sandbox}}}", gates, ""])
    harness = Harness(folder / "h", plan, fleet=fleet)
    (harness.fleet / "outside.py").write_text(TOOLS)
    return harness


def _out(harness: Harness, more: str) -> None:
    """Let its sandboxes ask the target."""
    file = harness.fleet / "fleet.yaml"
    port = harness.target.rpartition(":")[2]
    rule = f"egress: [{{host: localhost, port: {port}, tls: false, private: true{more}}}]"
    file.write_text(file.read_text().replace("backend: bubblewrap", f"backend: bubblewrap, {rule}"))
    (harness.fleet / "name").write_text("localhost")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A worker that writes two letters, and can reach nothing."""
    with _harness(tmp_path_factory.mktemp("plain"), [[("post", "a")], [("post", "b")]]) as harness:
        yield harness


@pytest.fixture(scope="module")
def paying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A worker that pays through the broker."""
    with _harness(tmp_path_factory.mktemp("paying"), [[("pay", "a")], [("post", "b")]]) as harness:
        _out(harness, "")
        yield harness


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A worker that asks to pay twice, once its work is committed."""
    with _harness(tmp_path_factory.mktemp("later"), [[("pay", "a"), ("pay", "b")], [("post", "c")]]) as harness:
        _out(harness, ", stage: true")
        yield harness


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A worker that writes letters, each of which takes a yes to leave."""
    plan = [[("post", f"f{number}")] for number in range(len(COMMIT))]
    gates = 'gates: [{when: {observed: {paths: ["*"]}}, ask: operator, timeout: 30d}]'
    with _harness(tmp_path_factory.mktemp("asked"), plan, gates=gates) as harness:
        yield harness


def _case(harness: Harness, name: str) -> Case:
    case = harness.case(name.replace(" ", "-"))
    target = case.work / "target"
    target.write_text(target.read_text().replace("127.0.0.1", "localhost"))
    return case


def _commit(case: Case, *only: str, point: str | None = None, number: int = 1) -> Any:
    """Commit in a process of its own, which may die; gives its result, or `killed`."""
    order = {"fleet": str(case.harness.fleet), "home": str(case.home), "work": str(case.work), "log": str(case.log)}
    more = {"provider": case.harness.provider, "run": case.known(), "point": point, "number": number, "environ": {}}
    rest = {"offset_us": case.offset_us, "busy_ms": None, "file_size": None, "commit": list(only)}
    outcome = case.harness.order(order | more | rest)
    case.offset_us += LEASE_US
    return "killed" if outcome.code < 0 else outcome.result or outcome.error


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def _paths(case: Case) -> set[str]:
    run = case.known() or ""
    with case.store() as store:
        held = store.read(lambda tx: staged_of(tx, run, case.home / "layers" / run))
    return {c.path for item in held for c in item.layer.changes if c.op == "created" and "/" in c.path}


def _doubted(seen: list[str]) -> Any:
    def on_doubt(case: Case, row: EffectRow) -> control.Word:
        seen.append(row.tool)
        return "done"

    return on_doubt


def _supervisors(case: Case) -> set[str]:
    """Give who held the sandboxes that a killed process left on record."""
    files = (case.home / "sandboxes").glob("*.json")
    return {json.loads(file.read_bytes())["supervisor"].partition(".")[2] for file in files}


def _processes(supervisor: str) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            text = place.read_text()
        except OSError:
            continue
        found += [place.parent.name] if f".{supervisor}" in text else []
    return found


def _left(supervisor: str) -> list[str]:
    """Give what is left on this machine of a dead process's sandboxes."""
    groups = [str(path) for path in Path("/sys/fs/cgroup").rglob(f"*.{supervisor}")]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f".{supervisor}" in line]
    return [*groups, *mounts, *(str(path) for path in Path("/run/midwatch").glob(f"*{supervisor}*"))]


@pytest.mark.req("KILL-1", "STAGE-3")
@pytest.mark.parametrize("point", CALL)
def test_a_kill_in_a_call_is_made_good_without_a_person(plain: Harness, point: str) -> None:
    """Nothing lives any more, nothing is left once the run goes on; each letter is there once, and nobody was asked."""
    case, doubts = _case(plain, point), list[str]()
    number = 1 if point.endswith(("close", "start")) else 2
    assert "killed" == case.segment(point, number=number).status
    dead, pause = _supervisors(case), threading.Event()
    for _ in range(200):
        if not any(_processes(name) for name in dead):
            break
        pause.wait(0.01)
    assert [] == [process for name in dead for process in _processes(name)]
    assert {"target"} == _names(case.work)
    assert "done" == case.until_done(on_doubt=_doubted(doubts)).status
    assert ([], [], {f"{item}/{name}" for item in "ab" for name in ("one", "two")}) == (
        doubts,
        [left for name in dead for left in _left(name)],
        _paths(case),
    )
    assert [] == list((case.home / "sandboxes").glob("*.json"))
    assert {"status": "committed"}.items() <= _commit(case).items()
    assert {"target", "a", "b"} == _names(case.work)


@pytest.mark.req("KILL-1")
def test_user_ids_of_killed_processes_are_free_again(plain: Harness) -> None:
    """A file that nobody holds goes with the next start; one that is held stays."""
    folder = runtime_folder() / "users"
    folder.mkdir(mode=0o700, exist_ok=True)
    left, held = folder / "left-by-a-test", folder / "held-by-a-test"
    left.write_text("")
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "done" == _case(plain, "ids").until_done().status
        assert (False, True) == (left.exists(), held.exists())
        held.unlink()


@pytest.mark.req("KILL-1", "STAGE-3")
@pytest.mark.parametrize("point", ["before stage.call", "after stage.call"])
def test_a_kill_in_a_call_that_may_write_outside_is_in_doubt(paying: Harness, point: str) -> None:
    """Whether it did or not, a person says; it is not made again, and what they say goes on."""
    case, doubts = _case(paying, point), list[str]()
    assert "killed" == case.segment(point).status
    made = len(case.calls("plain"))
    assert "waiting" == case.segment().status
    assert "done" == case.until_done(on_doubt=_doubted(doubts)).status
    assert (["outside.pay"], made) == (doubts, len(case.calls("plain")))
    assert {"b/one", "b/two"} == _paths(case)


@pytest.mark.req("RELEASE-5", "RELEASE-2")
def test_a_commit_that_is_killed_anywhere_is_all_or_nothing(asked: Harness) -> None:
    """After each kill a letter's files are both there or neither; the next order ends it under the same yes; once in the ledger."""
    case = _case(asked, "all")
    assert "done" == case.until_done().status
    told = []
    for index, (point, number) in enumerate(COMMIT):
        letter = case.work / f"f{index}"
        only = (f"f{index}", f"f{index}/*")
        gate = _commit(case, *only)["gate"]
        case.answer(gate, approve=True)
        assert "killed" == _commit(case, *only, point=point, number=number), point
        names = _names(letter)
        assert names in (set(), {"one", "two"}), point
        ended = _commit(case, *only)
        told.append(ended["status"] if isinstance(ended, dict) else ended.partition(":")[0])
        assert ({"one", "two"}, f"f{index}") == (_names(letter), (letter / "one").read_text()), point
    assert [*["committed"] * (len(COMMIT) - 1), "UsageProblem"] == told, (
        "after the last point nothing is staged any more"
    )
    assert (len(COMMIT), set()) == (len(case.events("effects.committed")), _paths(case))
    assert len(COMMIT) == len(case.events("gate.opened")) == len(case.events("gate.used"))
    assert {"target", *(f"f{index}" for index in range(len(COMMIT)))} == _names(case.work)
    with case.store() as store:
        assert store.read(lambda tx: tx.ledger.verify()).ok


@pytest.mark.req("RELEASE-4", "RELEASE-5")
@pytest.mark.parametrize("point", SEND)
def test_a_kill_while_a_request_is_sent(later: Harness, point: str) -> None:
    """What was begun and has no outcome is told as in doubt and never sent again; all else is sent once."""
    case = _case(later, point)
    assert "done" == case.until_done().status
    assert [] == case.calls()
    before, told = SEND[point]
    assert "killed" == _commit(case, point=point)
    assert (before, True) == (len(case.calls()), (case.work / "c" / "two").exists())
    ended = _commit(case)
    assert ("committed", told) == (ended["status"], ended["requests"])
    sent = told.count("sent") + (point == "after release.send")
    assert (sent, "nothing") == (len(case.calls()), _commit(case)["status"])
