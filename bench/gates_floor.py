"""The floor's price: CPU of reading one call for its words, by kind of text, ordinary and hostile.

CPU is the process's own, best of several rounds. The bar is for ordinary calls of 1 KiB; a hostile megabyte need only end.
"""

from __future__ import annotations

import time

from midwatch.gates.floor import read

__all__ = ["main", "rows"]

KIB = 1024
BAR_US = 1000
ROUNDS, CALLS = 7, 20

ORDINARY = {
    "mail": (
        "content",
        "The quarterly report shows that the team's product line is doing well; see https://example.com/a?b=c. ",
    ),
    "script": (
        "command",
        'cd /srv/app && python3 -m pytest -q tests --maxfail=1 | tee out.txt; for f in *.log; do echo "$f"; done\n',
    ),
    "json": (
        "content",
        '{"name": "x", "items": [1, 2, 3], "path": "/srv/app/config.json", "hash": "3f9adb12e0c4", "note": "fine"}, ',
    ),
    "code": (
        "content",
        "def area(width: float, height: float) -> float:\n    # a rectangle's\n    return width * height\n\n",
    ),
}
HOSTILE = {"backslashes": "\\", "substitutions": "$(", "braces": "{a,b}", "commands": "git push ", "quotes": "'a'b\n"}


def rows() -> list[dict[str, object]]:
    """Measure each kind; microseconds of CPU a call, and of 1 MB for the hostile ones."""
    measured: list[dict[str, object]] = []
    for kind, (role, piece) in ORDINARY.items():
        text = (piece * KIB)[:KIB]
        measured.append(
            {"text": kind, "bytes": KIB, "us": min(_cpu(role, text, CALLS) for _ in range(ROUNDS)), "bar": BAR_US}
        )
    several: dict[str, object] = {
        "to": "ada@example.com",
        "subject": "The quarterly report",
        "body": (ORDINARY["mail"][1] * KIB)[:KIB],
    }
    rows_of: dict[str, object] = {"rows": [{"id": f"row-{n}", "kind": "view", "page": "/about"} for n in range(24)]}
    for kind, call in (("arguments", several), ("objects", rows_of)):
        measured.append(
            {"text": kind, "bytes": KIB, "us": min(_cpu("content", call, CALLS) for _ in range(ROUNDS)), "bar": None}
        )
    for kind, piece in HOSTILE.items():
        spent = _cpu("command", (piece * KIB * KIB)[: KIB * KIB], 1)
        measured.append({"text": kind, "bytes": KIB * KIB, "us": spent, "bar": None})
    return measured


def _cpu(role: str, text: str | dict[str, object], calls: int) -> float:
    began = time.process_time_ns()
    for _ in range(calls):
        read("files.write", text if isinstance(text, dict) else {"text": text}, lambda _: (role, True))
    return (time.process_time_ns() - began) / 1000 / calls


def main() -> None:
    """Print the table; the mean of the ordinary calls must meet the bar.

    Raises:
        AssertionError: it does not.
    """
    table = rows()
    for row in table:
        print(f"{row['text']:<16}{row['bytes']:>9} B {row['us']:>12,.0f} us")
    ordinary = [float(str(row["us"])) for row in table if row["bar"]]
    mean = sum(ordinary) / len(ordinary)
    print(f"mean of the ordinary {mean:,.0f} us, bar {BAR_US:,} us")
    assert mean <= BAR_US, f"an ordinary call costs {mean:,.0f} us, over {BAR_US:,} us"
