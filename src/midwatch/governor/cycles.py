"""Cycles: whether an agent goes round in circles: the same few calls with the same results, nothing new, two who hand over and back.

In:   a trail, the next call with its result or the next hand over. Out: the trail, and what it shows.
May import: config's specs. Must not know: where trails are kept, what follows.
Why near-duplicates: a loop seldom repeats itself to the byte: times, ids and blanks differ. Small numbers count as they are, since
reading page 2 after page 1 is progress.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from midwatch.config.specs_breakers import BreakerSpec

__all__ = ["Trail", "called", "handed", "likeness", "read"]

_LONGEST: Final = 4
"""Calls that one round of a circle has at most."""
_SEEN: Final = 512
_LAST: Final = 64
_VOLATILE: Final = re.compile(
    r"\d{4}-\d\d-\d\d[t ]?[\d:.,+z-]*|\b\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?\b"
    r"|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b|\b\d{6,}\b"
)
_READ: Final = 20_000


@dataclass(frozen=True, slots=True)
class Trail:
    """What one agent of one run did of late; or who of a run handed over.

    Attributes:
        last: newest calls with their results, as likenesses. seen: results known already. stale: calls in a row that brought nothing new.
        errors: calls in a row that failed, whichever tools they were of.
    """

    last: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    stale: int = 0
    errors: int = 0

    def to_bytes(self) -> bytes:
        """Give what is kept."""
        return orjson.dumps([self.last, self.seen, self.stale, self.errors])


def read(body: bytes | None) -> Trail:
    """Read what was kept; an empty one where there is nothing."""
    if body is None:
        return Trail()
    last, seen, stale, errors = orjson.loads(body)
    return Trail(tuple(last), tuple(seen), stale, errors)


def likeness(*parts: str | bytes) -> str:
    """Give what is the same for near-duplicates: times, ids, long numbers, case and blanks do not count."""
    texts = [part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in parts]
    plain = "\x00".join(
        " ".join(_VOLATILE.sub("#", text[:_READ].casefold()).split()) + f"\x01{len(text) > _READ}" for text in texts
    )
    tail = "".join(hashlib.sha256(text[_READ:].encode()).hexdigest() for text in texts if len(text) > _READ)
    return hashlib.sha256((plain + tail).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def called(trail: Trail, spec: BreakerSpec, *, call: str, result: str, ok: bool, why: str) -> tuple[Trail, str | None]:
    """Add a call with its result; second: what it shows, with the numbers, or None.

    Args:
        call, result: likenesses.
    """
    both = f"{call}{result}"
    new = both not in trail.seen
    errors = 0 if ok else trail.errors + 1
    last = (*trail.last, both)[-_LAST:]
    seen = (*trail.seen, both)[-_SEEN:] if new else trail.seen
    trail = Trail(last, seen, 0 if new else trail.stale + 1, errors)
    if spec.consecutive_errors and errors >= 2 * spec.consecutive_errors:
        return trail, f"{errors} calls in a row failed, of whichever tool; the last: {why}"
    period = _period(last, spec.cycle)
    if period:
        return (
            trail,
            f"the same {period} call{'s' * (period > 1)} with the same results came {spec.cycle} times in a row",
        )
    if spec.no_progress and trail.stale >= spec.no_progress:
        return trail, f"{trail.stale} calls in a row brought nothing that was not known"
    return trail, None


def handed(trail: Trail, spec: BreakerSpec, *, agent: str, step: int) -> tuple[Trail, tuple[str, str] | None]:
    """Note who is at work in which step; second: the two who only hand over to each other, or None.

    Agents side by side in one step hand over to nobody, so they end a rally.
    """
    entry = orjson.dumps([step, agent]).decode()
    steps: list[Any] = [orjson.loads(item) for item in trail.last]
    if steps and steps[-1] == [step, agent]:
        return trail, None
    if steps and steps[-1][0] == step:
        return replace(trail, last=(entry,)), None
    if steps and steps[-1][1] == agent:
        return replace(trail, last=(*trail.last[:-1], entry)), None
    last = (*trail.last, entry)[-_LAST:]
    trail = replace(trail, last=last)
    names = [*(item[1] for item in steps), agent]
    if not spec.ping_pong or _period(tuple(names[-_LAST:]), min(spec.ping_pong, _LAST // 2), only=2) != 2:
        return trail, None
    one, other = sorted(names[-2:])
    return trail, (one, other)


def _period(last: tuple[str, ...], times: int, *, only: int | None = None) -> int:
    """Give of how many items the shortest round is that the end repeats so often; 0: none."""
    if not times:
        return 0
    for period in range(1, _LONGEST + 1) if only is None else (only,):
        wanted = period * times
        if len(last) >= wanted and all(last[-1 - at] == last[-1 - at % period] for at in range(wanted)):
            return period
    return 0
