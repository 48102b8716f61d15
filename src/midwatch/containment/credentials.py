"""Credentials: replaced at the boundary, so that model, state, ledger and replay see the same bytes.

In:   text or JSON values on their way in: arguments, results, prompts.
Out:  the same with every known form of credential replaced by a marker, and what was found, without its value.
May import: the standard library. Must not know: where the text goes, who wrote it, whether the credential is valid.
Why no entropy rule: it takes disk reports, digests and images for secrets, and a changed result is a wrong result. A form
is replaced only where a literal prefix (`ghp_`), a surrounding form (`://user:…@`) or a name (`password=`) says it.
Why one pre-filter: almost all text holds none of these literals; a text without them is searched for substrings and
left alone, and a text with one of them meets only the forms of that literal.
Why keyed markers: `[credential:github:1f0c9a2e]` is the same for the same secret within one store, so that a reader
can tell two from one, and cannot be looked up in a table of hashed passwords.
Every pattern is bounded or possessive, so no text makes it slower than linear (`test_containment_credentials.py`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["SCRUB_KEY", "Finding", "Scrubber", "marked"]

_MARKER: Final = r"\[credential:[a-z]{2,16}:[0-9a-f]{8}\]"
_MARKERS: Final = re.compile(_MARKER)
_SHORT: Final = 6
_MIN_KEY: Final = 16
_PASSES: Final = 8

# ASCII boundaries: for `\b` a Chinese character before `sk-` would be part of the word and hide the key.
_E: Final = r"(?![A-Za-z0-9])"
_EOL: Final = r"(?:[\r\n]|\\{1,4}[rn])"
_PEM_NAME: Final = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"

_PEM: Final = (
    rf"-----BEGIN {_PEM_NAME}(?:[^-]*+(?:-(?!----)[^-]*+)*+-----END {_PEM_NAME}"
    # Cut before its end: what follows as lines of base64 belongs to it.
    rf"|(?:{_EOL}++[ \t]{{0,20}}+[A-Za-z0-9+/=]++(?=[\r\n\\\"']|\Z))*+)"
)


def _from(literal: str, rest: str, before: str = "[A-Za-z0-9]") -> re.Pattern[str]:
    """Compile a form that begins with a literal at the beginning of a word.

    The look behind comes after the literal, so that the engine searches for the literal. In the text of a JSON string a
    form may follow an escape: the `n` of a written-out new line is no part of the word.
    """
    word = re.escape(literal)
    start = rf"(?:(?<!{before}{word})|(?<=\\[nrtbf]{word})|(?<=\\u[0-9a-fA-F]{{4}}{word}))"
    return re.compile(word + start + rest, re.ASCII)


def _anywhere(literal: str, rest: str) -> re.Pattern[str]:
    """Compile a form so unlike anything else that letters glued in front of it must not hide it."""
    return re.compile(re.escape(literal) + rest, re.ASCII)


# (literal that must occur, kind, form). What is replaced is group `v`, or the whole match where there is none.
_FORMS: Final[tuple[tuple[str, str, re.Pattern[str]], ...]] = (
    ("PRIVATE KEY", "pem", re.compile(_PEM)),
    ("eyJ", "jwt", _from("eyJ", r"[\w-]{8,}+\.[\w-]{4,}+\.[\w-]*+(?:\.[\w-]++){0,2}", r"[\w-]")),
    ("sk-ant-", "anthropic", _anywhere("sk-ant-", r"[\w-]{16,}+")),
    ("sk-", "openai", _from("sk-", r"(?:proj|svcacct|admin|or|lf)-[\w-]{16,}+")),
    ("sk-", "openai", _from("sk-", r"(?=[A-Za-z]{0,60}[0-9])[A-Za-z0-9]{20,}+")),
    ("gh", "github", _anywhere("gh", r"[pousr]_[A-Za-z0-9]{30,}+")),
    ("github_pat_", "github", _anywhere("github_pat_", r"\w{22,}+")),
    ("gl", "gitlab", _anywhere("gl", r"(?:pat|dt|rt|ptt|cbt|ft|soat|imt|agent|oas)-[\w-]{20,}+")),
    ("xox", "slack", _from("xox", r"[abcdeoprs]-[A-Za-z0-9-]{10,}+")),
    ("xapp-", "slack", _anywhere("xapp-", r"[A-Za-z0-9-]{10,}+")),
    ("hooks.slack.com/services/", "slack", re.compile(r"hooks\.slack\.com/services/(?P<v>[A-Za-z0-9/]{20,}+)")),
    ("k_live_", "stripe", re.compile(r"[rsp]k_live_[A-Za-z0-9]{16,}+")),
    ("k_test_", "stripe", re.compile(r"[rsp]k_test_[A-Za-z0-9]{16,}+")),
    ("whsec_", "stripe", _anywhere("whsec_", r"[A-Za-z0-9]{16,}+")),
    ("AKIA", "aws", _from("AKIA", rf"[A-Z0-9]{{16}}{_E}")),
    ("ASIA", "aws", _from("ASIA", rf"[A-Z0-9]{{16}}{_E}")),
    ("AIza", "google", _from("AIza", r"[\w-]{35}(?![\w-])")),
    ("ya29.", "google", _from("ya29.", r"[\w-]{20,}+")),
    ("GOCSPX-", "google", _anywhere("GOCSPX-", r"[\w-]{20,}+")),
    ("npm_", "npm", _anywhere("npm_", rf"[A-Za-z0-9]{{36}}{_E}")),
    ("pypi-", "pypi", _anywhere("pypi-", r"[\w-]{50,}+")),
    ("hf_", "huggingface", _anywhere("hf_", r"[A-Za-z0-9]{30,}+")),
    ("SG.", "sendgrid", _from("SG.", r"[\w-]{16,64}+\.[\w-]{16,}+")),
    ("SK", "twilio", _from("SK", rf"[0-9a-f]{{32}}{_E}")),
    ("sig=", "sas", re.compile(r"[?&;]sig=(?P<v>[A-Za-z0-9%+/=_-]{20,}+)")),
    # The last `@` before the path ends the password: `user:p@ss@host`.
    ("://", "url", re.compile(r"://[^\s/?#@:\"'<>\\\[\]]{0,100}+:(?P<v>[^\s/?#\"'<>\\]{1,300})@")),
)

_SCHEME: Final = re.compile(r"(?i)\b(?P<scheme>bearer|basic)[ \t]{1,3}(?P<v>[A-Za-z0-9+/_.=~-]{8,}+)")
_SCHEMES: Final = re.compile(r"(?i)\A(?:bearer|basic|token|apikey|digest|negotiate)[ \t]{1,3}")

_NAMES: Final = (
    r"pass(?:word|wd|phrase)|pwd|secret(?:[_-]?access)?(?:[_-]?key)?|(?:api|access|account|private|auth)[_-]?key"
    r"|(?:proxy-)?authorization|token"
)
_NAME_HINTS: Final = ("passw", "passphrase", "pwd", "secret", "key", "authorization", "token")
_BARE: Final = rf"(?P<bare>(?:{_MARKER}|[^\s\"'`&;,<>(){{}}\[\]\\|])++)"
# A name with a separator behind it, or a command's option; searched in lower case, which is several times faster than
# searching without regard to case.
_SPOT: Final = re.compile(
    rf"(?:{_NAMES})(?=(?:\\{{0,7}}[\"'])?\s{{0,8}}+[:=]|(?P<option>[ \t]{{1,4}}+[^\s-]))", re.ASCII
)
_OPTION: Final = re.compile(r"(?:\s|\A)--[A-Za-z-]{0,30}\Z")
_ASSIGNED: Final = re.compile(
    rf"(?P<name>{_NAMES})(?:\\{{0,7}}[\"'])?(?P<sep>\s{{0,8}}+(?:=>|:=|={{1,3}}|:)\s{{0,8}}+)"
    r"(?:\"(?P<double>(?:[^\"\\\r\n]|\\.)++)"
    r"|'(?P<single>(?:[^'\\\r\n]|\\.)++)"
    r"|(?P<quote>\\{1,7}[\"'])(?P<nested>(?:(?!(?<!\\)(?P=quote))[^\r\n])++)"
    rf"|(?:(?:bearer|basic|token|apikey)[ \t]{{1,3}})?{_BARE})",
    re.IGNORECASE | re.ASCII,
)
_FLAG: Final = re.compile(rf"(?P<name>{_NAMES})(?P<sep>[ \t]{{1,4}}){_BARE}", re.IGNORECASE | re.ASCII)
_KEY: Final = re.compile(
    r"(?:pass(?:word|wd|phrase)|pwd|secret(?:access)?(?:key)?|(?:api|access|account|private|auth)key|authorization|token)\Z"
)
_NO_TOKEN: Final = re.compile(
    r"(?i)(?:page|next|prev|previous|continuation|sync|cursor|pagination|resume|stop|start|pad|eos|bos|unk|mask|sep|cls)[_-]?\Z"
)
# What stands for a secret without being one. `$ecret1` is a password, `$SECRET` a variable.
_PLACEHOLDER: Final = re.compile(
    r"(?i)\A(?:(?-i:\$[A-Z_][A-Z0-9_]*)|\$[{(].*[)}]|%[a-z_]+%|%\(\w+\)s|<[^<>]*>|\{.*\}|[*•.x]{3,}"
    r"|(?:your|my)[-_ ][a-z_ -]*|[a-z_-]{0,16}\.{3}|none|null|true|false|undefined|required|optional|string|redacted"
    r"|hidden|masked|changeme|unknown|not[ _-]?set|os\.environ\S*|process\.env\S*)\Z",
    re.DOTALL,
)
_NUMBER: Final = re.compile(r"[0-9][0-9.,_]{0,11}\Z")
_PATH: Final = re.compile(r"(?:~|\.{1,2})?/|@|[A-Za-z]:\\|[a-z][a-z0-9+.-]{1,20}://")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z", re.ASCII)
_AWS_SECRET: Final = re.compile(r"[A-Za-z0-9/+]{40}=?\Z")
_ESCAPED: Final = re.compile(r"\\(?:u00(?P<code>[2-7][0-9a-fA-F])|(?P<plain>.))", re.DOTALL)
_NON_WORD: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """A credential that was replaced: its kind and its marker, never its value."""

    kind: str
    marker: str


def marked(text: str) -> tuple[Finding, ...]:
    """Give the markers that stand in a text: each is a credential that came in here and was taken out."""
    return tuple(Finding(found[0].split(":")[1], found[0]) for found in _MARKERS.finditer(text))


SCRUB_KEY: Final = "scrub-key"
"""Setting of a home that holds its key for markers."""


class Scrubber:
    """Replaces known forms of credentials; the same credential gets the same marker within one store.

    Safe to share between threads. It asks nobody: no network, no file.

    Args:
        key: secret of the store, at least 16 bytes, made once from the system's random source and kept with it.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < _MIN_KEY:
            raise ValueError(f"the key for markers must have at least {_MIN_KEY} bytes; make one with `secrets`")
        self._key = key

    def text(self, text: str) -> tuple[str, tuple[Finding, ...]]:
        """Scrub one text, also one that holds JSON: a replaced JSON string stays a JSON string.

        Returns:
            The text and the findings, by form. Scrubbing again changes nothing.
        """
        clean, found = self._scan(text)
        if "\\u00" in text or "\\/" in text:  # a JSON text may hide a form behind escapes of plain letters
            unhidden, more = self._scan(_ESCAPED.sub(_unescape, text))
            if len(more) > len(found):
                clean, found = unhidden, more
        return clean, tuple(found)

    def _scan(self, text: str) -> tuple[str, list[Finding]]:
        """Scan until nothing more is found: where one credential went, the beginning of its neighbour shows."""
        clean, found = self._pass(text)
        more, passes = found, 1
        while more and passes < _PASSES:
            clean, more = self._pass(clean)
            found, passes = found + more, passes + 1
        return clean, found

    def _pass(self, text: str) -> tuple[str, list[Finding]]:
        found: list[Finding] = []
        for literal, kind, form in _FORMS:
            if literal in text:
                text = form.sub(self._replacer(kind, found), text)
        lower = text.lower()
        if "bearer" in lower or "basic" in lower:
            text = _SCHEME.sub(self._scheme(found), text)
        if any(hint in lower for hint in _NAME_HINTS):
            text = self._names(text, found)
        return text, found

    def holds(self, text: str) -> bool:
        """Say whether a text holds a credential of a known form."""
        return bool(self.text(text)[1])

    def value(self, value: Any) -> tuple[Any, tuple[Finding, ...]]:
        """Scrub a JSON value however deep: texts, keys, and what stands under a key such as `password` or `api_key`.

        Returns:
            A new value of the same shape (tuples become lists) and the findings. Scrubbing again changes nothing.
        """
        found: list[Finding] = []
        root: list[Any] = [None]
        todo: list[tuple[Any, str, Any, Any]] = [(value, "", root, 0)]
        while todo:
            item, name, box, slot = todo.pop()
            if isinstance(item, str):
                box[slot] = self._string(item, name, found)
            elif isinstance(item, dict):
                box[slot] = {}
                todo += reversed([(child, *self._slot(key, box[slot], found)) for key, child in item.items()])
            elif isinstance(item, list | tuple):
                box[slot] = [None] * len(item)
                todo += [(item[i], name, box[slot], i) for i in reversed(range(len(item)))]
            else:
                box[slot] = item
        return root[0], tuple(found)

    def _slot(self, key: Any, box: dict[Any, Any], found: list[Finding]) -> tuple[str, dict[Any, Any], Any]:
        """Reserve the place of a key, so that their order stays; name the credential that may stand there."""
        if not isinstance(key, str):
            box[key] = None
            return "", box, key
        clean, more = self.text(key)
        found += more
        while clean in box:  # two keys must not fall together: one may have been a marker already
            clean += "~"
        box[clean] = None
        return _credential_name(key), box, clean

    def _string(self, text: str, name: str, found: list[Finding]) -> str:
        clean, more = self.text(text)
        found += more
        if not name:
            return clean
        scheme = _SCHEMES.match(clean)
        start = scheme.end() if scheme else 0
        if not _is_secret(name, clean[start:]):
            return clean
        return clean[:start] + self._mark("assigned", clean[start:], found)

    def _replacer(self, kind: str, found: list[Finding]) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            group = "v" if match.re.groups else 0
            secret = match[group]
            if group == "v" and (not _MARKERS.sub("", secret) or _PLACEHOLDER.match(secret)):
                return match[0]
            return _put(match, group, self._mark(kind, secret, found))

        return replace

    def _scheme(self, found: list[Finding]) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            secret = match["v"]
            if match["scheme"].lower() == "basic":
                known = _is_basic(secret)
            else:
                known = len(secret) >= _MIN_KEY and any(character.isdigit() for character in secret)
            return _put(match, "v", self._mark(match["scheme"].lower(), secret, found)) if known else match[0]

        return replace

    def _names(self, text: str, found: list[Finding]) -> str:
        """Replace what is assigned to a name such as `password`, in any notation."""
        lower = text.lower()
        if len(lower) != len(text):  # one capital letter (U+0130) has two small ones, and the places would not agree
            lower = text.replace("\u0130", "I").lower()
        parts: list[str] = []
        done = 0
        for spot in _SPOT.finditer(lower):
            start = spot.start()
            if start < done:
                continue
            if spot["option"] is None:
                match = _ASSIGNED.match(text, start)
            else:
                match = _FLAG.match(text, start) if _OPTION.search(text[max(0, start - 34) : start]) else None
            replaced = match and self._assigned(match, found)
            if match and replaced:
                parts += (text[done:start], replaced)
                done = match.end()
        return "".join(parts) + text[done:] if parts else text

    def _assigned(self, match: re.Match[str], found: list[Finding]) -> str | None:
        """Give the assignment with its value replaced, or None when it is no credential."""
        name = match["name"].lower()
        if name == "token" and _NO_TOKEN.search(match.string[max(0, match.start() - 16) : match.start()]):
            return None
        group = match.lastgroup or "bare"
        secret = match[group]
        if group == "bare":
            return _put(match, group, self._mark("assigned", secret, found)) if _is_bare_secret(match, secret) else None
        scheme = _SCHEMES.match(secret)
        kept = scheme[0] if scheme else ""
        if not _is_secret(name, secret[len(kept) :]):
            return None
        return _put(match, group, kept + self._mark("assigned", secret[len(kept) :], found))

    def _mark(self, kind: str, secret: str, found: list[Finding]) -> str:
        plain = secret
        if "\\" in secret:  # the same secret inside a JSON text and decoded must have one marker
            try:
                plain = str(json.loads(f'"{secret}"', strict=False))
            except ValueError:
                plain = secret
        digest = hmac.new(self._key, plain.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:8]
        finding = Finding(kind, f"[credential:{kind}:{digest}]")
        found.append(finding)
        return finding.marker


def _put(match: re.Match[str], group: str | int, marker: str) -> str:
    start, end = match.start(group) - match.start(), match.end(group) - match.start()
    return match[0][:start] + marker + match[0][end:]


def _unescape(match: re.Match[str]) -> str:
    """Undo the escape of a printable letter or slash; keep those that a JSON string needs."""
    if match["plain"]:
        return "/" if match["plain"] == "/" else match[0]
    letter = chr(int(match["code"], 16))
    return match[0] if letter in {'"', "\\", "\x7f"} else letter


def _credential_name(key: str) -> str:
    """Give the part of a key that names a credential (`dbPassword`, `X-Api-Key`), or nothing (`max_tokens`)."""
    plain = _NON_WORD.sub("", key.lower())
    named = _KEY.search(plain[-40:])
    if named is None or (named[0] == "token" and _NO_TOKEN.search(plain[:-5][-16:])):
        return ""
    return named[0]


def _is_secret(name: str, text: str) -> bool:
    """Say whether a whole text under this name is a credential: not too short, no placeholder, no number, no prose."""
    rest = _MARKERS.sub("", text).strip()
    if len(rest) < _SHORT or _PLACEHOLDER.match(rest) or rest.count(" ") > 8:  # longer than a passphrase
        return False
    if _NUMBER.match(rest):
        return name.startswith("pass") or name in {"pwd", "secret"}
    # `token` names parts of languages too (`{"token": "identifier"}`); without a digit only a long one counts.
    return name != "token" or len(rest) >= 20 or any(character.isdigit() for character in rest)


def _is_bare_secret(match: re.Match[str], text: str) -> bool:
    """Say whether an unquoted word after a name is a credential, and neither code, path, address nor prose."""
    name, rest = match["name"].lower(), _MARKERS.sub("", text)
    if "key" in name and _AWS_SECRET.match(rest):
        return True
    following = match.string[match.end() : match.end() + 1]
    if not _is_secret(name, rest) or _PATH.match(rest) or (following and following in "(["):
        return False
    tight = match["sep"] == "="
    if _IDENTIFIER.match(rest):
        if "." in rest and (not tight or not any(character.isdigit() for character in rest)):
            return False  # `token = lexer.token2`
        if not any(character.isdigit() for character in rest):
            # `password=correcthorse` in a configuration or an address, not `password=settings,` in code
            return tight and following not in {",", ")", ":"} and not re.search(rf"(?i){_NAMES}|key", rest)
    return tight or any(character.isdigit() for character in rest)


def _is_basic(text: str) -> bool:
    """Say whether this is base64 of `user:password`, as the Basic scheme sends it (RFC 7617, section 2)."""
    try:
        return b":" in base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
