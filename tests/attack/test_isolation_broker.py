"""Attacks of a sandbox on the loop that serves all of them: the broker gives each connection its turn, and bounds what it costs."""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from midwatch.sandbox.egress import Broker
from midwatch.sandbox.profile import SandboxProfile
from tests.attack.egress_site import HOST, NOW_US, Host, Site, rule

TINY = b"2\r\nab\r\n"


def connected(path: Path) -> socket.socket:
    """Connect as a program inside does that goes round the bridge."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


async def slowest(until: asyncio.Event) -> float:
    """Give the longest time that somebody else on the loop had to wait for a turn."""
    worst = 0.0
    while not until.is_set():
        begun = time.perf_counter()
        await asyncio.sleep(0)
        worst = max(worst, time.perf_counter() - begun)
    return worst


@pytest.mark.req("ISOLATION-1")
def test_a_flood_of_connections_takes_no_descriptors_of_the_supervisor(tmp_path: Path) -> None:
    """However many are opened, the supervisor holds at most twice as many as a sandbox may have."""
    with Site(tmp_path) as site:
        before = len(list(Path("/proc/self/fd").iterdir()))
        clients: list[socket.socket] = []
        for _ in range(10):
            for _ in range(100):
                client = connected(site.path)
                client.setblocking(False)
                clients.append(client)
            site.run(asyncio.sleep(0.01))
        held = len(list(Path("/proc/self/fd").iterdir())) - before - len(clients)
        for client in clients:
            client.close()
        assert 128 >= held


@pytest.mark.req("ISOLATION-1")
def test_tiny_chunks_do_not_keep_others_from_their_turn(tmp_path: Path) -> None:
    """Thirty bodies in chunks of two bytes hold up the loop for no tenth of what reading one of them costs, and are refused."""

    async def attack(host: Host) -> tuple[float, list[bytes]]:
        profile = SandboxProfile(workspace=tmp_path, egress=(rule(host),))
        head = f"POST http://{HOST}:{host.port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        async with Broker(lambda: NOW_US).attach(tmp_path / "b.sock", profile, None) as attached:
            done = asyncio.Event()
            watch = asyncio.ensure_future(slowest(done))

            async def one() -> bytes:
                reader, writer = await asyncio.open_unix_connection(tmp_path / "b.sock")
                writer.write(head + TINY * 9000)
                answer = await reader.read(12)
                writer.close()
                return answer

            answers = await asyncio.gather(*(one() for _ in range(30)))
            done.set()
            assert 30 == len(attached.requests())
            return await watch, list(answers)

    with Host() as host:
        worst, answers = asyncio.run(attack(host))
        assert {b"HTTP/1.1 400"} == set(answers)
        assert 0.3 > worst
        assert [] == host.seen


@pytest.mark.req("ISOLATION-1")
def test_requests_in_one_piece_do_not_keep_others_from_their_turn(tmp_path: Path) -> None:
    """Thousands of requests that arrive together are answered one turn each."""

    async def attack() -> float:
        async with Broker(lambda: NOW_US).attach(tmp_path / "b.sock", SandboxProfile(workspace=tmp_path), None):
            done = asyncio.Event()
            watch = asyncio.ensure_future(slowest(done))

            async def one() -> None:
                reader, writer = await asyncio.open_unix_connection(tmp_path / "b.sock")
                writer.write(b"GET /midwatch/health HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
                got = b""
                while got.count(b"HTTP/1.1 200") < 400:
                    got += await reader.read(65_536)
                writer.close()

            await asyncio.gather(*(one() for _ in range(8)))
            done.set()
            return await watch

    assert 0.1 > asyncio.run(attack())


@pytest.mark.req("ISOLATION-2")
def test_a_request_that_nobody_waits_for_is_on_record_with_its_call(tmp_path: Path) -> None:
    """What is sent and left at once, on a connection not accepted yet, is under way for `settle`: it belongs to this call."""

    async def attack(host: Host) -> tuple[int, int]:
        profile = SandboxProfile(workspace=tmp_path, egress=(rule(host),))

        async def resolve(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        async with Broker(lambda: NOW_US, resolve=resolve).attach(tmp_path / "b.sock", profile, None) as attached:
            for number in range(40):
                with connected(tmp_path / "b.sock") as client:
                    target = f"http://{HOST}:{host.port}/{number}"
                    client.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx".encode())
            await attached.settle()
            told = len(attached.requests())
            await asyncio.sleep(0.05)
            return told, len(attached.requests())

    with Host() as host:
        assert (40, 0) == asyncio.run(attack(host))
