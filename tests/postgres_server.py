"""The server that tests of the Postgres store talk to: started once, for all that need one, whichever files they are in.

In:   nothing; `tests/conftest.py` makes the fixtures known.
Out:  `postgres`: a `Server` that gives each test a schema of its own. There is no skipping: without a server these tests fail.
"""

import atexit
import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

__all__ = ["Server", "own_postgres", "postgres", "shared"]

_SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "postgres_server.py"
_numbers = itertools.count()


class Server:
    """One server, reached by a socket in a folder of its own."""

    def __init__(self, name: str, *watched: str) -> None:
        self.name = name
        self.folder = _control("start", name, *watched)
        self.base = f"postgresql://midwatch@/midwatch?host={quote(self.folder, safe='')}"

    def schema(self) -> str:
        """Make an empty schema; gives the address of a store in it."""
        name = f"t{next(_numbers)}"
        self.say(f"CREATE SCHEMA {name}")
        return f"{self.base}&options={quote(f'-csearch_path={name}')}"

    def say(self, sql: str, address: str | None = None) -> list[tuple[object, ...]]:
        """Run a statement as a foreign session would."""
        with psycopg.connect(address or self.base, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def restart(self, *, crash: bool = False) -> None:
        """Stop and start it, in order or as after a crash."""
        _control("kill" if crash else "restart", self.name)

    def stop(self) -> None:
        """End it, with all that is in it."""
        _control("stop", self.name)


@functools.cache
def shared() -> Server:
    """Give this process's server; what it started, it ends."""
    server = Server(f"tests-{os.getpid()}", "--while", str(os.getpid()))
    atexit.register(server.stop)
    return server


@pytest.fixture(scope="session")
def postgres() -> Server:
    """Give the session's server."""
    return shared()


@pytest.fixture
def own_postgres() -> Iterator[Server]:
    """Give a server of the test's own, which it may stop, crash and freeze."""
    name = f"own-{os.getpid()}"
    server = Server(name, "--while", str(os.getpid()))
    try:
        yield server
    finally:
        server.stop()


def _control(*arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-I", str(_SCRIPT), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()
