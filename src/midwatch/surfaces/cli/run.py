"""Run: `midwatch run FLEET` and `midwatch resume RUN`: carry a run to its answer, and say how it stopped.

In:   a fleet, an input; or a short id. Out: the report on stdout; progress, status, cost and head on stderr.
May import: the wiring when it runs. Must not know: how a run is carried out, what the graph is made of.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.cards import fleet_of
from midwatch.surfaces.cli.common import (
    Settings,
    began_in,
    command_options,
    emit,
    find_run,
    folder,
    money,
    plain,
    say,
    store_of,
)
from midwatch.surfaces.cli.control import lift, scope_options, scoped
from midwatch.surfaces.cli.speaking import read_token, token_option

if TYPE_CHECKING:
    from midwatch.config.fleet import Fleet
    from midwatch.engine.kernel import Kernel
    from midwatch.records.run import RunResult
    from midwatch.surfaces.cli.progress import Progress

__all__ = ["read_input", "resume", "run"]


@click.command(short_help="Run a fleet to its answer.")
@click.argument("fleet", type=click.Path())
@click.option("--input", "whole", metavar="JSON|@FILE", help="The run's input; `@-` reads stdin.")
@click.option("-i", "pairs", multiple=True, metavar="KEY=VALUE", help="One key of the input, as text; repeatable.")
@click.option("--preset", help="Choice of models; else MIDWATCH_PRESET, else what fits the environment.")
@click.option("--workdir", metavar="DIR", help="What file and repository tools may see; else the current directory.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; report, status and errors only.")
@click.option("--no-prompt", is_flag=True, help="Do not ask on the terminal; a run that waits ends with code 3.")
@token_option
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
    no_prompt: bool,
    token_file: str | None,
) -> None:
    """Run FLEET, a file or a folder with fleet.yaml, and print its report."""
    from midwatch import wiring

    settings: Settings = ctx.obj
    request, place = read_input(whole, pairs), folder(workdir)
    loaded, info = wiring.load_fleet(fleet, preset=preset, environ=os.environ, home=settings.place)
    if not quiet:
        say(info)
    ctx.exit(_carry(_Order(settings, loaded, place, quiet, token_file, not no_prompt), request=request))


@click.command(short_help="Go on with a stopped run.")
@click.argument("run", required=False)
@click.option(
    "--workdir", metavar="DIR", help="What file and repository tools may see; else where the run was started."
)
@click.option("--answered", is_flag=True, help="Every run whose questions were answered, instead of one.")
@click.option("--follow", is_flag=True, help="With --answered: stay, and go on with runs as they are answered.")
@click.option("--under-new", is_flag=True, help="Go on although fleet, policy or graph changed; needs --reason.")
@scope_options
@click.option("--reason", default="", help="Why it may go on, also under another fleet; kept in the ledger.")
@click.option("--quiet", "-q", is_flag=True, help="No progress; report, status and errors only.")
@click.option("--no-prompt", is_flag=True, help="Do not ask on the terminal; a run that waits ends with code 3.")
@token_option
@command_options
@click.pass_context
def resume(ctx: click.Context, /, run: str | None, workdir: str | None, token_file: str | None, **wish: Any) -> None:
    """Go on with RUN where it stopped: after an answer, at a raised bound, or when its process was cut."""
    settings: Settings = ctx.obj
    if wish["answered"] or wish["follow"]:
        from midwatch.surfaces.cli.answered import go_on

        if run is not None or not wish["answered"]:
            raise UsageProblem("name one run, or say `--answered` (and `--follow`) for all that were answered")
        if wish["under_new"]:
            raise UsageProblem("`--under-new` is a word about one run; name it instead of `--answered`")
        ctx.exit(go_on(settings, token_file, workdir=workdir, follow=wish["follow"]))
    if run is None or any(wish[key] for key in ("agent", "tool", "vertical", "all_", "fleet")):
        if run is None and not any(wish[key] for key in ("agent", "tool", "vertical", "all_")):
            raise UsageProblem("name the run, or say `--answered` for all that were answered")
        lift(settings, scoped(wish, run) or "", wish["fleet"], wish["reason"], token_file)
        return
    with store_of(settings) as store:
        full = find_run(store, run)
    loaded, info = fleet_of(settings, full)
    if not wish["quiet"]:
        say(info)
    place = folder(workdir or began_in(settings, full))
    prompt = not wish["no_prompt"]
    order = _Order(settings, loaded, place, wish["quiet"], token_file, prompt, wish["under_new"], wish["reason"])
    ctx.exit(_carry(order, again=full))


def read_input(whole: str | None, pairs: Sequence[str], *, option: str = "--input") -> Any:
    """Put the input together: the JSON value, then each pair as a key of it; `option` is what the user wrote it under.

    Raises:
        UsageProblem: not JSON, an unreadable file, a pair without `=`, or pairs beside a value that is no object.
    """
    value: Any = {} if whole is None else _json_of(whole, option)
    if pairs and not isinstance(value, dict):
        raise UsageProblem("`-i KEY=VALUE` needs an input that is a JSON object; `--input` gives another value")
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageProblem(f"`-i {pair}` has no `KEY=VALUE`; write for example `-i repo=/srv/app`")
        value[key] = text
    return value


def _json_of(whole: str, option: str) -> Any:
    where = f"`{option}`"
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


@dataclass(frozen=True, slots=True)
class _Order:
    """How a run is carried.

    Attributes:
        prompt: ask on the terminal when the run waits. accept, reason: go on under another fleet, and why.
    """

    settings: Settings
    fleet: Fleet
    place: Path
    quiet: bool
    token_file: str | None
    prompt: bool
    accept: bool = False
    reason: str = ""


def _carry(order: _Order, *, request: Any = None, again: str | None = None) -> int:
    """Run or resume, ask where somebody is there, tell the outcome, and give the exit code."""
    from midwatch.surfaces.cli import prompt

    result = _once(order, request=request, again=again)
    if prompt.possible(order.settings, wanted=order.prompt):
        desk = prompt.Prompt(order.settings, order.token_file, _edit(order))
        while result.status == "waiting" and desk.ask(result.run):
            result = _once(order, again=result.run, lift=False)  # who answers takes no pause back
    _tell(order.settings, result)
    return result.exit_code


def _once(order: _Order, *, request: Any = None, again: str | None = None, lift: bool = True) -> RunResult:
    """One segment under a display."""
    from midwatch.surfaces.cli.progress import Progress

    progress = Progress.of(order.fleet)
    with _display(progress, quiet=order.quiet or order.settings.json) as listen:
        try:
            with _opened(order, listen) as kernel:
                if again is None:
                    return kernel.run(request)
                return kernel.resume(again, accept=order.accept, reason=order.reason, lift=lift)
        except KeyboardInterrupt:
            if progress.run is not None:
                say(f"run {progress.run[:7]} was interrupted")
            raise


def _opened(order: _Order, listen: Any = None) -> AbstractContextManager[Kernel]:
    from midwatch import wiring

    return wiring.open(
        order.fleet,
        home=order.settings.place,
        workdir=order.place,
        on_event=listen,
        environ=os.environ,
        token=read_token(order.token_file),
        channel="terminal" if order.prompt else "cli",
    )


def _edit(order: _Order) -> Callable[[str, dict[str, Any]], None]:
    def edit(gate: str, arguments: dict[str, Any]) -> None:
        with _opened(order) as kernel:
            kernel.edit(gate, arguments)

    return edit


@contextlib.contextmanager
def _display(progress: Progress, *, quiet: bool) -> Iterator[Any]:
    """Choose how progress is shown: a live picture on a terminal, a line per event elsewhere, nothing when quiet."""
    from midwatch.surfaces.cli.progress import line_of

    if quiet:
        yield progress.add
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from midwatch.surfaces.cli.live import shown  # late: only for a terminal

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
    from midwatch.surfaces.effects_facts import still_staged

    with wiring.open_store(settings.place) as store:
        waits = waiting.read(store, result.run, at_us=wiring.clock())
        staged = still_staged(store, result.run)
    error = None
    if not result.ok:
        error = {"type": result.error_code or result.status, "message": result.error_message or "", "problems": []}
    if settings.json:
        body = {"ok": result.ok, "run": result.run, "status": result.status, "output": result.output, "error": error}
        spent = {"cost": result.cost, "tokens": result.tokens, "tool_calls": result.tool_calls, "steps": result.steps}
        emit(body | spent | {"head": result.head, "staged": staged} | waits.to_json())
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
    if staged:
        said = "1 change is" if staged == 1 else f"{staged:,} changes are"
        say(f"{said} staged: `midwatch effects {short}` shows them, `midwatch effects commit {short}` lets them out")
    say(f"midwatch trace {short}")


def _report(output: Any) -> str:
    if isinstance(output, dict) and isinstance(output.get("answer"), str):
        return str(output["answer"])
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, indent=2)
