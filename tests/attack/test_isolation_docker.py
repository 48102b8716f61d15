"""Attacks on the Docker backend: an operator's image that lies when it is looked at, a call that moves shown code away."""

import asyncio
import io
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from midwatch.config.specs import SandboxLimits
from midwatch.errors import SandboxError
from midwatch.sandbox import docker_image
from midwatch.sandbox.docker import DockerBackend
from midwatch.sandbox.docker_api import Engine
from midwatch.sandbox.profile import SandboxProfile

LIES = {
    "list": "[]",
    "number": '{"python": 5, "path": [], "soabi": null}',
    "short": '{"python": "/bin/sh"}',
    "deep": "[" * 5_000,
    "relative": '{"python": "sh", "path": [], "soabi": ""}',
    "nothing": "",
}


async def evil(engine: Engine, name: str, said: str) -> str:
    """Make an image whose `python3` says this."""
    with tempfile.TemporaryFile() as file:
        docker_image._written(cast("BinaryIO", file))
        script = f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n".encode()
        file.seek(0)
        with tarfile.open(fileobj=file, mode="a") as tar:
            member = tarfile.TarInfo("evil/python3")
            member.size, member.mode = len(script), 0o755
            tar.addfile(member, io.BytesIO(script))
        file.seek(0)

        async def data() -> AsyncIterator[bytes]:
            while part := file.read(1 << 20):
                yield part

        await engine.import_image(data(), "midwatch-evil", name, ("ENV PATH=/evil",))
    return f"midwatch-evil:{name}"


@pytest.mark.req("ISOLATION-7")
@pytest.mark.timeout(240)
def test_an_image_that_lies_is_refused_in_words(docker_host: str) -> None:
    """Whatever its `python3` prints when it is asked what it is, the answer is a refusal that names the image."""

    async def attack() -> dict[str, str]:
        found = {}
        async with Engine(docker_host) as engine:
            for name, said in LIES.items():
                image = await evil(engine, name, said)
                with pytest.raises(SandboxError) as refused:
                    await docker_image.of_operator(engine, image)
                found[image] = str(refused.value)
        return found

    assert all(image in words for image, words in asyncio.run(attack()).items())


@pytest.mark.req("ISOLATION-3")
@pytest.mark.timeout(240)
def test_code_below_the_scratch_space_cannot_be_moved_away_in_docker(docker_host: str, tmp_path: Path) -> None:
    """The folder around a tool's file is no agent's, there too."""

    async def attack(tool: Path) -> tuple[str, str]:
        backend = DockerBackend(host=docker_host)
        try:
            box = await backend.start(SandboxProfile(tmp_path, code=(tool,)))
            script = f"mv {tool.parent.parent} /tmp/aside; mkdir -p {tool.parent}; echo evil >{tool}; cat {tool}"
            ran = await box.run(
                ["/bin/sh", "-c", script],
                limits=SandboxLimits(),
                workdir=Path("/workspace"),
                timeout_us=20_000_000,
                max_bytes=10_000,
            )
            await box.close()
            return ran.status, ran.stdout.decode()
        finally:
            await backend.close()

    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        tool = Path(scratch) / "fleet" / "tools.py"
        tool.parent.mkdir()
        tool.write_text("honest\n")
        assert ("ended", "honest\n") == asyncio.run(attack(tool))
