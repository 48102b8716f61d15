"""Leases over whole runs: two writers of one target, a writer that was killed, and one whose lease was taken while it acts."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from click.testing import CliRunner

from midwatch import wiring
from midwatch.engine.leasing import SLACK_US, needs
from midwatch.store.leases import LeaseRow
from midwatch.surfaces.cli import main
from midwatch.tools.contract import ArgContract, ToolContract
from tests.scenario.bank import EVE, PAY, TOOLS, Bank

FAR = 4_102_444_800_000_000
WHERE = f"ops:{EVE}"
STRANGER = LeaseRow(WHERE, "f" * 16, "f" * 32, "worker", "ops.pay", 1, 1, FAR)
TAKEN = """
@tool(effect="write", runs="broker", open_world=False, reversible=False, observers=())
def pay(context: ToolContext, to: Target, amount: Amount, note: Plain = "") -> dict[str, Text]:
    '''Pay, while another one takes the lease.'''
    import sqlite3
    home = sqlite3.connect(os.environ["LEASE_HOME"], timeout=30, isolation_level=None)
    home.execute("DELETE FROM lease")
    home.close()
    log(context, f"pay {to} {amount}")
    return {"paid": to}
"""
KILLED = """
@tool(effect="write", runs="broker", open_world=False, reversible=False, observers=())
def pay(context: ToolContext, to: Target, amount: Amount, note: Plain = "") -> dict[str, Text]:
    '''Pay, or die.'''
    log(context, f"pay {to} {amount}")
    if (context.workdir / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"paid": to}
"""


def bank(root: Path, more: str = "") -> Bank:
    """Make a bank whose worker pays once."""
    return Bank(root, [[PAY]], mode="record", tools=TOOLS + more)


def rows(home: Bank) -> list[LeaseRow]:
    """Give the home's leases."""
    with wiring.open_store(home.home) as store:
        return list(store.read(lambda tx: tx.leases.list()))


def hold(home: Bank, row: LeaseRow) -> None:
    """Let another run have a lease."""
    with wiring.open_store(home.home, create=True) as store:
        store.write(lambda tx: tx.leases.take(row))


def said(home: Bank, *words: str) -> Any:
    """Call the command; gives its JSON."""
    argv = ["--home", str(home.home), "leases", *words, "--json"]
    return json.loads(CliRunner().invoke(main, argv, catch_exceptions=False).output)


def contract(**more: Any) -> ToolContract:
    """Make a contract with one target."""
    schema = {"type": "object", "additionalProperties": False, "properties": {"to": {"type": "string"}}}
    usual: dict[str, Any] = {"effect": "write", "runs": "broker", "args": (ArgContract("to", "target"),)}
    return ToolContract("ops.put", "1", "d", schema, {"type": "null"}, **{**usual, **more})


@pytest.mark.req("LEASE-1")
def test_only_what_writes_outside_a_sandbox_needs_a_lease() -> None:
    """One name for one thing, however it is written; reads, sandboxed work and what has no target need none."""
    web = [needs(contract(), {"to": text}) for text in ("HTTPS://Example.org:443/a", "https://example.org/a")]
    assert web[0] == web[1] != needs(contract(), {"to": "https://example.org/b"})
    none = [contract(effect="read"), contract(runs="sandbox"), contract(args=(ArgContract("to", "content"),))]
    assert [()] * 3 == [needs(each, {"to": "x"}) for each in none]
    said = [contract(lease=False), contract(runs="sandbox", lease=True)]
    assert [(), ("ops:x",)] == [needs(each, {"to": "x"}) for each in said]
    assert contract().digest not in {each.digest for each in said}


@pytest.mark.req("LEASE-1", "LEASE-4")
def test_the_later_writer_is_told_and_does_nothing(tmp_path: Path) -> None:
    """Another run writes to the same account: a conflict that says who and until when, and no payment; after a release it passes."""
    ours = bank(tmp_path / "b")
    hold(ours, STRANGER)
    done = ours.go()
    error = ours.results(done.run)[0]["error"]
    assert ("done", "conflict", []) == (done.status, error["code"], ours.calls("pay"))
    assert "agent `worker` of run `fffffff` is writing there by `ops.pay`, until " in error["message"]
    assert [(WHERE, True)] == [(row["resource"], row["live"]) for row in said(ours, "ls")["leases"]]
    assert [STRANGER.effect] == [
        row["effect"] for row in said(ours, "release", WHERE, "--reason", "it is gone")["released"]
    ]
    with wiring.open_store(ours.home) as store:
        told = store.read(lambda tx: tx.ledger.read(kinds=("lease.released",), limit=10))
    assert [(WHERE, "it is gone")] == [(event.data["resource"], event.data["reason"]) for event in told]
    again = ours.go()
    assert ("done", [f"pay {EVE} 70"], []) == (again.status, ours.calls("pay"), rows(ours))


@pytest.mark.req("LEASE-4")
def test_a_release_needs_a_holder_a_reason_and_a_role(tmp_path: Path) -> None:
    """Nobody to release, no reason, no operator: refused, and the lease stays."""
    ours = bank(tmp_path / "b")
    hold(ours, STRANGER)
    base = ["--home", str(ours.home), "leases", "release"]
    assert 6 == CliRunner().invoke(main, [*base, "ops:nobody", "--reason", "x"]).exit_code
    assert 2 == CliRunner().invoke(main, [*base, WHERE, "--reason", " "]).exit_code
    token = tmp_path / "token"
    token.write_text(ours.person("eve", "viewer"))
    token.chmod(0o600)
    refused = CliRunner().invoke(main, [*base, WHERE, "--reason", "x", "--token-file", str(token)])
    assert (4, [STRANGER]) == (refused.exit_code, rows(ours))


@pytest.mark.req("LEASE-2")
def test_a_writer_that_was_killed_keeps_its_lease_until_it_runs_out(tmp_path: Path) -> None:
    """Its call may still act somewhere: another run is told; once it has run out the other one pays, and the first stays in doubt."""
    ours = bank(tmp_path / "b", KILLED)
    (ours.work / "die").touch()
    assert -9 == ours.process(request="pay the rent", USER="ann").returncode
    first = ours.freed()
    (ours.work / "die").unlink()
    held = rows(ours)
    assert [(WHERE, first, 30_000_000 + SLACK_US)] == [
        (row.resource, row.run, row.until_us - row.taken_us) for row in held
    ]
    other = ours.go()
    assert (["conflict"], 1) == (ours.codes(other.run), len(ours.calls("pay")))
    with wiring.open_store(ours.home) as store:
        store.write(lambda tx: tx.leases.release(WHERE, held[0].effect))
    hold(ours, LeaseRow(WHERE, held[0].effect, first, "worker", "ops.pay", 1, 1, 2))
    third = ours.go()
    assert ([None], 2, []) == (ours.codes(third.run), len(ours.calls("pay")), rows(ours))
    resumed = ours.go(first)
    assert ("waiting", 1, 2) == (resumed.status, len(resumed.in_doubt), len(ours.calls("pay")))


@pytest.mark.req("LEASE-3")
def test_a_writer_whose_lease_is_taken_while_it_acts_is_fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has acted, and so may have another one: its result does not count, and a person must say what stands."""
    ours = bank(tmp_path / "b", TAKEN)
    monkeypatch.setenv("LEASE_HOME", str(ours.home / "midwatch.db"))
    waits = ours.go()
    assert ("waiting", 1, [f"pay {EVE} 70"]) == (waits.status, len(waits.in_doubt), ours.calls("pay"))
    assert [] == [event for event in ours.events(waits.run, "finished") if "tool" in event.data]


@pytest.mark.req("LEASE-3")
def test_a_writer_whose_lease_is_taken_before_it_begins_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its intent and its beginning the resource went to another one: a conflict, and nothing was paid."""
    ours = bank(tmp_path / "b")
    monkeypatch.setattr("midwatch.engine.leasing.lost", lambda _, p: bool(p.leases))
    done = ours.go()
    assert ("done", ["conflict"], []) == (done.status, ours.codes(done.run), ours.calls("pay"))


SLOW = """
@tool(effect="write", runs="broker", open_world=False, reversible=False, observers=())
def pay(context: ToolContext, to: Target, amount: Amount, note: Plain = "") -> dict[str, Text]:
    '''Pay, once the other one has been told.'''
    import time
    log(context, f"begin {to}")
    for _ in range(2000):
        if (context.workdir / "told").exists():
            break
        time.sleep(0.02)
    log(context, f"pay {to} {amount}")
    return {"paid": to}
"""


@pytest.mark.req("LEASE-1")
def test_two_processes_that_write_to_one_target_never_do_so_at_once(tmp_path: Path) -> None:
    """One writes while the other one comes: that one is told and does nothing, and the first one's payment is the only one."""
    ours = bank(tmp_path / "b", SLOW)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ours.process, request="pay the rent", USER="ann")
        assert any(ours.calls("begin") or Event().wait(0.05) for _ in range(1200))
        second = ours.go()
        (ours.work / "told").touch()
        assert 0 == first.result(timeout=90).returncode
    assert (["conflict"], [f"pay {EVE} 70"], []) == (ours.codes(second.run), ours.calls("pay"), rows(ours))
