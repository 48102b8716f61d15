"""Bridge: a loopback port inside the sandbox, and behind it the broker's socket, so that ordinary clients just work.

In:   a selector, a port, the path of the broker's socket inside the sandbox.
Out:  bytes, both ways; `proxy_environment`, by which clients find the port.
May import: `worker`, the standard library, no asyncio, no threads: it lives in the worker's own loop and is forked with it.
Must not know: HTTP, rules, what the worker does besides.
It listens before its constructor returns, so a tool can never come too early. Every key that it registers holds a callable in `data`:

    for key, mask in selector.select():
        key.data(mask)

It decides nothing and is trusted with nothing: whoever gets round it meets the same broker.
"""

from __future__ import annotations

import _socket as socket  # what `socket` is made of: the rest of that takes longer to import than Python to start

from midwatch.sandbox.worker import Passing

TYPE_CHECKING = False  # as type checkers read it; see `worker`
if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable
    from typing import Final

__all__ = ["DUMMY_KEY", "Bridge", "proxy_environment"]

DUMMY_KEY: Final = "midwatch-holds-the-key"
"""What clients inside are given as a key, because they insist on one. The broker drops it."""

_CHUNK: Final = 65_536
_BACKLOG: Final = 64
_CONNECTIONS: Final = 64
_READ, _WRITE = 1, 2
"""As `selectors` has them."""


def proxy_environment(port: int) -> dict[str, str]:
    """Give the variables by which common clients send everything through the bridge."""
    proxy = f"http://127.0.0.1:{port}"
    variables = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy)
    variables["NO_PROXY"] = "127.0.0.1,localhost"
    both = variables | {name.lower(): value for name, value in variables.items()}
    return both | {
        "OPENAI_BASE_URL": f"{proxy}/v1",
        "OPENAI_API_KEY": DUMMY_KEY,
        "ANTHROPIC_BASE_URL": proxy,
        "ANTHROPIC_API_KEY": DUMMY_KEY,
    }


class Bridge:
    """See the module's head.

    Args:
        port: 0 lets the system choose; `port` then says which.
        connections: most at once. Further ones wait in the system's queue until one ends.
    """

    def __init__(
        self, selector: selectors.BaseSelector, port: int, socket_path: str, *, connections: int = _CONNECTIONS
    ) -> None:
        self._selector, self._path, self._most = selector, socket_path, connections
        self._pairs: set[_Pair] = set()
        self._listening = False
        self._listener = _listener(port)
        self.port: int = self._listener.getsockname()[1]
        self._listen()

    def _listen(self) -> None:
        wanted = len(self._pairs) < self._most
        if wanted and not self._listening:
            self._selector.register(self._listener, _READ, self._accept)
        elif self._listening and not wanted:
            self._selector.unregister(self._listener)
        self._listening = wanted

    def _accept(self, mask: int) -> None:
        try:
            client = _accepted(self._listener)
        except OSError:  # it left again, or there are no descriptors: both are its own trouble
            return
        broker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.setblocking(False)
            broker.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            broker.connect(self._path)
        except OSError:  # the broker is gone or full: the client sees its connection closed
            client.close()
            broker.close()
            return
        self._pairs.add(_Pair(self._selector, client, broker, self._ended))
        self._listen()

    def _ended(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        self._listen()

    def close(self) -> None:
        """End every connection and stop listening."""
        for pair in list(self._pairs):
            pair.end()
        if self._listening:
            self._selector.unregister(self._listener)
            self._listening = False
        self._listener.close()

    def renew(self) -> None:
        """Forget every connection, those too that nobody has accepted yet: what a call left in them would be sent during the next.

        By a new socket: the kernel keeps trying to deliver what the old one's queue had no room for, also of clients that are dead.
        """
        self.close()
        self._listener = _listener(self.port)
        self._listen()

    def close_in_child(self) -> None:
        """Give up the descriptors in a forked child, and leave the parent's connections and selector as they are.

        The selector is not told: its queue in the kernel is shared with the parent.
        """
        self._listener.close()
        for pair in self._pairs:
            pair.close_descriptors()


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _accepted(listener: socket.socket) -> socket.socket:
    taken: tuple[int, object] = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - all that this class has
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, taken[0])


class _Flow:
    """One direction of a connection: what was read and is not written yet, at most one chunk."""

    __slots__ = ("ended", "shut", "waiting")

    def __init__(self) -> None:
        self.waiting, self.ended, self.shut = b"", False, False


class _Pair:
    """One client and its connection to the broker."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        client: socket.socket,
        broker: socket.socket,
        ended: Callable[[_Pair], None],
    ) -> None:
        self._selector, self._ended = selector, ended
        self._ends = (client, broker)
        self._flows = (_Flow(), _Flow())  # by the end that is read
        self._masks = [0, 0]
        self._over = False
        self._watch()

    def _ready(self, side: int, mask: int) -> None:
        if self._over:  # the other end's event of the same round has ended it
            return
        try:
            if mask & _WRITE:
                self._write(1 - side)
            if mask & _READ:
                self._read(side)
        except OSError:
            self.end()
            return
        if all(flow.shut for flow in self._flows):
            self.end()
        else:
            self._watch()

    def _read(self, side: int) -> None:
        flow = self._flows[side]
        if flow.waiting or flow.ended:
            return
        try:
            flow.waiting = self._ends[side].recv(_CHUNK)
        except BlockingIOError:
            return
        flow.ended = not flow.waiting
        self._write(side)

    def _write(self, side: int) -> None:
        """Pass on what was read from `side`; when it has ended, say so to the other end."""
        flow, other = self._flows[side], self._ends[1 - side]
        if flow.waiting:
            with Passing(BlockingIOError):
                flow.waiting = flow.waiting[other.send(flow.waiting) :]
        if flow.ended and not flow.waiting and not flow.shut:
            flow.shut = True
            other.shutdown(socket.SHUT_WR)

    def _watch(self) -> None:
        for side, end in enumerate(self._ends):
            own, others = self._flows[side], self._flows[1 - side]
            mask = (0 if own.waiting or own.ended else _READ) | (_WRITE if others.waiting else 0)
            self._set(side, end, mask)

    def _set(self, side: int, end: socket.socket, mask: int) -> None:
        before, self._masks[side] = self._masks[side], mask
        if before == mask:
            return
        if not before:
            self._selector.register(end, mask, _Call(self._ready, side))
        elif not mask:
            self._selector.unregister(end)
        else:
            self._selector.modify(end, mask, _Call(self._ready, side))

    def end(self) -> None:
        """Close both ends."""
        self._over = True
        for side, end in enumerate(self._ends):
            self._set(side, end, 0)
        self.close_descriptors()
        self._ended(self)

    def close_descriptors(self) -> None:
        """Close both ends here, whoever else still holds them."""
        for end in self._ends:
            end.close()


class _Call:
    """A callable for `data`: smaller than a closure, and its `repr` says what it is."""

    __slots__ = ("_act", "_side")

    def __init__(self, act: Callable[[int, int], None], side: int) -> None:
        self._act, self._side = act, side

    def __call__(self, mask: int) -> None:
        self._act(self._side, mask)
