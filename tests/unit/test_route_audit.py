"""`midwatch routes audit` and `route_policy`: where aliases lead, what they cost, and what they may not lead to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from midwatch.checking import check_fleet
from midwatch.config.fleet import Fleet
from midwatch.engine.routes_shown import audit
from midwatch.records.event import EventDraft
from midwatch.records.run import RunRow
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Tx
from midwatch.surfaces.cli import main

TEXT = """
midwatch: 1
fleet: small
routes:
  cheap: {provider: openai, model: small-1, price: {input_per_mtok: "$1", output_per_mtok: "$2"}}
  dear: {provider: openai, model: big-1, price: {input_per_mtok: "$9", output_per_mtok: "$10"}}
agents:
  ceo: {role: ceo, route: dear, prompt_text: Plan.}
  one: {role: specialist, route: cheap, prompt_text: Work.}
  end: {role: synthesis, route: cheap, prompt_text: Write.}
graph: {team: {ceo: ceo, specialists: [one], synthesis: end}}
"""
ENV = {"OPENAI_API_KEY": "sk-test"}


def _fleet(policy: str = "") -> Fleet:
    return Fleet.from_text(TEXT + policy, base=Path("/"), environ=ENV)


@pytest.mark.req("ROUTES-1")
def test_the_dearest_route_stands_first_and_nothing_drifts_without_a_policy() -> None:
    """What costs most is seen first."""
    rows = audit(_fleet(), None, ENV, at_us=1)
    assert [("dear", 10_000_000, ()), ("cheap", 2_000_000, ())] == [(r.alias, r.output, r.drift) for r in rows]


@pytest.mark.req("ROUTES-1")
@pytest.mark.parametrize(
    "policy",
    [
        "{providers: [anthropic]}",
        "{models: ['small-*']}",
        "{max_input_per_mtok: $8}",
        "{max_output_per_mtok: $9.99}",
        "{models: []}",
    ],
)
def test_what_the_policy_forbids_is_drift_and_an_error_of_the_check_that_every_run_makes(policy: str) -> None:
    """Each bound alone refuses the dear route."""
    fleet = _fleet(f"route_policy: {policy}\n")
    assert "policy" in [drift.code for drift in audit(fleet, None, ENV, at_us=1)[0].drift]
    assert "route-policy" in [problem.code for problem in check_fleet(fleet, ENV)[0]]
    assert "route-policy" not in [problem.code for problem in check_fleet(_fleet(), ENV)[0]]


@pytest.mark.req("ROUTES-1")
def test_an_alias_that_leads_elsewhere_than_in_the_last_run_has_moved() -> None:
    """The record of the last run says where it led then."""
    store, run = MemoryStore(), "ab" * 16
    data = {"route": "dear", "model": "big-0", "attempt": 1}

    def work(tx: Tx) -> None:
        blob = tx.blobs.put(b"{}")
        tx.runs.create(RunRow(run, "small", None, "f" * 64, blob, "a" * 64, "b" * 64, None, "done", 1, blob))
        tx.ledger.append(EventDraft("intent", run, 1, data))

    store.write(work)
    moved = {row.alias: [drift.code for drift in row.drift] for row in audit(_fleet(), store, ENV, at_us=1)}
    assert {"dear": ["moved"], "cheap": []} == moved
    store.close()


@pytest.mark.req("ROUTES-1")
def test_the_command_ends_in_one_on_drift(tmp_path: Path) -> None:
    """Without a home too; with `--json` one object."""
    (tmp_path / "fleet.yaml").write_text(TEXT + "route_policy: {max_output_per_mtok: $3}\n", encoding="utf-8")
    told = CliRunner().invoke(
        main, ["--home", str(tmp_path / "h"), "routes", "audit", str(tmp_path), "--json"], env=ENV
    )
    assert (1, 1) == (told.exit_code, json.loads(told.stdout)["drift"]), told.output
