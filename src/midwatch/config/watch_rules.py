"""Rules of the watch: what of `governor:` cannot hold together.

In:   the draft. Out: problems. May import: `draft`, `watch_model`; errors. Must not know: who starts a governor.
"""

from __future__ import annotations

from collections.abc import Iterator

from midwatch.config.draft import Draft
from midwatch.config.watch_model import governor_spec
from midwatch.errors import Problem

__all__ = ["check_governor"]


def check_governor(draft: Draft) -> Iterator[Problem]:
    """Refuse a limit that a governor which does its duty would reach between two passes, and a period of nothing."""
    file = draft.file.governor
    if file is None:
        return
    spec = governor_spec(file)
    if spec.period_us < 1:
        yield draft.problem(("governor", "period"), "`period` must be more than nothing", "out-of-range")
    elif spec.stale_after_us <= spec.period_us:
        key = "stale_after" if file.stale_after is not None else "period"
        said = f"{spec.stale_after_us / 1e6:g} s are not more than the period of {spec.period_us / 1e6:g} s"
        message = f"`stale_after` must be more than `period`: {said}, so effects would stop between two passes"
        yield draft.problem(("governor", key), message, "stale-too-soon")
