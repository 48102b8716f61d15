"""Pairs: an effect that grants something, beside one that is as like it as can be and grants nothing.

In:   texts before and after. Out: effects, judged as the kernel would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from midwatch.containment.authority import Command, File, Http, Judged, Sql, judge
from midwatch.sandbox.effects import Change, Request

__all__ = ["Pair", "changed", "sent", "told"]

Text = str | bytes | None


@dataclass(frozen=True)
class Pair:
    """One attack and its twin, of one file.

    Attributes:
        before: what both find. attack, twin: what they leave; None: nothing. whom: part of who gains it.
        other: path of the twin, where its name is what differs.
    """

    path: str
    before: Text
    attack: Text
    twin: Text
    whom: str = ""
    other: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{str(self.attack)[-24:]!r}"


def changed(path: str, before: Text, after: Text, **more: Any) -> File:
    """Make the effect of a file that was made, changed or taken away."""
    op = "deleted" if after is None else "created" if before is None else "modified"
    facts: Mapping[str, Any] = {
        "mode": None if after is None else 0o644,
        "was": None if before is None else "file",
        "was_mode": None if before is None else 0o644,
        **more,
    }
    change = Change(
        facts.get("op", op),
        path,
        facts.get("kind", "file"),
        **{k: v for k, v in facts.items() if k not in ("op", "kind")},
    )
    return File(change, _bytes(before), _bytes(after))


def sent(method: str, url: str, body: bytes = b"", **headers: str) -> Http:
    """Make the effect of a request that is held back."""
    _scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    told = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Http(
        Request(1, method, host, 443, f"{slash}{path}".partition("?")[0], "staged", url=url, headers=told), body
    )


def told(effect: File | Http | Sql | Command) -> Judged:
    """Judge an effect; what the judgement says quotes no secret that tests use."""
    found = judge(effect)
    assert "hunter2" not in repr(found) + repr(effect)
    assert found == judge(effect)
    return found


def _bytes(text: Text) -> bytes | None:
    return text.encode() if isinstance(text, str) else text
