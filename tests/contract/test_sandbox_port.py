"""The sandbox port's suite, run by each backend of ours."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from midwatch.sandbox import Backend, Egress, Layer, Sandbox, SandboxProfile
from midwatch.sandbox.process import ProcessSandbox
from midwatch.wiring import backend_of
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
class TestBubblewrap(SandboxSuite):
    """All of it."""

    factory = "midwatch.sandbox.bubblewrap:BubblewrapBackend"


@pytest.mark.req("PORT-1", "PORT-2", "PORT-3", "PORT-4", "PORT-5", "PORT-6", "PORT-7", "PORT-8", "PORT-9")
class TestDocker(SandboxSuite):
    """All of it, in containers of a real engine."""

    factory = "midwatch.sandbox.docker:DockerBackend"

    @pytest.fixture
    def backend(self, docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Backend:
        """The tests' own engine; a child process finds it too."""
        monkeypatch.setenv("DOCKER_HOST", docker_host)
        return backend_of("docker")
