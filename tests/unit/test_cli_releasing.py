"""`midwatch effects commit | discard`: what is shown before, when it asks, what it ends with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.engine.releasing import Released
from midwatch.sandbox.effects import Change, Request
from midwatch.surfaces.cli import main
from tests.recorded_run import NOW, RUN, record
from tests.unit.test_cli_effects import ADDED, NEW, OLD, Home, sha

POST = Request(NOW, "POST", "crates.io", 443, "/api/v1/new", "staged", sent=12)


@dataclass
class Told:
    """A kernel that notes what it is told to release."""

    answer: Released = field(default_factory=lambda: Released("committed", ("plan.txt",), requests=((POST, "sent"),)))
    orders: list[tuple[Any, ...]] = field(default_factory=list)

    def commit(self, run: str, *, only: tuple[str, ...], reason: str, workspace: Path | None) -> Released:
        """Note a commit."""
        self.orders.append(("commit", run, only, reason))
        return self.answer

    def discard(self, run: str, *, only: tuple[str, ...], reason: str, workspace: Path | None) -> int:
        """Note a discard."""
        self.orders.append(("discard", run, only, reason))
        return 3


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home", tmp_path / "work")
    home.place.mkdir(mode=0o700)
    home.workspace.mkdir()
    (home.workspace / "plan.txt").write_bytes(OLD)
    change = Change(
        "modified", "plan.txt", "file", 0o644, len(NEW), sha(NEW), sha(OLD), sha(OLD), was="file", was_mode=0o644
    )
    watched = ("watched:a hook that git runs by itself",)
    hook = Change("created", "hooks.sh", "file", 0o755, len(ADDED), sha(ADDED), flags=watched)
    with wiring.open_store(home.place, create=True) as store:
        record(store, workdir=str(home.workspace))
        home.saw(store, "files.write", [change, hook], [POST], NEW, ADDED)
    return home


@pytest.fixture(name="kernel")
def _kernel(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()

    @contextlib.contextmanager
    def kernel_of(*_: Any, **__: Any) -> Iterator[Told]:
        yield told

    monkeypatch.setattr("midwatch.surfaces.cli.cards.kernel_of", kernel_of)
    return told


def _call(home: Home, *arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(main, ["--home", str(home.place), "effects", *arguments], input=typed)


PLAN = """\
create         hooks.sh  [a hook that git runs by itself]
replace        plan.txt
send           POST crates.io:443/api/v1/new
gives          hooks.sh: to anybody: run it as a program (it may be executed now)
gives          POST crates.io/api/v1/new: to unknown: what nobody can say (no detector knows it to be harmless)
"""


@pytest.mark.req("SEEN-4")
def test_a_plan_names_each_path_and_request_and_does_nothing(home: Home, kernel: Told) -> None:
    """What needs a person says why; the workspace stays as it is."""
    done = _call(home, "commit", "last", "--dry-run")
    assert (0, [], OLD) == (done.exit_code, kernel.orders, (home.workspace / "plan.txt").read_bytes())
    assert PLAN.splitlines() == [line.replace("[watched: ", "[") for line in done.stdout.splitlines()]
    assert "gives" not in _call(home, "discard", RUN, "--dry-run").stdout
    assert ["modes", "watched"] == [
        item["how"] for item in json.loads(_call(home, "commit", RUN, "--dry-run", "--json").stdout)["grants"]
    ]
    body = json.loads(_call(home, "discard", RUN, "--dry-run", "--json").stdout)
    assert (True, "planned", ["hooks.sh", "plan.txt"], ["POST"]) == (
        body["ok"],
        body["status"],
        [item["path"] for item in body["changes"]],
        [item["method"] for item in body["requests"]],
    )


@pytest.mark.req("SEEN-4")
def test_a_commit_tells_what_was_written_and_sent(home: Home, kernel: Told) -> None:
    """One line each; the reason goes along."""
    done = _call(home, "commit", RUN, "--yes", "--reason", "looked at it")
    assert (0, [("commit", RUN, (), "looked at it")]) == (done.exit_code, kernel.orders)
    assert ["written        plan.txt", "sent           POST crates.io:443/api/v1/new"] == done.stdout.splitlines()
    body = json.loads(_call(home, "commit", RUN, "--yes", "--json").stdout)
    assert ("committed", ["plan.txt"], ["sent"]) == (
        body["status"],
        body["paths"],
        [item["ended"] for item in body["sent"]],
    )


@pytest.mark.req("SEEN-4")
def test_only_some_paths_are_meant_with_only(home: Home, kernel: Told) -> None:
    """Globs; requests are not sent then; what fits nothing is a mistake."""
    done = _call(home, "commit", RUN, "--only", "plan*", "--dry-run")
    assert ["replace        plan.txt"] == done.stdout.splitlines()
    assert 0 == _call(home, "commit", RUN, "--only", "plan*", "--yes").exit_code
    assert [("commit", RUN, ("plan*",), "")] == kernel.orders
    wrong = _call(home, "commit", RUN, "--only", "nothing/*", "--yes")
    assert (2, True) == (wrong.exit_code, "no staged path fits" in wrong.stderr)


@pytest.mark.req("SEEN-4")
def test_a_conflict_is_told_by_its_path_and_nothing_is_ordered(home: Home, kernel: Told) -> None:
    """1, with what to do; the other paths can still be named."""
    (home.workspace / "plan.txt").write_text("somebody else's", encoding="utf-8")
    done = _call(home, "commit", RUN, "--yes")
    assert (1, []) == (done.exit_code, kernel.orders)
    assert "plan.txt  CONFLICT: " in done.stdout
    assert "discard" in done.stderr
    assert False is json.loads(_call(home, "commit", RUN, "--yes", "--json").stdout)["ok"]
    assert 0 == _call(home, "commit", RUN, "--yes", "--only", "hooks.sh").exit_code


@pytest.mark.req("SEEN-4")
def test_a_commit_that_people_must_allow_ends_with_3(home: Home, kernel: Told) -> None:
    """It names the question; the same command goes on afterwards."""
    kernel.answer = Released("waiting", gate="ab" * 8)
    done = _call(home, "commit", RUN, "--yes")
    assert (3, "", True) == (done.exit_code, done.stdout, f"midwatch inbox show {'ab' * 8}" in done.stderr)
    assert 3 == _call(home, "commit", RUN, "--yes", "--json").exit_code


@pytest.mark.req("SEEN-4")
def test_it_asks_a_terminal_and_refuses_to_guess_without_one(
    home: Home, kernel: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No terminal and no `--yes`: 2. A no at the question: nothing is done."""
    for word in ("commit", "discard"):
        assert (2, 2) == (_call(home, word, RUN).exit_code, _call(home, word, RUN, "--json").exit_code)
    monkeypatch.setattr("midwatch.surfaces.cli.releasing._terminal", lambda: True)
    for typed in ("n\n", ""):
        refused = _call(home, "commit", RUN, typed=typed)
        assert (2, True) == (refused.exit_code, "nothing was done" in refused.stderr)
    assert [] == kernel.orders
    asked = _call(home, "discard", RUN, typed="y\n")
    assert (0, [("discard", RUN, (), "")]) == (asked.exit_code, kernel.orders)
    assert "drop 2 changes and 1 requests for good?" in asked.stderr
    assert "3 changes dropped" in asked.stderr


@pytest.mark.req("SEEN-4")
def test_what_is_over_is_over(home: Home, kernel: Told) -> None:
    """After a discard there is nothing to commit, and after a commit nothing to discard: 0 and a sentence."""
    with wiring.open_store(home.place) as store:
        home.write(store, "effects.discarded", {}, None)
    for word in ("commit", "discard"):
        done = _call(home, word, RUN, "--yes")
        assert (0, True) == (done.exit_code, "nothing staged" in done.stderr)
    assert [] == kernel.orders


@pytest.mark.req("SEEN-1")
def test_a_request_that_was_held_back_says_how_it_ended(home: Home) -> None:
    """Under way or cut while it was; sent, with the host's status."""
    at = json.loads(_call(home, RUN, "--json").stdout)["steps"][0]["event"]
    with wiring.open_store(home.place) as store:
        home.write(store, "effects.sending", {"request": f"{at}:0"})
    assert "staged      POST crates.io:443/api/v1/new, 12 B out, 0 B in  sending" in _call(home, RUN).stdout
    with wiring.open_store(home.place) as store:
        home.write(store, "effects.sent", {"request": f"{at}:0", "outcome": "sent", "status": 201})
        home.write(store, "effects.committed", {"paths": None}, None)
    shown = _call(home, RUN)
    assert "12 B out, 0 B in  sent 201" in shown.stdout
    assert "changes: 2 committed" == shown.stderr.strip()
