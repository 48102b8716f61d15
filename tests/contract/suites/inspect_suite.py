"""Inspect's own suite for sandbox providers, against `midwatch.adapters.inspect_ai`. Started by `test_suites.py` in `.venv/suites`."""

from collections.abc import AsyncIterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv
from inspect_ai.util._sandbox.self_check import *  # noqa: F403 - as its documentation says

from midwatch.adapters.inspect_ai import MidwatchEnvironment, MidwatchPlace
from tests.contract.suites.level import ASK, LIMITS, lacking


@pytest.fixture
async def sandbox_env() -> AsyncIterator[SandboxEnvironment]:
    """One sample's sandbox, made as Inspect makes it: by its name, through the entry point."""
    for point in entry_points(group="inspect_ai"):
        point.load()
    provider = registry_find_sandboxenv("midwatch")
    environments = await provider.sample_init("suite", None, {})
    yield environments["default"]
    await provider.sample_cleanup("suite", None, environments, False)


async def test_level(sandbox_env: MidwatchEnvironment) -> None:
    """The full profile, nothing less."""
    box = sandbox_env._box
    told = await box.run(ASK, limits=LIMITS, workdir=Path("/workspace"), timeout_us=10_000_000, max_bytes=65_536)
    assert lacking(told, await box.stats()) == []


async def test_place(tmp_path: Path, sandbox_env: SandboxEnvironment) -> None:
    """A place may come from a file or a log; a workspace is seen and stays as it is, and two samples do not see each other."""
    (tmp_path / "given.txt").write_text("given")
    place = tmp_path / "place.yaml"
    place.write_text(f"workspace: {tmp_path}\nenv: {{COLOUR: blue}}\nlimits: {{processes: 32}}\n")
    read = MidwatchEnvironment.config_deserialize({"workspace": str(tmp_path), "limits": {"processes": 32}})
    assert isinstance(read, MidwatchPlace)
    assert read.limits.processes == 32
    assert hash(read) == hash(read.model_copy()), "Inspect keeps places as keys"
    environments = await MidwatchEnvironment.sample_init("suite", str(place), {})
    own = environments["default"]
    try:
        assert await own.read_file("given.txt") == "given"
        assert (await own.exec(["sh", "-c", "echo $COLOUR; echo more >> given.txt"])).stdout == "blue\n"
        assert await own.read_file("given.txt") == "givenmore\n"
        with pytest.raises(FileNotFoundError):
            await sandbox_env.read_file("given.txt")
    finally:
        await MidwatchEnvironment.sample_cleanup("suite", str(place), environments, False)
    assert (tmp_path / "given.txt").read_text() == "given"
