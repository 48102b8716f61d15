"""Egress book: every attempt of one sandbox, allowed or not, bounded; and the bodies of what is staged.

In:   attempts as they begin and end. Out: `Request` records, in the order they were tried; bodies by digest.
May import: effects, secrets (to leave them out), wire's limits. Must not know: sockets, rules.
Attempts are written on the broker's loop and may be taken from another thread, so both happen under one lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from midwatch.sandbox.effects import Outcome, Request, shown
from midwatch.sandbox.egress_secrets import Refused, Vault
from midwatch.sandbox.egress_wire import EgressLimits

__all__ = ["NO_ANSWER", "Bars", "Book", "Entry", "Record", "Room", "barred", "recorded"]

Bars = Callable[[Request], str | None]
"""Says why a request that the rules allow may not leave all the same, in words for the sandbox; None: it may."""

Record = Callable[[Path | None, Request], Awaitable[None]]
"""Makes durable what is about to leave, by the sandbox's socket (None: on commit). When it raises, nothing leaves."""

_LONGEST: Final = 2048
NO_ANSWER: Final = "sent, and no answer yet"


@dataclass(slots=True, eq=False)
class Entry:
    """One attempt under way. `received` grows while it goes on."""

    request: Request
    done: bool = False
    sent: int = 0
    received: int = 0


class Room:
    """How many bytes may be kept for one sandbox at a time."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Say whether that many more may be kept; they are counted then."""
        with self._lock:
            if self._used + count > self._most:
                return False
            self._used += count
            return True

    def give(self, count: int) -> None:
        """Count what is no longer kept."""
        with self._lock:
            self._used -= count

    @contextlib.contextmanager
    def lease(self) -> Iterator[Callable[[int], bool]]:
        """Give a `take` whose bytes are given back at the end."""
        taken = 0

        def take(count: int) -> bool:
            nonlocal taken
            if not self.take(count):
                return False
            taken += count
            return True

        try:
            yield take
        finally:
            self.give(taken)


def barred(bars: Bars | None, request: Request) -> None:
    """Ask whether what the rules allow may leave now.

    Raises:
        Refused: it may not, or that cannot be told.
    """
    try:
        reason = None if bars is None else bars(request)
    except Exception:  # noqa: BLE001 - whatever kept it from being judged, it is not sent
        raise Refused("it could not be judged whether this may leave, so it is not sent") from None
    if reason:
        raise Refused(reason)


async def recorded(record: Record | None, path: Path | None, request: Request) -> None:
    """Make durable what is about to leave.

    Raises:
        Refused: that failed, so nothing may leave.
    """
    if record is None:
        return
    try:
        await record(path, request)
    except Exception:  # noqa: BLE001 - whatever kept it from being recorded, it is not sent
        raise Refused("the attempt could not be recorded, so it is not made") from None


class Book:
    """See the module's head.

    Args:
        clock: microseconds UTC. path: of the sandbox's socket, its name here. record: see `Record`.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        vault: Vault,
        path: Path,
        limits: EgressLimits,
        record: Record | None,
        room: Room,
    ) -> None:
        self._clock, self._vault, self._path, self._record, self._room = clock, vault, path, record, room
        self._most = limits.records
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._beyond, self._last_us = 0, 0
        self._fresh: dict[str, bytes] = {}
        self._handed: dict[str, bytes] = {}

    def begin(self, method: str, host: str, port: int | None, path: str) -> Entry | None:
        """Write down that something is tried; None when the book is full, which refuses it."""
        with self._lock:
            if len(self._entries) >= self._most:
                self._beyond += 1
                return None
            entry = Entry(Request(self._now(), self._plain(method), self._plain(host), port or 0, self._plain(path)))
            self._entries.append(entry)
            return entry

    def _now(self) -> int:
        # Two attempts never share a moment: what is staged is known by it when it is sent.
        self._last_us = max(self._clock(), self._last_us + 1)
        return self._last_us

    def _plain(self, text: str) -> str:
        return self._vault.masked(shown(text.encode("utf-8", "surrogateescape")))[:_LONGEST]

    def known(self, entry: Entry, host: str, port: int, path: str) -> None:
        """Name the canonical target once it was decided."""
        entry.request = replace(entry.request, host=host, port=port, path=self._plain(path))

    async def intend(self, entry: Entry) -> None:
        """Make durable that a request is about to leave.

        Raises:
            Refused: that failed, so nothing may leave.
        """
        await self._durable(replace(entry.request, outcome="failed", reason=NO_ANSWER, sent=entry.sent))

    async def _durable(self, request: Request) -> None:
        await recorded(self._record, self._path, request)

    def end(self, entry: Entry, outcome: Outcome, reason: str = "", **facts: Any) -> None:
        """Write down how it ended; only the first time counts."""
        with self._lock:
            if entry.done:
                return
            told = {"outcome": outcome, "reason": self._plain(reason), "sent": entry.sent, "received": entry.received}
            entry.request = replace(entry.request, **{**told, **facts})
            entry.done = True

    async def stage(self, entry: Entry, url: str, headers: tuple[tuple[str, str], ...], body: bytes) -> str:
        """Keep a request for the commit; give its body's digest.

        Raises:
            Refused: there is no room, or it could not be recorded.
        """
        digest = hashlib.sha256(body).hexdigest()
        if not self._room.take(len(body)):
            raise Refused("the broker keeps as many staged bytes for this sandbox as it may; commit or discard first")
        try:
            await self._durable(replace(entry.request, outcome="staged", url=url, headers=headers, body=digest))
        except BaseException:
            self._room.give(len(body))
            raise
        with self._lock:
            twice = digest in self._fresh
            self._fresh[digest] = body
        if twice:
            self._room.give(len(body))
        self.end(entry, "staged", url=url, headers=headers, body=digest)
        return digest

    def requests(self) -> tuple[Request, ...]:
        """Give what has ended since the last time; with one line for all that was beyond the bound."""
        with self._lock:
            ended = [entry.request for entry in self._entries if entry.done]
            self._entries = [entry for entry in self._entries if not entry.done]
            if self._beyond:
                reason = f"{self._beyond} more attempts were refused: {self._most} is the bound between two calls"
                ended.append(Request(self._now(), "*", "*", 0, outcome="refused", reason=reason))
                self._beyond = 0
            forgotten, self._handed, self._fresh = self._handed, self._fresh, {}
        self._room.give(sum(map(len, forgotten.values())))
        return tuple(ended)

    def bodies(self) -> Mapping[str, bytes]:
        """Give the bodies of the staged requests that `requests` gave last, by SHA-256; kept until it is asked again."""
        return dict(self._handed)
