"""A loopback server that answers each request with given bytes: for what a well-behaved server cannot send."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def sse(*events: Any, done: bool = True) -> bytes:
    """Events as a provider streams them; a `str` goes out as it is."""
    lines = [f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in events]
    return OK + "".join([*lines, "data: [DONE]\n\n"] if done else lines).encode()


def delta(finish: str | None = None, **parts: Any) -> dict[str, Any]:
    """One event with a delta."""
    choice = {"index": 0, "delta": parts, "finish_reason": finish}
    return {"id": "id-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def usage(**counts: Any) -> dict[str, Any]:
    """The event that carries the usage."""
    return {"id": "id-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": counts}


def plain(status: int, body: Any, headers: Iterable[str] = ()) -> bytes:
    """A whole answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(data)}", *headers]
    return "\r\n".join([*head, "connection: close", "", ""]).encode() + data


class RawServer:
    """Answers every connection with `answer`, then closes it; `reset` closes it hard; `hold` keeps it until the end."""

    def __init__(self, answer: bytes, *, reset: bool = False, hold: bool = False) -> None:
        self.answer, self.reset, self.hold = answer, reset, hold
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self._ended = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._socket.close()

    def _start(self, work: Any, *args: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65_536)
            head, _, body = data.partition(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.decode().splitlines() if line.lower().startswith("content-length:")), 0
            )
            while len(body) < length:
                body += connection.recv(65_536)
            self.heads.append(head.decode())
            self.bodies.append(body)
            try:
                connection.sendall(self.answer)
                if self.hold:
                    self._ended.wait(10)
            except OSError:
                return  # the client left first, which is what some tests want
            if self.reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
