"""The corpus: what small models really wrote, and what we wrote to be nasty, is read rightly or refused."""

from __future__ import annotations

import pytest

from bench.recovery.corpus import SCHEMAS, Case, cases, verdict
from midwatch.recovery import Refused, recover

CASES = cases()


def _outcome(case: Case) -> tuple[bool, object]:
    found = recover(case.text, SCHEMAS[case.schema], truncated=case.cut)
    return (False, None) if isinstance(found, Refused) else (True, found.value)


@pytest.mark.req("RECOVERY-8")
def test_no_value_is_silently_wrong_and_few_are_missed() -> None:
    """Of at least 200 texts, half of them authentic: none gives another value than was meant, 95 % are answered rightly."""
    told = {case.id: verdict(case, _outcome(case)) for case in CASES}
    assert [] == [name for name, word in told.items() if word == "wrong"]
    assert len([word for word in told.values() if word == "right"]) >= 0.95 * len(told)


@pytest.mark.req("RECOVERY-8")
def test_the_corpus_is_what_it_says() -> None:
    """Half of it are models' own words; ids are unique; every value that is expected fits its schema."""
    authentic = [case for case in CASES if case.origin != "written"]
    assert len(CASES) >= 200
    assert 2 * len(authentic) >= len(CASES)
    assert len(CASES) == len({case.id for case in CASES})
    assert all(SCHEMAS[case.schema].fits(case.expect["value"]) for case in CASES if "value" in case.expect)
    assert any(case.expect.get("refuse") for case in authentic)


@pytest.mark.req("RECOVERY-8")
def test_a_parser_that_guesses_is_found_out() -> None:
    """The judge tells a wrong value from a right one, and a refusal from a miss."""
    case = next(case for case in CASES if case.expect == {"value": case.expect.get("value")})
    other = next(case for case in CASES if case.expect.get("refuse"))
    assert ("wrong", "missed") == (verdict(case, (True, {"no": 1})), verdict(case, (False, None)))
    assert ("wrong", "right") == (verdict(other, (True, case.expect["value"])), verdict(other, (False, None)))
