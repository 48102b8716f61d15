"""`midwatch effects`: what it shows of a run's calls, in which order, and what of it a terminal or a diff may be given."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.records.event import EventDraft
from midwatch.sandbox import layers
from midwatch.sandbox.effects import Change, Request
from midwatch.store.port import Store
from midwatch.surfaces.cli import main
from midwatch.surfaces.cli.effects import quantity
from tests.recorded_run import NOW, RUN, record

OLD, NEW, ADDED = b"one\ntwo\n", b"one\nthree\n", b"#!/bin/sh\necho hi\n"


def sha(data: bytes) -> str:
    """Give a content's digest."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class Home:
    """A home with a recorded run, and a workspace as it was before."""

    place: Path
    workspace: Path
    count: int = 0

    @property
    def folder(self) -> Path:
        """Where the run's layers lie."""
        return self.place / "layers" / RUN

    def write(self, store: Store, kind: Any, data: dict[str, Any], agent: str | None = "hand") -> int:
        """Append one event."""
        self.count += 1
        node = None if agent is None else f"{agent}.act"
        draft = EventDraft(kind, RUN, NOW + self.count * 1_000_000, data, node=node, agent=agent, step=self.count)
        return store.write(lambda tx: tx.ledger.append(draft))

    def saw(self, store: Store, tool: str, changes: list[Change], requests: list[Request], *contents: bytes) -> int:
        """Record one call, and the layer of what it did."""
        self.folder.mkdir(parents=True, exist_ok=True)
        spool = layers.Spool(self.folder)
        for content in contents:
            spool.add(content)
        layer = layers.write(self.folder / f"{self.count}.layer", changes, requests, spool)
        body = {"changes": [c.to_json() for c in layer.changes], "requests": [r.to_json() for r in layer.requests]}
        blob = store.write(lambda tx: tx.blobs.put(orjson.dumps(body)))
        seen = {"layer": layer.digest, "blob": blob, "file": layer.file.name if layer.file else None}
        data = {
            "effect": f"{self.count:02d}" * 8,
            "tool": tool,
            "ok": True,
            "observed": seen,
            "usage": {"memory_peak": 1},
        }
        return self.write(store, "finished", data)


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home", tmp_path / "work")
    home.place.mkdir(mode=0o700)
    home.workspace.mkdir()
    (home.workspace / "plan.txt").write_bytes(OLD)
    with wiring.open_store(home.place, create=True) as store:
        record(store, workdir=str(home.workspace))
    return home


def _two_calls(home: Home) -> None:
    change = Change("modified", "plan.txt", "file", 0o644, len(NEW), sha(NEW), sha(OLD), sha(OLD))
    hook = Change(
        "created",
        ".git/hooks/pre-commit",
        "file",
        0o755,
        len(ADDED),
        sha(ADDED),
        flags=("watched:a hook that git runs by itself",),
    )
    seen = [
        Change("created", "bin", "folder", 0o755),
        Change("created", "here", "link", 0o777, target="../../etc/shadow", flags=("leaves",)),
        Change("deleted", "gone.bin", "file", base=sha(b"x"), before=sha(b"x")),
        Change("executed", "bin/tool", "file", 0o755, 3, sha(b"abc")),
        Change("permission", "run.sh", "file", 0o700, 3, sha(b"abc")),
        *(Change("read", f"data/{number:02d}.csv", "file", 0o644, 3, sha(b"abc")) for number in range(23)),
    ]
    asked = [
        Request(NOW, "GET", "crates.io", 443, "/api/v1/crates", "sent", status=200, sent=0, received=2048),
        Request(NOW, "CONNECT", "evil.org", 443, reason="no egress rule names `evil.org`"),
        Request(NOW, "POST", "crates.io", 443, "/api/v1/new", "staged", sent=12),
    ]
    with wiring.open_store(home.place) as store:
        home.saw(store, "files.write", [change, hook], [], NEW, ADDED)
        home.saw(store, "shell.run", seen, asked)


def _call(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home.place), "effects", *arguments])


def _steps(home: Home, *options: str) -> list[dict[str, Any]]:
    body: dict[str, Any] = json.loads(_call(home, RUN[:7], "--json", *options).stdout)
    assert (True, RUN, str(home.workspace)) == (body["ok"], body["run"], body["workspace"])
    found: list[dict[str, Any]] = body["steps"]
    return found


SHOWN = """\
hand (hand.act step 1)  files.write  ok  e:0000000000000000  event 24
  created     .git/hooks/pre-commit  {added} 18 B  [watched:a hook that git runs by itself]  staged
  modified    plan.txt  {old} -> {new} 10 B  staged
  gives       .git/hooks/pre-commit: to the program in it: be run by git, with the rights of whoever works in the repository (the hook is \
new or another one)
  gives       .git/hooks/pre-commit: to anybody: run it as a program (it may be executed now)
hand (hand.act step 2)  shell.run  ok  e:0101010101010101  event 25
  created     bin  folder  staged
  deleted     gone.bin  {x}  staged
  created     here -> ../../etc/shadow  link  [leaves]  staged
  permission  run.sh  {abc} 3 B 0700  staged
  executed    bin/tool  {abc} 3 B
"""


@pytest.mark.req("SEEN-1")
def test_what_each_call_was_seen_to_do_is_shown_in_order(home: Home) -> None:
    """Changes first, then what was executed and read, then each request; with short hashes, sizes, flags and what became of it."""
    _two_calls(home)
    done = _call(home, "last")
    names = {"added": ADDED, "old": OLD, "new": NEW, "x": b"x", "abc": b"abc"}
    head = SHOWN.format(**{name: sha(data)[:8] for name, data in names.items()})
    reads = [f"  read        data/{number:02d}.csv  {sha(b'abc')[:8]} 3 B" for number in range(20)]
    tail = [
        "  read        … 3 more; `--all` shows them",
        "  sent        GET crates.io:443/api/v1/crates 200, 0 B out, 2.0 KiB in",
        "  refused     CONNECT evil.org:443: no egress rule names `evil.org`",
        "  staged      POST crates.io:443/api/v1/new, 12 B out, 0 B in",
        (
            "  gives       here: to whoever writes to the link: change that file by another name (it leads to what is watched: "
            "it decides who may become whom)"
        ),
        "  gives       run.sh: to its owner: run it as a program (it may be executed now)",
        "  gives       POST crates.io/api/v1/new: to unknown: what nobody can say (no detector knows it to be harmless)",
    ]
    assert [*head.splitlines(), *reads, *tail] == done.stdout.splitlines()
    assert (
        0,
        (
            f"changes: 6 staged, 1 request held back; `midwatch effects commit {RUN[:7]}` lets them out, "
            f"`midwatch effects discard {RUN[:7]}` drops them"
        ),
    ) == (
        done.exit_code,
        done.stderr.strip(),
    )
    assert 23 == _call(home, "show", RUN, "--all").stdout.count("  read  ")


@pytest.mark.req("SEEN-1")
def test_a_diff_tells_what_changed_within_texts(home: Home) -> None:
    """The new text comes from the layer, the old one from the workspace as long as it is the one that the run found."""
    _two_calls(home)
    told = _call(home, RUN[:7], "--diff").stdout.splitlines()
    at = next(number for number, line in enumerate(told) if "plan.txt" in line)
    assert [
        "    --- a/plan.txt",
        "    +++ b/plan.txt",
        "    @@ -1,2 +1,2 @@",
        "     one",
        "    -two",
        "    +three",
    ] == told[at + 1 : at + 7]
    assert "    +echo hi" in told
    assert "    (its content is no text, too long, or not kept any more)" in told
    (home.workspace / "plan.txt").write_text("somebody else's", encoding="utf-8")
    diffs = {item["path"]: item for step in _steps(home, "--diff") for item in step["diffs"]}
    assert (["plan.txt", "not kept"], []) == (
        ["plan.txt", "not kept" if "not kept" in diffs["plan.txt"]["why"] else ""],
        diffs["plan.txt"]["lines"],
    )
    assert "+#!/bin/sh" in diffs[".git/hooks/pre-commit"]["lines"]
    assert all("diffs" not in step for step in _steps(home))


@pytest.mark.req("SEEN-1")
@pytest.mark.parametrize("trap", ["link", "folder link", "fifo", "missing", "lost layer"])
def test_a_diff_reads_nothing_but_the_workspace(home: Home, tmp_path: Path, trap: str) -> None:
    """A link, a pipe, a name that leads out: nothing of it is shown, and nothing waits for it."""
    secret = b"hunter2\n"
    (tmp_path / "secret").write_bytes(secret)
    path = {"folder link": "out/secret"}.get(trap, "trap")
    place = home.workspace / "trap"
    if trap == "link":
        place.symlink_to(tmp_path / "secret")
    elif trap == "folder link":
        (home.workspace / "out").symlink_to(tmp_path)
    elif trap == "fifo":
        os.mkfifo(place)
    with wiring.open_store(home.place) as store:
        change = Change("modified", path, "file", 0o644, 4, sha(b"new\n"), sha(secret), sha(secret))
        home.saw(store, "files.write", [change], [], b"new\n")
    if trap == "lost layer":
        place.write_bytes(secret)
        next(home.folder.glob("*.layer")).unlink()
    done = _call(home, RUN, "--diff")
    assert (0, False) == (done.exit_code, "hunter2" in done.stdout)
    assert "not kept any more" in done.stdout


@pytest.mark.req("SEEN-1")
def test_what_became_of_changes_is_told_for_each_path(home: Home) -> None:
    """A commit of some, a discard of the rest; `--json` says it for scripts."""
    _two_calls(home)
    with wiring.open_store(home.place) as store:
        home.write(store, "effects.committed", {"paths": ["plan.txt"]}, None)
    states = {change["path"]: change.get("state") for step in _steps(home) for change in step["changes"]}
    assert ("committed", "staged", None) == (states["plan.txt"], states["bin"], states["data/00.csv"])
    assert ["staged"] == [item["state"] for step in _steps(home) for item in step["requests"] if "state" in item]
    with wiring.open_store(home.place) as store:
        home.write(store, "effects.discarded", {}, None)
    states = {change["path"]: change.get("state") for step in _steps(home) for change in step["changes"]}
    assert ("committed", "discarded") == (states["plan.txt"], states["bin"])
    assert "changes: 1 committed, 5 discarded" == _call(home, RUN).stderr.strip()


@pytest.mark.req("SEEN-1")
def test_names_that_an_agent_chose_cannot_steer_the_terminal(home: Home) -> None:
    """Hosts and paths of requests are the agent's own words; names of files are written out already."""
    with wiring.open_store(home.place) as store:
        asked = Request(NOW, "GET", "evil\x1b[2Jhost", 443, "/\u202ex", "refused", reason="no\x07")
        home.saw(store, "shell.run", [Change("created", "a\\x1bb", "file", 0o644, 0, sha(b""))], [asked], b"")
    shown = _call(home, RUN).stdout
    assert not {"\x1b", "\u202e", "\x07"} & set(shown)
    assert "evil\\x1b[2Jhost" in shown


@pytest.mark.req("SEEN-1")
def test_a_run_of_which_nothing_was_seen_says_so(home: Home) -> None:
    """0 and a sentence; an unknown run is 6."""
    done = _call(home, RUN)
    assert (0, "", True) == (done.exit_code, done.stdout, "was seen to do anything" in done.stderr)
    assert [] == _steps(home)
    assert 6 == _call(home, "ffffffff").exit_code


@pytest.mark.req("SEEN-1")
@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 20, "3.0 MiB"), (1 << 42, "4096.0 GiB")]
)
def test_sizes_are_short(size: int, text: str) -> None:
    """Bytes until there are a thousand of them."""
    assert text == quantity(size)
