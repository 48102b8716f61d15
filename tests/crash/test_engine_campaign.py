"""A short campaign of random kills with gates; `python -m bench.kills` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.campaign import campaign


@pytest.mark.req("GATES-10")
@pytest.mark.timeout(300)
def test_workers_that_die_anywhere_lose_no_yes_and_repeat_no_call(tmp_path: Path) -> None:
    """Thirty workers die anywhere; every question is answered twice, contrarily; nothing is lost, bound wrongly or repeated."""
    report = campaign(tmp_path / "all", kills=30, seed=11)
    assert report.clean, report
    assert (report.kills >= 30, report.answers == report.refused, report.answers > 5) == (True, True, True)
