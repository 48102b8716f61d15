"""Choice: where a home's records are: in a file of it, or on a Postgres server that `MIDWATCH_STORE` names.

In:   a home, the environment. Out: an open store.
May import: the adapters, errors. Must not know: who asks. It stands beside the wiring, which alone calls it.

`--home` always names a folder: what stays on the machine (layers, sandboxes, logs) is there, whatever holds the records. The address comes
from the environment and from nowhere else, so that it is in no fleet file and on no command line.

Why a home remembers its server: with the variable forgotten once, a home would begin a second ledger, in which nothing is spent, held or
denied yet. So the first use leaves `store.json` (the store's id, no secret), and a home opens with what it began with or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from midwatch.errors import MissingExtra, NotFound, StoreUnreadable, UsageProblem
from midwatch.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from midwatch.store.port import VerifyReport
    from midwatch.store.postgres import PostgresStore

__all__ = ["DATABASE", "VARIABLE", "address", "begun", "copy_home", "named", "open_chosen", "open_server"]

DATABASE: Final = "midwatch.db"
VARIABLE: Final = "MIDWATCH_STORE"
_MARKER: Final = "store.json"


def address(environ: Mapping[str, str]) -> str | None:
    """Give the server's address, if one is named."""
    return environ.get(VARIABLE) or None


def named(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the server's address as an argument; nothing when none is named."""
    url = address(environ)
    return {} if url is None else {"server": url}


def begun(home: Path) -> bool:
    """Say whether this home has records, in its file or on a server."""
    return (home / DATABASE).exists() or (home / _MARKER).exists()


def open_chosen(home: Path, environ: Mapping[str, str], *, create: bool) -> SqliteStore | PostgresStore:
    """Open a home's store.

    Raises:
        NotFound: there is none yet and `create` is false.
        StoreError, MissingExtra, UsageProblem: it cannot be used; the message says why.
    """
    url, marker = address(environ), _marker(home)
    if url is not None:
        return _shared(home, url, marker, create=create)
    if marker is not None:
        raise StoreUnreadable(f"the records of `{home}` are on a server (`{marker['at']}`); name it in `{VARIABLE}`")
    if not create and not (home / DATABASE).exists():
        raise NotFound(f"no Midwatch home at `{home}`; `midwatch run FLEET` makes one, `--home` names another")
    return SqliteStore(home / DATABASE)


def open_server(url: str, *, create: bool) -> PostgresStore:
    """Open the store on a server, whatever home asks.

    Raises:
        MissingExtra: the driver is not installed. StoreError, UsageProblem: see `store.postgres`.
    """
    try:
        from midwatch.store.postgres import PostgresStore  # noqa: PLC0415 - psycopg is an extra, and 0.1 s
    except ImportError as error:
        raise MissingExtra("postgres", f"`{VARIABLE}`") from error
    return PostgresStore(url, create=create)


def copy_home(home: Path, url: str, *, at_us: int) -> VerifyReport:
    """Copy the home's file to an empty store on a server; both ends are closed after.

    Raises:
        UsageProblem: the address holds a password, which others would see on the command line; or the store is not empty.
        NotFound: the home has no file. RunHeld, StoreError: see `store.copying`.
    """
    from midwatch.store.copying import copy  # noqa: PLC0415 - only here

    if not (home / DATABASE).exists():
        raise NotFound(f"there is no `{DATABASE}` in `{home}` to copy; `--home` names another home")
    if _has_password(url):
        raise UsageProblem(
            "leave the password out of the address: others see command lines; use a password file or `PGPASSWORD`"
        )
    with (
        contextlib.closing(SqliteStore(home / DATABASE)) as source,
        contextlib.closing(open_server(url, create=True)) as target,
    ):
        return copy(source, target, at_us=at_us)


def _has_password(url: str) -> bool:
    parts = urlsplit(url)
    return ":" in parts.netloc.rpartition("@")[0] or "password=" in parts.query


def _shared(home: Path, url: str, marker: Mapping[str, Any] | None, *, create: bool) -> PostgresStore:
    if (home / DATABASE).exists():
        raise StoreUnreadable(
            f"`{home}` has records of its own in `{DATABASE}`; copy them with `midwatch store copy`, move the file away, "
            "or choose another `--home`"
        )
    store = open_server(url, create=create)
    try:
        if marker is None:
            _remember(home, store)
        elif marker["id"] != store.id:
            raise StoreUnreadable(
                f"`{home}` belongs to another store (`{marker['at']}`); name that one in `{VARIABLE}`, or choose another `--home`"
            )
    except BaseException:
        store.close()
        raise
    return store


def _marker(home: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads((home / _MARKER).read_text())
        return {"id": str(found["id"]), "at": str(found["at"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreUnreadable(f"`{home / _MARKER}` cannot be read; it says which server holds the records") from error


def _remember(home: Path, store: PostgresStore) -> None:
    draft = home / f"{_MARKER}.{os.getpid()}"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_text(json.dumps({"id": store.id, "at": store.shown}) + "\n")
        draft.replace(home / _MARKER)
    except OSError as error:
        raise StoreUnreadable(f"`{home}` cannot be written: {(error.strerror or 'unknown error').lower()}") from error
