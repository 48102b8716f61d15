"""Credentials: replaced at the boundary, so that model, state, ledger and replay see the same marker.

In:   text or JSON values. Out: the same with each known credential replaced; what was found, without its value.
May import: the standard library. Must not know: where the text goes.
Why no entropy rule: it would take disk reports and digests for secrets. Only anchored forms are replaced; one pre-filter
decides whether any can occur at all. Markers are keyed, so that they cannot be looked up in a table of hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Finding", "Scrubber"]

_FORMS: Final = {
    "pem": r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s\\]{0,20000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?",
    "openai": r"\bsk-[A-Za-z0-9_-]{20,200}",
    "github": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})",
    "gitlab": r"\bglpat-[A-Za-z0-9_-]{20,100}",
    "slack": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}",
    "stripe": r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}",
    "aws": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "google": r"\bAIza[A-Za-z0-9_-]{35}",
    "jwt": r"\beyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{4,8000}\.[A-Za-z0-9_-]{10,2000}",
    "npm": r"\bnpm_[A-Za-z0-9]{36}",
    "pypi": r"\bpypi-[A-Za-z0-9_-]{50,250}",
    "hf": r"\bhf_[A-Za-z0-9]{30,100}",
    "sendgrid": r"\bSG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}",
    "url": r"(?<=://)[^\s/@:\"'<>\[\]]{1,100}:[^\s/@\"'<>\[\]]{1,200}(?=@)",
    "bearer": r"(?i:(?<=\bbearer )|(?<=\bbasic ))(?=[A-Za-z0-9+/_.=~-]{0,400}[0-9])[A-Za-z0-9+/_.=~-]{16,4000}",
    "assigned": r"(?i:(?<=password=)|(?<=passwd=)|(?<=api_key=)|(?<=apikey=)|(?<=secret=)|(?<=token=)|(?<=secret_access_key=))[^\s\"'&;,\[\]]{8,500}",
}
_ANY: Final = re.compile("|".join(f"(?P<{name}>{form})" for name, form in _FORMS.items()))
_HINT: Final = re.compile(
    r"-----BEGIN|sk-|gh[pousr]_|github_pat_|glpat-|xox|[rs]k_(?:live|test)|AKIA|ASIA|AIza|eyJ|npm_|pypi-|hf_|SG\.|://[^\s/]{0,310}@"
    r"|(?i:bearer |basic |password=|passwd=|apikey=|api_key=|secret=|token=|access_key=)"
)
_SECRET_KEY: Final = re.compile(
    r"(?i)(?:^|[_-])(?:password|passwd|secret|api[_-]?key|authorization|access[_-]?token|auth[_-]?token|private[_-]?key)$"
)
_MARKER: Final = "[credential:"
_SHORT: Final = 6


@dataclass(frozen=True, slots=True)
class Finding:
    """A credential that was replaced: its kind and its marker, never its value."""

    kind: str
    marker: str


class Scrubber:
    """Replaces known forms of credentials. The same credential gets the same marker within one home.

    Args:
        key: secret of the home, at least 16 bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:  # noqa: PLR2004 - as documented
            raise ValueError("the key for markers must have at least 16 bytes")
        self._key = key

    def text(self, text: str) -> tuple[str, tuple[Finding, ...]]:
        """Scrub one text. A marker is left as it is, so that scrubbing twice changes nothing."""
        if _HINT.search(text) is None:
            return text, ()
        found: list[Finding] = []

        def replace(match: re.Match[str]) -> str:
            if match[0].startswith(_MARKER):
                return match[0]
            finding = self._mark(match.lastgroup or "unknown", match[0])
            found.append(finding)
            return finding.marker

        return _ANY.sub(replace, text), tuple(found)

    def value(self, value: Any) -> tuple[Any, tuple[Finding, ...]]:
        """Scrub a JSON value deeply, keys too; text under a key such as `password` is replaced whatever its form."""
        found: list[Finding] = []
        return self._deep(value, found), tuple(found)

    def _deep(self, value: Any, found: list[Finding]) -> Any:
        if isinstance(value, str):
            clean, more = self.text(value)
            found += more
            return clean
        if isinstance(value, dict):
            return {self._deep(key, found): self._under(key, item, found) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._deep(item, found) for item in value]
        return value

    def _under(self, key: Any, item: Any, found: list[Finding]) -> Any:
        secret = isinstance(key, str) and isinstance(item, str) and _SECRET_KEY.search(key) is not None
        if not secret or len(item) < _SHORT or item.startswith(_MARKER):
            return self._deep(item, found)
        finding = self._mark("named", item)
        found.append(finding)
        return finding.marker

    def _mark(self, kind: str, secret: str) -> Finding:
        digest = hmac.new(self._key, secret.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:8]
        return Finding(kind, f"{_MARKER}{kind}:{digest}]")
