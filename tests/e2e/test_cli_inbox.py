"""The inbox on the command line: as the person that a token names, from the first question to the undo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.engine import following
from midwatch.errors import Denied
from midwatch.surfaces.cli import main
from midwatch.surfaces.cli.answered import _Work
from midwatch.surfaces.cli.common import Settings, plain
from tests.scenario.office import Office

SHOP = ("ops.place", {"service": "shop", "version": "v2"})
CART = ("ops.place", {"service": "cart", "version": "v2"})


class Desk:
    """Calls commands in one home, as one of its people."""

    def __init__(self, office: Office, tokens: Path) -> None:
        self.office, self.tokens = office, tokens
        tokens.mkdir(exist_ok=True)

    def __call__(self, *arguments: str, who: str | None = None) -> Result:
        if who is not None:
            file = self.tokens / who
            arguments = (*arguments, "--token-file", str(file))
        return CliRunner().invoke(main, ["--home", str(self.office.home), *arguments])

    def json(self, *arguments: str, who: str | None = None, code: int = 0) -> dict[str, Any]:
        """Call with `--json`; the exit code must be this."""
        done = self(*arguments, "--json", who=who)
        assert code == done.exit_code, done.output
        body: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return body

    def hire(self, name: str, *roles: str, by: str | None = None) -> None:
        """Add somebody, and keep their token in a file."""
        words = [word for role in roles for word in ("--role", role)]
        body = self.json("principals", "add", name, *words, who=by)
        (self.tokens / name).write_text(body["token"] + "\n")
        self.office.tokens[name] = body["token"]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An office with two calls that wait, and three people."""
    made = Desk(Office(tmp_path, [[SHOP, CART]]), tmp_path / "tokens")
    made.hire("boss", "admin")
    made.hire("ops", "operator", by="boss")
    made.hire("eve", "viewer", by="boss")
    return made


def gates(desk: Desk) -> dict[str, str]:
    """Give the open gates by service."""
    return {item["arguments"]["service"]: item["gate"] for item in desk.json("inbox", "ls")["gates"]}


@pytest.mark.req("INBOX-7")
def test_from_question_to_undo(desk: Desk) -> None:
    """List, show, edit, approve, deny, resume what was answered, measure, undo: each as its own person, each on record."""
    office = desk.office
    run = office.run(speaks="boss").run
    found = gates(desk)
    shown = desk("inbox", "show", found["shop"]).output
    assert all(
        text in shown for text in ('service = "shop"', "shop: none -> v2", "by ops.restore", "0 of 1 yes of `operator`")
    )
    assert 4 == desk("inbox", "approve", found["shop"]).exit_code
    assert [4, 4] == [desk("inbox", "approve", found["shop"], who=name).exit_code for name in ("eve", "boss")]
    edited = desk.json("inbox", "edit", found["shop"], "--set", "version=v3", who="boss")
    assert ("boss", {"service": "shop", "version": "v3"}) == (edited["edited_by"], edited["arguments"])
    assert "approved" == desk.json("inbox", "approve", found["shop"], "--reason", "ok", who="ops")["status"]
    assert "denied" == desk.json("inbox", "deny", found["cart"], who="ops")["status"]
    (done,) = desk.json("resume", "--answered", who="ops")["runs"]
    assert ("done", run, ["place shop v3"]) == (done["status"], done["run"], office.calls())
    stats = desk.json("inbox", "stats")
    assert [("ops", 2, 1)] == [(item["name"], item["answers"], item["yes"]) for item in stats["people"]]
    plan = desk.json("undo", run, "--dry-run", who="ops")
    assert ["planned"] == [item["outcome"] for item in plan["effects"]]
    assert 4 == desk("undo", run, "--yes", who="eve").exit_code
    assert 2 == desk("undo", run, who="ops").exit_code
    undone = desk.json("undo", run, "--yes", who="ops")
    assert ["undone"] == [item["outcome"] for item in undone["effects"]]
    assert ["place shop v3", "restore shop none"] == office.calls()
    assert desk.json("verify")["ok"]


@pytest.mark.req("STOP-1")
def test_attack_an_answer_does_not_take_a_pause_back(desk: Desk) -> None:
    """Whoever goes on with what was answered leaves a paused run alone; who goes on with that run lifts the pause."""
    run = desk.office.run(speaks="boss").run
    desk("pause", run, "--reason", "wait", who="ops")
    for gate in gates(desk).values():
        desk("inbox", "deny", gate, who="ops")
    assert [] == desk.json("resume", "--answered", who="ops")["runs"]
    assert [] == desk.office.calls()
    assert "done" == desk.json("resume", run, who="ops")["status"]


@pytest.mark.req("INBOX-7")
def test_steering_takes_a_token_where_people_have_them(desk: Desk) -> None:
    """cancel, resolve, resume and approve are refused without one, and `--by` is no way around."""
    run = desk.office.run(speaks="boss").run
    gate = gates(desk)["shop"]
    for words in (
        ["cancel", run],
        ["approve", gate],
        ["approve", gate, "--by", "ops"],
        ["resume", run],
        ["inbox", "deny", gate],
    ):
        assert 4 == desk(*words).exit_code, words
    assert 2 == desk("approve", gate, "--by", "ops", who="ops").exit_code
    assert 4 == desk("cancel", run, who="eve").exit_code
    for text in ("", "mw_wrong"):
        (desk.tokens / "ops").write_text(text)
        assert desk("approve", gate, who="ops").exit_code in (2, 4)
    assert 2 == desk("approve", gate, who="nobody").exit_code
    assert "open" == desk.office.gate(gate)[0].status


@pytest.mark.req("INBOX-7")
def test_people_are_made_and_unmade_by_admins(desk: Desk) -> None:
    """Names are checked, tokens shown once and never listed, the last admin stays, a disabled one is out at once."""
    assert 4 == desk("principals", "add", "bob", "--role", "operator", who="ops").exit_code
    wrong = desk.json("principals", "add", "Bob!", "--role", "A B", who="boss", code=2)
    assert 2 == len(wrong["error"]["problems"])
    assert 2 == desk("principals", "add", "ops", "--role", "viewer", who="boss").exit_code
    assert "token" not in json.dumps(desk.json("principals", "ls"))
    assert 2 == desk("principals", "disable", "boss", who="boss").exit_code
    assert 2 == desk("principals", "set", "boss", "--role", "operator", who="boss").exit_code
    old = (desk.tokens / "ops").read_text()
    token = desk.json("principals", "rotate", "ops", who="ops")["token"]
    assert 4 == desk("principals", "rotate", "ops", who="ops").exit_code
    (desk.tokens / "ops").write_text(token)
    assert old.strip() != token
    desk.json("principals", "disable", "ops", who="boss")
    run = desk.office.run(speaks="boss").run
    assert 4 == desk("cancel", run, who="ops").exit_code
    desk.json("principals", "enable", "ops", who="boss")
    assert "cancelled" == desk.json("cancel", run, who="ops")["status"]
    with wiring.open_store(desk.office.home) as store:
        events = store.read(lambda tx: tx.ledger.read(kinds=("principal.changed",)))
        text = json.dumps([dict(event.data) for event in events])
    assert (6, False) == (len(events), token in text)


@pytest.mark.req("INBOX-7")
def test_the_first_person_must_be_an_admin(tmp_path: Path) -> None:
    """A home whose only person could change nothing would be stuck; and a token means nothing in a home without people."""
    desk = Desk(Office(tmp_path, [[SHOP]]), tmp_path / "tokens")
    assert 2 == desk("principals", "add", "ops", "--role", "operator").exit_code
    (desk.tokens / "x").write_text("mw_x")
    assert 4 == desk("principals", "add", "ops", "--role", "admin", who="x").exit_code


@pytest.mark.req("INBOX-7")
def test_identical_questions_are_one_line_and_one_word(tmp_path: Path) -> None:
    """Two runs ask the very same: the list counts them, and a batch answers both."""
    desk = Desk(
        Office(tmp_path, [[("ops.note", {"text": "one"})]], gates="- {when: {tool: ops.note}, ask: operator}"),
        tmp_path / "t",
    )
    runs = {desk.office.run().run, desk.office.run().run}
    listed = desk("inbox", "ls").output
    assert 1 == listed.count("ops.note")
    assert " 2 " in listed
    body = desk.json("inbox", "approve", desk.json("inbox", "ls")["gates"][0]["gate"], "--batch")
    assert runs == {item["run"] for item in body["gates"]}


@pytest.mark.req("INBOX-7")
def test_a_canary_is_told_like_any_gate(tmp_path: Path) -> None:
    """List, card and JSON have the same keys and forms for both; only the statistics know afterwards."""
    office = Office(tmp_path, [[SHOP]], extra="review: {canary: 1}")
    desk = Desk(office, tmp_path / "t")
    real = office.run().gates[0]
    both = desk.json("inbox", "ls")["gates"]
    cards = [desk.json("inbox", "show", item["gate"]) for item in both]
    assert 2 == len(both)
    for left, right in zip(*(sorted(_shape(card)) for card in cards), strict=True):
        assert left == right
    canary = next(item["gate"] for item in both if item["gate"] != real)
    desk.json("inbox", "approve", canary)
    assert [(1, 1, True)] == [(p["canaries"], p["missed"], p["tired"]) for p in desk.json("inbox", "stats")["people"]]


def _shape(value: Any, path: str = "") -> list[str]:
    """Name every key and the kind and length of what stands there."""
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in _shape(item, f"{path}.{key}")]
    if isinstance(value, list):
        return [f"{path}[]"]
    size = len(value) if isinstance(value, str) and path.rpartition(".")[2] in ("gate", "digest", "action") else 0
    return [f"{path}:{type(value).__name__}:{size}"]


@pytest.mark.req("INBOX-7")
def test_what_an_agent_wrote_does_not_steer_the_terminal() -> None:
    """Escapes, bidi overrides, zero-width and tag characters are shown, not obeyed."""
    shown = plain("a\x1b[2Jb\u202ec\u200bd\U000e0041e\x9b")
    assert shown.isprintable()
    assert not any(char in shown for char in "\x1b\u202e\u200b\x9b")


def talk(argv: list[str], answers: list[tuple[str, str]], env: dict[str, str]) -> tuple[int, str]:
    """Run on a terminal of its own; type each answer once its question is seen. Bounded."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(argv, stdin=follower, stdout=follower, stderr=follower, env=env, close_fds=True)
    os.close(follower)
    seen, left, end = "", list(answers), time.monotonic() + 60
    while time.monotonic() < end:
        ready, _, _ = select.select([leader], [], [], 0.2)
        if ready:
            try:
                data = os.read(leader, 65536)
            except OSError:
                break
            if not data:
                break
            seen += data.decode("utf-8", "replace")
        if left and left[0][0] in seen:
            question, answer = left.pop(0)
            seen = seen.replace(question, "", 1)
            os.write(leader, answer.encode() + b"\n")
        if process.poll() is not None and not ready:
            break
    os.close(leader)
    return process.wait(timeout=20), seen


@pytest.mark.req("INBOX-7")
def test_a_run_on_a_terminal_asks_and_goes_on(tmp_path: Path) -> None:
    """The first is approved, the second edited on one line and then approved; the same command ends with the report."""
    office = Office(tmp_path, [[SHOP], [CART]])
    argv = [
        sys.executable,
        "-m",
        "midwatch",
        "run",
        str(office.fleet),
        "--home",
        str(office.home),
        "--workdir",
        str(office.work),
    ]
    env = {key: value for key, value in os.environ.items() if key not in ("EDITOR", "VISUAL")} | {
        "TERM": "dumb",
        "USER": "ann",
    }
    script = [
        ("[l]ater", "y"),
        ("why (empty", "fine"),
        ("[l]ater", "e"),
        ("one JSON object", '{"service": "cart", "version": "v9"}'),
        ("[l]ater", "y"),
        ("why (empty", ""),
    ]
    code, seen = talk([*argv, "--quiet"], script, env)
    assert (0, ["place shop v2", "place cart v9"]) == (code, office.calls()), seen
    with wiring.open_store(office.home) as store:
        run = store.read(lambda tx: tx.runs.list())[0]
    said = office.events(run.id, "gate.said")
    assert [("local:ann", "terminal")] * 2 == [(event.data["by"], event.data["channel"]) for event in said]


@pytest.mark.req("INBOX-7")
def test_later_on_a_terminal_leaves_the_question(tmp_path: Path) -> None:
    """Exit code 3, the gate open, the commands that answer it printed."""
    office = Office(tmp_path, [[SHOP]])
    argv = [
        sys.executable,
        "-m",
        "midwatch",
        "run",
        str(office.fleet),
        "--home",
        str(office.home),
        "--workdir",
        str(office.work),
    ]
    code, seen = talk([*argv, "--quiet"], [("[l]ater", "l")], os.environ | {"TERM": "dumb"})
    assert (3, True, []) == (code, "midwatch approve" in seen, office.calls())


@pytest.mark.req("CLI-15")
def test_whoever_follows_goes_on_as_soon_as_something_is_answered_and_ends_when_told(tmp_path: Path) -> None:
    """One process follows; an answer from another makes it go on; SIGINT ends it in order, with code 0."""
    office = Office(tmp_path, [[SHOP]])
    desk = Desk(office, tmp_path / "tokens")
    run = office.run().run
    argv = [sys.executable, "-m", "midwatch", "--home", str(office.home), "resume", "--answered", "--follow", "--json"]
    follower = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert [follower.stderr] == select.select([follower.stderr], [], [], 60)[0]
        assert "stop with Ctrl-C" in follower.stderr.readline()
        desk.json("inbox", "approve", gates(desk)["shop"])
        assert [follower.stdout] == select.select([follower.stdout], [], [], 60)[0]
        told = json.loads(follower.stdout.readline())
        assert (run, "done", True) == (told["run"], told["status"], told["ok"])
        follower.send_signal(signal.SIGINT)
        assert 0 == follower.wait(timeout=30)
    finally:
        if follower.poll() is None:
            follower.kill()
            follower.wait(timeout=30)
        for pipe in (follower.stdout, follower.stderr):
            if pipe is not None:
                pipe.close()
    assert ["place shop v2"] == office.calls()


@pytest.mark.req("CLI-15", "PEOPLE-1")
def test_whoever_follows_and_is_disabled_goes_on_with_nothing(desk: Desk) -> None:
    """The right is looked up before each run, not once when following began."""
    run = desk.office.run(speaks="boss").run
    for gate in gates(desk).values():
        desk.json("inbox", "approve", gate, who="ops")
    settings = Settings(home=str(desk.office.home))
    with contextlib.ExitStack() as stack:
        work = _Work(settings, str(desk.tokens / "ops"), None, stack)
        with wiring.open_store(desk.office.home) as store:
            (row,) = following.ready(store, since_us=0, at_us=wiring.clock())
        kernel = desk.office.opened(token=desk.office.tokens["ops"])
        work._kernels[row.fleet_path, row.preset, row.fleet_digest, str(desk.office.work)] = stack.enter_context(kernel)
        desk.json("principals", "disable", "ops", who="boss")
        with pytest.raises(Denied):
            asyncio.run(work.resume(row))
    assert ([], run) == (desk.office.calls(), row.id)
