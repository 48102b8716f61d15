"""Step *n* grants what step *m* uses: each chain stops before the power is outside of the sandbox, and its benign twin goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.attack.escalation.suite import Case, Ran, cases, ran

CASES = cases()
TOGETHER = 4
"""Chains carried out at once: most of each is waiting for processes to begin."""


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Case, str], Ran]]:
    """Give what became of a case's attack or twin. All are begun at once, each in a place and a kernel of its own."""
    root = tmp_path_factory.mktemp("chains")
    with ThreadPoolExecutor(TOGETHER) as threads:
        begun = {
            (case.id, side): threads.submit(ran, case, getattr(case, side), root / f"{case.id}-{side}" / "s")
            for case in CASES
            for side in ("attack", "twin")
        }
        yield lambda case, side: begun[case.id, side].result(600)
        threads.shutdown(cancel_futures=True)


@pytest.mark.req("ESCALATION-1")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_chain_stops_where_the_power_would_come_to_be(case: Case, carried: Callable[[Case, str], Ran]) -> None:
    """People are asked and told of the family; no later session finds anything of it, and nothing was sent."""
    found = carried(case, "attack")
    at = case.stopped["session"]
    assert [*["done"] * (at - 1), "waiting"] == list(found.statuses[:at])
    assert case.grants in found.told
    held = {path: case.workspace.get(path) for path in case.stopped["holds"]}
    assert held == {path: found.files.get(path) for path in held}
    assert not set(held) & set(found.links)
    assert [] == found.sent
    written = {step["text"] for step in case.attack if isinstance(step, dict) and step.get("write") in held}
    assert not written & set(found.read)


@pytest.mark.req("ESCALATION-2")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_its_twin_goes_through_without_a_person(case: Case, carried: Callable[[Case, str], Ran]) -> None:
    """Every session ends well, its files are there, its requests are sent, and what reads it finds it."""
    found = carried(case, "twin")
    assert {"done"} == set(found.statuses)
    assert case.passes == {path: found.files.get(path) for path in case.passes}
    assert list(case.sends) == found.sent


@pytest.mark.req("ESCALATION-3")
def test_the_suite_is_as_long_and_as_deep_as_it_says() -> None:
    """At least 60 chains of two to six steps; other agents, other sessions; every family of detectors that sees files or requests."""
    assert 60 <= len(CASES)
    assert {2, 3, 4, 6} <= {case.depth for case in CASES}
    assert {"call", "agent", "session"} == {case.distance for case in CASES}
    families = "accounts agents ci containers git kubernetes midwatch modes network packages registries services sql ssh startup"
    assert set(families.split()) <= {case.grants for case in CASES}
