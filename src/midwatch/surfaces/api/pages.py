"""Pages: what a signed link shows: the card, and a form that answers once. No script, one style sheet, everything escaped.

In:   the facts of a gate. Out: HTML.
May import: gates.messages for what must be made visible. Must not know: requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from midwatch.gates.messages import visible

__all__ = ["STYLE_HASH", "card_page", "done_page"]

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c;background:#fcfcfb}"
    "h1{font-size:1.3rem;margin:0 0 1rem}dl{display:grid;grid-template-columns:8rem 1fr;gap:.3rem 1rem}dt{color:#666}"
    "dd{margin:0;overflow-wrap:anywhere}pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f1f1ee;padding:.8rem;margin:0}"
    "button{font:inherit;padding:.5rem 1.4rem;margin:.5rem .6rem 0 0;border:1px solid #888;border-radius:4px;background:#fff}"
    "button.yes{background:#0b6b3a;color:#fff;border-color:#0b6b3a}button.no{background:#a11616;color:#fff;border-color:#a11616}"
    "input[type=text]{font:inherit;width:100%;padding:.4rem;box-sizing:border-box}label{display:block;margin-top:.8rem}"
    "@media(prefers-color-scheme:dark){body{color:#e8e8e6;background:#161616}pre{background:#232321}dt{color:#aaa}"
    "input[type=text],button{background:#232321;color:inherit}}"
)
STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def card_page(found: Mapping[str, Any], *, principal: str, until: str) -> str:
    """Show one question with its form; `principal` is whose word it will be."""
    card = found["card"]
    rows = [
        ("action", f"{found['tool']} ({card.get('effect', '?')})"),
        ("what", (card.get("does") or "-").strip().splitlines()[0]),
        ("why asked", found["reason"]),
        ("agent", f"{found['agent']} in run {found['run'][:7]}"),
        ("undo", f"by {card['reversible']}" if card.get("reversible") else "not possible"),
        ("needs", "; ".join(f"{need['said']} of {need['quorum']} yes of {need['who']}" for need in found["needs"])),
        ("until", f"{until}, then no"),
        ("your word", f"as {principal}, once"),
    ]
    facts = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in rows)
    arguments = json.dumps(found["arguments"], ensure_ascii=False, indent=1)
    preview = f"<h2>What it would change</h2><pre>{_text(str(card['preview']))}</pre>" if card.get("preview") else ""
    seen = "".join(
        f"<dt>{_text(item['argument'])}</dt><dd>seen in {_text(', '.join(item['seen_in']) or 'no earlier result')}</dd>"
        for item in card.get("origins", [])
    )
    title = "A question waits for you" if found["question"] else "An action waits for you"
    form = _question(found["arguments"].get("choices") or []) if found["question"] else _yes_or_no()
    body = (
        f"<h1>{title}</h1><dl>{facts}</dl><h2>Arguments</h2><pre>{_text(arguments)}</pre>{preview}<dl>{seen}</dl>{form}"
    )
    return _page(title, body)


def done_page(title: str, text: str) -> str:
    """Say what became of a word, or that a link holds no more."""
    return _page(title, f"<h1>{_text(title)}</h1><p>{_text(text)}</p>")


def _yes_or_no() -> str:
    """The first button is disabled, so that Enter in the text field, which presses the first one, is no yes."""
    return (
        '<form method="post"><button disabled hidden></button>'
        '<label>why (optional) <input type="text" name="reason" maxlength="1000"></label>'
        '<button class="yes" name="word" value="approve">Yes, do this</button>'
        '<button class="no" name="word" value="deny">No</button></form>'
    )


def _question(choices: list[str]) -> str:
    picks = "".join(
        f'<label><input type="radio" name="choice" value="{_text(choice)}"> {_text(choice)}</label>'
        for choice in choices
    )
    return (
        f'<form method="post">{picks}<label>in words <input type="text" name="answer" maxlength="10000"></label>'
        '<button class="yes" name="word" value="approve">Answer</button>'
        '<button class="no" name="word" value="deny">I do not answer</button></form>'
    )


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta name="robots" content="noindex"><title>{_text(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>'
    )


def _text(text: str) -> str:
    return escape(visible(text), quote=True)
