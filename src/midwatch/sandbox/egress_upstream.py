"""Egress upstream: how a request that was decided leaves this machine: to one checked address, once, as one client.

In:   a request as a sandbox asked it, rules, the vault; a resolver.
Out:  `Order`, what may be sent; an answer being streamed, or a connection for a tunnel. `Refused` or `Failed`, with fixed words.
May import: rules, secrets, wire's limits; httpx. Must not know: who asked, what is recorded.
Why resolved here and connected to by address: a name that is asked twice may answer twice (rebinding). The name goes into `Host` and into
TLS, which proves it. Why a new connection for each request: one that is kept could be taken for another name at the same address.
Why a filter on httpcore's loggers: at debug level they print an answer's headers, which may hold what `Scan` is there to find.
Why httpx's transport and not its client: no cookies, no redirects, no proxies from the environment, no retries, nothing decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from midwatch.config.specs import EgressRule
from midwatch.sandbox.egress_rules import Allow, Refuse, address_refusal, decide
from midwatch.sandbox.egress_secrets import Pair, Refused, Vault, cleared, query_refusal, takes_secret
from midwatch.sandbox.egress_wire import EgressLimits

__all__ = ["Asked", "Failed", "Order", "Resolve", "ask", "asked_at", "checked", "connect", "order", "resolve"]

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""A name and a port to addresses."""

_TRIES: Final = 4
_URL: Final = re.compile(r"(https?)://([^/?#]*)([^?#]*)(?:\?([^#]*))?\Z", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(.*?)(?::([0-9]{1,5}))?\Z", re.DOTALL)


_unlogged: contextvars.ContextVar[bool] = contextvars.ContextVar("unlogged", default=False)


def _said(_record: logging.LogRecord) -> bool:
    return not _unlogged.get()


for _name in ("httpcore.connection", "httpcore.http11"):
    logging.getLogger(_name).addFilter(_said)


class Failed(Exception):
    """A request that was allowed found no answer; the message is ours, so it holds nothing of the request."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of an address as the sandbox spelled them."""

    tls: bool
    host: str
    port: int | None
    path: str
    query: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """What may be sent. `headers` are the sandbox's own; the rule's are filled in when it is sent."""

    allow: Allow
    method: str
    target: str
    headers: tuple[Pair, ...] = field(default=(), repr=False)
    inspected: bool = False

    @property
    def url(self) -> str:
        """Give the whole address, by which it can be asked later."""
        scheme = "https" if self.allow.rule.tls else "http"
        return f"{scheme}://{self.allow.host}:{self.allow.port}{self.target}"


def asked_at(target: str) -> Asked:
    """Read an absolute address.

    Raises:
        Refused: it is none, or holds a credential.
    """
    found = _URL.match(target)
    if not found:
        raise Refused("the address is no `http://host/path`")
    authority = _AUTHORITY.match(found[2])
    if "@" in found[2] or authority is None:
        raise Refused("the address holds a name or password before its host")
    host, port = authority[1], authority[2]
    return Asked(found[1].lower() == "https", host, None if port is None else int(port), found[3] or "/", found[4])


def order(
    rules: Sequence[EgressRule],
    vault: Vault,
    known: Callable[[str], bool] | None,
    method: str,
    asked: Asked,
    headers: Sequence[Pair],
) -> Order:
    """Decide a request and take from it what may be sent.

    Raises:
        Refused: with the reason.
    """
    verdict = decide(rules, method, asked.host, asked.port, asked.path, tls=asked.tls)
    if isinstance(verdict, Refuse):
        raise Refused(verdict.reason)
    reason = query_refusal(asked.query or "", known) or query_refusal(asked.path, known)
    reason = reason or vault.problem(verdict.rule.headers)
    if reason:
        raise Refused(reason)
    own = cleared(headers, verdict.rule.headers, known)
    inspected = any(takes_secret(rule.headers) for rule in rules)
    if inspected:
        # Compressed or in slices a secret could come back unseen.
        own = [(name, value) for name, value in own if name.lower() not in ("accept-encoding", "range", "if-range")]
        own.append(("Accept-Encoding", "identity"))
    target = asked.path if asked.query is None else f"{asked.path}?{asked.query}"
    if vault.holds(target.encode("ascii"), *(f"{name}: {value}".encode("latin-1") for name, value in own)):
        raise Refused("the request holds a secret of the broker, which was never given to the sandbox")
    return Order(verdict, method, target, tuple(own), inspected)


async def resolve(host: str, port: int) -> list[str]:
    """Ask this machine's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    return [str(entry[4][0]) for entry in found]


async def checked(allow: Allow, resolver: Resolve, limits: EgressLimits) -> list[str]:
    """Resolve a name, once.

    Raises:
        Refused: one of its addresses is none that it may lead to; a name that is honest about some is not trusted with the others.
        Failed: it leads nowhere.
    """
    try:
        async with asyncio.timeout(limits.connect_us / 1e6):
            found = list(dict.fromkeys(await resolver(allow.host, allow.port)))
    except (OSError, ValueError):
        raise Failed("the name cannot be resolved") from None
    if not found:
        raise Failed("the name has no address")
    for address in found:
        reason = address_refusal(address, private=allow.rule.private)
        if reason:
            raise Refused(reason)
    return found[:_TRIES]


@contextlib.asynccontextmanager
async def ask(
    order: Order,
    addresses: Sequence[str],
    headers: Sequence[Pair],
    body: bytes,
    tls: ssl.SSLContext,
    limits: EgressLimits,
) -> AsyncIterator[httpx.Response]:
    """Send a request and give its answer while it comes.

    Another address is tried only where no connection was made, so nothing is ever sent twice.

    Raises:
        Failed: there is no answer, or it ends before its end.
    """
    quiet = _unlogged.set(True)
    try:
        async with _asked(_request(order, headers, body, limits), order, addresses, tls) as response:
            yield response
    finally:
        _unlogged.reset(quiet)


@contextlib.asynccontextmanager
async def _asked(
    request: httpx.Request, order: Order, addresses: Sequence[str], tls: ssl.SSLContext
) -> AsyncIterator[httpx.Response]:
    pool = httpx.Limits(max_connections=1, max_keepalive_connections=0)
    for place, address in enumerate(addresses, 1):
        request.url = httpx.URL(scheme="https" if order.allow.rule.tls else "http", host=address, port=order.allow.port)
        transport = httpx.AsyncHTTPTransport(verify=tls, trust_env=False, retries=0, limits=pool)
        try:
            try:
                response = await transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if place < len(addresses):
                    continue
                raise
            try:
                yield response
            finally:
                await response.aclose()
            return
        except httpx.HTTPError as failure:
            raise Failed(_words(failure)) from None
        finally:
            await transport.aclose()


def _request(order: Order, headers: Sequence[Pair], body: bytes, limits: EgressLimits) -> httpx.Request:
    allow = order.allow
    usual = 443 if allow.rule.tls else 80
    host = allow.host if allow.port == usual else f"{allow.host}:{allow.port}"
    connect, silence = limits.connect_us / 1e6, limits.silence_us / 1e6
    replaced = {name.lower() for name, _ in headers}
    own = [(name, value) for name, value in order.headers if name.lower() not in replaced]
    return httpx.Request(
        order.method,
        "http://unused.invalid",
        headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in [("Host", host), *own, *headers]],
        content=body,
        extensions={
            "target": order.target.encode("ascii"),
            "sni_hostname": allow.host,
            "timeout": {"connect": connect, "read": silence, "write": silence, "pool": connect},
        },
    )


def _words(failure: httpx.HTTPError) -> str:
    """Say what happened in words that hold nothing of the request: a foreign message may quote its headers."""
    if isinstance(failure, httpx.ConnectTimeout | httpx.ConnectError):
        return "the host cannot be reached, or its certificate is not its own"
    if isinstance(failure, httpx.TimeoutException):
        return "the host was silent for too long"
    if isinstance(failure, httpx.ProtocolError):
        return "the host answered something that is no whole HTTP/1.1 answer"
    return "the connection to the host broke"


async def connect(
    allow: Allow, addresses: Sequence[str], limits: EgressLimits
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect a tunnel to one of the addresses.

    Raises:
        Failed: none of them answers.
    """
    for address in addresses:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(limits.connect_us / 1e6):
                return await asyncio.open_connection(address, allow.port)
    raise Failed("the host cannot be reached")
