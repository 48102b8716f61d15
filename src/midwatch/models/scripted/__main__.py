"""The scripted provider as a process: `python -m midwatch.models.scripted SCENARIO [--port N] [--bill FILE]`.

In:   a scenario file. Out: one line of JSON on stdout once it listens, `{"base_url": ..., "url": ...}`; problems
on stderr.
May import: siblings, `errors`. Must not know: the kernel.
Ends on SIGTERM or SIGINT, and with `--until-stdin-closes` when its parent closes the pipe, or dies. Exit codes: 0
ended as
asked, 2 the scenario, the port or the bill file cannot be used.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from midwatch.errors import InvalidScenario
from midwatch.models.scripted.provider import ScriptedProvider

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; the process's exit code."""
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.until_stdin_closes:
        threading.Thread(target=_watch_stdin, args=(stop,), daemon=True).start()
    try:
        provider = ScriptedProvider(
            options.scenario, bill=options.bill, clock=_now_us, port=options.port, keep_requests=False
        )
    except (InvalidScenario, OSError) as failure:
        sys.stderr.write(f"{failure}\n")
        return 2
    with provider:
        sys.stdout.write(json.dumps({"base_url": provider.base_url, "url": provider.url}) + "\n")
        sys.stdout.flush()
        stop.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m midwatch.models.scripted", description="The scripted provider.")
    parser.add_argument("scenario", type=Path, help="scenario file; see docs/reference/scenario.md")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--bill", type=Path, default=None, help="file to append the bill to, one JSON line a request")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when stdin is closed")
    return parser


def _watch_stdin(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()


def _now_us() -> int:
    return time.time_ns() // 1000


if __name__ == "__main__":
    sys.exit(main())
