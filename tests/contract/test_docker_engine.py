"""What is asked of an engine, what it refuses, and what is found when it did less than it was asked for."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from midwatch.errors import SandboxError
from midwatch.sandbox import docker_image, docker_plan
from midwatch.sandbox.docker import DockerBackend
from midwatch.sandbox.docker_api import Engine
from tests.contract.docker_ground import Ground, nothing_left, run, said


@pytest.fixture(scope="module")
def backend(docker_host: str) -> Iterator[DockerBackend]:
    """One backend for all tests here; its launcher takes every view away at the end."""
    made = DockerBackend(docker_host)
    yield made
    made.shut()


@pytest.fixture
def ground(docker_host: str, backend: DockerBackend, tmp_path: Path) -> Ground:
    """A workspace with one file."""
    return Ground.below(tmp_path, docker_host, backend)


WRONG: dict[str, Any] = {
    "no capabilities": {"CapDrop": [], "CapAdd": ["NET_RAW"]},
    "no_new_privs": {"SecurityOpt": ["seccomp=unconfined"]},
    "a filter of system calls": {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]},
    "namespaces of its own": {"IpcMode": "host"},
    "a read-only root": {"ReadonlyRootfs": False},
}


@pytest.mark.req("DOCKER-4")
@pytest.mark.parametrize("lost", sorted(WRONG))
def test_what_the_engine_did_not_do_is_found(ground: Ground, lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if an engine had taken the order and done less: nothing runs, and neither container nor view stays."""
    asked = docker_plan.container

    def weaker(*arguments: Any) -> dict[str, Any]:
        body = asked(*arguments)
        body["HostConfig"] |= WRONG[lost]
        return body

    monkeypatch.setattr(docker_plan, "container", weaker)

    async def body() -> None:
        with pytest.raises(SandboxError, match=f"without .*{lost}"):
            await ground.backend.start(ground.profile())
        await nothing_left(ground)

    run(body)


@pytest.mark.req("DOCKER-4")
def test_a_workspace_that_is_not_the_runs_is_found(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine with another view of this machine would put an empty, unbounded folder there."""
    asked = docker_plan.container

    def elsewhere(*arguments: Any) -> dict[str, Any]:
        body = asked(*arguments)
        body["HostConfig"]["Mounts"][0]["Source"] = str(ground.layers)
        return body

    monkeypatch.setattr(docker_plan, "container", elsewhere)

    async def body() -> None:
        with pytest.raises(SandboxError, match="without the run's workspace"):
            await ground.backend.start(ground.profile())
        await nothing_left(ground)

    run(body)


@pytest.mark.req("DOCKER-3")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runtime": "runsc-absent"}, "no runtime `runsc-absent`"),
        ({"image": "nowhere.example/none:1"}, "docker pull nowhere.example/none:1"),
        ({"memory": 1 << 20}, "memory"),
    ],
)
def test_what_cannot_be_held_is_refused(ground: Ground, change: dict[str, Any], words: str) -> None:
    """By us, or by the engine in its own words; nothing is pulled, nothing stays."""

    async def body() -> None:
        with pytest.raises(SandboxError, match="(?i)" + words):
            await ground.backend.start(ground.profile(**change))
        await nothing_left(ground)

    run(body)


@pytest.mark.req("DOCKER-9")
def test_the_image_of_this_machine_is_made_once(ground: Ground) -> None:
    """The second time it is found by its digest, and is the same image."""

    async def body() -> None:
        async with ground.engine() as engine:
            one = await docker_image.of_machine(engine)
            made = await engine.image(one.name)
            assert one == await docker_image.of_machine(engine)
            assert made is not None
            assert (await engine.image(one.name) or {})["Id"] == made["Id"]

    run(body)


@pytest.mark.req("DOCKER-10")
def test_an_operators_image_with_the_same_python_works(ground: Ground) -> None:
    """It is asked what it is, and tools run on its own library."""

    async def body() -> None:
        async with ground.engine() as engine:
            image = await docker_image.of_machine(engine)
            found = await docker_image.of_operator(engine, image.name)
            assert (docker_image.interpreter(), True) == (found.python, bool(found.path))
        async with ground.sandbox(image=image.name) as sandbox:
            assert b"3" == (await said(sandbox, "python3", "-c", "print(3, end='')")).stdout

    run(body)


@pytest.mark.req("DOCKER-10")
def test_an_operators_image_without_python_is_refused(ground: Ground) -> None:
    """The engine's own words are told, and the container that was tried is gone."""

    async def tar() -> AsyncIterator[bytes]:
        yield bytes(10_240)  # an empty archive

    async def body() -> None:
        async with ground.engine() as engine:
            await engine.import_image(tar(), "midwatch-test", "empty", ("ENV A=b",))
            with pytest.raises(SandboxError, match=r"no `python3` that can be started.*not found"):
                await ground.backend.start(ground.profile(image="midwatch-test:empty"))
            await engine.remove_image("midwatch-test:empty")
            assert [] == await engine.containers({"midwatch.probe": None})

    run(body)


@pytest.mark.req("DOCKER-2")
def test_an_engine_is_spoken_to_in_small_words(ground: Ground) -> None:
    """Create, start, freeze, go on, count, end, read, remove; what is not there is none, and a refusal is the engine's own."""

    async def body() -> None:
        async with ground.engine() as engine:
            await engine.ping()
            version = await engine.version()
            assert "1.41" <= version.api <= "1.44"
            image = await docker_image.of_machine(engine)
            code = "import time; print('x' * 5000); print('end', flush=True); time.sleep(100)"
            entry = [image.python, "-c", code]
            one = await engine.create(
                "midwatch-words", {"Image": image.name, "Entrypoint": entry, "Labels": {"w": "1"}}
            )
            await engine.start(one)
            await engine.pause(one)
            state = await engine.inspect(one)
            assert state is not None
            assert ("paused", True) == (state.status, state.pid > 0)
            await engine.unpause(one)
            assert (await engine.stats(one))["pids_stats"]["current"] >= 1
            await ended(engine, one)
            (listed,) = await engine.containers({"w": "1"})
            assert (one, "midwatch-words", "exited") == (listed.id, listed.name, listed.status)
            await engine.remove(one)
            await engine.remove(one)
            assert await engine.inspect(one) is None
            with pytest.raises(SandboxError, match=r"refused \(404\): No such container"):
                await engine.start(one)

    run(body)


async def ended(engine: Engine, container: str) -> None:
    """Kill it when it has spoken, twice, and read the end of what it said."""
    for _ in range(500):
        if b"end" in await engine.logs(container, 100):
            break
        await anyio.sleep(0.02)
    await engine.kill(container)
    assert 137 == await engine.wait(container, 10)
    await engine.kill(container)
    said_last = await engine.logs(container, 100)
    assert (100, b"end\n") == (len(said_last), said_last[-4:])


@pytest.mark.req("DOCKER-12")
def test_a_private_engine_comes_twice_as_one_and_goes_whole() -> None:
    """The second start finds the first; after the stop neither folder, process nor control group is left."""
    script = Path(__file__).resolve().parents[2] / "scripts" / "docker_engine.py"
    name = f"twice-{os.getpid()}"

    def engine(action: str) -> str:
        command = [sys.executable, "-I", str(script), action, name]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout.strip()

    try:
        address = engine("start")
        assert address == engine("start")

        async def body() -> None:
            async with Engine(address) as speaking:
                assert (await speaking.info()).runtimes

        run(body)
    finally:
        engine("stop")
    place = Path(address.removeprefix("unix://")).parent
    assert not place.exists()
    assert [] == list(Path("/sys/fs/cgroup").glob(f"*/midwatch-engine-{name}"))
