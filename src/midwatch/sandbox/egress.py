"""Egress: the only way out of a sandbox, a broker on a Unix socket that alone holds secrets and the network.

In:   HTTP/1.1 from inside: absolute addresses (a proxy's requests), `CONNECT`, and paths of the broker's own.
Out:  what the profile's rules allow, sent once to a checked address with the rule's headers; JSON errors for all else; every attempt
      as a `Request`, the bodies of what is staged.
May import: its own parts (`egress_*`), profile, effects, errors. Must not know: backends, the store, what `api` answers.
Fail closed: what cannot be decided, recorded or looked through is not sent, or not passed on.

    async with broker.attach(path, profile, owner) as attached:
        …                                  # a call happens inside
        await attached.settle()            # nothing is under way any more
        attached.requests(), attached.bodies()
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import ssl
import stat
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import h11
import httpx

from midwatch.config.specs import EgressRule
from midwatch.errors import SandboxError
from midwatch.sandbox.effects import Request
from midwatch.sandbox.egress_book import Bars, Book, Entry, Record, Room, barred
from midwatch.sandbox.egress_rules import READS, Odd, Refuse, canonical_host, decide, problem
from midwatch.sandbox.egress_secrets import Echoed, Pair, Refused, Scan, Vault, query_refusal
from midwatch.sandbox.egress_staged import Means, send_staged
from midwatch.sandbox.egress_tunnel import authority, carry
from midwatch.sandbox.egress_upstream import (
    Failed,
    Order,
    Resolve,
    ask,
    asked_at,
    checked,
    connect,
    order,
    resolve,
)
from midwatch.sandbox.egress_wire import Bad, Channel, EgressLimits, Gone, Head
from midwatch.sandbox.profile import SandboxProfile

__all__ = ["Api", "ApiRequest", "ApiResponse", "Attachment", "Bars", "Broker", "EgressLimits"]

HEALTH: Final = "/midwatch/health"
_LONGEST_PATH: Final = 100
_NOT_PASSED: Final = frozenset(
    {
        *(
            "connection",
            "keep-alive",
            "proxy-connection",
            "proxy-authenticate",
            "proxy-authentication-info",
            "te",
            "trailer",
        ),
        *("transfer-encoding", "upgrade", "set-cookie", "set-cookie2", "alt-svc", "strict-transport-security"),
    }
)

_FRAMING: Final = ("connection", "content-length", "transfer-encoding")
_ROUNDS: Final = 16
"""Rounds of the loop until a request is under way whose connection nobody has accepted yet: five, and room for another Python."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to the broker itself.

    Attributes:
        socket: of the sandbox that asks, as it was attached; the name by which the hook knows whose request this is.
        path, query: as on the wire. headers: as sent, with whatever dummy key a client insists on.
    """

    socket: Path
    method: str
    path: str
    query: str
    headers: tuple[Pair, ...]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """What the hook answers; a body that is iterated is streamed, chunk by chunk."""

    status: int
    headers: tuple[Pair, ...] = ()
    body: bytes | AsyncIterator[bytes] = b""


Api = Callable[[ApiRequest], Awaitable[ApiResponse]]


class Broker:
    """See the module's head; implements `port.Egress`.

    Args:
        clock: microseconds UTC. resolve: names to addresses, asked once a request.
        api: answers what is asked of the broker itself; None: nothing but its health.
        tls: how hosts are believed; None: the certificates that httpx ships.
        known: says whether a text holds a credential, beyond the forms that the broker knows itself.
        record: see `egress_book.Record`.
        bars: see `Bars`; where it fails, nothing leaves.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        resolve: Resolve = resolve,
        api: Api | None = None,
        limits: EgressLimits | None = None,
        tls: ssl.SSLContext | None = None,
        known: Callable[[str], bool] | None = None,
        record: Record | None = None,
        bars: Bars | None = None,
    ) -> None:
        self.clock, self.resolve, self.api = clock, resolve, api
        self.limits, self.known, self.record, self.bars = limits or EgressLimits(), known, record, bars
        self._given = tls

    @cached_property
    def _trusting(self) -> ssl.SSLContext:
        return self._given or httpx.create_ssl_context(trust_env=False)

    @cached_property
    def _blank(self) -> ssl.SSLContext:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody: for hosts that are asked without TLS

    def context(self, rule: EgressRule) -> ssl.SSLContext:
        """Give what TLS to a rule's host trusts."""
        return self._trusting if rule.tls else self._blank

    def attach(self, socket_path: Path, profile: SandboxProfile, owner: tuple[int, int] | None) -> Attachment:
        """Listen for one sandbox; an async context manager around its life.

        Raises:
            SandboxError: a rule is wrong, or a secret is not there; the message says which.
        """
        vault = Vault(profile.secrets)
        for rule in profile.egress:
            wrong = problem(rule) or vault.problem(rule.headers)
            if wrong:
                raise SandboxError(f"egress rule: {wrong}")
        return Attachment(self, socket_path, profile.egress, vault, owner)

    async def send_staged(
        self, request: Request, body: bytes, rules: Sequence[EgressRule], secrets: Mapping[str, str]
    ) -> Request:
        """Send what was staged, now that it is committed, and give how it ended; see `egress_staged`."""
        return await send_staged(
            *(request, body, rules, Vault(secrets)),
            Means(self.clock, self.resolve, self.limits, self.context, self.known, self.record),
        )


class Attachment:
    """The broker's side of one sandbox. Made by `Broker.attach`."""

    def __init__(
        self,
        broker: Broker,
        socket_path: Path,
        rules: Sequence[EgressRule],
        vault: Vault,
        owner: tuple[int, int] | None,
    ) -> None:
        self._broker, self._path, self._rules, self._vault, self._owner = broker, socket_path, rules, vault, owner
        self._limits = broker.limits
        self._room = Room(self._limits.buffered)
        self._book = Book(broker.clock, vault, socket_path, self._limits, broker.record, self._room)
        self._slots = asyncio.Semaphore(self._limits.exchanges)
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[Any]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._server: asyncio.Server | None = None
        self._over = False

    def requests(self) -> tuple[Request, ...]:
        """Give what was tried since the last time, in order. What is still under way comes the next time; see `settle`."""
        return self._book.requests()

    def bodies(self) -> Mapping[str, bytes]:
        """Give the bodies of the staged requests that `requests` gave last, by SHA-256."""
        return self._book.bodies()

    async def settle(self, within_us: int = 2_000_000) -> None:
        """Wait until nothing is under way; what still is after that time is cut, and recorded as failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_us / 1e6):
                for _ in range(_ROUNDS):  # what has arrived and was not read yet begins in between
                    await self._quiet.wait()
                    await asyncio.sleep(0)
        await self._cut(list(self._busy))

    async def _cut(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        listener = _listener(self._path, self._owner)
        self._server = await asyncio.start_unix_server(self._accepted, sock=listener)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._server is not None:
            self._server.close()
        self._over = True  # a connection may be on its way through the loop
        await self._cut(list(self._tasks))
        with contextlib.suppress(OSError):  # its folder may be gone already, or hold something that was never ours
            self._path.unlink()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._over or not _is_owner(writer, self._owner):
            writer.transport.abort()
            return
        full = len(self._tasks) >= self._limits.connections
        if (
            len(self._tasks) >= 2 * self._limits.connections
        ):  # each costs this process a descriptor, which all sandboxes share
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._serve(Channel(reader, writer, self._limits), full=full))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, channel: Channel, *, full: bool) -> None:
        try:
            if full:
                await channel.refuse(503, "this sandbox has as many connections as it may; close some", last=True)
            else:
                while await self._one(channel):
                    pass
            await channel.linger()
        except (Gone, ConnectionError, h11.LocalProtocolError):
            channel.abort()
        finally:
            channel.writer.close()

    async def _one(self, channel: Channel) -> bool:
        """Serve one request; say whether another may follow."""
        try:
            head = await channel.head()
        except Bad as bad:
            entry = self._book.begin("?", "?", None, "")
            if entry:
                self._book.end(entry, "refused", bad.reason)
            await channel.refuse(bad.status, bad.reason, last=True)
            return False
        if head.method != "CONNECT" and head.target.startswith("/"):
            await self._own(channel, head)
            return channel.open
        entry = self._entered(head)
        if entry is None:
            await channel.refuse(429, "this call has tried as many requests as it may", last=True)
            return False
        async with self._told(channel, entry):
            await (self._tunnel if head.method == "CONNECT" else self._forward)(channel, head, entry)
        return channel.open and head.method != "CONNECT"

    def _entered(self, head: Head) -> Entry | None:
        try:
            asked = authority(head.target) if head.method == "CONNECT" else asked_at(head.target)
        except Refused:
            return self._book.begin(head.method, "?", None, "")
        path = "" if query_refusal(asked.path, self._broker.known) else asked.path
        host = asked.host
        with contextlib.suppress(Odd):
            host = canonical_host(host)
        return self._book.begin(head.method, host, asked.port, path)

    @contextlib.asynccontextmanager
    async def _told(self, channel: Channel, entry: Entry) -> AsyncIterator[None]:
        """Turn whatever ends an exchange into its record and an answer."""
        with self._under_way():
            try:
                async with asyncio.timeout(self._limits.exchange_us / 1e6):
                    await asyncio.sleep(0)  # requests that came in one piece leave others their turn
                    yield
                return
            except Refused as refused:
                status, reason = 403, str(refused)
                self._book.end(entry, "refused", reason)
            except Bad as bad:
                status, reason = bad.status, bad.reason
                self._book.end(entry, "refused", reason)
            except (Failed, Echoed) as failed:
                status, reason = 502, str(failed)
                self._book.end(entry, "failed", reason)
            except TimeoutError:
                status, reason = 504, "the exchange took too long"
                self._book.end(entry, "failed", reason)
            except h11.LocalProtocolError:
                status, reason = 502, "the host's answer cannot be passed on as HTTP/1.1"
                self._book.end(entry, "failed", reason)
            except BaseException:
                self._book.end(entry, "failed", "cut before its end")
                raise
            await channel.refuse(status, reason, last=True)

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[None]:
        task: Any = asyncio.current_task()
        self._busy.add(task)
        self._quiet.clear()
        try:
            yield
        finally:
            self._busy.discard(task)
            if not self._busy:
                self._quiet.set()

    async def _forward(self, channel: Channel, head: Head, entry: Entry) -> None:
        broker, asked = self._broker, asked_at(head.target)
        found = order(self._rules, self._vault, broker.known, head.method, asked, head.headers)
        self._book.known(entry, found.allow.host, found.allow.port, asked.path)
        barred(broker.bars, entry.request)
        with self._room.lease() as grow:
            body = await channel.body(head, grow)
            if reason := self._vault.refusal(found.headers, body):
                raise Refused(reason)
            if found.allow.rule.stage and found.method not in READS:
                await self._stage(channel, found, body, entry)
                return
            async with self._slots:
                await self._send(channel, found, body, entry)

    async def _stage(self, channel: Channel, found: Order, body: bytes, entry: Entry) -> None:
        digest = await self._book.stage(entry, found.url, found.headers, body)
        told = {
            "staged": True,
            "body_sha256": digest,
            "message": "not sent yet: it will be when the effects of this run are committed",
        }
        await channel.answer(202, [("content-type", "application/json")], json.dumps(told).encode())

    async def _send(self, channel: Channel, found: Order, body: bytes, entry: Entry) -> None:
        broker, rule = self._broker, found.allow.rule
        addresses = await checked(found.allow, broker.resolve, self._limits)
        entry.sent = len(body)
        await self._book.intend(entry)
        headers = self._vault.filled(rule.headers)
        async with ask(found, addresses, headers, body, broker.context(rule), self._limits) as response:
            passed = self._passed(found, response)
            async with contextlib.aclosing(self._watched(response, self._vault.scan(), entry)) as stream:
                first = await anext(stream, b"")  # so that a secret at its beginning is an error, not a cut
                await channel.answer(response.status_code, passed, _chained(first, stream))
            self._book.end(entry, "sent", status=response.status_code)

    def _passed(self, found: Order, response: httpx.Response) -> list[Pair]:
        """Give the headers of an answer that are passed on.

        Raises:
            Echoed: one of them holds a secret. Failed: this is no answer that can be passed on.
        """
        if not 200 <= response.status_code <= 599:
            raise Failed("the host wants to speak something other than HTTP/1.1")
        passed = []
        for name, value in response.headers.raw:
            self._vault.scan().feed(name + b": " + value)
            plain = name.decode("latin-1").lower()
            if plain not in _NOT_PASSED:
                passed.append((plain, value.decode("latin-1")))
        coding = response.headers.get("content-encoding", "identity").lower()
        if found.inspected and coding != "identity":
            raise Echoed("the answer is compressed although the broker asked otherwise, so it cannot be looked through")
        return passed

    async def _watched(self, response: httpx.Response, scan: Scan, entry: Entry) -> AsyncGenerator[bytes, None]:
        async for data in response.aiter_raw():
            entry.received += len(data)
            if entry.received > self._limits.answer:
                raise Failed(f"the answer is longer than {self._limits.answer} bytes")
            passed = scan.feed(data)
            if passed:
                yield passed
        yield scan.end()

    async def _tunnel(self, channel: Channel, head: Head, entry: Entry) -> None:
        asked = authority(head.target)
        if head.length or head.get("transfer-encoding") is not None:
            raise Bad(400, "a CONNECT request has no body")
        verdict = decide(self._rules, "CONNECT", asked.host, asked.port, "", tunnel=True)
        if isinstance(verdict, Refuse):
            raise Refused(verdict.reason)
        self._book.known(entry, verdict.host, verdict.port, "")
        barred(self._broker.bars, entry.request)
        async with self._slots:
            addresses = await checked(verdict, self._broker.resolve, self._limits)
            await self._book.intend(entry)
            reader, writer = await connect(verdict, addresses, self._limits)
            try:
                await carry(channel, verdict, reader, writer, *self._counted(entry), self._limits)
            except BaseException:
                writer.transport.abort()
                raise
            writer.close()
        self._book.end(entry, "sent", status=200)

    def _counted(self, entry: Entry) -> tuple[Callable[[int], bool], Callable[[int], bool]]:
        """Count a tunnel's bytes, out and back; say while there may be more."""

        def out(count: int) -> bool:
            entry.sent += count
            return entry.sent + entry.received <= self._limits.tunnel

        def back(count: int) -> bool:
            entry.received += count
            return entry.sent + entry.received <= self._limits.tunnel

        return out, back

    async def _own(self, channel: Channel, head: Head) -> None:
        """Answer what is asked of the broker itself."""
        path, _, query = head.target.partition("?")
        try:
            with self._room.lease() as grow, self._under_way():
                await asyncio.sleep(0)  # as in `_told`
                body = await channel.body(head, grow)
                if path == HEALTH and head.method in READS:
                    answer = ApiResponse(200, (("content-type", "application/json"),), b'{"status":"ok"}')
                elif self._broker.api is None:
                    raise Bad(404, f"the broker answers nothing at {path[:_LONGEST_PATH]}")
                else:
                    answer = await self._broker.api(
                        ApiRequest(self._path, head.method, path, query, head.headers, body)
                    )
                headers = [pair for pair in answer.headers if pair[0].lower() not in _FRAMING]
                await channel.answer(answer.status, headers, answer.body)
        except Bad as bad:
            await channel.refuse(bad.status, bad.reason, last=True)
        except (Gone, ConnectionError):
            raise
        except Exception as failure:  # noqa: BLE001 - a hook's failure is its caller's answer; its text may hold anything
            await channel.refuse(502, f"the broker could not answer ({type(failure).__name__})", last=True)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for data in rest:
        yield data


def _listener(path: Path, owner: tuple[int, int] | None) -> socket.socket:
    """Bind the socket and give it to its owner; nobody can connect before that."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()  # of a broker that is no more
        listener.bind(str(path))
        path.chmod(0o600)
        if owner is not None:
            # The link itself: nothing that stands at the path instead is given away.
            os.chown(path, *owner, follow_symlinks=False)
        listener.listen(128)
        listener.setblocking(False)
        return listener
    except OSError as failure:
        listener.close()
        help_ = "use a shorter path" if failure.errno is None else errno.errorcode.get(failure.errno, "")
        raise SandboxError(
            f"the broker cannot listen at `{path}` for its sandbox: {failure.strerror or failure} ({help_})"
        ) from None


def _is_owner(writer: asyncio.StreamWriter, owner: tuple[int, int] | None) -> bool:
    """Say whether a connection comes from the sandbox's own user."""
    if owner is None:
        return True
    peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return bool(struct.unpack("3i", peer)[1] == owner[0])
