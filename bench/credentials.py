"""The boundary scan's price: processor time for a KB of text, and what an adversary can add to it.

Rows: ordinary text of several kinds, which the pre-filter should let go; text full of the names that the scan looks for;
text full of credentials; adversarial beginnings. Medians of process time; the bar of 100 µs a KB holds for ordinary text.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Final

from midwatch.containment.credentials import Scrubber

__all__ = ["BAR_US", "main", "rows"]

BAR_US: Final = 100.0
_KB: Final = 1024
_REPETITIONS: Final = 21
_ROUNDS: Final = 20


def _prose() -> str:
    return (
        "The watch changed at four. Disk usage grew by 3 percent overnight; nobody needs to act on it before noon. "
        * 40
    )


def _disk() -> str:
    rows = [
        f"/dev/mapper/vg-disk{n:02d}  {n * 7919:>12}  {n * 4001:>12}  {n % 100}% /srv/volume-{n}" for n in range(70)
    ]
    return "\n".join(rows)


def _log() -> str:
    draw = random.Random(1)
    lines = [
        f"commit {draw.getrandbits(160):040x}\nAuthor: A <a@example.org>\n\n    Fix task-{n}: retry\n"
        for n in range(45)
    ]
    return "".join(lines)


def _json() -> str:
    draw = random.Random(2)
    items = [{"id": f"{draw.getrandbits(128):032x}", "url": f"https://example.org/{n}", "n": n} for n in range(50)]
    return json.dumps({"items": items, "max_tokens": 500, "next_page_token": "abc"})


def _code() -> str:
    return (
        'def tokens(key: str, max_tokens: int = 5) -> int:\n    """Count tokens of the key."""\n    return len(key)\n'
        * 40
    )


def _secrets() -> str:
    draw = random.Random(3)
    return "\n".join(f"GITHUB_TOKEN=ghp_{draw.getrandbits(144):036x} password: hunter{n}" for n in range(60))


def _texts() -> Mapping[str, tuple[str, bool]]:
    """Give name -> (text, whether the bar holds for it)."""
    return {
        "prose": (_prose(), True),
        "disk report": (_disk(), True),
        "git log": (_log(), True),
        "json": (_json(), True),
        "code about tokens and keys": (_code(), True),
        "a credential in every line": (_secrets(), False),
        "adversarial: names": ("password" * 512, False),
        "adversarial: quotes": ('token:"\\' * 512, False),
        "adversarial: addresses": ("://a:b" * 700, False),
    }


def rows() -> list[dict[str, object]]:
    """Measure. Each row: `text`, `bytes`, `us_per_kb`, `found`, `bar` (None where no bar holds)."""
    scrubber = Scrubber(b"0123456789abcdef")
    out: list[dict[str, object]] = []
    for name, (text, barred) in _texts().items():
        size = len(text.encode())
        spent = _median_us(lambda text=text: scrubber.text(text))  # type: ignore[misc]
        out.append(
            {
                "text": name,
                "bytes": size,
                "us_per_kb": round(spent * _KB / size, 2),
                "found": len(scrubber.text(text)[1]),
                "bar": BAR_US if barred else None,
            }
        )
    return out


def _median_us(call: Callable[[], object]) -> float:
    samples = []
    for _ in range(_REPETITIONS):
        begun = time.process_time_ns()
        for _ in range(_ROUNDS):
            call()
        samples.append((time.process_time_ns() - begun) / _ROUNDS / 1000)
    return statistics.median(samples)


def main() -> None:
    """Print the rows; a missed bar is an `AssertionError`."""
    measured = rows()
    for row in measured:
        bar = "" if row["bar"] is None else f"  (bar {row['bar']})"
        print(f"{row['text']!s:32} {row['bytes']:>7} B {row['us_per_kb']:>8} µs/KB  found {row['found']}{bar}")
    missed = [row["text"] for row in measured if row["bar"] is not None and float(str(row["us_per_kb"])) > BAR_US]
    assert not missed, f"the boundary scan costs more than {BAR_US} µs a KB on: {missed}"


if __name__ == "__main__":
    main()
