"""The escape self-test in the docker backend, against a real engine, broker included: nothing gets out."""

import asyncio
from dataclasses import replace

import pytest

from midwatch.config.specs import EgressRule
from midwatch.sandbox.docker import DockerBackend
from midwatch.sandbox.egress import Broker
from midwatch.sandbox.escape import Check, run_escape
from midwatch.sandbox.port import Sandbox
from midwatch.sandbox.profile import SandboxProfile

KNOWN = {"mount_sources", "first_process", "control_group_path"}
"""What tells something of the host and opens nothing: where mounts come from and the first process's code lies, who bounds it."""


@pytest.mark.req("ESCAPE-3")
@pytest.mark.timeout(300)
def test_nothing_gets_out_of_docker(docker_host: str) -> None:
    """All attacks are answered for, and what is open is at most the three that only tell."""

    async def tried() -> list[Check]:
        backend = DockerBackend(host=docker_host)
        broker = Broker(lambda: 0)

        async def start(profile: SandboxProfile) -> Sandbox:
            return await backend.start(replace(profile, egress=(EgressRule("example.com"),)), egress=broker)

        try:
            return await run_escape(start)
        finally:
            await backend.close()

    found = asyncio.run(tried())
    assert 100 <= len({check.name for check in found}) == len(found)
    opened = {check.name: check.detail for check in found if not check.held}
    assert opened.keys() <= KNOWN, opened
