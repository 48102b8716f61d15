"""Run every module of this package that has a `main()`, in order of name; arguments choose some of them.

In:   names of modules, none for all.
Out:  tables on the terminal; exit code 1 when a bar was missed, and all of them are still printed.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence

import bench


def main(names: Sequence[str]) -> int:
    """Run the modules named, or all; give the exit code."""
    known = sorted(module.name for module in pkgutil.iter_modules(bench.__path__) if not module.name.startswith("_"))
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no bench `{unknown[0]}`; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    missed = []
    for name in names or known:
        run = getattr(importlib.import_module(f"bench.{name}"), "main", None)
        if run is None:
            continue
        print(f"\n== {name}")
        try:
            run()
        except AssertionError as error:
            print(f"missed: {error}", file=sys.stderr)
            missed.append(name)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
