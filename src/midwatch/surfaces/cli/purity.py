"""Purity: `midwatch purity FLEET`: each step of a recorded run twice, in two processes that differ in all that a step may not know.

In:   a fleet, and a run of it with a record. Out: the same from both (exit code 0), or each step that differs (1).
May import: errors; the engine's replaying and the wiring when the command runs. Must not know: what a step is.
Why processes: a hash seed, a time zone and a locale hold for a whole process, and a value kept in a module would hide in one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from midwatch.errors import MidwatchError, NotFound, UsageProblem
from midwatch.surfaces.cli.common import Settings, block, command_options, emit, find_run, say, store_of

if TYPE_CHECKING:
    from midwatch.tracing.recording import Recording

__all__ = ["purity"]

_SECONDS: Final = 300
_APART: Final[tuple[Mapping[str, str], ...]] = (
    {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C", "HOME": "/nonexistent/a", "USER": "ann", "COLUMNS": "80"},
    {
        "PYTHONHASHSEED": "4242",
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "C.UTF-8",
        "HOME": "/nonexistent/b",
        "USER": "bob",
        "COLUMNS": "211",
    },
)
"""What the two processes have for their own; nothing else of the environment reaches either, but where Python finds its modules."""
_SHIFTED: Final = 400 * 86_400
"""Seconds by which the second process's clock is ahead."""
_CHILD: Final = """
import json, random, sys, time
ahead, seed, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for name in ("time", "monotonic", "perf_counter"):
    real = getattr(time, name)
    setattr(time, name, lambda real=real: real() + ahead)
for name in ("time_ns", "monotonic_ns", "perf_counter_ns"):
    real = getattr(time, name)
    setattr(time, name, lambda real=real: real() + ahead * 10**9)
random.seed(seed)
from pathlib import Path
from midwatch.engine.replaying import replay
from midwatch.tracing.export import read_archive
found = replay(read_archive(Path(place)), seed=seed)
print(json.dumps({**found.to_json(), "parts": found.parts}))
"""


@click.command("purity", short_help="Run each recorded step twice apart; say what differs.")
@click.argument("fleet", metavar="FLEET|FILE")
@click.option("--run", "run", metavar="RUN", help="A recorded run of it; else the newest one that ended.")
@command_options
@click.pass_context
def purity(ctx: click.Context, fleet: str, run: str | None) -> None:
    """Run each step of a recorded run of FLEET, or of a FILE that `runs export` wrote, twice apart.

    Two processes, with another hash seed, random seed, clock, time zone, locale, user and order of answers, are given the same
    recorded inputs. Whatever a step makes of them must be the same bytes, and those that were recorded.
    """
    settings: Settings = ctx.obj
    recording = _recording(settings, fleet, run)
    with tempfile.TemporaryDirectory(prefix="midwatch-purity-") as folder:
        from midwatch.tracing.export import write_archive

        place = Path(folder) / "run"
        write_archive(recording, place)
        sides = [_child(place, at, environ) for at, environ in enumerate(_APART)]
    apart = _apart(*(side["parts"] for side in sides))
    differs = [item for side in sides for item in [side["difference"]] if item is not None]
    pure = not apart and not differs
    if settings.json:
        told = {"run": recording.run, "steps": sides[0]["steps"], "compared": sides[0]["compared"]}
        emit({"ok": pure, "pure": pure, **told, "apart": apart, "difference": differs[0] if differs else None})
    else:
        _show(recording.run, sides[0], apart, differs)
    if not pure:
        ctx.exit(1)


def _recording(settings: Settings, fleet: str, run: str | None) -> Recording:
    """Find the record: a file, a run that is named, or the newest of this fleet that ended."""
    from midwatch import wiring
    from midwatch.tracing.export import read_archive
    from midwatch.tracing.recording import read_run

    place = Path(fleet)
    if place.is_file() and place.suffix not in (".yaml", ".yml"):
        return read_archive(place)
    loaded, _ = wiring.load_fleet(fleet, environ=os.environ)
    with store_of(settings) as store:
        if run is not None:
            return read_run(store, find_run(store, run))
        rows = store.read(lambda tx: tx.runs.list(limit=1000, statuses=("done",)))
        ended = [row for row in rows if row.fleet == loaded.name]
        if not ended:
            raise NotFound(
                f"no run of `{loaded.name}` has ended in this home, and purity is judged on recorded inputs; run it once"
            )
        return read_run(store, ended[0].id)


def _child(place: Path, at: int, environ: Mapping[str, str]) -> dict[str, Any]:
    kept = {
        key: os.environ[key] for key in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV") if key in os.environ
    }
    command = [sys.executable, "-c", _CHILD, str(at * _SHIFTED), str(at), str(place)]
    try:
        done = subprocess.run(
            command,
            env={**kept, **environ},
            cwd=place.parent,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MidwatchError(f"a replay took more than {_SECONDS} s; try it alone with `midwatch replay`") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UsageProblem(f"this run cannot be replayed: {lines[-1][:500]}")
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def _apart(left: list[list[Any]], right: list[list[Any]]) -> list[dict[str, Any]]:
    """Give the steps of which the two processes made other bytes."""
    one, two = ({(seq, what): digest for seq, what, digest in side} for side in (left, right))
    keys = sorted({*one, *two})
    return [{"event": seq, "step": what} for seq, what in keys if one.get((seq, what)) != two.get((seq, what))]


def _show(run: str, side: Mapping[str, Any], apart: list[dict[str, Any]], differs: list[dict[str, Any]]) -> None:
    for item in apart:
        click.echo(block([f"event {item['event']}: {item['step']}: the two processes made other bytes"]))
    for item in differs[:1]:
        lines = [f"  recorded: {item['recorded'] or '(nothing)'}", f"  replayed: {item['replayed'] or '(nothing)'}"]
        click.echo(block([f"event {item['event']}: {item['node']} {item['what']}: other than recorded", *lines]))
    if not apart and not differs:
        click.echo(
            f"pure: {side['steps']:,} steps of run {run[:7]}, {side['compared']:,} parts, the same in both and as recorded"
        )
    for note in side["notes"]:
        say(note)
