r"""Effects: what a sandbox was seen to do: to files, and towards the network.

In:   nothing. Out: `Change`, `Request`, frozen and JSON-ready.
May import: the standard library. Must not know: overlays, proxies, the ledger.
Paths are relative to the workspace, with `/`, as text: bytes that are no UTF-8, control characters, backslashes and everything that
a terminal or a log could mistake are written `\xNN` (`shown`, `raw` go between the two, without loss).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

__all__ = ["CHANGING", "Change", "Kind", "Op", "Outcome", "Request", "raw", "shown"]

Op = Literal["created", "modified", "deleted", "permission", "executed", "read"]
"""`permission`: only its mode changed. `executed` and `read` are of files as they were before the call's own writes, too."""

CHANGING: Final[tuple[Op, ...]] = ("created", "modified", "deleted", "permission")
Kind = Literal["file", "folder", "link", "other"]
"""`other`: a device, FIFO or socket; it is recorded and never committed."""

Outcome = Literal["sent", "refused", "staged", "failed"]
_ODD: Final = re.compile(rb"\\x([0-9a-f]{2})")


def shown(name: bytes) -> str:
    """Write a name so that no reader can mistake it; `raw` reads it back."""
    text = name.decode("utf-8", "surrogateescape")
    return "".join(
        char
        if char.isprintable() and char != "\\"
        else "".join(f"\\x{b:02x}" for b in char.encode("utf-8", "surrogateescape"))
        for char in text
    )


def raw(text: str) -> bytes:
    """Give the bytes of a name that `shown` wrote."""
    return _ODD.sub(lambda found: bytes([int(found[1], 16)]), text.encode())


@dataclass(frozen=True, slots=True)
class Change:
    """One path that a call changed, read or executed.

    Attributes:
        path: see the module's head. kind: what it is now; of what was deleted, what it was.
        mode: permission bits now, with setuid, setgid and sticky; None when deleted.
        size: bytes of a file. sha256: of a file's content; of a link's target. base: sha256 of what the workspace held before
            the run, None where it held nothing. before: sha256 of what the call found.
        target: of a link, as `shown`.
        flags: why a person must look before it is committed: `setuid`, `special`, `leaves` (a link that leads out of the workspace),
            `name` (no UTF-8, or characters that hide), `hardlink`, `moved` (the workspace's own file changed while the run worked),
            `watched:WHY` for files that grant later power; and, of what was only looked at, `unhashed`: it was too large to be read for
            its hash, or changed meanwhile.
        was, was_mode: kind and permission bits of what the call found; None where it found nothing.
        mtime_ns: when the content changed last, nanoseconds UTC; only of what is `unhashed`.
    Of what was read or executed, `sha256` is the content that it had when the call ended, or before the call removed it.
    """

    op: Op
    path: str
    kind: Kind
    mode: int | None = None
    size: int | None = None
    sha256: str | None = None
    base: str | None = None
    before: str | None = None
    target: str | None = None
    flags: tuple[str, ...] = ()
    was: Kind | None = None
    was_mode: int | None = None
    mtime_ns: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Give JSON data without what is absent."""
        return {name: value for name in _CHANGE if (value := getattr(self, name)) not in (None, ())}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Change:
        """Read what `to_json` gave."""
        return cls(**{**data, "flags": tuple(data.get("flags", ()))})


_CHANGE: Final = tuple(item.name for item in fields(Change))
"""Read once: `asdict` costs twenty times as much, and a layer may hold a hundred thousand changes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One attempt to reach the network.

    Attributes:
        at_us: microseconds UTC. method: `CONNECT` for a tunnel. host: as asked for. path: without its query.
        outcome: `failed` is a request that was allowed and found no answer. reason: of a refusal or failure, in words.
        status: of the answer. sent, received: bytes of the bodies, or of the tunnel.
        body: digest of the body of a request that is staged, under which the layer keeps it.
        headers: of a staged request, without credentials.
    """

    at_us: int
    method: str
    host: str
    port: int
    path: str = ""
    outcome: Outcome = "refused"
    reason: str = ""
    status: int | None = None
    sent: int = 0
    received: int = 0
    url: str | None = None
    body: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give JSON data without what is absent."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), "")}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Request:
        """Read what `to_json` gave."""
        return cls(**{**data, "headers": tuple((name, value) for name, value in data.get("headers", ()))})
