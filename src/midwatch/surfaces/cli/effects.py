"""Effects: what a run was seen to do, and what becomes of it: `midwatch effects RUN`, `effects commit | discard RUN`.

In:   a short id. Out: per call what was made, changed, removed, executed and read, and each request to the network; JSON with `--json`.
May import: errors; surfaces' facts, the wiring when it runs. Must not know: how a layer is written back.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from midwatch.surfaces.cli.common import Settings, began_in, command_options, emit, find_run, plain, say, store_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from midwatch.engine.granting import Gives
    from midwatch.sandbox.effects import Change, Request
    from midwatch.surfaces.effects_facts import Diff, Step

__all__ = ["effects", "quantity"]

_FEW: Final = 20
"""Lines of one kind that a step shows, of what it only read or executed."""
_LOOKS: Final = ("executed", "read")
_HASH: Final = 8


_ELSEWHERE: Final = ("commit", "discard")
"""Commands of `releasing`, imported when asked for."""


class _Effects(click.Group):
    """Takes `effects RUN` for `effects show RUN`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all of them."""
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        from midwatch.surfaces.cli import releasing

        return {"commit": releasing.commit, "discard": releasing.discard}[cmd_name]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the word in that was left out."""
        if args and args[0] not in self.list_commands(ctx) and args[0] not in ("-h", "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Effects, short_help="Show what a run was seen to do; commit or discard it.")
def effects() -> None:
    """Show what a run was seen to do (`midwatch effects RUN`); write its changes to the workspace, or drop them."""


@effects.command("show", short_help="Show what each call was seen to do.")
@click.argument("run")
@click.option("--diff", is_flag=True, help="With what changed within texts.")
@click.option("--all", "everything", is_flag=True, help="Everything that was read or executed, too, however much.")
@command_options
@click.pass_obj
def show(settings: Settings, run: str, diff: bool, everything: bool) -> None:
    """Show what RUN's calls were seen to do, in order, with hashes and sizes; calls that did nothing are left out."""
    from midwatch.surfaces import effects_facts, grants_facts

    with store_of(settings) as store:
        full = find_run(store, run)
        found = effects_facts.steps(store, full, settings.place / "layers" / full)
    workspace = began_in(settings, full)
    place = None if workspace is None else Path(workspace)
    gives = grants_facts.of_steps(found, place)
    told = {step.seq: list(effects_facts.diffs(found, step, place)) for step in found} if diff else {}
    if settings.json:
        body = {"ok": True, "run": full, "workspace": workspace, "steps": [_json(step, told) for step in found]}
        emit(body | {"grants": _grants(gives)})
        return
    if not found:
        say("no call of this run was seen to do anything; `process` shows nothing, and has no effects to commit")
        return
    for step in found:
        given = gives[step.seq].grants if step.seq in gives else ()
        lines = [f"  {'gives':<10}  {line}" for line in grants_facts.lines(given)]
        click.echo(plain("\n".join([*_lines(step, told.get(step.seq, []), everything=everything), *lines])))
    say(_summary(found, full))


def _grants(gives: Mapping[int, Gives]) -> list[dict[str, Any]]:
    return [item.to_json() | {"event": seq} for seq, found in gives.items() for item in found.grants]


def _json(step: Step, told: dict[int, list[Diff]]) -> dict[str, Any]:
    from midwatch.surfaces.effects_facts import as_json

    body = as_json(step)
    if step.seq in told:
        body["diffs"] = [{"path": item.path, "lines": list(item.lines), "why": item.why} for item in told[step.seq]]
    return body


def _lines(step: Step, told: list[Diff], *, everything: bool) -> list[str]:
    where = f" ({step.node} step {step.step})" if step.node else ""
    how = "undid" if step.undoes else "ok" if step.ok else "failed"
    lines = [f"{step.agent or '-'}{where}  {step.tool}  {how}  e:{step.effect}  event {step.seq}"]
    by_path = {item.path: item for item in told}
    left: Counter[str] = Counter()
    for change in sorted(step.layer.changes, key=lambda item: item.op in _LOOKS):
        left[change.op] += 1
        if change.op in _LOOKS and left[change.op] > _FEW and not everything:
            continue
        lines.append(f"  {_change(change)}{_state(step, change)}")
        if change.path in by_path and change.op not in _LOOKS:
            lines += _diff(by_path[change.path])
    for op in _LOOKS:
        if left[op] > _FEW and not everything:
            lines.append(f"  {op:<10}  … {left[op] - _FEW:,} more; `--all` shows them")
    return lines + [f"  {_request(request, step.sent.get(index))}" for index, request in enumerate(step.layer.requests)]


def _change(change: Change) -> str:
    size = "" if change.size is None else quantity(change.size)
    mode = f"{change.mode:04o}" if change.op == "permission" and change.mode is not None else ""
    kind = "" if change.kind == "file" else change.kind
    aim = "" if change.target is None else f" -> {change.target}"
    words = [word for word in (_hashes(change), size, mode, kind) if word]
    flags = "".join(f"  [{flag}]" for flag in change.flags)
    return f"{change.op:<10}  {change.path}{aim}  {' '.join(words)}".rstrip() + flags


def _hashes(change: Change) -> str:
    old, new = (None if digest is None else digest[:_HASH] for digest in (change.before, change.sha256))
    if change.op == "deleted":
        return old or ""
    if change.op == "modified" and old is not None and new is not None:
        return f"{old} -> {new}"
    return new or ""


def _state(step: Step, change: Change) -> str:
    state = step.states.get(change.path, "")
    return f"  {state}" if state and change.op not in _LOOKS else ""


def _request(request: Request, became: str | None) -> str:
    said = f" {request.status}" if request.status is not None else ""
    why = f": {request.reason}" if request.reason else ""
    bodies = (
        f", {quantity(request.sent)} out, {quantity(request.received)} in" if request.sent or request.received else ""
    )
    state = "" if became in (None, "staged") else f"  {became}"
    port = f":{request.port}" if request.port else ""  # none was named, and the request went no further
    return f"{request.outcome:<10}  {request.method} {request.host}{port}{request.path}{said}{bodies}{why}{state}"


def _diff(diff: Diff) -> list[str]:
    return [f"    {line}" for line in diff.lines] or [f"    ({diff.why or 'no difference within the text'})"]


def _summary(found: list[Step], run: str) -> str:
    states = Counter(state for step in found for state in step.states.values())
    held = sum(word == "staged" for step in found for word in step.sent.values())
    told = [f"{count:,} {word}" for word, count in sorted(states.items())]
    told += [f"{held:,} request{'' if held == 1 else 's'} held back"] if held else []
    waits = states["staged"] or held
    does = "lets them out" if held else "writes them"
    drops = f"`midwatch effects discard {run[:7]}` drops them"
    hint = f"; `midwatch effects commit {run[:7]}` {does}, {drops}" if waits else ""
    return f"changes: {', '.join(told) or 'none'}{hint}"


def quantity(size: int) -> str:
    """Write bytes as `940 B`, `12.0 KiB`, `3.4 MiB`."""
    if size < 1024:
        return f"{size} B"
    units = ("KiB", "MiB", "GiB")
    power = min(len(units), (size.bit_length() - 1) // 10)
    return f"{size / 1024**power:.1f} {units[power - 1]}"
