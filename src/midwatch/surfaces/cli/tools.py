"""Tools: `midwatch tools ls | show | lint | pin`: what a fleet's tools are, wherever they come from.

In:   a fleet file or its folder; a tool's name. Out: contracts, warnings, digests; JSON of the same. `pin` writes the fleet file.
May import: errors; the wiring and the registry when a command runs. Must not know: where tools come from.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from midwatch.errors import InvalidFleet, UsageProblem
from midwatch.surfaces.cli.common import Settings, block, command_options, emit, say
from midwatch.surfaces.cli.tool_signals import signals

if TYPE_CHECKING:
    from midwatch.config.fleet import Fleet
    from midwatch.errors import Problem
    from midwatch.tools.contract import ToolContract
    from midwatch.tools.importing.foreign import Brought
    from midwatch.tools.registry import Registry

__all__ = ["tools"]


@click.group(short_help="See a fleet's tools and their contracts; pin those of others.")
def tools() -> None:
    """See a fleet's tools and their contracts. Sources of imported tools are asked for them; no tool is called."""


tools.add_command(signals)


@tools.command("ls", short_help="List a fleet's tools.")
@click.argument("fleet", type=click.Path(), default=".")
@command_options
@click.pass_obj
def ls(settings: Settings, fleet: str) -> None:
    """List the tools of FLEET, a file or a folder; else of the current folder."""
    from midwatch.surfaces.cli.render import table

    with _loaded(settings, fleet) as (loaded, registry):
        rows = [_row(registry, name) for name in registry.names()]
        if settings.json:
            emit({"ok": True, "fleet": loaded.name, "tools": rows, "notes": _told(registry.notes)})
            return
        shown = [
            (
                row["name"],
                row["effect"],
                row["source"],
                row["runs"],
                "pending" if row["pending"] else row["digest"][:12],
            )
            for row in rows
        ]
        table(("tool", "effect", "source", "runs", "digest"), shown)
        for note in registry.notes:
            say(f"warning: {note}")


@tools.command("show", short_help="Show one tool's contract.")
@click.argument("name")
@click.option("--fleet", metavar="FLEET", default=".", help="File or folder of the fleet; else the current folder.")
@command_options
@click.pass_obj
def show(settings: Settings, name: str, fleet: str) -> None:
    """Show the contract of the tool NAME: what it takes and gives, what it can do, and what its author did not say."""
    with _loaded(settings, fleet) as (loaded, registry):
        contract = registry.get(name).contract
        row = _row(registry, name)
        if settings.json:
            emit({"ok": True, "fleet": loaded.name, "tool": {**row, "contract": contract.to_json()}})
            return
        click.echo(block(_lines(contract, row)))


@tools.command("lint", short_help="Find what is vague, silent or unbounded in tools.")
@click.argument("fleet", type=click.Path(), default=".")
@command_options
@click.pass_obj
def lint(settings: Settings, fleet: str) -> None:
    """Check the tools of FLEET. What is found are warnings: what is not declared counts as the worst."""
    from midwatch.tools.lint import lint as check

    with _loaded(settings, fleet) as (loaded, registry):
        found = [
            *registry.notes,
            *(problem for name in registry.names() for problem in check(registry.get(name).contract)),
        ]
        if settings.json:
            emit({"ok": True, "fleet": loaded.name, "warnings": _told(found)})
            return
        for problem in found:
            say(f"warning: {problem}")
        click.echo(f"{loaded.name}: {len(registry.names())} tools, {len(found)} warnings")


@tools.command("pin", short_help="Write down what imported tools are now.")
@click.argument("fleet", type=click.Path(), default=".")
@click.option("--dry-run", is_flag=True, help="Only show the digests.")
@click.option("--yes", is_flag=True, help="Pin tools anew that differ from their pin, without asking.")
@command_options
@click.pass_obj
def pin(settings: Settings, fleet: str, dry_run: bool, yes: bool) -> None:
    """Write the digest of every source of imported tools into the file of FLEET.

    From then on a source whose tools differ by a word is pending: none of them is called until it is pinned again.
    """
    with _loaded(settings, fleet) as (loaded, registry):
        changed = [source for source in registry.sources if _pin_of(loaded, source) != source.digest]
        rows = [_pinned(loaded, source) for source in registry.sources]
        drifted = [source.source for source in changed if _pin_of(loaded, source) is not None]
        if drifted and not dry_run and not yes:
            if settings.json or not sys.stdin.isatty():
                raise UsageProblem(
                    f"the tools of {', '.join(drifted)} differ from their pin; look at them, then repeat with `--yes`"
                )
            click.confirm(
                f"the tools of {', '.join(drifted)} differ from their pin; have you looked at them?", abort=True
            )
        if changed and not dry_run:
            _write(loaded, changed)
        if settings.json:
            emit({"ok": True, "fleet": loaded.name, "written": bool(changed) and not dry_run, "sources": rows})
            return
        for row in rows:
            state = "as pinned" if row["was"] == row["digest"] else "not written" if dry_run else "pinned"
            click.echo(f"{row['source']}: {row['digest']} ({state}, {len(row['tools'])} tools)")
        if not rows:
            click.echo(f"{loaded.name}: no imported tools")


@contextlib.contextmanager
def _loaded(settings: Settings, fleet: str) -> Iterator[tuple[Fleet, Registry]]:
    from midwatch import wiring
    from midwatch.tools.registry import Registry

    loaded, _ = wiring.load_fleet(fleet, preset=None, environ=os.environ)
    wiring.untouched(loaded, settings.place)
    registry = Registry.of_fleet(loaded)
    try:
        yield loaded, registry
    finally:
        registry.close()


def _row(registry: Registry, name: str) -> dict[str, Any]:
    contract = registry.get(name).contract
    source = next(
        (one.source for one in registry.sources if any(tool.contract.name == name for tool in one.tools)), "own"
    )
    return {
        "name": name,
        "effect": contract.effect,
        "runs": contract.runs,
        "source": source,
        "digest": contract.digest,
        "pending": name in registry.pending,
        "undeclared": sorted(contract.undeclared),
    }


def _lines(contract: ToolContract, row: dict[str, Any]) -> Iterator[str]:
    yield f"{contract.name} ({contract.effect}, {contract.runs}{', pending' if row['pending'] else ''})"
    yield f"  {' '.join(contract.description.split())}"
    yield f"  source      {row['source']}"
    yield f"  digest      {contract.digest}"
    yield f"  bounds      {contract.timeout_us / 1e6:g} s, {contract.max_bytes:,} bytes shown, {contract.body_limit:,} at most"
    yield f"  seen by     {', '.join(contract.observers) or 'nobody'}"
    required = contract.input_schema.get("required", ())
    for name, schema in contract.input_schema.get("properties", {}).items():
        yield f"  argument    {name}: {schema.get('type', 'any')}, {contract.arg(name).role}{'' if name in required else ', optional'}"
    for name, schema in contract.output_schema.get("properties", {}).items():
        yield f"  result      {name}: {schema.get('type', 'any')}, by {contract.out(name).author}"
    if contract.undeclared:
        yield f"  undeclared  {', '.join(sorted(contract.undeclared))}: counts as the worst"


def _pinned(fleet: Fleet, source: Brought) -> dict[str, Any]:
    names = [tool.contract.name for tool in source.tools]
    return {"source": source.source, "digest": source.digest, "was": _pin_of(fleet, source), "tools": names}


def _pin_of(fleet: Fleet, source: Brought) -> str | None:
    kind, _, name = source.source.partition(".")
    spec = getattr(fleet, kind)[name]
    pin: str | None = spec.digest
    return pin


def _write(fleet: Fleet, changed: list[Brought]) -> None:
    """Write the digests, if the file then says the same as before and them."""
    from midwatch.config.fleet import Fleet as Loader
    from midwatch.tools.importing.pinning import pinned_text

    if fleet.path is None:
        raise UsageProblem("this fleet has no file to write to; put the digests into it by hand")
    text = fleet.text
    for source in sorted(changed, key=lambda one: -_line(fleet, one)):  # from below: lines above stay where they are
        text = pinned_text(text, _line(fleet, source), source.digest)
    try:
        again = Loader.from_text(text, base=fleet.base, environ=os.environ)
        right = all(_pin_of(again, source) == source.digest for source in changed) and _rest(again, changed) == _rest(
            fleet, changed
        )
    except InvalidFleet:
        right = False
    if not right:
        raise UsageProblem(
            "the file is written in a way that cannot be changed safely; write each `digest` by hand: `--dry-run`"
        )
    if Path(fleet.path).read_text(encoding="utf-8-sig") != fleet.text:
        raise UsageProblem("the fleet file was changed meanwhile; try again")
    Path(fleet.path).write_text(text, encoding="utf-8")


def _line(fleet: Fleet, source: Brought) -> int:
    kind, _, name = source.source.partition(".")
    return int(fleet.where(kind, name).rpartition(":")[2])


def _rest(fleet: Fleet, changed: list[Brought]) -> Any:
    from midwatch.config.resources import values_of

    named = {source.source for source in changed}
    return {
        key: {name: _bare(part) if f"{key}.{name}" in named else part for name, part in value.items()}
        if key in ("mcp", "openapi", "langchain") and isinstance(value, dict)
        else value
        for key, value in values_of(fleet).items()
    }


def _bare(value: Any) -> Any:
    return {key: part for key, part in value.items() if key != "digest"} if isinstance(value, dict) else value


def _told(problems: list[Problem] | tuple[Problem, ...]) -> list[dict[str, str]]:
    return [{"where": item.where, "message": item.message, "code": item.code} for item in problems]
