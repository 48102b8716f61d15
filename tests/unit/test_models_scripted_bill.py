"""The bill: exact costs, durable lines, several servers on one file."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import pytest

from midwatch.errors import InvalidScenario
from midwatch.models.scripted.bill import Bill, Charge, Price, cost_microusd, parse_price

PRICES = {"m": Price(Fraction(1, 4), Fraction(1, 40), Fraction(2))}


def charge(completion: int = 10) -> Charge:
    """A finished request of 100 prompt tokens, 40 of them cached."""
    return Charge(
        at_us=7,
        agent="a",
        model="m",
        prompt_tokens=100,
        cached_tokens=40,
        completion_tokens=completion,
        outcome="finished",
        request_id="req_1",
    )


@pytest.mark.req("SCRIPTED-7")
def test_costs_are_exact_and_rounded_up_once() -> None:
    """Cached tokens cost their own rate, and a fraction of a micro-dollar is charged as a whole one."""
    price = PRICES["m"]
    assert 60 // 4 + 1 + 20 == cost_microusd(price, prompt=100, cached=40, completion=10)
    assert 1 == cost_microusd(price, prompt=1, cached=0, completion=0)
    assert 0 == cost_microusd(price, prompt=0, cached=0, completion=0)
    assert 0 == cost_microusd(None, prompt=5, cached=0, completion=5)


@pytest.mark.req("SCRIPTED-1")
@pytest.mark.parametrize("wrong", ["0.25", 0.25, "$", "$-1", "$1e3", "$.5", "$1.", "$1,000", None, "$NaN", "$٣"])
def test_prices_are_written_in_dollars(wrong: object) -> None:
    """Anything but `$` and a plain decimal number is no price."""
    assert Fraction(1, 4) == parse_price("$0.25")
    assert parse_price(wrong) is None


@pytest.mark.req("SCRIPTED-7")
def test_a_later_server_continues_the_file(tmp_path: Path) -> None:
    """Numbers go on where an earlier server, killed or not, has stopped, and totals cover the whole file."""
    path = tmp_path / "bill.jsonl"
    first = Bill(path, PRICES)
    first.add(charge())
    second = Bill(path, PRICES)  # the first is still open, as when two processes share one home
    assert [1, 2, 3] == [first.lines[0].seq, second.add(charge()).seq, first.add(charge()).seq]
    first.close()
    second.close()
    third = Bill(path, PRICES)
    totals = third.report()["totals"]
    third.close()
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    assert [1, 2, 3] == [row["seq"] for row in rows]
    assert isinstance(totals, dict)
    assert (3, 300, 120, 30, 108) == tuple(totals.values())


@pytest.mark.req("SCRIPTED-8")
def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    """A line that was never acknowledged, since its end is missing, does not spoil those before and after it."""
    path = tmp_path / "bill.jsonl"
    bill = Bill(path, PRICES)
    bill.add(charge())
    bill.close()
    with path.open("ab") as file:
        file.write(b'{"seq": 2, "at_us"')
    again = Bill(path, PRICES)
    assert 2 == again.add(charge()).seq
    again.close()
    assert [1, 2] == [json.loads(row)["seq"] for row in path.read_text().splitlines()]


@pytest.mark.req("SCRIPTED-8")
def test_a_file_that_is_no_bill_is_left_alone(tmp_path: Path) -> None:
    """A wrong `--bill` is refused before anything is written to it."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n")
    with pytest.raises(InvalidScenario, match="not a line of a bill"):
        Bill(path, PRICES)
    assert "my notes\n" == path.read_text()


@pytest.mark.req("SCRIPTED-8")
def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk takes only half a line, the error is raised and the half is gone."""
    path = tmp_path / "bill.jsonl"
    bill = Bill(path, PRICES)
    bill.add(charge())
    before = path.read_bytes()
    real = os.write
    monkeypatch.setattr("os.write", lambda file, data: real(file, data[: len(data) // 2]))
    with pytest.raises(OSError, match="disk space"):
        bill.add(charge())
    assert before == path.read_bytes()
    assert 1 == len(bill.lines)
    monkeypatch.undo()
    assert 2 == bill.add(charge()).seq
    bill.close()
