"""Doctor: `midwatch doctor`: is this machine fit, what is installed, what does the sandbox really hold.

In:   the machine, the home. Out: one line a check; exit code 1 when one fails.
May import: the standard library; the wiring and the sandbox when it runs. Must not know: how the store does its work.
A layer of isolation that is missing is a warning by itself, since a fleet may do without; with `--expect` it fails, so that a machine
that is meant to enforce something is never green because nothing was enforced.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

import click

from midwatch.errors import MidwatchError, NotFound, SandboxError
from midwatch.surfaces.cli.common import Settings, command_options, emit, plain

if TYPE_CHECKING:
    from midwatch.sandbox.escape import Check
    from midwatch.sandbox.port import Backend
    from midwatch.sandbox.probe import Report

__all__ = ["Finding", "doctor"]

_EXTRAS: Final = {
    "openai": "langchain_openai",
    "anthropic": "langchain_anthropic",
    "mcp": "mcp",
    "langchain": "langchain",
    "server": "starlette",
    "engine": "dbos",
    "postgres": "psycopg",
    "otel": "opentelemetry.sdk",
    "tokens": "tiktoken",
}
_PYTHON: Final = (3, 11)
_SQLITE: Final = (3, 35, 0)
"""The first version with RETURNING."""
_LOW_DISK: Final = 200 * 2**20
_NO_DISK: Final = 20 * 2**20
_DATABASE: Final = "midwatch.db"
_LEVELS: Final = ("bubblewrap", "docker")


class _Server(Protocol):
    """What is asked of a store on a server."""

    def report(self) -> Any:
        """Say what it is, and which of its settings break a promise."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `warn` does not fail the command."""

    check: str
    status: Literal["ok", "warn", "fail"]
    message: str


@click.command(short_help="Check this machine and the home.")
@click.option("--expect", type=click.Choice(_LEVELS), help="Fail unless this level of isolation can be enforced here.")
@click.option(
    "--escape",
    is_flag=True,
    help="Try to break out of a sandbox, of `--expect` or the strongest level; takes a minute.",
)
@command_options
@click.pass_context
def doctor(ctx: click.Context, expect: str | None, escape: bool) -> None:
    """Check this machine and the home; nothing is made or changed."""
    from midwatch.sandbox.probe import level, probe

    settings: Settings = ctx.obj
    home = settings.place
    report = probe()
    strongest = level(report)
    findings = [_python(), _sqlite(), _home(home), _disk(home), *_database(home), _extras()]
    findings += [*_layers(report), _sandbox(strongest), *([] if expect is None else [_expected(report, expect)])]
    attacks = _escape(expect or strongest, report) if escape else None
    findings += [] if attacks is None else [_escaped(expect or strongest, attacks)]
    ok = all(item.status != "fail" for item in findings)
    if settings.json:
        told = {"ok": ok, "home": str(home), "checks": [asdict(item) for item in findings]}
        told |= {"level": strongest, "isolation": report.to_json()}
        emit(told if attacks is None else {**told, "attacks": [asdict(item) for item in attacks]})
    else:
        for item in findings:
            click.echo(plain(f"{item.status:<5} {item.check:<16} {item.message}"))
        for attack in attacks or ():
            click.echo(
                plain(f"{'held' if attack.held else 'OPEN':<5} {attack.kind:<11} {attack.name:<28} {attack.detail}")
            )
    if not ok:
        ctx.exit(1)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _PYTHON:
        return Finding("python", "fail", f"{version}; 3.11 or newer is needed")
    return Finding("python", "ok", version)


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < _SQLITE:
        return Finding("sqlite", "fail", f"{version}; 3.35 or newer is needed")
    return Finding("sqlite", "ok", version)


def _home(home: Path) -> Finding:
    if not home.exists():
        above = _existing(home)
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            return Finding(
                "home", "fail", f"`{home}` cannot be made: `{above}` is not writable; name another by --home"
            )
        return Finding("home", "ok", f"`{home}` does not exist yet; the first run makes it")
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        return Finding("home", "fail", f"`{home}` is not a directory that this user can write to")
    mode = home.stat().st_mode & 0o777
    if mode & 0o077:
        return Finding("home", "warn", f"`{home}` is open to other users ({mode:o}); `chmod 700` it")
    return Finding("home", "ok", f"`{home}`, writable, 0700")


def _disk(home: Path) -> Finding:
    free = shutil.disk_usage(_existing(home)).free
    told = f"{free / 2**30:.1f} GB free"
    if free < _NO_DISK:
        return Finding("disk", "fail", f"{told}; no run can be recorded")
    return Finding("disk", "warn" if free < _LOW_DISK else "ok", told)


def _existing(place: Path) -> Path:
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _database(home: Path) -> list[Finding]:
    """Look at the database as any reader would; a home without one is new, not ill."""
    if os.environ.get("MIDWATCH_STORE"):
        return _server(home)
    file = home / _DATABASE
    try:
        if not file.exists():
            return [Finding("store", "ok", "no database yet")]
        wal = home / f"{_DATABASE}-wal"
        size, waiting = file.stat().st_size, wal.stat().st_size if wal.exists() else 0
    except OSError as error:
        return [Finding("store", "fail", f"`{file}` cannot be read: {error.strerror}")]
    told = f"{size / 2**20:.1f} MB, write-ahead log {waiting / 2**20:.1f} MB"
    found = [Finding("wal", "warn" if waiting > 64 * 2**20 else "ok", told)]
    from midwatch import wiring  # late: it loads the store

    try:
        with wiring.open_store(home) as store:
            seq, head = store.read(lambda tx: tx.ledger.head())
    except MidwatchError as error:
        return [*found, Finding("store", "fail", str(error))]
    mode = _journal_mode(file)
    status: Literal["ok", "warn"] = "ok" if mode == "wal" else "warn"
    return [*found, Finding("store", status, f"{seq:,} events, head {head[:16]}, journal mode {mode}")]


def _server(home: Path) -> list[Finding]:
    """Look at the server that holds the records: which, how much, and the settings on which promises rest."""
    from midwatch import wiring  # late: as above

    try:
        with wiring.open_store(home) as store:
            seq, head = store.read(lambda tx: tx.ledger.head())
            report = cast("_Server", store).report()
    except NotFound:
        return [Finding("store", "ok", "a Postgres server, with no store yet; the first run makes it")]
    except MidwatchError as error:
        return [Finding("store", "fail", str(error))]
    told = f"Postgres {report.settings.get('server_version')} at `{report.shown}`, {seq:,} events, head {head[:16]}"
    found = [Finding("store", "ok", told)]
    names = ("fsync", "full_page_writes", "synchronous_standby_names", "max_connections")
    shown = ", ".join(f"{name} {report.settings.get(name) or 'none'}" for name in names)
    return [*found, Finding("server", "warn" if report.troubles else "ok", "; ".join([shown, *report.troubles]))]


def _journal_mode(file: Path) -> str:
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as error:
        return f"unknown ({error})"


def _extras() -> Finding:
    have = [extra for extra, module in _EXTRAS.items() if _installed(module)]
    lack = [extra for extra in _EXTRAS if extra not in have]
    parts = [f"installed: {', '.join(have) or 'none'}", f"not installed: {', '.join(lack) or 'none'}"]
    return Finding("extras", "ok", "; ".join(parts))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False


def _layers(report: Report) -> list[Finding]:
    """Give one line for each thing that was tried."""
    return [
        Finding(item.name, "ok", item.detail)
        if item.ok
        else Finding(item.name, "warn", f"{item.detail}; {item.remedy}" if item.remedy else item.detail)
        for item in report.items
    ]


def _sandbox(strongest: str) -> Finding:
    said = (
        "backend `process` is *not isolation*: limits on memory, time and files only; it shares files, network and user"
    )
    if strongest == "process":
        return Finding("sandbox", "warn", f"nothing that isolates can be enforced here; {said}")
    return Finding("sandbox", "ok", f"`{strongest}` can be enforced here; {said}")


def _expected(report: Report, wanted: str) -> Finding:
    from midwatch.sandbox.probe import missing

    problems = missing(report, wanted)
    if problems:
        return Finding("expect", "fail", f"`{wanted}` cannot be enforced: {'; '.join(map(str, problems))}")
    return Finding("expect", "ok", f"`{wanted}` can be enforced")


def _escape(wanted: str, report: Report) -> list[Check]:
    """Start sandboxes and try to get out of them.

    Raises:
        SandboxError: one cannot be started.
    """
    import asyncio

    from midwatch.sandbox.escape import LIMITS, run_escape
    from midwatch.sandbox.profile import DEFAULT_LIMITS

    groups = report.get("cgroups")
    limits = LIMITS if groups is not None and groups.ok else DEFAULT_LIMITS

    async def tried() -> list[Check]:
        backend = _backend(wanted)
        try:
            return await run_escape(backend.start, limits=limits)
        finally:
            await backend.close()

    return asyncio.run(tried())


def _backend(wanted: str) -> Backend:
    if wanted == "bubblewrap":
        from midwatch.sandbox.bubblewrap import BubblewrapBackend

        return BubblewrapBackend()
    if wanted == "docker":
        from midwatch.sandbox.docker import DockerBackend

        return DockerBackend()
    raise SandboxError("nothing that isolates can be enforced here, so there is nothing to break out of")


def _escaped(wanted: str, attacks: list[Check]) -> Finding:
    """Fail on whatever got out; what only tells something is a warning."""
    opened = [item for item in attacks if not item.held]
    told = f"`{wanted}`: {len(attacks) - len(opened)} of {len(attacks)} attacks held"
    named = f"{told}; open: {', '.join(item.name for item in opened)}" if opened else told
    if any(item.kind != "information" for item in opened):
        return Finding("escape", "fail", named)
    return Finding("escape", "warn" if opened else "ok", named)
