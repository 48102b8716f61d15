"""The escape self-test in the bubblewrap backend, as a fleet gets it: nothing gets out."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from midwatch.sandbox.bubblewrap import BubblewrapBackend
from midwatch.sandbox.escape import Check, run_escape
from midwatch.sandbox.port import Sandbox
from midwatch.sandbox.profile import SandboxProfile

KNOWN = {"mount_sources", "first_process"}
"""What tells something of the host and opens nothing: where mounts come from, where the first process's code lies."""


@pytest.mark.req("ESCAPE-2")
@pytest.mark.timeout(240)
def test_nothing_gets_out_of_bubblewrap() -> None:
    """All attacks are answered for, and what is open is at most the two that only tell."""

    async def tried() -> list[Check]:
        backend = BubblewrapBackend()
        start: Callable[[SandboxProfile], Awaitable[Sandbox]] = backend.start
        try:
            return await run_escape(start)
        finally:
            await backend.close()

    found = asyncio.run(tried())
    assert 100 <= len({check.name for check in found}) == len(found)
    opened = {check.name: check.detail for check in found if not check.held}
    assert opened.keys() <= KNOWN, opened
