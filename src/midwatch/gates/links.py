"""Links: signed tokens that answer one gate once, with the rights of one person.

In:   the home's own key, a link's row. Out: a token for a URL; a link's id back out of one, or `BadLink`.
May import: records. Must not know: where rows are kept, who is served a page.
Why a signature besides a random id: a token that was not made here is refused before the store is asked, and every way to be wrong
looks the same from outside. The row says what the link is for; the token carries nothing but its name.

    token = base64url(id, 16 bytes) . base64url(HMAC-SHA256(key, "midwatch-link/1" id gate nonce principal expires), 32 bytes)

Source: RFC 2104 (HMAC), RFC 4648 section 5 (base64url without padding).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final

from midwatch.records.gate import GateRow, Link

__all__ = ["BadLink", "new_link", "open_token", "token_of"]

_LABEL: Final = b"midwatch-link/1"
_ID_BYTES: Final = 16
_MAC_BYTES: Final = 32


class BadLink(Exception):
    """The token is none of ours. Whoever serves it says only that; there is nothing to learn from it."""


def new_link(gate: GateRow, *, principal: str) -> Link:
    """Make the row of a link to one asking; it lasts as long as the question."""
    return Link(secrets.token_hex(_ID_BYTES), gate.id, gate.nonce, principal, gate.expires_us)


def token_of(key: bytes, link: Link) -> str:
    """Give the token that stands in a URL; `key` is the home's own, 32 random bytes."""
    return f"{_text(bytes.fromhex(link.id))}.{_text(_mac(key, link))}"


def open_token(key: bytes, token: str, find: Callable[[str], Link | None]) -> Link:
    """Give the link that a token names.

    Args:
        find: reads a link's row by id.

    Raises:
        BadLink: malformed, unknown or not signed with this key; always the same error.
    """
    left, dot, right = token.partition(".")
    raw, mac = _bytes(left, _ID_BYTES), _bytes(right, _MAC_BYTES)
    link = find(raw.hex()) if raw is not None and dot else None
    wanted = _mac(key, link) if link is not None else secrets.token_bytes(_MAC_BYTES)
    if link is None or not hmac.compare_digest(wanted, mac or b""):
        raise BadLink("this link is not known here")
    return link


def _mac(key: bytes, link: Link) -> bytes:
    parts = (link.id, link.gate, link.nonce, link.principal, str(link.expires_us))
    message = _LABEL + b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return hmac.new(key, message, hashlib.sha256).digest()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str, size: int) -> bytes | None:
    """Decode strictly: what does not encode back to the same text is another token."""
    if len(text) != -(-size * 4 // 3) or not text.isascii():
        return None
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == size and _text(raw) == text else None
