"""Layers: what one call did, frozen and digested, out of reach of whoever did it.

In:   changes and requests, the contents behind them. Out: `Layer`.
May import: effects, errors. Must not know: who calls, what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from midwatch.sandbox.effects import Change, Request

__all__ = ["Layer"]


@dataclass(frozen=True, slots=True)
class Layer:
    """What one call did.

    Attributes:
        changes: in the order of their paths. requests: in the order they were tried.
        digest: SHA-256 hex of the manifest: all of the above, so every content by its digest. Empty layer: empty text.
        file: where manifest and contents lie; None when nothing needs contents.
    """

    changes: tuple[Change, ...] = ()
    requests: tuple[Request, ...] = ()
    digest: str = ""
    file: Path | None = None
