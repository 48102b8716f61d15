"""Kills: five hundred workers that die by SIGKILL wherever chance says, with gates answered twice and contrarily.

Bar: each external call exactly once where the target takes a key, otherwise at most once and in doubt; no lost approval, no wrong
binding; the chain verifies, budgets hold. `python -m bench.kills [KILLS] [SEED]`; the suite runs a short one with another seed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.crash.campaign import campaign

__all__ = ["main"]


def main(kills: int = 500, seed: int = 2026) -> None:
    """Print what the campaign found; raises when a promise was broken."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = campaign(Path(folder) / "all", kills=kills, seed=seed)
    print(f"kills {report.kills} in {report.cases} runs, seed {seed}, {time.perf_counter() - began:.0f} s")
    print(f"answers {report.answers}, contrary second answers refused {report.refused}, taken {report.taken}")
    print(f"effects in doubt, looked up by a person {report.in_doubt}")
    print(f"approvals lost {report.lost}, wrong bindings {report.wrong}, repeated calls {report.repeated}")
    print(f"other promises broken {len(report.broken)}")
    for line in (report.told + report.broken)[:20]:
        print(f"  {line}")
    print("places " + ", ".join(f"{name} {count}" for name, count in report.places.most_common()))
    assert report.clean, "a promise was broken"


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3]))
