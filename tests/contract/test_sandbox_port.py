"""The sandbox port's suite, run by each backend of ours."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from midwatch.sandbox import Backend, Egress, Layer, Sandbox, SandboxProfile
from midwatch.sandbox.process import ProcessSandbox
from midwatch.wiring import backend_of
from tests.contract.sandbox_ground import Place, sha
from tests.contract.sandbox_suite import SandboxSuite, ToolsSuite


class ProcessPart:
    """The process sandbox as a backend: it performs calls, and has no more of the port."""

    level, isolates = ProcessSandbox.level, ProcessSandbox.isolates

    async def start(
        self, profile: SandboxProfile, layers: Sequence[Layer] = (), *, egress: Egress | None = None
    ) -> Sandbox:
        """Nothing is started before a call."""
        return ProcessSandbox(profile.limits)  # type: ignore[return-value] # of the port, only `Tools` and `close`

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.req("PORT-1", "PORT-2")
class TestProcess(ToolsSuite):
    """Single calls, bounded and not isolated."""

    factory = f"{__name__}:ProcessPart"

    @pytest.fixture
    def backend(self) -> ProcessPart:
        """This file is no importable module where tests run."""
        return ProcessPart()


@pytest.mark.req("PORT-1", "PORT-2", "PORT-3", "PORT-4", "PORT-5", "PORT-6", "PORT-7", "PORT-8", "PORT-9")
class Contents(SandboxSuite):
    """What our own backends tell beside what the port asks for."""

    @pytest.mark.req("FILES-14")
    def test_what_was_read_is_told_with_the_content_that_it_had(self, place: Place) -> None:
        """Of the workspace's own files, of what an earlier call left, of what this call made and ran; what went again has none."""
        (place.profile.workspace / "own").write_text("own")

        async def body(box: Sandbox) -> list[dict[str, str | None]]:
            found = []
            for script in (
                "printf 1 >left; cat own",
                "cat left own; printf 2 >own",
                "cat own; printf '#!/bin/sh\n' >run; chmod 755 run; ./run; printf x >gone; cat gone; rm gone",
            ):
                await place.script(box, script)
                changes = (await place.layer(box)).changes
                found.append({item.path: item.sha256 for item in changes if item.op in ("read", "executed")})
            return found

        program = {"run": sha("#!/bin/sh\n")}
        told = [{"own": sha("own")}, {"left": sha("1")}, {"own": sha("2"), "gone": None, **program}]
        assert place.inside(body, observe=True) == told


class TestBubblewrap(Contents):
    """All of it."""

    factory = "midwatch.sandbox.bubblewrap:BubblewrapBackend"


@pytest.mark.req("PORT-1", "PORT-2", "PORT-3", "PORT-4", "PORT-5", "PORT-6", "PORT-7", "PORT-8", "PORT-9")
class TestDocker(Contents):
    """All of it, in containers of a real engine."""

    factory = "midwatch.sandbox.docker:DockerBackend"

    @pytest.fixture
    def backend(self, docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Backend:
        """The tests' own engine; a child process finds it too."""
        monkeypatch.setenv("DOCKER_HOST", docker_host)
        return backend_of("docker")
