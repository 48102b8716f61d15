"""What every test shares: nothing from the operator's own machine leaks in.

In:   the environment that pytest was started in.
Out:  each test runs with a home of its own, no model key, no colour, and a stable terminal width; several may run side by side
      (`-n`, as `make test` does), and those that share something that is dear or one of a kind come one after the other.
Must not know: any room of `midwatch`; a room's fixtures live beside its tests.
"""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("shared", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("shared")  # how fast examples are made says how busy the machine is, and nothing about the code

pytest_plugins = [
    "tests.docker_engine",
    "tests.postgres_server",
]  # one of each for all that need one, whichever files they are in
_KEYS = ("_API_KEY", "_BASE_URL", "_API_BASE", "_AUTH_TOKEN")
_PREFIXES = ("MIDWATCH_", "LANGCHAIN_", "LANGSMITH_")


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Take away what could reach a real provider or the operator's own store, in this process and its children."""
    for name in list(os.environ):
        if name.startswith(_PREFIXES) or name.endswith(_KEYS):
            monkeypatch.delenv(name)
    home: Path = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "path", sys.path[:])  # what one test's fleet imports from is not where the next one's does
    return home


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep together what uses one engine of containers, and what shares a fixture of a file; see `spread`."""
    from tests.spread import Spread  # noqa: PLC0415 - only where tests are spread

    return Spread(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # so that waiting counts towards no time-out
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let a test that measures time run while no other does, in whichever process: it is marked `alone`."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    shared = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    with _turn(shared, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextlib.contextmanager
def _turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the machine together with others, or alone; whoever waits to be alone lets nobody in before."""
    with (folder / "door").open("w") as door, (folder / "room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
