"""Ssh: who may log in, whom this machine trusts, and what ssh runs.

In:   a file effect. Out: findings.
May import: facts, text, places. Must not know: whose keys they are.
A key is named by its fingerprint: it is public, and its comment is whatever somebody wrote there.
Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT and SSH_KNOWN_HOSTS FILE FORMAT; ssh_config(5); sshd_config(5).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import Final

from midwatch.containment.authority.facts import ANYBODY, Effect, File, Finding, Power, Unreadable
from midwatch.containment.authority.places import family, last, like, within
from midwatch.containment.authority.text import Lines, hashed, judge_lines, texts

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "ssh"
_FAMILIES: Final = frozenset({like("authorized_keys"), like(".ssh/config")})
_KEY: Final = re.compile(r"(?:ssh-\S+|ecdsa-\S+|sk-\S+)\s+(AAAA[A-Za-z0-9+/=]+)")


def concerns(effect: Effect) -> bool:
    """Say whether this is about ssh."""
    return isinstance(effect, File) and family(effect.change.path) in _FAMILIES


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if not isinstance(effect, File):
        return
    name = last(effect.change.path)
    if name.startswith("authorized_keys") or name in (".rhosts", ".shosts", "hosts.equiv", ".k5login"):
        yield from judge_lines(effect, NAME, Lines(hashed, _key))
    elif name.startswith("known_hosts") or name == "ssh_known_hosts":
        yield from judge_lines(effect, NAME, Lines(hashed, _host, _host_gone))
    elif name in ("config", "ssh_config", "sshd_config") or within(
        effect.change.path, "ssh_config.d", "sshd_config.d", "config.d"
    ):
        yield from judge_lines(effect, NAME, Lines(_settings, _setting, _setting_gone, _MOVED))
    elif name.endswith(".pub"):
        yield from judge_lines(effect, NAME, Lines(hashed, _public))
    elif effect.change.op != "deleted":
        texts(effect)
        raise Unreadable("a file in the folder of keys is new or another one")


def _fingerprint(line: str) -> str:
    found = _KEY.search(line)
    if found is None:
        return ANYBODY
    try:
        digest = hashlib.sha256(base64.b64decode(found[1], validate=True)).digest()
    except (binascii.Error, ValueError):
        return ANYBODY
    return f"the holder of SHA256:{base64.b64encode(digest).decode().rstrip('=')[:16]}"


def _key(line: str) -> Power | None:
    if line.startswith("cert-authority") or ",cert-authority" in line.split(" ", maxsplit=1)[0]:
        return "log in with any certificate that this key signs", _fingerprint(line), "it is a new authority"
    if re.match(r'(?:[^"\s]|"[^"]*")*command=', line):
        return (
            "log in and run the command that the line names",
            _fingerprint(line),
            "the key is new, or its options are",
        )
    return "log in", _fingerprint(line), "the key is new, or its options are"


def _host(line: str) -> Power | None:
    if line.startswith("@revoked"):
        return None
    name = line.split()[1 if line.startswith("@") else 0]
    name = "a host whose name is hashed" if name.startswith("|") else name
    what = "be taken for any host that it signs" if line.startswith("@cert-authority") else "be taken for this host"
    return f"{what}: {name}", _fingerprint(line), "the key is new"


def _host_gone(line: str) -> Power | None:
    if line.startswith("@revoked"):
        return "be trusted again", _fingerprint(line), "a key is no longer revoked"
    return "be taken for this host at the next connection", ANYBODY, "what was known of the host goes"


def _public(line: str) -> Power | None:
    return "be handed out as this account's key", _fingerprint(line), "a public key is new or another one"


def _settings(text: str) -> list[str]:
    """Give each setting behind the block that it is in."""
    block, found = "", []
    for line in hashed(text):
        key, _, value = line.replace("=", " ", 1).partition(" ")
        key, value = key.casefold(), " ".join(value.split())
        if key in ("host", "match"):
            block = f"{key} {value}"
        else:
            found.append(f"{key} {value} [{block}]")
    return found


_HARMLESS: Final = re.compile(
    r"(?:serveralive\w+|compression|loglevel|connecttimeout|connectionattempts|tcpkeepalive|banner|addressfamily|visualhostkey"
    r"|batchmode|clientalive\w+|printmotd|printlastlog|escapechar|fingerprinthash|numberofpasswordprompts)\b"
)
_RUNS: Final = re.compile(
    r"(?:proxycommand|localcommand|knownhostscommand|remotecommand|authorizedkeyscommand|authorizedprincipalscommand|forcecommand"
    r"|subsystem|pkcs11provider|securitykeyprovider|xauthlocation|match\s+exec|include)\b"
)


def _setting(line: str) -> Power | None:
    if _HARMLESS.match(line):
        return None
    key = line.split(" ", maxsplit=1)[0]
    if _RUNS.match(line) or "exec" in line.partition("[match")[2]:
        return "run a program whenever ssh is used", ANYBODY, f"it sets {key}"
    if key in (
        "hostname",
        "port",
        "proxyjump",
        "hostkeyalias",
        "stricthostkeychecking",
        "userknownhostsfile",
        "globalknownhostsfile",
    ):
        return "be connected to in place of the host that is named", ANYBODY, f"it sets {key}"
    return "another way to log in, or to be logged in to", ANYBODY, f"it sets {key}"


def _setting_gone(line: str) -> Power | None:
    if _HARMLESS.match(line) or _RUNS.match(line):
        return None
    return "what the setting held back until now", ANYBODY, f"{line.split(' ', maxsplit=1)[0]} is no longer set"


_MOVED: Final[Power] = (
    "another meaning of the same settings",
    ANYBODY,
    "the first that fits counts, and they changed places",
)
