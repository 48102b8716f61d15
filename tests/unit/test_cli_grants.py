"""`midwatch grants`: what waits, what it changes, and what a person says of it; and what a run then begins under."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.store.sqlite import SqliteStore
from midwatch.surfaces.cli import main
from tests.attack.containment.own import GRANT, Ground, committed
from tests.scenario.bank import PAY, Bank

WIDER = GRANT.replace('"crm.read"', '"crm.read", "pay.transfer"')


@pytest.fixture(name="ground")
def _ground(tmp_path: Path) -> Ground:
    """Give a home in which a run wrote a wider grant into the fleet file."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    store = SqliteStore(home / "midwatch.db")
    ground = Ground(tmp_path / "ws", store)
    ground.start()
    ground.agent_writes("fleet.yaml", ground.text.replace(GRANT, WIDER))
    store.close()
    return ground


def call(ground: Ground, *words: str, env: dict[str, str] | None = None) -> Result:
    """Give a command in that home."""
    return CliRunner().invoke(main, ["--home", str(ground.folder.parent / "home"), "grants", *words], env=env)


def told(ground: Ground, *words: str, code: int = 0) -> dict[str, Any]:
    """Give a command, and read its JSON."""
    done = call(ground, *words, "--json")
    assert code == done.exit_code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.req("OWN-6")
def test_what_waits_is_listed_shown_and_endorsed(ground: Ground) -> None:
    """Looked at without a run; the difference is readable; by its digest it counts, once; then nothing waits."""
    assert [] == told(ground, "pending")["pending"]
    (row,) = told(ground, "pending", str(ground.file))["pending"]
    assert ("grants", "grants", "pending", ["third_party:web.fetch"]) == (
        row["kind"],
        row["name"],
        row["state"],
        row["label"]["causes"],
    )
    shown = told(ground, "diff", row["id"][:8])
    assert '+      "pay.transfer"' in shown["diff"]
    plain = call(ground, "diff", row["id"][:8])
    assert f"midwatch grants endorse {row['id'][:8]} --digest {row['digest'][:12]}" in plain.stderr
    assert 2 == call(ground, "endorse", row["id"], "--digest", row["digest"]).exit_code
    assert 4 == call(ground, "endorse", row["id"], "--digest", "0" * 64, "--yes").exit_code
    done = told(ground, "endorse", row["id"], "--digest", row["digest"][:12], "--yes", "--reason", "it is needed")
    assert ("endorsed", True) == (done["state"], done["ok"])
    assert 4 == call(ground, "endorse", row["id"], "--digest", row["digest"], "--yes").exit_code
    assert [] == told(ground, "pending", str(ground.file))["pending"]


@pytest.mark.req("OWN-6")
def test_what_is_rejected_is_told_and_unknown_ids_are_not_found(ground: Ground) -> None:
    """Exit code 6 for an id that is none here; a rejected version waits no more."""
    (row,) = told(ground, "pending", str(ground.file))["pending"]
    assert 6 == call(ground, "diff", "ffffffff").exit_code
    assert "rejected" == told(ground, "reject", row["id"])["state"]
    done = call(ground, "pending")
    assert ("", "nothing waits\n") == (done.stdout, done.stderr)


@pytest.mark.req("OWN-6")
def test_what_a_file_says_cannot_steer_the_terminal(ground: Ground) -> None:
    """Controls in what is shown are made visible."""
    with wiring.open_store(ground.folder.parent / "home") as store:
        committed(
            store, ground.folder, "fleet.yaml", ground.text.replace("prompt_text: work", 'prompt_text: "a\\u202eb"')
        )
    rows = told(ground, "pending", str(ground.file))["pending"]
    prompt = next(row for row in rows if row["kind"] == "prompts")
    assert "\u202e" not in call(ground, "diff", prompt["id"]).output


@pytest.mark.req("OWN-1")
def test_attack_a_whole_run_begins_under_what_was_endorsed(tmp_path: Path) -> None:
    """A run wrote itself a wider grant: the next run's call is denied as before, and the kernel says why."""
    bank = Bank(tmp_path / "b", [[PAY]], grants='[{who: "agent:*", may: [ops.mail]}]')
    first = bank.go()
    assert [["denied"]] == [bank.codes(first.run)]
    text = (bank.fleet / "fleet.yaml").read_text("utf-8")
    with wiring.open_store(bank.home) as store:
        committed(store, bank.fleet, "fleet.yaml", text.replace("may: [ops.mail]", 'may: ["*"]'), at=wiring.clock())
    with wiring.open(bank.fleet, home=bank.home, workdir=bank.work, environ={"USER": "ann"}) as kernel:
        assert "without grants/grants" in kernel.start_info
        second = kernel.run("pay the rent")
    assert [["denied"]] == [bank.codes(second.run)]
    created = bank.events(second.run, "run.created")[0]
    assert [] == list(created.causes)
    assert [] == bank.calls("pay")


@pytest.mark.req("OWN-3")
@pytest.mark.parametrize("words", [("check",), ("reach",), ("policy", "lint"), ("policy", "simulate")])
def test_attack_code_that_a_run_wrote_is_not_even_looked_at_by_running_it(
    ground: Ground, words: tuple[str, ...]
) -> None:
    """Commands that load tools to tell of them refuse what a run of this home wrote, before it is loaded."""
    mark = ground.folder.parent / "it-ran"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    with wiring.open_store(ground.folder.parent / "home") as store:
        committed(store, ground.folder, "tools.py", code)
    done = CliRunner().invoke(main, ["--home", str(ground.folder.parent / "home"), *words, str(ground.file)])
    assert (4, False) == (done.exit_code, mark.exists()), done.output
