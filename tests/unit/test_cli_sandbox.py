"""`midwatch sandbox`: what lives, what is counted of it, and programs that a person runs in a sandbox as an agent has it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.config.specs import SandboxLimits
from midwatch.errors import SandboxError
from midwatch.isolating import sandboxes
from midwatch.sandbox import cgroups
from midwatch.sandbox.effects import Change
from midwatch.sandbox.layers import Layer
from midwatch.sandbox.living import Living
from midwatch.sandbox.port import Egress, RunResult, SandboxResult, Stats
from midwatch.sandbox.profile import SandboxProfile
from midwatch.surfaces.cli import main
from tests.recorded_run import NOW, RUN

FLEET = """\
midwatch: 1
fleet: plain
routes: {local: {provider: scripted, scenario: scenario.yaml}}
tools: [builtin.files]
agents:
  boss: {role: ceo, route: local, prompt_text: plan}
  hand: {role: specialist, route: local, prompt_text: work, tools: [files.*]}
  pen: {role: synthesis, route: local, prompt_text: write}
graph: {team: {ceo: boss, specialists: [hand], synthesis: pen}}
budgets: {run: {cost: "$1"}}
grants: [{who: agent:hand, may: files.*}]
"""


@dataclass
class Recorded:
    """A backend and its sandbox in one, without a process behind them: it answers each program as told."""

    answers: dict[str, RunResult]
    level: str = "bubblewrap"
    isolates: bool = True
    name: str = "mw-recorded"
    refuses: str = ""
    profiles: list[SandboxProfile] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    timeouts: list[int] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def start(
        self, profile: SandboxProfile, layers: Sequence[Layer] = (), *, egress: Egress | None = None
    ) -> Recorded:
        """Begin, or say why not."""
        if self.refuses:
            raise SandboxError(self.refuses)
        self.profiles.append(profile)
        return self

    async def run(
        self,
        argv: Sequence[str],
        *,
        limits: SandboxLimits,
        workdir: Path,
        timeout_us: int,
        max_bytes: int,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> RunResult:
        """Answer one program."""
        self.asked.append(list(argv))
        self.timeouts.append(timeout_us)
        return self.answers.get(argv[-1].strip(), RunResult("ended", 0))

    async def call(self, *_: Any, **__: Any) -> SandboxResult:
        """No tool is called here."""
        raise AssertionError("a shell calls no tool")

    async def effects(self, into: Path) -> Layer:
        """Two changes and a read."""
        changes = (
            Change("created", "b", "file", 0o644, 2),
            Change("deleted", "a.txt", "file"),
            Change("read", "c", "file"),
        )
        return Layer(changes)

    async def stats(self) -> Stats:
        """Nothing is counted."""
        return Stats()

    async def close(self) -> None:
        """Note that it ended."""
        self.ended.append("closed")


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Path:
    (tmp_path / "fleet.yaml").write_text(FLEET, encoding="utf-8")
    (tmp_path / "scenario.yaml").write_text("rules: []\n", encoding="utf-8")
    (tmp_path / "work").mkdir()
    return tmp_path


def _call(place: Path, *arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(main, ["--home", str(place / "home"), "sandbox", *arguments], input=typed)


def _shell(place: Path, backend: Recorded, monkeypatch: pytest.MonkeyPatch, *more: str, typed: str = "") -> Result:
    monkeypatch.setattr("midwatch.wiring.backend_of", lambda _level: backend)
    return _call(place, "shell", str(place / "fleet.yaml"), "--workdir", str(place / "work"), *more, typed=typed)


def _living(place: Path, where: Mapping[str, str] | None = None, *, name: str = "mw-1", supervisor: str = "") -> None:
    register = sandboxes(place / "home")
    register.began(
        Living(name, RUN, "hand", "bubblewrap", supervisor or cgroups.named("supervisor"), NOW, dict(where or {}))
    )


@pytest.mark.req("SEEN-2")
def test_what_lives_is_listed_and_what_a_dead_process_left_is_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a sandbox; JSON for scripts; an empty list is a sentence."""
    monkeypatch.setattr("midwatch.wiring.clock", lambda: NOW + 61_000_000)
    assert (0, "", True) == ((none := _call(place, "ls")).exit_code, none.stdout, "no sandbox lives" in none.stderr)
    _living(place)
    _living(place, name="mw-2", supervisor="supervisor.999999999.1")
    done = _call(place, "ls")
    assert ["mw-1", RUN[:7], "hand", "bubblewrap", "1m01s", "lives", "-", "-"] == done.stdout.strip().splitlines()[
        -1
    ].split()
    body = json.loads(_call(place, "ls", "--json").stdout)
    assert [("mw-1", RUN, None)] == [(item["name"], item["run"], item["stats"]["memory"]) for item in body["sandboxes"]]


@pytest.mark.req("SEEN-2")
def test_counters_are_shown_in_units_and_only_where_the_machine_counts(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sandbox by its short name, or all; a sandbox that ended meanwhile is no error."""
    _living(place)
    counted = Stats(memory=3 << 20, memory_peak=9 << 20, cpu_us=1_500_000, oom_kills=1, processes=2, frozen=True)
    monkeypatch.setattr(Living, "stats", lambda _self: counted)
    shown = _call(place, "stats", "mw").stdout
    assert [
        f"mw-1  bubblewrap of hand in run {RUN[:7]}",
        "  memory             3.0 MiB",
        "  memory, most       9.0 MiB",
        "  processor time     1.5s",
        "  killed for memory  1",
        "  processes          2",
        "  frozen             yes",
    ] == shown.splitlines()
    assert "frozen" in _call(place, "ls").stdout

    def gone(_self: Living) -> Stats:
        raise FileNotFoundError

    monkeypatch.setattr(Living, "stats", gone)
    assert "it has ended" in _call(place, "stats").stdout
    assert 6 == _call(place, "stats", "other").exit_code


@pytest.mark.req("SEEN-3")
def test_a_command_runs_in_the_sandbox_and_what_it_changed_is_named_and_dropped(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its output goes through, its failure is 1; the sandbox ends with the command."""
    backend = Recorded({"tool": RunResult("ended", 3, b"out\n", b"bad\n")})
    done = _shell(place, backend, monkeypatch, "--timeout", "5", "--", "some", "tool")
    assert (1, "out\n", ["closed", "closed"]) == (done.exit_code, done.stdout, backend.ended)
    assert ["bad", "exit code 3", "dropped: created b", "dropped: deleted a.txt"] == done.stderr.splitlines()[1:]
    assert ([["some", "tool"]], [5_000_000]) == (backend.asked, backend.timeouts)
    assert [place / "work"] == [profile.workspace for profile in backend.profiles]


@pytest.mark.req("SEEN-3")
def test_each_line_of_the_standard_input_is_a_program(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`exit` ends it; the exit code is that of the last one."""
    backend = Recorded({"one": RunResult("ended", 0, b"1")})
    done = _shell(place, backend, monkeypatch, typed="one\n\ntwo\nexit\nnever\n")
    assert (0, "1\n") == (done.exit_code, done.stdout)
    assert [["/bin/sh", "-c", "one\n"], ["/bin/sh", "-c", "two\n"]] == backend.asked


@pytest.mark.req("SEEN-3")
def test_a_program_that_does_not_end_is_124_and_one_that_cannot_begin_is_1(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words, and in JSON."""
    backend = Recorded({"slow": RunResult("timeout"), "none": RunResult("crashed", detail="no such program")})
    assert 124 == _shell(place, backend, monkeypatch, "slow").exit_code
    done = _shell(place, backend, monkeypatch, "none")
    assert (1, True) == (done.exit_code, "could not be started: no such program" in done.stderr)
    body = json.loads(_shell(place, backend, monkeypatch, "slow", "--json").stdout)
    assert (False, ["timeout"], ["b", "a.txt"]) == (
        body["ok"],
        [item["status"] for item in body["programs"]],
        [item["path"] for item in body["dropped"]],
    )


@pytest.mark.req("SEEN-3")
def test_a_shell_has_no_way_out_and_no_secrets(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes out is on record with a call, and here there is none."""
    text = FLEET + 'sandbox: {secrets: [T], egress: [{host: crates.io, headers: {X: "${secret:T}"}}]}\n'
    (place / "fleet.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("T", "hunter2")
    backend = Recorded({})
    assert 0 == _shell(place, backend, monkeypatch, "true").exit_code
    assert [((), {})] == [(profile.egress, profile.secrets) for profile in backend.profiles]


@pytest.mark.req("SEEN-3")
def test_what_a_program_prints_cannot_steer_the_terminal(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An escape sequence is written out."""
    backend = Recorded({"x": RunResult("ended", 0, b"\x1b[2J\n", b"\x07")})
    done = _shell(place, backend, monkeypatch, "x")
    assert ("\\x1b[2J\n", False) == (done.stdout, "\x07" in done.stderr)


@pytest.mark.req("SEEN-3")
def test_a_sandbox_that_cannot_be_is_refused_in_words(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs in something weaker; an unknown agent, several, or one without a sandbox are said."""
    refused = _shell(place, Recorded({}, refuses="no user namespaces here"), monkeypatch, "true")
    assert (1, True) == (refused.exit_code, "no user namespaces here" in refused.stderr)
    assert 6 == _shell(place, Recorded({}), monkeypatch, "--agent", "nobody", "true").exit_code
    (place / "fleet.yaml").write_text(FLEET + "sandbox: {backend: process, because: x}\n", encoding="utf-8")
    plain = _shell(place, Recorded({}), monkeypatch, "true")
    assert (2, True) == (plain.exit_code, "act in no sandbox" in plain.stderr)
    several = FLEET.replace("prompt_text: write}", "prompt_text: write, tools: [files.read]}")
    (place / "fleet.yaml").write_text(several, encoding="utf-8")
    assert "--agent hand | pen" in _shell(place, Recorded({}), monkeypatch, "true").stderr


@pytest.mark.req("SEEN-3")
def test_where_people_have_tokens_it_takes_an_operator(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can look into a sandbox reads the workspace."""
    home = str(place / "home")
    with wiring.open_store(place / "home", create=True):
        pass
    CliRunner().invoke(main, ["--home", home, "principals", "add", "ann", "--role", "admin"])
    backend = Recorded({})
    assert 4 == _shell(place, backend, monkeypatch, "true").exit_code
    assert [] == backend.asked


@pytest.mark.req("SEEN-3")
def test_a_workspace_around_the_home_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its database would be a file in the sandbox like any other."""
    monkeypatch.setattr("midwatch.wiring.backend_of", lambda _level: Recorded({}))
    done = _call(place, "shell", str(place / "fleet.yaml"), "--workdir", str(place), "true")
    assert (2, True) == (done.exit_code, "lie in each other" in done.stderr)
