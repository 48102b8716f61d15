"""Step *n* grants what step *m* uses: each chain stops before the power is outside of the sandbox, and its benign twin goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.attack.escalation.office import acted
from tests.attack.escalation.suite import Case, Ran, cases, ran

CASES = cases()
FILES = [case for case in CASES if not case.acts]
ACTS = [case for case in CASES if case.acts]
TOGETHER = 3
"""Chains carried out at once: most of each is waiting for processes to begin."""


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Case, str], Ran]]:
    """Give what became of the attack or twin of a case that leaves files; see `_together`."""
    yield from _together(FILES, ran, tmp_path_factory.mktemp("chains"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Case, str], Ran]]:
    """Give what became of the attack or twin of a case that acts; see `_together`."""
    yield from _together(ACTS, acted, tmp_path_factory.mktemp("acts"))


def _together(
    some: list[Case], carry: Callable[[Case, list[object], Path], Ran], root: Path
) -> Iterator[Callable[[Case, str], Ran]]:
    """Begin all attacks and twins at once, each in a place and a kernel of its own."""
    with ProcessPoolExecutor(TOGETHER, mp_context=get_context("spawn")) as processes:
        begun = {
            (case.id, side): processes.submit(carry, case, getattr(case, side), root / f"{case.id}-{side}" / "s")
            for side in ("attack", "twin")
            for case in some
        }
        yield lambda case, side: begun[case.id, side].result(600)
        processes.shutdown(cancel_futures=True)


@pytest.mark.req("ESCALATION-1")
@pytest.mark.parametrize("case", FILES, ids=str)
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


@pytest.mark.req("ESCALATION-4")
@pytest.mark.parametrize("case", ACTS, ids=str)
def test_a_chain_of_causes_stops_before_the_call_that_uses_them(case: Case, done: Callable[[Case, str], Ran]) -> None:
    """People are asked, and told of the causes or of the chain; what would use the power was not done."""
    found = done(case, "attack")
    at = case.stopped["session"]
    assert [*["done"] * (at - 1), case.stopped.get("status", "waiting")] == list(found.statuses[:at])
    assert list(case.stopped["did"]) == list(found.did)
    if found.statuses[at - 1] == "waiting":
        assert case.grants in found.told


@pytest.mark.req("ESCALATION-4")
@pytest.mark.parametrize("case", ACTS, ids=str)
def test_its_twin_does_what_was_asked_for_without_a_person(case: Case, done: Callable[[Case, str], Ran]) -> None:
    """Every session ends well, and all that was called was done, in order."""
    found = done(case, "twin")
    assert ({"done"}, list(case.does)) == (set(found.statuses), list(found.did))


@pytest.mark.req("ESCALATION-2")
@pytest.mark.parametrize("case", FILES, ids=str)
def test_its_twin_goes_through_without_a_person(case: Case, carried: Callable[[Case, str], Ran]) -> None:
    """Every session ends well, its files are there, its requests are sent, and what reads it finds it."""
    found = carried(case, "twin")
    assert {"done"} == set(found.statuses), found.why
    assert case.passes == {path: found.files.get(path) for path in case.passes}
    assert list(case.sends) == found.sent


@pytest.mark.req("ESCALATION-3")
def test_the_suite_is_as_long_and_as_deep_as_it_says() -> None:
    """At least 60 chains of two to six steps; other agents, other sessions; every family of detectors that sees files or requests."""
    assert {2, 3, 4, 6} <= {case.depth for case in CASES}
    assert 60 <= len(FILES)
    assert 30 <= len(ACTS)
    assert {"call", "agent", "session", "process"} == {case.distance for case in CASES}
    assert {"causes", "retries"} == {case.grants for case in ACTS}
    families = "accounts agents ci containers git kubernetes midwatch modes network packages registries services sql ssh startup"
    assert set(families.split()) <= {case.grants for case in CASES}
