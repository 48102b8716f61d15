"""Link: the supervisor's end of a cell's socket.

In:   a connected socket, requests. Out: what the cell answered, checked for size and shape only.
May import: the cell's framing, errors; anyio. Must not know: how the cell was started, what a call means.
Why nothing here trusts a length: the cell shares its sandbox with hostile code and may say anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import marshal
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import anyio

from midwatch.sandbox.cell import HEAD

__all__ = ["Broken", "Link"]

_CHUNK: Final = 65_536
_LOOK_S: Final = 0.1


class Broken(Exception):
    """The cell is gone, or says what no cell says. Its sandbox is of no more use."""


class Link:
    """One cell. One request at a time; the caller sees to that."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._got = bytearray()
        self._ids = 0
        self.broken = False

    async def hello(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Tell the cell what it works with; gives its greeting."""
        try:
            await self._send(body)
            return await self._receive(_CHUNK)
        except BaseException:
            self.broken = True
            raise

    async def ask(
        self,
        body: Mapping[str, Any],
        *,
        timeout_us: int,
        patience_us: int,
        max_bytes: int,
        stands: Callable[[], bool] | None = None,
    ) -> dict[str, Any]:
        """Send one request and await its answer.

        Args:
            timeout_us: after this the cell is told to cut the call. patience_us: what it is given to do so.
            max_bytes: of the whole answer.
            stands: whether somebody has stopped the cell where it stands; that time does not count.

        Raises:
            Broken: no answer came, even to the cut; or one that is too long, or not the one that was due.
        """
        self._ids += 1
        number = self._ids
        settled = False
        try:
            answer = None
            with anyio.move_on_after(timeout_us / 1_000_000) as scope, _prolonged(scope, stands):
                await self._send({**body, "id": number})
                answer = await self._receive(max_bytes)
            if answer is None:
                with anyio.move_on_after(patience_us / 1_000_000):
                    await self._send({"kind": "cut", "id": number})
                    answer = await self._receive(max_bytes)
            if answer is None:
                raise Broken("the sandbox did not answer, and did not stop when told to")
            if answer.get("id") != number:
                raise Broken("the sandbox answered something else")
            settled = True
            return answer
        finally:
            if not settled:  # half a message may lie in the socket
                self.broken = True

    async def shell(self, body: Mapping[str, Any]) -> int:
        """Ask for a program on a terminal; gives the terminal's other side.

        Raises:
            Broken: none came.
        """
        self._ids += 1
        await self._send({**body, "kind": "shell", "id": self._ids})
        await anyio.wait_readable(self._channel)
        _, fds, _, _ = socket.recv_fds(self._channel, _CHUNK, 1)
        if not fds:
            raise Broken("the sandbox gave no terminal")
        return fds[0]

    def close(self) -> None:
        """End the cell, if it still listens."""
        self.broken = True
        self._channel.close()

    async def _send(self, body: Mapping[str, Any]) -> None:
        data = marshal.dumps(dict(body), 4)
        left = memoryview(len(data).to_bytes(HEAD) + data)
        while left:
            try:
                left = left[self._channel.send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._channel)
            except OSError as gone:
                raise Broken("the sandbox ended") from gone

    async def _receive(self, limit: int) -> dict[str, Any]:
        await self._fill(HEAD)
        size = int.from_bytes(self._got[:HEAD])
        if size > limit:
            raise Broken(f"the sandbox answers {size:,} bytes where {limit:,} are allowed")
        await self._fill(HEAD + size)
        text = bytes(memoryview(self._got)[HEAD : HEAD + size])
        del self._got[: HEAD + size]
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as wrong:
            raise Broken("the sandbox answers no JSON") from wrong
        if not isinstance(message, dict):
            raise Broken("the sandbox answers no object")
        return message

    async def _fill(self, count: int) -> None:
        """Wait until that much has come. What comes along, at most one chunk, is kept for the next answer."""
        while len(self._got) < count:
            try:
                part = self._channel.recv(_CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self._channel)
                continue
            except OSError as gone:
                raise Broken("the sandbox ended") from gone
            if not part:
                raise Broken("the sandbox ended")
            self._got += part

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.close()


@contextlib.contextmanager
def _prolonged(scope: anyio.CancelScope, stands: Callable[[], bool] | None) -> Iterator[None]:
    """Move a deadline on by the time for which the cell is made to stand still."""
    if stands is None:
        yield
        return
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        if stands():
            scope.deadline += _LOOK_S
        timer = loop.call_later(_LOOK_S, look)

    timer = loop.call_later(_LOOK_S, look)
    try:
        yield
    finally:
        timer.cancel()
