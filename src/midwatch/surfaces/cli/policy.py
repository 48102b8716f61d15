"""Policy: `midwatch policy lint | explain | test | simulate`: what a fleet's policies say, before anything runs.

In:   a fleet; a made-up call with its causes; a file of cases. Out: problems; a verdict with its chain; cases that differ, exit code 1.
May import: errors; the wiring, and containment when a command runs. Must not know: how a verdict is reached.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, block, command_options, emit, say
from midwatch.surfaces.cli.policy_simulate import simulate

if TYPE_CHECKING:
    from midwatch.config.fleet import Fleet
    from midwatch.containment.verdict import Ruling
    from midwatch.records.label import Cause
    from midwatch.tools.registry import Registry

__all__ = ["policy"]


@click.group(short_help="Check, explain and test what causes may bring about.")
def policy() -> None:
    """Check, explain and test what causes may bring about. Nothing is run, and no home is made."""


policy.add_command(simulate)


@policy.command("lint", short_help="Check sources, policies and conditions.")
@click.argument("fleet", type=click.Path())
@command_options
@click.pass_context
def lint(ctx: click.Context, fleet: str) -> None:
    """Check the sources, policies and conditions of FLEET: what is wrong, what gives nothing, what can never be true."""
    from midwatch.containment.policy_lint import check_policies

    settings: Settings = ctx.obj
    loaded, registry = _loaded(settings, fleet)
    errors, warnings = check_policies(loaded, registry)
    if settings.json:
        told = {
            name: [{"where": item.where, "message": item.message, "code": item.code} for item in found]
            for name, found in (("errors", errors), ("warnings", warnings))
        }
        emit({"ok": not errors, "fleet": loaded.name, "containment": loaded.containment.mode, **told})
    else:
        for warning in warnings:
            say(f"warning: {warning}")
        for error in errors:
            say(f"error: {error}")
        click.echo(
            f"{loaded.name}: {len(loaded.policies)} policies, {len(loaded.sources)} sources, containment: "
            f"{loaded.containment.mode}; {len(errors)} errors, {len(warnings)} warnings"
        )
    if errors:
        ctx.exit(2)


@policy.command("explain", short_help="Say what would become of a call, and why.")
@click.argument("fleet", type=click.Path())
@click.option("--agent", required=True, help="Who calls.")
@click.option("--tool", required=True, help="What is called.")
@click.option("--argument", "arguments", multiple=True, metavar="NAME=VALUE", help="Text, or JSON where no text fits.")
@click.option("--context", multiple=True, metavar="CAUSES", help="What the agent has read: `third_party:web.fetch,…`.")
@click.option("--value", "values", multiple=True, metavar="NAME=CAUSES", help="Where an argument's value comes from.")
@click.option("--refers", multiple=True, metavar="NAME=CAUSES", help="Who wrote what an argument refers to.")
@click.option("--requester", default="requester", help="Name of the person who asked.")
@click.option("--confined", is_flag=True, help="It acts in a sandbox that nothing leaves.")
@command_options
@click.pass_obj
def explain(settings: Settings, /, fleet: str, **given: Any) -> None:
    """Judge a call that nobody makes, as `containment: enforce` would; without --context, nothing but the request was read."""
    from midwatch.containment.trial import Trial, judge

    loaded, registry = _loaded(settings, fleet)
    trial = Trial(
        agent=given["agent"],
        tool=given["tool"],
        arguments=_arguments(registry, given["tool"], given["arguments"]),
        context=_causes(",".join(given["context"])),
        values={name: _causes(text) for name, text in _pairs(given["values"])},
        refers={name: _causes(text) for name, text in _pairs(given["refers"])},
        requester=given["requester"],
        confined=given["confined"],
    )
    facts = _facts(loaded, judge(loaded, registry, trial))
    if settings.json:
        emit({"ok": True, **facts})
        return
    click.echo(block(_lines(facts)))


@policy.command("test", short_help="Judge the cases of a file.")
@click.argument("fleet", type=click.Path())
@click.argument("file", type=click.Path())
@command_options
@click.pass_context
def test(ctx: click.Context, fleet: str, file: str) -> None:
    """Judge each case of FILE by FLEET; exit code 1 when a verdict is not the one that its author expects."""
    from midwatch.config.yaml_source import read_file, read_yaml
    from midwatch.containment.trial import judge, read_cases, word_of

    settings: Settings = ctx.obj
    loaded, registry = _loaded(settings, fleet)
    cases = read_cases(read_yaml(read_file(Path(file)), file))
    told = []
    for case in cases:
        try:
            ruling = judge(loaded, registry, case.trial)
        except UsageProblem as wrong:
            raise UsageProblem(f"case `{case.name}`: {wrong}") from wrong
        facts = _facts(loaded, ruling)
        told.append({"name": case.name, "expect": case.expect, "as_expected": word_of(ruling) == case.expect, **facts})
    differing = [each for each in told if not each["as_expected"]]
    if settings.json:
        emit({"ok": not differing, "cases": told})
    else:
        for each in differing:
            lines = _lines(each)
            click.echo(block([f"{each['name']}: expected {each['expect']}, but {lines[0]}", *lines[1:]]))
        click.echo(f"{len(told)} cases, {len(differing)} differ")
    if differing:
        ctx.exit(1)


def _loaded(settings: Settings, fleet: str) -> tuple[Fleet, Registry]:
    from midwatch import wiring
    from midwatch.tools.registry import Registry

    loaded, _ = wiring.load_fleet(fleet, environ=os.environ)
    wiring.untouched(loaded, settings.place)
    return loaded, Registry.of_fleet(loaded)


def _pairs(texts: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    broken = next((text for text, (_, sign, _) in zip(texts, pairs, strict=True) if not sign), None)
    if broken is not None:
        raise UsageProblem(f"`{broken}` has no `=`; write NAME=VALUE")
    return [(name, value) for name, _, value in pairs]


def _arguments(registry: Registry, tool: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """Take a value as text where the tool takes text, else as JSON; where it takes a list, a text is a list of one."""
    contract = registry.tools[tool].contract if tool in registry.tools else None
    properties: Mapping[str, Any] = {} if contract is None else contract.input_schema.get("properties", {})
    made: dict[str, Any] = {}
    for name, text in _pairs(texts):
        if properties.get(name, {}).get("type") == "string":
            made[name] = text
            continue
        try:
            made[name] = json.loads(text)
        except ValueError:
            made[name] = [text] if properties.get(name, {}).get("type") == "array" else text
    return made


def _causes(text: str) -> tuple[Cause, ...]:
    from midwatch.records.label import Cause

    made = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            made.append(Cause.parse(part))
        except ValueError as fault:
            raise UsageProblem(f"`{part}`: {fault}") from fault
    return tuple(made)


def _facts(fleet: Fleet, ruling: Ruling) -> dict[str, Any]:
    from midwatch.containment.trial import word_of

    verdict = ruling.verdict
    return {
        "verdict": word_of(ruling),
        "by": verdict.by,
        "reason": getattr(verdict, "reason", None),
        "hint": getattr(verdict, "hint", None),
        "who": getattr(verdict, "who", None),
        "containment": fleet.containment.mode,
        "label": ruling.label.to_json(),
        "chain": [lack.to_json() for lack in ruling.chain],
    }


def _lines(facts: Mapping[str, Any]) -> list[str]:
    asked = f" {facts['who']}" if facts["who"] else ""
    lines = [f"{facts['verdict']}{asked} (by {facts['by']})"]
    lines += [f"  {facts[key]}" for key in ("reason", "hint") if facts[key]]
    readers = facts["label"]["readers"]
    shown = readers if isinstance(readers, str) else ", ".join(readers) or "nobody"
    lines += [f"  causes: {', '.join(facts['label']['causes'])}", f"  readers: {shown}"]
    lines += [f"  lacks: {lack['where']} ({lack['role']}): {lack['cause'] or '-'}" for lack in facts["chain"]]
    if facts["containment"] == "record" and facts["verdict"] != "allowed" and facts["by"] != "grants":
        lines.append("  this fleet only records that; `containment: enforce` would hold the call")
    return lines
