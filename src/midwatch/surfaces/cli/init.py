"""Init: `midwatch init NAME`: a new folder with a fleet, a tool, prompts, a scenario and a test that passes.

In:   a folder's name. Out: files; each is new, nothing is overwritten.
May import: errors, the templates; the wiring to check what was written. Must not know: what makes a fleet right.
"""

from __future__ import annotations

import os
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, say

__all__ = ["init"]

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_SUFFIX: Final = ".txt"
_ISOLATED: Final = (
    "# Tools act in a sandbox of their agent, without network, on a copy of the working directory; what changed there waits for\n"
    "# `midwatch effects commit RUN`. Another word for it: `sandbox: {commit: done}`.\n"
    "sandbox: {backend: bubblewrap}"
)
_PLAIN: Final = (
    "# Nothing isolates this fleet's tools. Take this line away, and its agents act in sandboxes.\n"
    'sandbox: {backend: process, because: "made with `--no-sandbox`; its only tool computes"}'
)


@click.command("init", short_help="Make a new fleet that runs at once.")
@click.argument("name", metavar="FOLDER")
@click.option(
    "--no-sandbox", "plain", is_flag=True, help="For a machine that cannot isolate: the file says so, and why."
)
@command_options
@click.pass_obj
def init(settings: Settings, name: str, plain: bool) -> None:
    """Make FOLDER with a fleet, a tool, prompts, a scenario and a test. A folder that holds anything is refused."""
    place = Path(name).absolute()
    if not _NAME.fullmatch(place.name):
        raise UsageProblem(
            f"`{place.name}` is no name for a fleet: small letters, digits, `-` and `_`, a letter first, at most 40"
        )
    words = {"@NAME@": place.name, "@SANDBOX@": _PLAIN if plain else _ISOLATED}
    texts = {target: _filled(source, words) for target, source in _templates()}
    _write(place, texts)
    problems = _problems(place)
    if settings.json:
        emit({"ok": not problems, "folder": str(place), "files": sorted(texts), "problems": problems})
        return
    for target in sorted(texts):
        click.echo(str(Path(name) / target))
    for problem in problems:
        say(f"warning: {problem}")
    if problems and not plain:
        say(
            "where this machine cannot isolate, take the folder away and use `--no-sandbox`; `midwatch doctor` says what is missing"
        )
    say(f'next: midwatch run {name} -i text="how long is this"; cd {name} && pytest')


def _templates() -> list[tuple[str, Traversable]]:
    top = resources.files("midwatch") / "templates" / "fleet"
    return sorted(_below(top, ""), key=lambda item: item[0])


def _below(folder: Traversable, above: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for item in folder.iterdir():
        if item.is_dir():
            found += _below(item, f"{above}{item.name}/")
        elif item.name.endswith(_SUFFIX):
            found.append((f"{above}{item.name.removesuffix(_SUFFIX)}", item))
    return found


def _filled(source: Traversable, words: dict[str, str]) -> str:
    text = source.read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _write(place: Path, texts: dict[str, str]) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise UsageProblem(f"`{place}` is not empty; name a new folder")
        for target, text in texts.items():
            file = place / target
            file.parent.mkdir(exist_ok=True)
            with file.open("x", encoding="utf-8") as out:
                out.write(text)
    except OSError as error:
        raise UsageProblem(f"`{place}` cannot be made: {error.strerror}") from error


def _problems(place: Path) -> list[str]:
    """Check the new fleet as `midwatch check` does, on this machine."""
    from midwatch import wiring

    loaded, _ = wiring.load_fleet(place, environ={})
    errors, _, _ = wiring.check_fleet(loaded, os.environ)
    return [str(error) for error in errors]
