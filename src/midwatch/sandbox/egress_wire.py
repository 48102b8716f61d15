"""Egress wire: one client's connection to the broker, spoken strictly and with every size and wait bounded.

In:   an asyncio stream, limits. Out: request heads and whole bodies; answers, streamed.
May import: h11, the standard library. Must not know: rules, secrets, where anything goes.
Why checks of our own before h11: it accepts bare line feeds and folded headers, as old clients sent them. Two readers that disagree
about where a request ends are how one is smuggled inside another; here a request that could be read twice is refused, and what is
sent on is written anew, whole, on a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11

__all__ = ["Bad", "Channel", "EgressLimits", "Gone", "Head", "pump"]

Pair = tuple[str, str]

_CHUNK: Final = 65_536
_LINGER_S: Final = 2.0
_TURN: Final = 16
"""Chunks that are read before others have their turn: all sandboxes, and whoever watches them, share one loop."""
_CHUNKS, _SMALL = 4096, 64
"""After so many chunks, each must hold so many bytes on average: every chunk costs the broker as much as a request's head."""
_LINE: Final = re.compile(rb"([!-~]{1,40}) ([!-~]+) HTTP/1\.[01]\Z")
_HEADER: Final = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\Z")
_BARE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_LENGTH: Final = re.compile(r"[0-9]{1,15}\Z")


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """What one sandbox may use of the broker. Sizes in bytes, waits in microseconds.

    Attributes:
        head: of a request, line and headers. headers: how many. body, answer: of one. tunnel: both ways together.
        buffered: bodies that are being read or kept, of all connections.
        connections: at once; further ones are told so and closed. exchanges: requests under way at once; further ones wait.
        records: attempts until the next `requests()`; further ones are refused and counted.
        head_us: from a head's first byte to its last. idle_us: between two requests. body_us: for a whole body.
        connect_us: to resolve, and to connect. silence_us: between two parts of an answer, or of a tunnel.
        exchange_us: for everything, from the decision to the last byte.
    """

    head: int = 32_768
    headers: int = 100
    body: int = 16 << 20
    answer: int = 256 << 20
    tunnel: int = 1 << 30
    buffered: int = 64 << 20
    connections: int = 64
    exchanges: int = 16
    records: int = 1000
    head_us: int = 10_000_000
    idle_us: int = 60_000_000
    body_us: int = 60_000_000
    connect_us: int = 10_000_000
    silence_us: int = 120_000_000
    exchange_us: int = 600_000_000


class Bad(Exception):
    """A request that is not taken; it is answered, and the connection ends."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(reason)


class Gone(Exception):
    """The client has left, or kept silent for too long."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a request. Headers as sent, in order; names keep their case, values are Latin-1."""

    method: str
    target: str
    headers: tuple[Pair, ...]
    length: int

    def get(self, name: str) -> str | None:
        """Give the first value of a header, by its name in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)


class Channel:
    """One connection, request after request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: EgressLimits) -> None:
        self.reader, self.writer, self._limits = reader, writer, limits
        self._buffer = bytearray()
        self._state = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head)
        self._begun, self._head_only = False, False

    async def head(self) -> Head:
        """Read the next request's head.

        Raises:
            Gone: there is none. Bad: it is not taken.
        """
        self._state = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head)
        self._begun, self._head_only = False, False
        try:
            async with asyncio.timeout(self._limits.idle_us / 1e6):
                if not self._buffer:
                    await self._more()
        except TimeoutError:
            raise Gone from None
        seen = 0
        try:
            async with asyncio.timeout(self._limits.head_us / 1e6):
                while (end := self._buffer.find(b"\r\n\r\n", max(0, seen - 3))) < 0:
                    self._growing(seen)
                    seen = len(self._buffer)
                    await self._more()
        except TimeoutError:
            raise Bad(408, "the request's head took too long") from None
        if end > self._limits.head:
            raise Bad(431, "the request's head is too long")
        raw = bytes(self._buffer[: end + 4])
        del self._buffer[: end + 4]
        return self._parse(raw)

    def _growing(self, seen: int) -> None:
        """Check what came since `seen`: a head that comes byte by byte must not be read anew each time."""
        if len(self._buffer) > self._limits.head:
            raise Bad(431, "the request's head is too long")
        if _BARE.search(self._buffer, max(0, seen - 1)):
            raise Bad(400, "the request's head holds a bare line feed or carriage return")

    async def _more(self) -> None:
        data = await self.reader.read(_CHUNK)
        if not data:
            raise Gone
        self._buffer += data

    def _parse(self, raw: bytes) -> Head:
        headers = _checked(raw, self._limits.headers)
        try:
            self._state.receive_data(raw)
            event = self._state.next_event()
        except h11.RemoteProtocolError:
            event = None
        if not isinstance(event, h11.Request):
            raise Bad(400, "the request's head is no HTTP/1.1")
        self._head_only = event.method == b"HEAD"
        length = next((value for name, value in headers if name.lower() == "content-length"), "0")
        return Head(event.method.decode("ascii"), event.target.decode("ascii"), tuple(headers), int(length))

    async def body(self, head: Head, grow: Callable[[int], bool]) -> bytes:
        """Read the whole body. `grow` is asked before that many bytes more are kept.

        Raises:
            Gone: the client left within it. Bad: it is too long, too slow, or no chunks.
        """
        if head.length > self._limits.body:
            raise Bad(413, f"the body is longer than {self._limits.body} bytes")
        if self._state.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        whole = bytearray()  # no list: a million tiny chunks would cost fifty times what they hold
        count = 0
        try:
            async with asyncio.timeout(self._limits.body_us / 1e6):
                while (data := await self._part()) is not None:
                    whole += data
                    count += 1
                    if len(whole) > self._limits.body:
                        raise Bad(413, f"the body is longer than {self._limits.body} bytes")
                    if not grow(len(data)):
                        raise Bad(503, "the broker keeps as many bytes for this sandbox as it may; try again later")
                    if count > _CHUNKS and len(whole) < count * _SMALL:
                        raise Bad(400, "the request's body comes in chunks that are too small; send larger ones")
                    if count % _TURN == 0:
                        await asyncio.sleep(0)
        except TimeoutError:
            raise Bad(408, "the request's body took too long") from None
        except h11.RemoteProtocolError:
            raise Bad(400, "the request's body is no HTTP/1.1") from None
        return bytes(whole)

    async def _part(self) -> bytes | None:
        while True:
            event = self._state.next_event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                self._buffer[:0] = self._state.trailing_data[0]
                return None
            if not self._buffer:
                await self._more()
            self._state.receive_data(bytes(self._buffer))
            self._buffer.clear()

    async def answer(
        self, status: int, headers: Sequence[Pair], body: bytes | AsyncIterator[bytes], *, last: bool = False
    ) -> None:
        """Answer the request whose head was read. `last`: the connection ends after it."""
        self._begun = True
        if isinstance(body, bytes):
            headers = [*headers, ("content-length", str(len(body)))]
        if last:
            headers = [*headers, ("connection", "close")]
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._send(h11.Response(status_code=status, headers=encoded, reason=_phrase(status)))
        empty = self._no_body(status)
        if isinstance(body, bytes):
            if body and not empty:
                await self._send(h11.Data(data=body))
        else:
            async for data in body:
                if data and not empty:
                    await self._send(h11.Data(data=data))
        await self._send(h11.EndOfMessage())

    def _no_body(self, status: int) -> bool:
        return self._head_only or status in (204, 304)

    async def refuse(self, status: int, reason: str, *, last: bool = False) -> None:
        """Answer with an error that clients of model providers can read, too."""
        if self._begun:
            self.abort()
            return
        told = {"error": {"type": "midwatch_egress", "code": status, "message": reason}}
        await self.answer(status, [("content-type", "application/json")], json.dumps(told).encode(), last=last)

    async def established(self) -> bytes:
        """Say that a tunnel begins, and give what the client has already sent into it."""
        self._begun = True
        self.writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._drained()
        early = bytes(self._buffer)
        self._buffer.clear()
        return early

    async def _send(self, event: h11.Event) -> None:
        data = self._state.send(event)
        if data:
            self.writer.write(data)
            await self._drained()

    async def _drained(self) -> None:
        try:
            async with asyncio.timeout(self._limits.silence_us / 1e6):
                await self.writer.drain()
        except (TimeoutError, ConnectionError):
            raise Gone from None

    @property
    def open(self) -> bool:
        """Whether another request may come: both sides said all they had to say, and neither said that it was the last."""
        return self._state.our_state is h11.DONE and self._state.their_state is h11.DONE

    def abort(self) -> None:
        """Cut the connection, so that a half answer is not taken for a whole one."""
        self.writer.transport.abort()

    async def linger(self) -> None:
        """End after an answer, and take what is still coming: closing at once would destroy the answer on its way."""
        with contextlib.suppress(TimeoutError, ConnectionError, OSError):
            async with asyncio.timeout(_LINGER_S):
                self.writer.write_eof()
                left = self._limits.body
                while left > 0 and (data := await self.reader.read(_CHUNK)):
                    left -= len(data)


def _checked(raw: bytes, most: int) -> list[Pair]:
    lines = raw[:-4].split(b"\r\n")
    if any(b"\n" in line or b"\r" in line for line in lines) or not _LINE.match(lines[0]):
        raise Bad(400, "the request line or a header is no HTTP/1.1")
    if len(lines) - 1 > most:
        raise Bad(431, f"the request has more than {most} headers")
    headers = []
    for line in lines[1:]:
        found = _HEADER.match(line)
        if not found:
            raise Bad(400, "a header is folded, or holds characters that no header has")
        headers.append((found[1].decode("ascii"), found[2].rstrip(b" \t").decode("latin-1")))
    _check_framing(headers, old=lines[0].endswith(b"1.0"))
    return headers


def _check_framing(headers: list[Pair], *, old: bool) -> None:
    """Refuse what two readers could cut into requests at two places."""
    named: dict[str, list[str]] = {}
    for name, value in headers:
        named.setdefault(name.lower(), []).append(value)
    lengths, codings = named.get("content-length", []), named.get("transfer-encoding", [])
    if len(lengths) + len(codings) > 1:
        raise Bad(400, "the request says more than once how long its body is")
    if lengths and not _LENGTH.match(lengths[0]):
        raise Bad(400, "the request's Content-Length is no number")
    if codings and (codings[0].lower() != "chunked" or old):
        raise Bad(400, "the request's Transfer-Encoding is not `chunked`")
    if len(named.get("host", [])) != 1 and not (old and "host" not in named):
        raise Bad(400, "the request needs exactly one Host header")


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


async def pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], bool], silence_s: float
) -> None:
    """Carry bytes one way until they end; half-close then. `count` says whether that many more may pass."""
    while True:
        async with asyncio.timeout(silence_s):
            data = await reader.read(_CHUNK)
        if not data:
            break
        if not count(len(data)):
            raise Bad(413, "the tunnel carried as many bytes as it may")
        writer.write(data)
        async with asyncio.timeout(silence_s):
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
