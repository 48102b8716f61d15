"""Egress secrets: which credentials go out, which must not, and that none comes back.

In:   a request's headers and query as the sandbox sent them; a rule's headers; the profile's secrets; bytes of an answer.
Out:  headers that may be sent, or `Refused`; an answer's bytes as soon as no secret can begin in them, or `Echoed`.
May import: bridge (its dummy key), the standard library. Must not know: sockets, rules, who asks.
What the sandbox sends of its own, and what becomes of it. A credential that was not issued through the broker may not be used
(CONTAINMENT.md 29), and to drop one silently would ask as somebody else than was meant, so the rest is refused:
    replaced  a header that the rule adds: clients insist on some key, and the rule's value is what is sent
    dropped   the dummy key of `bridge.proxy_environment`; `Proxy-Authorization`, which is for the broker, who needs none
    refused   every other credential: in headers, cookies, the query, before an `@`; of a body, fields that are named as one, known forms
Answers lose `Set-Cookie`: a cookie is a credential that was not issued through the broker, and a client would send it next time.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote, quote_plus, unquote_plus

from midwatch.sandbox.bridge import DUMMY_KEY

__all__ = [
    "SHORTEST",
    "Echoed",
    "Pair",
    "Refused",
    "Scan",
    "Vault",
    "body_refusal",
    "cleared",
    "query_refusal",
    "takes_secret",
]

Pair = tuple[str, str]
SHORTEST: Final = 8
"""A shorter secret would be found in answers that do not hold it."""

_NAME: Final = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]*)\}")
_HOP: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "trailer"),
        *("transfer-encoding", "upgrade", "http2-settings", "host", "content-length", "expect"),
        *(
            "forwarded",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-port",
            "x-real-ip",
        ),
    }
)
"""Of this connection alone, or made anew by the broker, or a claim about who asks that a sandbox cannot make."""

_OVERRIDES: Final = frozenset(
    {
        *(
            "x-http-method",
            "x-http-method-override",
            "x-method-override",
            "x-original-url",
            "x-original-uri",
            "x-original-host",
        ),
        *("x-rewrite-url", "x-rewrite-uri", "x-host", "x-forwarded-server", "x-forwarded-prefix"),
    }
)
"""A server that heeds one of these does something else than was decided."""

_CREDENTIAL: Final = re.compile(
    r"(?:.*-)?(?:authorization|authentication|api-?(?:key|token|secret)|(?:access|auth|session|security|identity|id|refresh|bearer|private|job"
    r"|deploy|user|account|server|client|vault|consul|gitlab|github|circle|service|subscription|figma|shopify)-?(?:token|key)"
    r"|app(?:lication)?-?key|secret(?:-?key)?|passw(?:or)?d|passphrase|credentials?|cookie2?|session(?:-?id)?|jwt(?:-assertion)?"
    r"|signature|functions-key|honeycomb-team|auth-pw)\Z|(?:x-)?token\Z|(?:x-)?key\Z|x-amz-.*(?:token|signature|credential)\Z"
)
_QUERY: Final = re.compile(
    r"(?:.*[-_.])?(?:api[-_]?(?:key|token|secret)|(?:access|auth|id|refresh|bearer|private|oauth|session|security|user|client|job|bot)[-_]?token"
    r"|(?:client|app|api|auth|consumer)[-_]?secret|(?:app|auth|access|secret|subscription|account|private)[-_]?key(?:[-_]?id)?"
    r"|authorization|passw(?:or)?d|passphrase|credentials?|signature|[jp]?h?p?sess(?:ion)?(?:id)?|jwt)\Z"
    r"|(?:token|auth|secret|pwd|pass|sig|bearer)\Z"
)
_KNOWN: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{16}|gh[pousr]_[A-Za-z0-9]{30}|github_pat_\w{20}|gl[a-z]{2,5}-[\w-]{20}|xox[abeprs]-[\w-]{10}"
    r"|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{35}|ya29\.[\w-]{20}|eyJ[\w-]{8,600}+\.[\w-]{4}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50}|hf_[A-Za-z0-9]{30}"
    r"|SG\.[\w-]{16}|[rsp]k_(?:live|test)_[A-Za-z0-9]{16}|-----BEGIN [A-Z ]{0,40}PRIVATE KEY)"
)

_PART: Final = re.compile(r"(?i)content-disposition:[^\r\n]{0,200}\bname=\"?([^\"\r\n;]{1,200})")
_FIELD: Final = re.compile(r'"([^"\\]{1,100})"\s{0,20}:\s{0,20}"[^"]')


class Refused(Exception):
    """A request that is not sent; the message says why and holds no value that the sandbox or a secret gave."""


class Echoed(Exception):
    """An answer holds a secret. What of it was not passed on yet must not be."""


def cleared(sent: Sequence[Pair], added: Iterable[str], known: Callable[[str], bool] | None = None) -> list[Pair]:
    """Give the headers that may go on; see the module's head.

    Args:
        sent: as the sandbox sent them. added: names of headers that the rule adds.
        known: says whether a text holds a credential of a known form, beyond the few known here.

    Raises:
        Refused: one of them is a credential, or would make a server do something else than was decided.
    """
    replaced = {_plain(name) for name in added}
    listed = {part.strip().lower() for name, value in sent if name.lower() == "connection" for part in value.split(",")}
    kept = []
    for name, value in sent:
        plain = _plain(name)
        if plain in _HOP or name.lower() in listed or plain in replaced or DUMMY_KEY in value:
            continue
        if plain in _OVERRIDES:
            raise Refused(f"header `{plain}` would change what a server does; send the request that is meant")
        if _CREDENTIAL.match(plain) or _holds(value, known):
            raise Refused(
                f"header `{plain[:40]}` holds a credential of the sandbox's own; the rule of the host must add it (`headers`)"
            )
        kept.append((name, value))
    return kept


def query_refusal(query: str, known: Callable[[str], bool] | None = None) -> str | None:
    """Say why a query (or any other part of an address) cannot be sent: it holds a credential."""
    for part in re.split(r"[&;]", query):
        name, _, value = part.partition("=")
        if value and _QUERY.match(unquote_plus(name).lower()):
            return "the query holds a credential of the sandbox's own; the rule of the host must add it as a header"
    if _holds(unquote_plus(query), known) or _holds(query, known):
        return "the address holds a credential of the sandbox's own; the rule of the host must add it as a header"
    return None


def body_refusal(headers: Sequence[Pair], body: bytes) -> str | None:
    """Say why a body cannot be sent: a field of a form or of JSON is a credential by its name, or a known form stands in it.

    What only says that it holds one, such as a program that assigns a password, is content, and passes.
    """
    kind = next((value for name, value in headers if name.lower() == "content-type"), "").lower()
    text = body.decode("utf-8", "replace")
    own = _KNOWN.search(text) is not None
    if "x-www-form-urlencoded" in kind:
        own = own or query_refusal(text) is not None
    elif "multipart/" in kind:
        own = own or any(_QUERY.match(found[1].lower()) for found in _PART.finditer(text))
    elif "json" in kind or text[:1] in ("{", "["):
        own = own or _json_holds(text)
    return (
        "the body holds a credential of the sandbox's own; the rule of the host must add it as a header"
        if own
        else None
    )


def _json_holds(text: str) -> bool:
    try:
        todo = [json.loads(text)]
    except (ValueError, RecursionError):
        return any(_QUERY.match(found[1].lower()) for found in _FIELD.finditer(text))
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            if any(isinstance(value, str) and value and _QUERY.match(str(key).lower()) for key, value in item.items()):
                return True
            todo += item.values()
        elif isinstance(item, list):
            todo += item
    return False


def _plain(name: str) -> str:
    # A server behind CGI or WSGI reads `X_Api_Key` as `X-Api-Key`.
    return name.lower().replace("_", "-")


def _holds(text: str, known: Callable[[str], bool] | None) -> bool:
    return _KNOWN.search(text) is not None or (known is not None and known(text))


class Vault:
    """The secrets of one profile. Nothing that prints it shows them."""

    __slots__ = ("_forms", "_secrets")

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = dict(secrets)
        told = {part for secret in self._secrets.values() for part in (secret, *_inner(secret))}
        self._forms = tuple(sorted({form for part in told for form in _forms(part)}))

    def __repr__(self) -> str:
        return f"Vault({len(self._secrets)} secrets)"

    def problem(self, headers: Mapping[str, str]) -> str | None:
        """Say why a rule's headers cannot be filled."""
        for name in (found for value in headers.values() for found in _NAME.findall(value)):
            secret = self._secrets.get(name)
            if secret is None:
                return f"the secret `{name}` is not there; name it in `secrets` and set the variable"
            if len(secret) < SHORTEST or not secret.isascii() or not secret.isprintable():
                return f"the secret `{name}` has fewer than {SHORTEST} characters or some that no header can hold"
        return None

    def filled(self, headers: Mapping[str, str]) -> list[Pair]:
        """Fill a rule's headers, at the last moment.

        Raises:
            Refused: a secret is not there.
        """
        problem = self.problem(headers)
        if problem:
            raise Refused(problem)
        return [(name, _NAME.sub(lambda found: self._secrets[found[1]], value)) for name, value in headers.items()]

    def holds(self, *texts: bytes) -> bool:
        """Say whether a secret stands in what the sandbox wants to send: it was never given one, so it got it elsewhere."""
        return any(form in text for text in texts for form in self._forms)

    def refusal(self, headers: Sequence[Pair], body: bytes) -> str | None:
        """Say why a body cannot be sent; see `body_refusal`."""
        if self.holds(body):
            return "the request holds a secret of the broker, which was never given to the sandbox"
        return body_refusal(headers, body)

    def masked(self, text: str) -> str:
        """Give a text that can be recorded."""
        data = text.encode("utf-8", "surrogateescape")
        for form in self._forms:
            data = data.replace(form, b"***")
        return data.decode("utf-8", "surrogateescape")

    def scan(self) -> Scan:
        """Watch one answer."""
        return Scan(self._forms)

    def __bool__(self) -> bool:
        return bool(self._forms)


def takes_secret(headers: Mapping[str, str]) -> bool:
    """Say whether a rule's headers hold a secret."""
    return any(_NAME.search(value) for value in headers.values())


class Scan:
    """Looks for secrets in a stream, and holds back only what may be the beginning of one."""

    __slots__ = ("_forms", "_held")

    def __init__(self, forms: Sequence[bytes]) -> None:
        self._forms, self._held = forms, b""

    def feed(self, data: bytes) -> bytes:
        """Take bytes and give those that can be passed on.

        Raises:
            Echoed: a secret stands in what came so far.
        """
        if not self._forms:
            return data
        whole = self._held + data
        if any(form in whole for form in self._forms):
            raise Echoed("the answer holds a secret of the broker, so it was cut")
        hold = max(_overlap(whole, form) for form in self._forms)
        self._held = whole[len(whole) - hold :]
        return whole[: len(whole) - hold]

    def end(self) -> bytes:
        """Give what was held back: the stream has ended, and no secret with it."""
        held, self._held = self._held, b""
        return held


def _overlap(data: bytes, form: bytes) -> int:
    """Count the bytes at the end of `data` that begin `form`."""
    start = max(0, len(data) - len(form) + 1)
    at = data.find(form[0], start)
    while at >= 0:
        if form.startswith(data[at:]):
            return len(data) - at
        at = data.find(form[0], at + 1)
    return 0


def _inner(secret: str) -> list[str]:
    """Give what a secret for `Basic` wraps: `user:password`, and the password."""
    try:
        pair = base64.b64decode(secret, validate=True).decode("ascii")
    except ValueError:
        return []
    return [pair, pair.partition(":")[2]] if ":" in pair and pair.isprintable() else []


def _forms(secret: str) -> set[bytes]:
    """Give the ways in which a server may write a secret back: as it is, in an address, in JSON, in base64, in hex."""
    if len(secret) < SHORTEST:
        return set()
    plain = secret.encode()
    found = {plain, quote(secret, safe="").encode(), quote_plus(secret).encode(), json.dumps(secret)[1:-1].encode()}
    found |= {plain.hex().encode(), plain.hex().upper().encode(), plain[::-1]}
    for shift in range(3):
        # The first and last letters depend on what stands beside the secret, so they are left out.
        for encoded in (base64.b64encode(b"\0" * shift + plain), base64.urlsafe_b64encode(b"\0" * shift + plain)):
            core = encoded.rstrip(b"=")[(0, 2, 3)[shift] : -1]
            found.add(core)
    return found
