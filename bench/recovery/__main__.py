"""Recovery beside its peers: who finds the value that a text was meant to carry, and who gives another one.

In:   the corpus. Out: a table per half of it, and what went wrong with `--show`.
    python -m bench.recovery [--peers] [--show]      `--peers` fetches instructor into `.venv/peers`
Bars: 0 silently wrong, 95 % recovered or refused rightly. Each peer is asked as its makers say, and once more with our schemas behind it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import json_repair
from langchain_core.utils.json import parse_json_markdown

from bench.recovery.corpus import SCHEMAS, Case, cases, verdict
from midwatch.recovery import Refused, recover

__all__ = ["main"]

_PEERS: Final = Path(".venv/peers")
_INSTRUCTOR: Final = """
import json, sys
from instructor.utils import extract_json_from_codeblock
for line in sys.stdin:
    try:
        print(json.dumps([True, json.loads(extract_json_from_codeblock(json.loads(line)))]))
    except Exception as error:
        print(json.dumps([False, type(error).__name__]))
"""
Outcome = tuple[bool, Any]


def _midwatch(case: Case) -> Outcome:
    found = recover(case.text, SCHEMAS[case.schema], truncated=case.cut)
    return (False, found.code) if isinstance(found, Refused) else (True, found.value)


def _asked(work: Callable[[str], Any]) -> Callable[[Case], Outcome]:
    def ask(case: Case) -> Outcome:
        try:
            return True, work(case.text)
        except Exception as error:  # noqa: BLE001  # whatever a peer raises is its way to refuse
            return False, type(error).__name__

    return ask


def _instructor(found: list[Case]) -> Callable[[Case], Outcome] | None:
    python = _PEERS / "bin" / "python"
    if not python.exists():
        if "--peers" not in sys.argv:
            return None
        subprocess.run([sys.executable, "-m", "venv", str(_PEERS)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-U", "pip"], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "instructor>=1.17"], check=True)
    lines = "".join(json.dumps(case.text) + "\n" for case in found)
    done = subprocess.run([str(python), "-c", _INSTRUCTOR], input=lines, capture_output=True, text=True, check=True)
    told = dict(zip([case.id for case in found], map(json.loads, done.stdout.splitlines()), strict=True))
    return lambda case: (bool(told[case.id][0]), told[case.id][1])


def _gated(ask: Callable[[Case], Outcome]) -> Callable[[Case], Outcome]:
    def asked(case: Case) -> Outcome:
        given, value = ask(case)
        return (given and SCHEMAS[case.schema].fits(value), value)

    return asked


def _rows(found: list[Case]) -> Iterator[tuple[str, Callable[[Case], Outcome] | None]]:
    yield "midwatch", _midwatch
    peers = (
        ("json-repair", _asked(json_repair.loads)),
        ("langchain parse_json_markdown", _asked(parse_json_markdown)),
        ("instructor", _instructor(found)),
    )
    for name, ask in peers:
        yield name, ask
        yield f"{name} + schema", None if ask is None else _gated(ask)


def _measured(ask: Callable[[Case], Outcome], found: list[Case]) -> tuple[Counter[str], float, list[str]]:
    told, times, failed = Counter[str](), [], []
    for case in found:
        begun = time.process_time_ns()
        outcome = ask(case)
        times.append((time.process_time_ns() - begun) / 1000)
        word = verdict(case, outcome)
        told[word] += 1
        if word != "right":
            failed.append(f"  {word:6} {case.id} {case.kind}: {outcome[1]!r:.90}")
    return told, statistics.median(times), failed


def main() -> None:
    """Print the tables; fail where a bar is missed."""
    every = cases()
    parts = {
        "all": every,
        "written": [case for case in every if case.origin == "written"],
        "authentic": [case for case in every if case.origin != "written"],
    }
    rows = list(_rows(every))
    bars: list[str] = []
    for title, found in parts.items():
        print(f"\n{title}: {len(found)} texts\n{'':34}{'right':>8}{'missed':>8}{'WRONG':>8}{'µs CPU':>9}")
        for name, ask in rows:
            if ask is None:
                print(f"{name:34}  not installed; `--peers` fetches it")
                continue
            told, median, failed = _measured(ask, found)
            share = told["right"] / max(1, len(found))
            print(f"{name:34}{share:>8.1%}{told['missed']:>8}{told['wrong']:>8}{median:>9.0f}")
            if name == "midwatch":
                print("\n".join(failed)) if "--show" in sys.argv and title == "all" else None
                bars += [f"{title}: {told['wrong']} wrong"] if told["wrong"] else []
                bars += [f"{title}: {share:.1%} right"] if share < 0.95 else []
    assert not bars, "; ".join(bars)


if __name__ == "__main__":
    try:
        main()
    except AssertionError as missed:
        sys.exit(f"missed: {missed}")
