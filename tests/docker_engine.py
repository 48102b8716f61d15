"""The engine that tests of the `docker` backend talk to: the one named by DOCKER_HOST, else a private one, started once.

In:   nothing; `tests/conftest.py` makes the fixture known.
Out:  `docker_host`, the address of an engine that answers. There is no skipping: without an engine these tests fail.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["docker_host"]

_SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "docker_engine.py"


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """Give the address of a Docker engine; what this session started, it ends."""
    given = os.environ.get("DOCKER_HOST", "")
    if given:
        yield given
        return
    name = f"tests-{os.getpid()}"
    try:
        yield _engine("start", name, "--while", str(os.getpid()))
    finally:
        _engine("stop", name)


def _engine(*arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-I", str(_SCRIPT), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()
