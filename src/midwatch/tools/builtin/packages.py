"""Package logs: what changed lately, read from whichever package manager this machine has.

In:   a moment. Out: changes since then, the source's name, and what is missing.
May import: the standard library. Must not know: tools.
Why logs and not the list of installed packages: a night is about what changed. Logs are in local time, as written.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

__all__ = ["Change", "Found", "changes_since", "program"]

MAX_LOG: Final = 8 << 20
"""Bytes read from the end of a log, or from the start of a packed one."""

MAX_ROTATED: Final = 24
_DPKG: Final = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?P<action>install|upgrade|remove|purge) "
    r"(?P<name>\S{1,100}) (?P<old>\S{1,100}) (?P<new>\S{1,100})"
)
_PACMAN: Final = re.compile(
    r"\[(?P<at>[^\]]{10,30})\] \[ALPM\] (?P<action>installed|upgraded|removed|downgraded|reinstalled) "
    r"(?P<name>\S{1,100}) \((?P<old>\S{1,100})(?: -> (?P<new>\S{1,100}))?\)"
)
_APK: Final = re.compile(
    r"(?:(?P<at>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)\S* )?\(\d+/\d+\) "
    r"(?P<action>Installing|Upgrading|Purging|Downgrading|Reinstalling) (?P<name>\S{1,100}) "
    r"\((?P<old>\S{1,100})(?: -> (?P<new>\S{1,100}))?\)"
)


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `at` is UTC, `YYYY-MM-DDTHH:MM:SSZ`; versions are empty where the log names none."""

    at: str
    action: str
    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a source said. `source` is empty when there is none; `missing` says what could not be read."""

    source: str
    changes: tuple[Change, ...]
    missing: tuple[str, ...] = ()


def changes_since(since_us: int, root: Path = Path("/")) -> Found:
    """Read the first source that exists: dpkg, pacman or apk logs below `root`, else the rpm database.

    Args:
        since_us: microseconds UTC.
    """
    since = datetime.fromtimestamp(since_us / 1_000_000, UTC)
    for name, log, parse in (
        ("dpkg", root / "var/log/dpkg.log", _dpkg),
        ("pacman", root / "var/log/pacman.log", _pacman),
        ("apk", root / "var/log/apk.log", _apk),
    ):
        if log.exists() or any(log.parent.glob(f"{log.name}.*")):
            return _from_logs(name, log, parse, since)
    query = program("rpm", "-qa", "--queryformat", r"%{INSTALLTIME} %{NAME} %{VERSION}-%{RELEASE}\n")
    if query is not None:
        changes = tuple(change for line in query.splitlines() if (change := _rpm(line)) is not None)
        return _recent(Found("rpm", changes), since)
    return Found("", (), ("no package log: neither dpkg, pacman, apk nor rpm tells what changed here",))


def _from_logs(name: str, log: Path, parse: Callable[[str], Change | None], since: datetime) -> Found:
    found: list[Change] = []
    missing: list[str] = []
    for path in _rotated(log):
        try:
            # A rotated log ends when it was last written; what ended before the moment cannot tell of it.
            if path != log and path.stat().st_mtime < since.timestamp():
                continue
            lines = _lines(path)
            found += [change for line in lines if (change := parse(line)) is not None]
        except (OSError, EOFError, gzip.BadGzipFile) as failure:
            reason = getattr(failure, "strerror", None) or "it is damaged"
            missing.append(f"{path.name} cannot be read: {reason.lower()}")
    return _recent(Found(name, tuple(found), tuple(missing)), since)


def _recent(found: Found, since: datetime) -> Found:
    edge = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    kept = sorted(
        {change for change in found.changes if change.at >= edge}, key=lambda change: (change.at, change.name)
    )
    return Found(found.source, tuple(kept), found.missing)


def _rotated(log: Path) -> Iterator[Path]:
    """Give the log and its older ones, newest first."""
    numbered = [(int(match.group(1)), path) for path in log.parent.glob(f"{log.name}.*") if (match := _number(path))]
    yield from [path for path in [log] if path.exists()]
    yield from (path for _, path in sorted(numbered)[:MAX_ROTATED])


def _number(path: Path) -> re.Match[str] | None:
    return re.search(r"\.log\.(\d{1,4})(?:\.gz)?$", path.name)


def _lines(path: Path) -> list[str]:
    with path.open("rb") as plain:
        if path.suffix == ".gz":
            with gzip.open(plain, "rb") as packed:
                data = packed.read(MAX_LOG)
        else:
            plain.seek(max(0, path.stat().st_size - MAX_LOG))
            data = plain.read(MAX_LOG)
    return data.decode("utf-8", "replace").splitlines()


def _change(match: re.Match[str] | None, at: str | None) -> Change | None:
    """Make a change of a line's parts; its time, local unless it names a zone, becomes UTC."""
    if match is None or at is None:
        return None
    try:
        moment = datetime.fromisoformat(at).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    parts = match.groupdict()
    return Change(
        moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        parts["action"].lower(),
        parts["name"],
        "" if parts["old"] == "<none>" else parts["old"],
        "" if parts["new"] in {None, "<none>"} else parts["new"],
    )


def _dpkg(line: str) -> Change | None:
    match = _DPKG.match(line)
    return _change(match, match and match["at"])


def _pacman(line: str) -> Change | None:
    match = _PACMAN.match(line)
    return _change(match, match and match["at"])


def _apk(line: str) -> Change | None:
    match = _APK.match(line)
    return _change(match, match and match["at"])


def _rpm(line: str) -> Change | None:
    at, _, rest = line.partition(" ")
    name, _, version = rest.partition(" ")
    if not (at.isdigit() and len(at) < 12 and name and version):
        return None
    moment = datetime.fromtimestamp(int(at), UTC)
    return Change(moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "installed", name[:100], "", version[:100])


def program(name: str, *words: str, timeout: int = 20) -> str | None:
    """Run a read-only program with fixed words; give what it printed, or None when it is not there or fails."""
    path = shutil.which(name)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=timeout,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:MAX_LOG].decode("utf-8", "replace") if done.returncode == 0 else None
