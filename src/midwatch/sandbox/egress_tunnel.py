"""Egress tunnel: bytes that the broker cannot read, carried to one host, after the one thing in them that can be checked.

In:   a CONNECT request's target; the two connections. Out: bytes both ways, counted; `Refused`, `Failed` or `Bad` at its end.
May import: the broker's rules, wire, errors of secrets and upstream. Must not know: records, who asks.
Why the name in the TLS greeting is checked: one address serves many hosts, and the greeting, not the address, chooses among them.
A tunnel to an allowed host would otherwise lead to any host of the same provider.
Source: RFC 8446, section 4.1.2 (ClientHello); RFC 6066, section 3 (server_name).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from midwatch.sandbox.egress_rules import Allow, Odd, canonical_host
from midwatch.sandbox.egress_secrets import Refused
from midwatch.sandbox.egress_upstream import Asked, Failed
from midwatch.sandbox.egress_wire import Channel, EgressLimits, Gone, pump

__all__ = ["authority", "carry", "greeted_name"]

_CHUNK: Final = 65_536
_LONGEST: Final = 32_768
_HANDSHAKE: Final = 22
_NO_TLS: Final = "the tunnel does not begin with TLS, and its rule has `tls`"

Count = Callable[[int], bool]


def authority(target: str) -> Asked:
    """Read the target of a CONNECT request.

    Raises:
        Refused: it is no `host:port`.
    """
    if "@" in target:
        raise Refused("the address holds a name or password before its host")
    host, colon, port = target.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or "/" in host:
        raise Refused("a CONNECT request names `host:port` and nothing else")
    return Asked(tls=False, host=host, port=int(port), path="", query=None)


async def carry(
    channel: Channel,
    allow: Allow,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    out: Count,
    back: Count,
    limits: EgressLimits,
) -> None:
    """Say that the tunnel is there and carry bytes until both sides have ended.

    Raises:
        Refused: it begins with something else than TLS to the rule's host. Failed: it broke. Bad: it carried too much.
    """
    early = await channel.established()
    if allow.rule.tls:
        early = await _greeting(channel, early, allow.host, limits)
    if early and out(len(early)):
        writer.write(early)
    silence = limits.silence_us / 1e6
    ways = [
        asyncio.ensure_future(pump(channel.reader, writer, out, silence)),
        asyncio.ensure_future(pump(reader, channel.writer, back, silence)),
    ]
    try:
        await asyncio.gather(*ways)
    except OSError:  # either side ended the hard way, or was silent for too long
        raise Failed("the tunnel broke, or was silent for too long") from None
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _greeting(channel: Channel, data: bytes, host: str, limits: EgressLimits) -> bytes:
    """Wait for the whole greeting and check whom it greets; nothing of it has been passed on yet."""
    try:
        async with asyncio.timeout(limits.head_us / 1e6):
            while (name := greeted_name(data)) is None:
                more = await channel.reader.read(_CHUNK)
                if not more:
                    raise Gone
                data += more
    except TimeoutError:
        raise Failed("the tunnel was silent for too long") from None
    if name != host:
        raise Refused("the tunnel's TLS greets another host than the one it was asked for")
    return data


def greeted_name(data: bytes) -> str | None:
    """Give the host that a TLS greeting names; None while it is not whole.

    Raises:
        Refused: this is no TLS, or it names no host, or more than one.
    """
    hello = _hello(data)
    if hello is None:
        return None
    try:
        names = _names(hello)
        if len(names) == 1:
            return canonical_host(names[0].decode("ascii"))
    except (IndexError, UnicodeError, Odd):
        raise Refused(_NO_TLS) from None
    raise Refused("the tunnel's TLS greeting names no host")


def _hello(data: bytes) -> bytes | None:
    """Put the greeting together from the records that it came in."""
    body, at = b"", 0
    while at < len(data):
        if data[at] != _HANDSHAKE or data[at + 1 : at + 2] not in (b"", b"\x03") or body[:1] not in (b"", b"\x01"):
            raise Refused(_NO_TLS)
        length = int.from_bytes(data[at + 3 : at + 5])
        if at + 5 > len(data) or at + 5 + length > len(data):
            break
        body += data[at + 5 : at + 5 + length]
        at += 5 + length
        if len(body) >= 4 and len(body) >= 4 + int.from_bytes(body[1:4]):
            if body[0] != 1:
                raise Refused(_NO_TLS)
            return body[4 : 4 + int.from_bytes(body[1:4])]
    if len(data) > _LONGEST:
        raise Refused("the tunnel's TLS greeting is too long")
    return None


def _names(hello: bytes) -> list[bytes]:
    at = 34  # version and random
    at += 1 + hello[at]  # session
    at += 2 + int.from_bytes(hello[at : at + 2])  # ciphers
    at += 1 + hello[at]  # compression
    end = at + 2 + int.from_bytes(hello[at : at + 2])
    at += 2
    names = []
    while at + 4 <= min(end, len(hello)):
        kind, length = int.from_bytes(hello[at : at + 2]), int.from_bytes(hello[at + 2 : at + 4])
        if kind == 0:
            names += _listed(hello[at + 4 : at + 4 + length])
        at += 4 + length
    return names


def _listed(extension: bytes) -> list[bytes]:
    names, at = [], 2
    while at < len(extension):
        length = int.from_bytes(extension[at + 1 : at + 3])
        names.append(extension[at + 3 : at + 3 + length])
        at += 3 + length
    return names
