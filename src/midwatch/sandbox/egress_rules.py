r"""Egress rules: may a sandbox send this request? Pure, and decided on one spelling of everything.

In:   the rules of a profile; method, host, port and path as a client spelled them; addresses as a resolver gave them.
Out:  `Allow` with the rule and the canonical target, or `Refuse` with a reason; `None` or a reason for an address.
May import: config's specs, idna. Must not know: sockets, HTTP messages, secrets.
Why so much is refused that a browser would repair: what is decided here is sent as it stands, and a server that reads a second
meaning out of it (`%2e%2e`, `\`, `//`, a number for an address) would do what no rule described.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import unquote_to_bytes

import idna

from midwatch.config.specs import EgressRule

__all__ = [
    "READS",
    "Allow",
    "Odd",
    "Refuse",
    "address_refusal",
    "canonical_host",
    "canonical_path",
    "decide",
    "problem",
]

READS: Final = ("GET", "HEAD", "OPTIONS")
"""Methods that a rule with `stage` still sends at once."""

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NUMBER: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z")
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,19}\Z")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}\Z")
_VALUE: Final = re.compile(r"[\x20-\x7e]{0,8192}\Z")
_SECRET: Final = re.compile(r"\$\{secret:[A-Za-z_][A-Za-z0-9_]*\}")
_TARGET: Final = re.compile(r"[\x21-\x7e]*\Z")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_LOCAL: Final = re.compile(
    r"(?:[^.]+"  # one word alone: the resolver would complete it with this machine's own domains
    r"|(?:.+\.)?(?:localhost|localdomain6?|local|internal|intranet|private|lan|home|corp|arpa|svc|onion))\Z"
)
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        *("169.254.169.254", "169.254.169.253", "169.254.170.2", "169.254.170.23", "100.100.100.200", "192.0.0.192"),
        *("168.63.129.16", "fd00:ec2::254", "fd00:ec2::253", "fd00:ec2::23", "fd20:ce::254"),
    )
)
"""Where cloud machines get their own credentials: nobody was ever issued those through the broker (CONTAINMENT.md 29)."""

_NEVER: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        *(
            "0.0.0.0/8",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_PRIVATE: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.168.0.0/16", "198.18.0.0/15", "::1/128", "fc00::/7", "fe80::/10", "fec0::/10", "64:ff9b:1::/48"),
    )
)
_PUBLIC6: Final = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC6: Final = tuple(
    ipaddress.ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_EMBEDDING: Final = tuple(ipaddress.ip_network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96"))

_FRAMING: Final = frozenset(
    [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "expect",
    ]
)


class Odd(ValueError):
    """A spelling that could be read in more than one way; the message says which part."""


@dataclass(frozen=True, slots=True)
class Allow:
    """The first rule that describes the request, and what the request is in its one spelling.

    Attributes:
        host: lower case, ASCII, no dot at the end. port: what to connect to. path: decoded; empty for a tunnel.
    """

    rule: EgressRule
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Why a request is not sent, for whoever sent it and for the record."""

    reason: str


def decide(
    rules: Sequence[EgressRule],
    method: str,
    host: str,
    port: int | None,
    path: str,
    *,
    tls: bool = False,
    tunnel: bool = False,
) -> Allow | Refuse:
    """Find the first rule that describes a request.

    Args:
        host: as the client spelled it, without port. port: None where the client named none, or `http`'s own 80.
        path: as on the wire, without query; ignored for a tunnel.
        tls: the client asked for `https://`; only a rule with `tls` answers that.
        tunnel: `CONNECT`. Only to a host of which every rule is open: no methods, paths, headers, stage.
    """
    try:
        name = canonical_host(host)
        plain = "" if tunnel else canonical_path(path)
    except Odd as odd:
        return Refuse(str(odd))
    if not tunnel and (not _METHOD.match(method) or method in ("CONNECT", "TRACE", "TRACK")):
        return Refuse("the method is none that the broker sends; use one in capitals, not CONNECT or TRACE")
    named = [rule for rule in rules if problem(rule) is None and _names(rule, name)]
    if not named:
        return Refuse(_no_rule(name))
    if tunnel:
        return _tunnel(named, name, port)
    at_port = [rule for rule in named if _at_port(rule, port, tls=tls)]
    if not at_port:
        return Refuse(f"no egress rule for `{name}` is for this port and scheme")
    allowed = [rule for rule in at_port if not rule.methods or method in rule.methods]
    if not allowed:
        return Refuse(f"no egress rule for `{name}` allows {method}")
    return _on_path(allowed, name, path, plain)


def _on_path(rules: Sequence[EgressRule], name: str, path: str, plain: str) -> Allow | Refuse:
    ambiguous = _ambiguous(path, plain)
    for rule in rules:
        if not rule.paths:
            return Allow(rule, name, _port(rule), plain)
        if ambiguous is None and any(fnmatchcase(plain, glob) for glob in rule.paths):
            return Allow(rule, name, _port(rule), plain)
    return Refuse(ambiguous or f"no egress rule for `{name}` allows this path")


def _tunnel(named: Sequence[EgressRule], name: str, port: int | None) -> Allow | Refuse:
    # Every rule of the host counts, not the matching one alone: a tunnel cannot be inspected, so it goes only where no
    # credential goes and nothing is held back (CONTAINMENT.md 29).
    if any(rule.methods or rule.paths or rule.headers or rule.stage for rule in named):
        return Refuse(
            f"no tunnel to `{name}`: its rules need requests that the broker can read; ask for http://{name}/"
        )
    for rule in named:
        if _port(rule) == port:
            return Allow(rule, name, port, "")
    return Refuse(f"no egress rule for `{name}` is for this port")


def _no_rule(name: str) -> str:
    if _LOCAL.match(name):
        return f"`{name}` is a name of this machine or its network; only a rule for that very name with `private: true` allows it"
    return f"no egress rule names `{name}`"


def _names(rule: EgressRule, name: str) -> bool:
    own = rule.host.removeprefix("*.")
    own = canonical_host(own)
    if rule.host.startswith("*."):
        return name.endswith("." + own) and not _LOCAL.match(name)
    return name == own


def _port(rule: EgressRule) -> int:
    return rule.port or (443 if rule.tls else 80)


def _at_port(rule: EgressRule, port: int | None, *, tls: bool) -> bool:
    if tls:
        return rule.tls and _port(rule) == (port or 443)
    # `http://host/` means the rule's own port: the client leaves TLS to the broker, so it cannot know it.
    return _port(rule) == port or (port in (None, 80) and rule.port in (None, 443 if rule.tls else 80))


def canonical_host(host: str) -> str:
    """Give a host's one spelling: lower case, ASCII, without the dot at its end.

    Raises:
        Odd: an address in any notation, or nothing that every resolver would read alike.
    """
    if not host or len(host) > 255:
        raise Odd("the host is empty or too long")
    if host.startswith("[") or ":" in host:
        raise Odd("the host is a literal address; name a host that a rule allows")
    name = _ascii(host)
    name = name.removesuffix(".").lower()
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        raise Odd("the host holds characters or empty parts that no host name has")
    if _NUMBER.match(labels[-1]):
        raise Odd("the host is a literal address; name a host that a rule allows")
    for label in labels:
        if label.startswith("xn--"):
            _check_punycode(label)
    return name


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True, std3_rules=True, transitional=False).decode("ascii")
    except UnicodeError:
        raise Odd("the host is no valid international name") from None


def _check_punycode(label: str) -> None:
    try:
        if idna.alabel(idna.ulabel(label)).decode("ascii") == label:
            return
    except UnicodeError:
        pass
    raise Odd("the host holds an `xn--` part that stands for no valid name")


def canonical_path(path: str) -> str:
    """Decode a path once.

    Raises:
        Odd: it is no path, or means different things to different servers whatever a rule says.
    """
    if not path.startswith("/") or len(path) > 8192 or not _TARGET.match(path) or any(sign in path for sign in "\\#?"):
        raise Odd("the path does not begin with `/`, is too long, or holds characters that must be encoded")
    if path.count("%") != len(_ESCAPE.findall(path)):
        raise Odd("the path holds a `%` that begins no encoded byte")
    try:
        plain = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise Odd("the path is no UTF-8 once decoded") from None
    if any(ord(sign) < 0x20 or 0x7F <= ord(sign) < 0xA0 for sign in plain) or "\\" in plain:
        raise Odd("the path holds an encoded control character or backslash")
    for reading in {plain, unicodedata.normalize("NFKC", plain), *_twice(plain)}:
        if any(segment.split(";")[0] in (".", "..") for segment in re.split(r"[/\\]", reading)):
            raise Odd("the path holds a `.` or `..` part; ask for the path that is meant")
    return plain


def _twice(plain: str) -> list[str]:
    """Give what a server reads that decodes again, and again."""
    readings = []
    for _ in range(3):
        if not _ESCAPE.search(plain):
            break
        plain = unquote_to_bytes(plain).decode("utf-8", "replace")
        readings.append(plain)
    return readings


def _ambiguous(path: str, plain: str) -> str | None:
    """Say why a path cannot be held against globs: servers disagree where its parts begin."""
    if "//" in plain:
        return "the path holds an empty part (`//`), which a rule with paths does not allow"
    if "%2f" in path.lower() or len(re.findall(r"[/\\]", unicodedata.normalize("NFKC", plain))) != path.count("/"):
        return "the path holds an encoded `/`, which a rule with paths does not allow"
    if _ESCAPE.search(plain):
        return "the path is encoded twice, which a rule with paths does not allow"
    if ";" in plain:
        return "the path holds a `;` part, which a rule with paths does not allow"
    return None


def address_refusal(address: str, *, private: bool) -> str | None:
    """Say why an address that a name led to is not connected to; None when it may be."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "the name led to something that is no address"
    if isinstance(found, ipaddress.IPv6Address) and any(found in network for network in _EMBEDDING):
        found = ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
    if found in _METADATA:
        return "the name leads to a machine's own credentials, which no rule can allow"
    if any(found in network for network in _PRIVATE if network.version == found.version):
        return (
            None
            if private
            else "the name leads to a private, loopback or link-local address; `private: true` would allow it"
        )
    if isinstance(found, ipaddress.IPv4Address):
        public = not any(found in network for network in _NEVER)
    else:
        public = found in _PUBLIC6 and not any(found in network for network in _NOT_PUBLIC6)
    return None if public else "the name leads to an address that belongs to no host"


def problem(rule: EgressRule) -> str | None:
    """Say what is wrong with a rule itself, with its remedy; such a rule allows nothing."""
    own = rule.host.removeprefix("*.")
    try:
        name = canonical_host(own)
    except Odd as odd:
        return f"`host: {rule.host}`: {odd}"
    wild = rule.host.startswith("*.")
    if wild and (name.count(".") < 1 or _LOCAL.match(name)):
        return f"`host: {rule.host}` would be a whole domain of the internet or of this network; name the hosts"
    if _LOCAL.match(name) and not rule.private:
        return f"`host: {rule.host}` is a name of this machine or its network; say `private: true` if that is meant"
    if rule.port is not None and not 1 <= rule.port <= 65_535:
        return f"`port: {rule.port}`: use 1 to 65535, or none"
    if any(not _METHOD.match(method) or method in ("CONNECT", "TRACE", "TRACK") for method in rule.methods):
        return f"`methods` of `{rule.host}`: use names in capitals; a tunnel needs a rule without methods; TRACE is never sent"
    if any(not glob.startswith(("/", "*")) for glob in rule.paths):
        return f"`paths` of `{rule.host}`: begin each with `/`"
    return _header_problem(rule)


def _header_problem(rule: EgressRule) -> str | None:
    for header, value in rule.headers.items():
        if not _HEADER.match(header) or header.lower() in _FRAMING or not _VALUE.match(value):
            return f"header `{header}` for `{rule.host}`: no such header can be added; correct its name or value"
        if "${" in _SECRET.sub("", value):
            return f"header `{header}` for `{rule.host}`: write a secret as `${{secret:NAME}}`"
        if _SECRET.search(value) and not rule.tls and not rule.private:
            return f"header `{header}` for `{rule.host}` would be sent unencrypted; use `tls: true`"
    return None
