"""LangChain's own suite for deepagents backends, against `midwatch.adapters.deepagents`. Started by `test_suites.py` in `.venv/suites`."""

from collections.abc import Iterator

import pytest
from langchain_tests.integration_tests import SandboxIntegrationTests

from midwatch.adapters.deepagents import MidwatchBackend
from midwatch.sandbox import SandboxProfile, SyncSandbox, open_sandbox
from tests.contract.suites.level import ASK, lacking


class TestMidwatch(SandboxIntegrationTests):  # type: ignore[misc] # where the package is not installed, it is `Any`
    """One sandbox for the class, as the suite wants it."""

    @pytest.fixture(scope="class")
    def sandbox(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MidwatchBackend]:
        """An open sandbox over an empty workspace."""
        with SyncSandbox(open_sandbox(SandboxProfile(tmp_path_factory.mktemp("workspace")))) as box:
            yield MidwatchBackend(box)

    def test_level(self, sandbox_backend: MidwatchBackend) -> None:
        """The full profile, nothing less."""
        box = sandbox_backend._sandbox
        assert lacking(box.run(ASK), box.stats()) == []

    def test_ends(self, sandbox_backend: MidwatchBackend) -> None:
        """A deadline, a signal and output over the bound are told as a shell tells them; both streams keep their order."""
        late = sandbox_backend.execute("echo begun; sleep 60", timeout=1)
        assert (late.exit_code, late.output.split("\n")[0]) == (124, "begun")
        assert sandbox_backend.execute("kill -9 $$").exit_code == 137
        small = MidwatchBackend(sandbox_backend._sandbox, max_output=4).execute("echo one; echo two >&2; echo three")
        assert (small.output, small.truncated) == ("ree\n", True)
        assert sandbox_backend.execute("echo one; echo two >&2; echo three").output == "one\ntwo\nthree\n"
