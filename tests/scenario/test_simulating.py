"""`policy simulate` over whole runs: what a changed fleet would have said to calls that were really made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from midwatch import wiring
from midwatch.surfaces.cli import main
from tests.scenario.bank import PAY, Bank, Call

MAIL: Call = ("ops_mail", {})


def simulated(bank: Bank, *options: str, code: int = 0) -> dict[str, Any]:
    """Simulate the bank's fleet file as it is now."""
    done = CliRunner().invoke(
        main, ["policy", "simulate", str(bank.fleet), "--home", str(bank.home), "--json", *options]
    )
    assert code == done.exit_code, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.req("OWN-7")
def test_what_differs_is_listed_with_its_chain(tmp_path: Path) -> None:
    """Under its own fleet nothing differs; with a policy that gives the mail that right the payment is allowed; with no grant denied."""
    bank = Bank(tmp_path / "b", [[MAIL], [PAY]], mode="record")
    run = bank.go().run
    told = simulated(bank)
    assert ([], [], 1, True) == (told["differing"], told["unclear"], told["runs"], told["ok"])
    assert 2 == told["judged"]
    with wiring.open_store(bank.home) as store:
        head = store.read(lambda tx: tx.ledger.head())
    file = bank.fleet / "fleet.yaml"
    kept = file.read_text("utf-8")
    file.write_text(kept + '\npolicies: [{who: ["third_party:*"], may: ["ops.pay"], roles: all}]\n', "utf-8")
    (differs,) = simulated(bank, "--run", run, code=1)["differing"]
    assert ("ops.pay", "ask", "allowed", []) == tuple(differs[key] for key in ("tool", "was", "now", "chain"))
    file.write_text(kept.replace('may: ["*"]', "may: [ops.mail]"), "utf-8")
    (differs,) = simulated(bank, "--since", "1h", code=1)["differing"]
    assert ("ops.pay", "ask", "denied", "grants") == tuple(differs[key] for key in ("tool", "was", "now", "by"))
    with wiring.open_store(bank.home) as store:
        assert head == store.read(lambda tx: tx.ledger.head())


@pytest.mark.req("OWN-7")
def test_a_source_that_is_trusted_by_now_changes_labels_too(tmp_path: Path) -> None:
    """The chain tells of the source by its own name: what an agent had seen is labelled anew, not read from the record."""
    bank = Bank(tmp_path / "b", [[MAIL], [PAY]], mode="record")
    bank.go()
    file = bank.fleet / "fleet.yaml"
    more = (
        '\nsources: {"tool:ops.mail": {name: post, trust: full, readers: [everyone], writers: [clerk]}}\n'
        'policies: [{who: ["source:post"], may: ["ops.pay"], roles: all}]\n'
    )
    file.write_text(file.read_text("utf-8") + more, "utf-8")
    (differs,) = simulated(bank, code=1)["differing"]
    assert ("ask", "allowed") == (differs["was"], differs["now"])


@pytest.mark.req("OWN-7")
def test_what_cannot_be_judged_again_is_counted_and_named(tmp_path: Path) -> None:
    """A tool that is another one by now, or gone, is not taken for a call that stays as it was."""
    bank = Bank(tmp_path / "b", [[MAIL], [PAY]], mode="record")
    bank.go()
    file = bank.fleet / "ops.py"
    text = file.read_text("utf-8")
    assert '"""Pay' in text
    file.write_text(text.replace('"""Pay', '"""Really pay'), "utf-8")
    told = simulated(bank)
    assert (1, [("ops.pay", "`ops.pay` is another tool by now")]) == (
        told["judged"],
        [(each["tool"], each["reason"]) for each in told["unclear"]],
    )


@pytest.mark.req("OWN-7")
def test_runs_are_named_or_chosen_by_time(tmp_path: Path) -> None:
    """Both at once, or no time at all, is a mistake; an unknown run is not found."""
    bank = Bank(tmp_path / "b", [[MAIL]], mode="record")
    bank.go()
    for options, code in ((("--run", "last", "--since", "1h"), 2), (("--since", "soon"), 2), (("--run", "abcd"), 6)):
        simulated(bank, *options, code=code)
