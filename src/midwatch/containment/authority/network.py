"""Network: names, routes, proxies, lists of who may be reached or come in.

In:   a file effect. Out: findings.
May import: facts, text, places. Must not know: which hosts are good.
Source: hosts(5), resolv.conf(5), hosts_access(5), RFC 1035 section 5 (zone files).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from midwatch.containment.authority.facts import ANYBODY, Effect, File, Finding, Power, listed
from midwatch.containment.authority.places import family, last, like, within
from midwatch.containment.authority.text import Lines, hashed, judge_lines, script

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "network"
_NAMES: Final = listed(
    """
    hosts resolv.conf hosts.allow hosts.deny proxychains.conf squid.conf nftables.conf iptables.rules rules.v4
    rules.v6 dnsmasq.conf named.conf unbound.conf pg_hba.conf wg0.conf nginx.conf .htaccess haproxy.cfg caddyfile
    web.config gai.conf host.conf corefile smb.conf exports
    """
)
_LISTS: Final = re.compile(
    r"(?:.*[._-])?(?:egress|allow[_-]?(?:list|ed)(?:[_-]hosts)?|white[_-]?list|"
    r"block[_-]?list|deny[_-]?list|firewall|cors|csp)(?:[._-].*)?\.(?:txt|lst|"
    r"list|conf|cfg|acl)"
)
_DEPLOYS: Final = like("nginx.conf")


def concerns(effect: Effect) -> bool:
    """Say whether this is about the network."""
    if not isinstance(effect, File):
        return False
    path, name = effect.change.path, last(effect.change.path)
    if name == "hosts" and not within(path, "etc") and "/" in path:
        return within(path, "system32", "drivers")
    return (
        name in _NAMES
        or name.endswith((".zone", ".rpz"))
        or _LISTS.fullmatch(name) is not None
        or within(path, "resolver", "dnsmasq.d", "ufw", "nftables.d")
    )


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if not isinstance(effect, File):
        return
    name = last(effect.change.path)
    if name == "hosts":
        yield from judge_lines(effect, NAME, Lines(_words, _host, _host_gone, _FIRST))
    elif name == "resolv.conf":
        yield from judge_lines(effect, NAME, Lines(lambda text: hashed(text, "#;"), _resolver, _nothing, _FIRST))
    elif name.endswith((".zone", ".rpz")):
        yield from judge_lines(effect, NAME, Lines(lambda text: hashed(text, ";"), _record, _record_gone))
    elif family(effect.change.path) == _DEPLOYS or name in (
        "haproxy.cfg",
        "caddyfile",
        "named.conf",
        "unbound.conf",
        "squid.conf",
        "nftables.conf",
    ):
        yield from judge_lines(effect, NAME, Lines(script, _rule, _rule_gone, _FIRST))
    else:
        denies = re.search(r"deny|block", name) is not None
        yield from judge_lines(
            effect, NAME, Lines(_words, _held if denies else _rule, _let if denies else _rule_gone, _FIRST)
        )


def _words(text: str) -> list[str]:
    return [" ".join(re.sub(r"\s#.*", "", line).split()) for line in hashed(text)]


def _nothing(_line: str) -> Power | None:
    return None


def _host(line: str) -> Power | None:
    address, *names = line.split()
    if re.fullmatch(r"(?:0\.0\.0\.0|127\.0\.0\.1|::1?)", address) and set(names) <= {
        "localhost",
        "localhost.localdomain",
        "ip6-localhost",
        "ip6-loopback",
    }:
        return None
    return f"be taken for {', '.join(names[:3]) or 'a host'}", address, "an address for that name is new"


def _host_gone(line: str) -> Power | None:
    address, *names = line.split()
    if re.fullmatch(r"(?:0\.0\.0\.0|127\.\d+\.\d+\.\d+|::1?)", address) and not set(names) & {"localhost"}:
        return "be reached again", ", ".join(names[:3]), "a name that led nowhere leads somewhere"
    return None


def _resolver(line: str) -> Power | None:
    word, _, value = line.partition(" ")
    if word == "options" and re.fullmatch(r"(?:\s*(?:timeout|attempts|ndots):\d+|\s*rotate|\s*edns0)+", value):
        return None
    return "say which address any name has", value.strip(), f"{word} is new or another one"


def _record(line: str) -> Power | None:
    if re.search(r"\bSOA\b", line):
        return None
    name = line.split(maxsplit=1)[0]
    kind = next(
        (
            word
            for word in line.split()
            if word in ("A", "AAAA", "CNAME", "MX", "NS", "TXT", "SRV", "CAA", "DS", "PTR", "DNAME")
        ),
        "a record",
    )
    return f"be taken for {name}, or speak for it", line.rsplit(maxsplit=1)[-1], f"{kind} is new or another one"


def _record_gone(line: str) -> Power | None:
    if re.search(r"\b(?:CAA|DS|TXT|TLSA|DNSKEY|RRSIG)\b", line):
        return "speak for that name, or get certificates for it", ANYBODY, "a record that held others back goes"
    return None


def _rule(_line: str) -> Power | None:
    return "be reached, or reach others", ANYBODY, "a rule of the network is new or another one"


def _rule_gone(line: str) -> Power | None:
    if re.search(
        r"(?i)\b(?:deny|drop|reject|block|auth\w*|require|limit\w*|allow|internal|return|ssl\w*|verify|restrict)\b|!",
        line,
    ):
        return "be reached, or reach others", ANYBODY, "a rule of the network that held somebody back goes"
    return None


def _held(line: str) -> Power | None:
    return (
        ("be reached, or reach others", ANYBODY, "an exception is new")
        if re.match(r"[!@]|.*\b(?:ALLOW|EXCEPT)\b", line, re.IGNORECASE)
        else None
    )


def _let(_line: str) -> Power | None:
    return "be reached, or reach others", ANYBODY, "a rule that held somebody back goes"


_FIRST: Final[Power] = (
    "another meaning of the same rules",
    ANYBODY,
    "the first that fits counts, and they changed places",
)
