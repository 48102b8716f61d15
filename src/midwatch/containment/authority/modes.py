"""Modes: what the bits, lists and attributes of a file let others do, and where a link leads.

In:   a file effect. Out: findings.
May import: facts, the watch-list. Must not know: what the file holds.
Bits are compared with what the call found; what is new is compared with what an ordinary file has. A commit leaves setuid, setgid, sticky
and every attribute behind (`sandbox.release`); they are named all the same, because whoever set them wanted them.
Source: POSIX.1e draft 17, ACL_USER and others as Linux writes them into `system.posix_acl_access`.
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from midwatch.containment.authority.facts import ANYBODY, Effect, File, Finding, Inert, Power, Unreadable, granted
from midwatch.sandbox import watched
from midwatch.sandbox.effects import CHANGING, Change

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "modes"
_ACL: Final = ("system.posix_acl_access", "system.posix_acl_default")
_RANK: Final = {1: "its owner", 2: "user", 4: "its group", 8: "group", 16: "the mask", 32: ANYBODY}
_ENTRY: Final = struct.Struct("<HHI")
_VERSION: Final = b"\x02\x00\x00\x00"


def concerns(effect: Effect) -> bool:
    """Say whether this changes anything of a file."""
    return isinstance(effect, File) and effect.change.op in CHANGING


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if not isinstance(effect, File) or effect.change.op == "deleted":
        return
    change = effect.change
    powers = [*_bits(change), *_attributes(effect.had, effect.has)]
    if change.kind == "link":
        powers += _link(change)
    for what, to_whom, why in dict.fromkeys(powers):
        yield granted(what, to_whom, change.path, NAME, why)
    if change.op == "permission" and not powers:
        yield Inert(change.path, NAME, "its new mode gives nobody more")


def _bits(change: Change) -> Iterator[Power]:
    if change.kind == "link" or change.mode is None:
        return
    usual = 0o755 if change.kind == "folder" else 0o644
    had = usual if change.op == "created" or change.was_mode is None else change.was_mode
    come = change.mode & ~had
    if (change.kind == "file" and come & 0o111) or f"watched:{watched.PROGRAM}" in change.flags:
        yield "run it as a program", _who(come, 0o100, 0o010, 0o001), "it may be executed now"
    if come & (0o002 if change.op == "created" else 0o022):
        yield "change what it holds", _who(come, 0, 0o020, 0o002), "its mode lets others write"
    if come & 0o044 and change.op != "created":
        yield "read what it holds", _who(come, 0, 0o040, 0o004), "its mode lets others read"
    if come & 0o6000 or "setuid" in change.flags:
        yield "run it with the rights of its owner or group", ANYBODY, "it has the bit for that"
    if (
        change.was_mode is not None
        and change.was_mode & 0o1000
        and not change.mode & 0o1000
        and change.kind == "folder"
    ):
        yield "take away files of others", ANYBODY, "the folder loses the bit that keeps others out"


def _who(come: int, owner: int, group: int, others: int) -> str:
    return ANYBODY if come & others else "its group" if come & group else "its owner" if come & owner else ANYBODY


def _link(change: Change) -> Iterator[Power]:
    target = change.target or ""
    head = posixpath.dirname(change.path)
    there = posixpath.normpath(posixpath.join(head, target)) if not target.startswith("/") else target
    reason = watched.why(there.lstrip("/")) or watched.why(f"{there.lstrip('/')}/x")
    if reason is not None:
        yield "change that file by another name", "whoever writes to the link", f"it leads to what is watched: {reason}"
    elif there.startswith(("/", "../")) or there == "..":
        yield "reach what is outside of the workspace", "whoever opens the link", "it leads out of the workspace"


def _attributes(had: Mapping[str, bytes], has: Mapping[str, bytes]) -> Iterator[Power]:
    for name, value in has.items():
        if had.get(name) == value:
            continue
        if name in _ACL:
            yield from _acl(had.get(name, b""), value, name)
        elif name == "security.capability":
            yield "run it with rights of the machine's administrator", ANYBODY, "it has capabilities"
        elif not name.startswith("user."):
            yield "rights that an attribute gives", ANYBODY, f"the attribute {name} is new or another one"


def _acl(old: bytes, new: bytes, name: str) -> Iterator[Power]:
    before = dict(_entries(old)) if old else {}
    for (tag, who), bits in _entries(new):
        come = bits & ~before.get((tag, who), 0)
        if come and tag in (2, 8, 32):
            does = "".join(letter for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if come & bit)
            to_whom = f"{_RANK[tag]} {who}" if tag in (2, 8) else ANYBODY
            later = ", and whatever is made in it" if name == _ACL[1] else ""
            yield f"access to it ({does}){later}", to_whom, "an access list names them"


def _entries(value: bytes) -> Iterator[tuple[tuple[int, int], int]]:
    if value[:4] != _VERSION or len(value) % 8 != 4:
        raise Unreadable("its access list is of no known form")
    for tag, bits, who in _ENTRY.iter_unpack(value[4:]):
        if tag not in _RANK:
            raise Unreadable("its access list is of no known form")
        yield (tag, who), bits
