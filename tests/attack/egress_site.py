"""A broker, its bridge and a host to reach, all real and on loopback: what the egress tests stand on."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import selectors
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeVar

from midwatch.config.specs import EgressRule
from midwatch.sandbox.bridge import Bridge
from midwatch.sandbox.effects import Request
from midwatch.sandbox.egress import Api, Attachment, Broker, EgressLimits
from midwatch.sandbox.profile import SandboxProfile

_T = TypeVar("_T")
WAIT_S = 20
NOW_US = 1_790_000_000_000_000
HOST = "api.partner.net"
KEY = "kb7-0123456789-/+=&-abcdef"
KEYED = {"X-Service": "Bearer ${secret:KEY}"}


@dataclass
class Seen:
    """One request as the host saw it."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


Answer = Callable[[Seen], tuple[int, list[tuple[str, str]], bytes]]


def plain(seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
    """Answer every request alike."""
    return 200, [("Content-Type", "text/plain")], b"hello " + seen.path.encode()


class Host:
    """A host on loopback that remembers what it was asked."""

    def __init__(self, answer: Answer = plain) -> None:
        self.answer, self.seen = answer, list[Seen]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65_537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                seen = Seen(self.command, self.path, list(self.headers.items()), body)
                outer.seen.append(seen)
                status, headers, content = outer.answer(seen)
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers):
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                return  # a client that was cut

        self._server = Server(("127.0.0.1", 0), Handler)
        self.server = self._server
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join(WAIT_S)
        self._server.server_close()


def rule(host: Host, **more: Any) -> EgressRule:
    """Allow one name to lead to a host of these tests."""
    return EgressRule(more.pop("name", HOST), port=host.port, tls=False, private=more.pop("private", True), **more)


def url(host: Host, path: str = "/a") -> str:
    """Give the address that a client inside asks for."""
    return f"http://{HOST}:{host.port}{path}"


class Inside:
    """The bridge in a loop of its own, as a worker's."""

    def __init__(self, path: Path, *, connections: int = 64) -> None:
        self._selector = selectors.DefaultSelector()
        self.bridge = Bridge(self._selector, 0, str(path), connections=connections)
        self.port = self.bridge.port
        self._stop, self._wake = socket.socketpair()
        self._ended = False
        self._selector.register(self._stop, selectors.EVENT_READ, self._end)
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def _end(self, mask: int) -> None:
        self._ended = True

    def _loop(self) -> None:
        while not self._ended:
            for key, mask in self._selector.select():
                key.data(mask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._wake.send(b"x")
        self._thread.join(WAIT_S)
        self.bridge.close()
        self._selector.close()
        self._stop.close()
        self._wake.close()


@dataclass
class Site:
    """One broker with one sandbox attached, in a loop of its own."""

    folder: Path
    rules: tuple[EgressRule, ...] = ()
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    owner: tuple[int, int] | None = None
    api: Api | None = None
    limits: EgressLimits = field(default_factory=EgressLimits)
    names: dict[str, list[str]] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> list[str]:
        """Lead every name to loopback, unless the test says otherwise; each entry of a list is used once, the last for ever."""
        self.asked.append(host)
        return self.names.get(host, ["127.0.0.1"])

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.path = self.folder / "b.sock"
        self.more.setdefault("resolve", self.resolve)
        self.broker = Broker(lambda: NOW_US, api=self.api, limits=self.limits, **self.more)
        self._stack = contextlib.AsyncExitStack()
        try:
            self.attached: Attachment = self.run(self._attach(self.path))
            self._inside = Inside(self.path).__enter__()
        except BaseException:
            self._end()
            raise
        self.port = self._inside.port
        return self

    async def _attach(self, path: Path) -> Attachment:
        profile = SandboxProfile(workspace=self.folder, egress=self.rules, secrets=self.secrets)
        return await self._stack.enter_async_context(self.broker.attach(path, profile, self.owner))

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run something in the broker's loop."""
        future: Future[_T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(WAIT_S)

    def __exit__(self, *error: object) -> None:
        self._inside.__exit__()
        self._end()

    def _end(self) -> None:
        self.run(self._stack.aclose())
        self.run(self.loop.shutdown_asyncgens())
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()

    def requests(self) -> tuple[Request, ...]:
        """Give what was tried, once nothing is under way."""
        self.run(self.attached.settle())

        async def taken() -> tuple[Request, ...]:
            return self.attached.requests()

        return self.run(taken())

    def ask(
        self, url: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask for an address as a proxy's client, exactly as it is spelled."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with contextlib.closing(connection):
            connection.putrequest(method, url, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", "whatever")
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def raw(self, data: bytes, *, half_close: bool = True) -> bytes:
        """Send bytes to the bridge and give all that comes back until it ends."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as client:
            client.sendall(data)
            if half_close:
                client.shutdown(socket.SHUT_WR)
            return b"".join(chunks(client))


def chunks(client: socket.socket) -> Iterator[bytes]:
    """Give what comes until it ends, politely or not."""
    while True:
        try:
            data = client.recv(65_536)
        except ConnectionError:
            return
        if not data:
            return
        yield data


def told(body: bytes) -> str:
    """Give the message of an error of the broker."""
    message: str = json.loads(body)["error"]["message"]
    return message
