"""Run: `midwatch run FLEET` and `midwatch resume RUN`: carry a run to its answer, and say how it stopped.

In:   a fleet, an input; or a short id. Out: the report on stdout; progress, status, cost and head on stderr.
May import: the wiring when it runs. Must not know: how a run is carried out, what the graph is made of.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from midwatch.errors import NotFound, UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, money, plain, say, store_of

if TYPE_CHECKING:
    from midwatch.config.fleet import Fleet
    from midwatch.records.run import RunResult
    from midwatch.store.port import Store
    from midwatch.surfaces.cli.progress import Progress

__all__ = ["read_input", "resume", "run"]


@click.command(short_help="Run a fleet to its answer.")
@click.argument("fleet", type=click.Path())
@click.option("--input", "whole", metavar="JSON|@FILE", help="The run's input; `@-` reads stdin.")
@click.option("-i", "pairs", multiple=True, metavar="KEY=VALUE", help="One key of the input, as text; repeatable.")
@click.option("--preset", help="Choice of models; else MIDWATCH_PRESET, else what fits the environment.")
@click.option("--workdir", metavar="DIR", help="What file and repository tools may see; else the current directory.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; report, status and errors only.")
@command_options
@click.pass_context
def run(
    ctx: click.Context,
    fleet: str,
    whole: str | None,
    pairs: tuple[str, ...],
    preset: str | None,
    workdir: str | None,
    quiet: bool,
) -> None:
    """Run FLEET, a file or a folder with fleet.yaml, and print its report."""
    from midwatch import wiring

    settings: Settings = ctx.obj
    request, place = read_input(whole, pairs), _folder(workdir)
    loaded, info = wiring.load_fleet(fleet, preset=preset, environ=os.environ)
    if not quiet:
        say(info)
    ctx.exit(_carry(settings, loaded, place, quiet=quiet, request=request))


@click.command(short_help="Go on with a stopped run.")
@click.argument("run")
@click.option(
    "--workdir", metavar="DIR", help="What file and repository tools may see; else where the run was started."
)
@click.option("--quiet", "-q", is_flag=True, help="No progress; report, status and errors only.")
@command_options
@click.pass_context
def resume(ctx: click.Context, run: str, workdir: str | None, quiet: bool) -> None:
    """Go on with RUN where it stopped: after an answer, at a raised bound, or when its process was cut."""
    from midwatch import wiring

    settings: Settings = ctx.obj
    with store_of(settings) as store:
        full = find_run(store, run)
        row = store.read(lambda tx: tx.runs.get(full))
        place = _folder(workdir or _began_in(store, full))
    if row is None:
        raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
    if row.fleet_path is None:
        raise UsageProblem(f"run `{full[:7]}` has no fleet file, it was started from Python; resume it there")
    loaded, info = wiring.load_fleet(row.fleet_path, preset=row.preset, environ=os.environ)
    if not quiet:
        say(info)
    ctx.exit(_carry(settings, loaded, place, quiet=quiet, again=full))


def read_input(whole: str | None, pairs: Sequence[str]) -> Any:
    """Put the input together: the JSON value, then each pair as a key of it.

    Raises:
        UsageProblem: not JSON, an unreadable file, a pair without `=`, or pairs beside a value that is no object.
    """
    value: Any = {} if whole is None else _json_of(whole)
    if pairs and not isinstance(value, dict):
        raise UsageProblem("`-i KEY=VALUE` needs an input that is a JSON object; `--input` gives another value")
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageProblem(f"`-i {pair}` has no `KEY=VALUE`; write for example `-i repo=/srv/app`")
        value[key] = text
    return value


def _json_of(whole: str) -> Any:
    where = "`--input`"
    if whole.startswith("@"):
        where = f"`{whole[1:]}`"
        try:
            whole = sys.stdin.read() if whole == "@-" else Path(whole[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UsageProblem(f"{where} cannot be read: {reason}") from error
    try:
        return json.loads(whole, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageProblem(f'{where} is not JSON ({error}); write for example `{{"repo": "/srv/app"}}`') from error


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value")


def _folder(name: str | None) -> Path:
    """Give the working directory, absolute: the current one unless another is named."""
    place = Path.cwd() if name is None else Path(name).absolute()
    if not place.is_dir():
        raise UsageProblem(f"the working directory `{place}` is not there; `--workdir DIR` names another")
    return place


def _began_in(store: Store, run: str) -> str | None:
    """Read where a run was started; its files are there, wherever it is resumed from."""
    events = store.read(lambda tx: tx.ledger.read(run=run, kinds=("run.created",), limit=1))
    found = events[0].data.get("workdir") if events else None
    return found if isinstance(found, str) else None


def _carry(
    settings: Settings, fleet: Fleet, place: Path, *, quiet: bool, request: Any = None, again: str | None = None
) -> int:
    """Run or resume under a display, tell the outcome, and give the exit code."""
    from midwatch import wiring
    from midwatch.surfaces.cli.progress import Progress

    progress = Progress.of(fleet)
    with _display(progress, quiet=quiet or settings.json) as listen:
        try:
            home, env = settings.place, os.environ
            with wiring.open(fleet, home=home, workdir=place, on_event=listen, environ=env) as kernel:
                result = kernel.run(request) if again is None else kernel.resume(again)
        except KeyboardInterrupt:
            if progress.run is not None:
                say(f"run {progress.run[:7]} was interrupted")
            raise
    _tell(settings, result)
    return result.exit_code


@contextlib.contextmanager
def _display(progress: Progress, *, quiet: bool) -> Iterator[Any]:
    """Choose how progress is shown: a live picture on a terminal, a line per event elsewhere, nothing when quiet."""
    from midwatch.surfaces.cli.progress import line_of

    if quiet:
        yield progress.add
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from midwatch.surfaces.cli.live import shown  # late: rich takes 50 ms

        with shown(progress):
            yield progress.add
    else:

        def listen(event: Any) -> None:
            progress.add(event)
            line = line_of(event)
            if line is not None:
                say(line)

        yield listen


def _tell(settings: Settings, result: RunResult) -> None:
    """Print the report on stdout, and everything else about the end on stderr."""
    from midwatch import wiring
    from midwatch.surfaces.cli import waiting

    with wiring.open_store(settings.place) as store:
        waits = waiting.read(store, result.run, at_us=wiring.clock())
    error = None
    if not result.ok:
        error = {"type": result.error_code or result.status, "message": result.error_message or "", "problems": []}
    if settings.json:
        body = {"ok": result.ok, "run": result.run, "status": result.status, "output": result.output, "error": error}
        spent = {"cost": result.cost, "tokens": result.tokens, "tool_calls": result.tool_calls, "steps": result.steps}
        emit(body | spent | {"head": result.head} | waits.to_json())
        return
    if result.output is not None:
        click.echo(plain(_report(result.output)))
    short = result.run[:7]
    said = f": {error['message']}" if error is not None and error["message"] else ""
    say(f"run {short}  {result.status}{said}")
    say(
        f"cost {money(result.cost)}, {result.tokens:,} tokens, {result.tool_calls:,} tool calls, {result.steps:,} steps"
    )
    say(f"head {result.head}")
    if result.status == "waiting":
        waiting.show(waits)
    say(f"midwatch trace {short}")


def _report(output: Any) -> str:
    if isinstance(output, dict) and isinstance(output.get("answer"), str):
        return str(output["answer"])
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, indent=2)
