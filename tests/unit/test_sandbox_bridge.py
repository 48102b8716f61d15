"""The bridge: bytes both ways, at the pace of the slower end, in one thread."""

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from midwatch.sandbox.bridge import DUMMY_KEY, Bridge, proxy_environment
from tests.attack.egress_site import WAIT_S, Inside, chunks


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[socket.socket]:
    """A broker's socket that the test itself answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "b"))
        listener.listen(128)
        listener.settimeout(WAIT_S)
        yield listener


def client(inside: Inside) -> socket.socket:
    """Connect as a tool inside would."""
    return socket.create_connection(("127.0.0.1", inside.port), timeout=WAIT_S)


def accepted(broker: socket.socket) -> socket.socket:
    """Give the broker's side of the next connection."""
    end, _ = broker.accept()
    end.settimeout(WAIT_S)
    return end


def said(end: socket.socket, data: bytes) -> None:
    """Say all, and that it was all."""
    end.sendall(data)
    end.shutdown(socket.SHUT_WR)


@pytest.mark.req("BRIDGE-1")
def test_it_listens_before_its_constructor_returns(tmp_path: Path) -> None:
    """A tool that starts right after can connect, on loopback alone, although nothing serves it yet."""
    with contextlib.closing(selectors.DefaultSelector()) as selector:
        bridge = Bridge(selector, 0, str(tmp_path / "none"))
        with socket.create_connection(("127.0.0.1", bridge.port), timeout=WAIT_S) as early:
            assert ("127.0.0.1", bridge.port) == early.getpeername()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", bridge.port), timeout=WAIT_S)
        bridge.close()


@pytest.mark.req("BRIDGE-1")
def test_bytes_pass_both_ways_and_each_end_closes_for_itself(tmp_path: Path, broker: socket.socket) -> None:
    """A side that has said all is still answered; megabytes pass whole although each end is slow."""
    big = os.urandom(3 << 20)
    with Inside(tmp_path / "b") as inside, client(inside) as tool:
        sender = threading.Thread(target=said, args=(tool, big))
        sender.start()
        with accepted(broker) as end:
            assert big == b"".join(chunks(end))
            sender.join(WAIT_S)
            answer = threading.Thread(target=said, args=(end, big[::-1]))
            answer.start()
            assert big[::-1] == b"".join(chunks(tool))
            answer.join(WAIT_S)


@pytest.mark.req("BRIDGE-2")
def test_a_reader_that_stops_holds_its_writer_back(tmp_path: Path, broker: socket.socket) -> None:
    """What one end does not read is not piled up in the bridge: the other end cannot write on; others are served meanwhile."""
    with Inside(tmp_path / "b") as inside, client(inside) as tool:
        tool.setblocking(False)
        with accepted(broker) as stuck:
            sent = 0
            for _ in range(10_000):
                try:
                    sent += tool.send(b"x" * 65_536)
                except BlockingIOError:
                    # The bridge may be about to take one more chunk; writability would then come back, and does not.
                    with contextlib.closing(selectors.DefaultSelector()) as waiting:
                        waiting.register(tool, selectors.EVENT_WRITE)
                        if not waiting.select(0.3):
                            break
            else:
                pytest.fail("the bridge takes without end")
            with client(inside) as other, accepted(broker) as end:
                other.sendall(b"ping")
                assert b"ping" == end.recv(4)
            tool.settimeout(WAIT_S)
            tool.shutdown(socket.SHUT_WR)
            assert sent == sum(map(len, chunks(stuck)))


@pytest.mark.req("BRIDGE-2")
def test_connections_are_bounded_and_the_next_waits(tmp_path: Path, broker: socket.socket) -> None:
    """Beyond the bound a connection is taken only when another has ended, and works then."""
    with Inside(tmp_path / "b", connections=2) as inside, contextlib.ExitStack() as held:
        pairs = [(held.enter_context(client(inside)), held.enter_context(accepted(broker))) for _ in range(2)]
        third = held.enter_context(client(inside))
        third.sendall(b"late")
        broker.settimeout(0.2)
        with pytest.raises(TimeoutError):
            broker.accept()
        broker.settimeout(WAIT_S)
        for end in pairs[0]:
            end.close()
        assert b"late" == held.enter_context(accepted(broker)).recv(4)


@pytest.mark.req("BRIDGE-2")
def test_ends_that_vanish_end_their_connection_alone(tmp_path: Path, broker: socket.socket) -> None:
    """A reset on either side, or no broker at all, closes that connection; the bridge serves on."""
    with Inside(tmp_path / "b") as inside:
        for _ in range(20):
            tool = client(inside)
            end = accepted(broker)
            tool.sendall(b"x")
            tool.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            tool.close()
            assert b"x" == b"".join(chunks(end))
            end.close()
        with client(inside) as tool:
            accepted(broker).close()
            assert b"" == b"".join(chunks(tool))
        (tmp_path / "b").unlink()
        with client(inside) as tool:
            assert b"" == b"".join(chunks(tool))


@pytest.mark.req("BRIDGE-3")
def test_a_forked_child_lets_go_and_the_parent_goes_on(tmp_path: Path, broker: socket.socket) -> None:
    """The child closes its copies without the parent's connection or selector noticing."""
    code = f"""
import os, selectors, socket, sys
from midwatch.sandbox.bridge import Bridge
selector = selectors.DefaultSelector()
bridge = Bridge(selector, 0, {str(tmp_path / "b")!r})
tool = socket.create_connection(("127.0.0.1", bridge.port))
def turn():
    for key, mask in selector.select(1):
        key.data(mask)
turn()
before = len(os.listdir("/proc/self/fd"))
child = os.fork()
if child == 0:
    bridge.close_in_child()
    os._exit(before - len(os.listdir("/proc/self/fd")))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
tool.sendall(b"ping")
turn()
print("threading" in sys.modules, "asyncio" in sys.modules, flush=True)
turn()
print(tool.recv(4).decode())
"""
    with (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process,
        accepted(broker) as end,
    ):
        assert b"ping" == end.recv(4)
        end.sendall(b"pong")
        output, _ = process.communicate(timeout=WAIT_S)
    assert ["3", "False False", "pong"] == output.split("\n")[:3]


@pytest.mark.req("BRIDGE-4")
def test_clients_find_the_bridge_by_their_usual_variables() -> None:
    """Both spellings of each proxy variable lead to the port; what is on loopback itself is asked directly; keys are dummies."""
    env = proxy_environment(8080)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        assert ("http://127.0.0.1:8080", "http://127.0.0.1:8080") == (env[name], env[name.lower()])
    assert "127.0.0.1" in env["NO_PROXY"].split(",")
    assert ("http://127.0.0.1:8080/v1", DUMMY_KEY) == (env["OPENAI_BASE_URL"], env["OPENAI_API_KEY"])
    assert ("http://127.0.0.1:8080", DUMMY_KEY) == (env["ANTHROPIC_BASE_URL"], env["ANTHROPIC_API_KEY"])
