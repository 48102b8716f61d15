"""Common: what every command of the command line shares: options, the open store, and how errors are told.

In:   options, an error. Out: an open store; text on stderr or one JSON object on stdout.
May import: click, errors; the wiring when a command runs. Must not know: any one command.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from midwatch.errors import MidwatchError, UsageProblem

if TYPE_CHECKING:
    from midwatch.store.port import Store

__all__ = [
    "Settings",
    "began_in",
    "block",
    "command_options",
    "emit",
    "find_run",
    "folder",
    "moment",
    "money",
    "operator",
    "plain",
    "report_error",
    "report_usage",
    "say",
    "seconds",
    "store_of",
]

_BLANK: Final = (
    ("\u034f", "\u034f"),
    ("\u115f", "\u1160"),
    ("\u17b4", "\u17b5"),
    ("\u180b", "\u180f"),
    ("\u2800", "\u2800"),
    ("\u3164", "\u3164"),
    ("\ufe00", "\ufe0e"),
    ("\uffa0", "\uffa0"),
    ("\U000e0100", "\U000e01ef"),
)
"""Characters that count as printable and show nothing: joiners, fillers, selectors (but for the one of emoji), the empty braille cell."""
_SET_IN: Final = " " * 9 + "| "

_Callback = TypeVar("_Callback", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """What holds for the whole command line; mutable, since options may stand before or after the command."""

    json: bool = False
    home: str | None = None

    @property
    def place(self) -> Path:
        """The home directory that is meant."""
        from midwatch import wiring  # late: it loads the store, which `--help` has no use for

        return wiring.home_path(self.home, os.environ)


def _set_home(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Settings).home = value


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Settings).json = value


def command_options(callback: _Callback) -> _Callback:
    """Give a command `--json` and `--home`; both end in `Settings`."""
    home = click.option("--home", metavar="DIR", expose_value=False, callback=_set_home, help="Where state lives.")
    as_json = click.option(
        "--json", is_flag=True, expose_value=False, callback=_set_json, help="One JSON object on stdout."
    )
    return as_json(home(callback))


@contextlib.contextmanager
def store_of(settings: Settings) -> Iterator[Store]:
    """Open the store of the home that is meant. NotFound: there is none yet."""
    from midwatch import wiring  # late: as above

    with wiring.open_store(settings.place) as store:
        yield store


def find_run(store: Store, prefix: str) -> str:
    """Give the full id that a short one means; `last` is the newest run. NotFound, Ambiguous: as `Runs.find`."""
    if prefix == "last":
        newest = store.read(lambda tx: tx.runs.list(limit=1))
        if newest:
            return newest[0].id
    return store.read(lambda tx: tx.runs.find(prefix)).id


def folder(name: str | None) -> Path:
    """Give a working directory, absolute: the current one unless another is named. UsageProblem: it is not there."""
    place = Path.cwd() if name is None else Path(name).absolute()
    if not place.is_dir():
        raise UsageProblem(f"the working directory `{place}` is not there; `--workdir DIR` names another")
    return place


def began_in(settings: Settings, run: str) -> str | None:
    """Read where a run was started; its files are there, wherever it is resumed from."""
    with store_of(settings) as store:
        events = store.read(lambda tx: tx.ledger.read(run=run, kinds=("run.created",), limit=1))
    found = events[0].data.get("workdir") if events else None
    return found if isinstance(found, str) else None


def operator(by: str | None) -> str:
    """Name who speaks: the option, else the login name of the environment."""
    return by or os.environ.get("USER") or os.environ.get("LOGNAME") or f"uid {os.getuid()}"


def emit(value: Any) -> None:
    """Write one JSON object to stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, sort_keys=False))


def say(text: str) -> None:
    """Write one line to stderr."""
    click.echo(plain(text), err=True)


def plain(text: str) -> str:
    """Make what steers a terminal or cannot be seen visible: controls, bidi, zero-width, tags, selectors, blank letters."""
    return "".join(char if char in "\n\t" or _seen(char) else _escape(ord(char)) for char in text)


def block(lines: Iterable[str]) -> str:
    """Put lines together; what is itself several lines is set in, so that no text can pose as a line of its own."""
    return plain("\n".join(line.replace("\n", f"\n{_SET_IN}") for line in lines))


def _seen(char: str) -> bool:
    return char.isprintable() and not any(first <= char <= last for first, last in _BLANK)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def report_error(error: MidwatchError, *, as_json: bool) -> None:
    """Tell an error of ours: every problem of it, each with its place."""
    problems = error.problems if isinstance(error, UsageProblem) else ()
    if as_json:
        told = [{"where": item.where, "message": item.message, "code": item.code} for item in problems]
        body = {"type": type(error).__name__, "message": str(error), "problems": told}
        emit({"ok": False, "error": body})
        return
    for line in [str(item) for item in problems] or [str(error)]:
        say(f"midwatch: {line}")


def report_usage(error: click.UsageError) -> None:
    """Tell a mistake in the arguments themselves as JSON, in the same shape."""
    message = error.format_message()
    problem = {"where": "", "message": message, "code": "usage"}
    emit({"ok": False, "error": {"type": "UsageProblem", "message": message, "problems": [problem]}})


def money(micro: int | None) -> str:
    """Write micro-dollars as dollars: four digits below a dollar, else two."""
    if micro is None:
        return "-"
    return f"${micro / 1_000_000:.4f}" if abs(micro) < 1_000_000 else f"${micro / 1_000_000:,.2f}"


def seconds(us: int | None) -> str:
    """Write microseconds as `0.4s`, `12s`, `3m05s`, `2h14m`."""
    if us is None:
        return "-"
    whole = us // 1_000_000
    if whole < 10:
        return f"{us / 1_000_000:.1f}s"
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def moment(us: int | None) -> str:
    """Write a time in UTC, to the second."""
    from datetime import UTC, datetime  # late: 3 ms that `--help` does not need

    return "-" if us is None else datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
