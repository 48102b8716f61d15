"""What every scenario shares: a person edits a fleet right after a run, sooner than any person could."""

import pytest


@pytest.fixture(autouse=True)
def _no_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only what was written while a call was at work wait for a person; the seconds after it have their own tests (clause 24)."""
    monkeypatch.setattr("midwatch.engine.authority.SLACK_US", 0)
