"""Messages: what a channel is told of one question: JSON for programs, Slack, mail.

In:   a gate, its card, links. Out: the body of one POST.
May import: records, config. Must not know: how it is sent.
Why everything is escaped: an agent wrote most of it. It must not ping a channel, draw a button, or hide an argument.

    json   {id, gate, run, fleet, why, question, tool, effect, agent, arguments, preview, reason, undo, needs, expires_us, link}
    slack  {text, blocks} for an incoming webhook: header, the action, a button that opens the link
    mail   {subject, text, html} for a mail gateway
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from midwatch.config.specs import ChannelFormat
from midwatch.records.gate import GateRow, Notice

__all__ = ["Told", "message", "visible"]

_SLACK_TEXT: Final = 2900
"""Slack refuses a text block over 3,000 characters."""
_BLANK: Final = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0})
"""Printable by their class, and yet nothing is seen of them."""
_SELECTORS: Final = ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))


@dataclass(frozen=True, slots=True)
class Told:
    """One question as a channel is told it.

    Attributes:
        fleet: its name. card: as the person would see it. link: page that answers, or None where the channel has nobody's rights.
    """

    gate: GateRow
    notice: Notice
    fleet: str
    card: Mapping[str, Any]
    link: str | None


def message(told: Told, form: ChannelFormat) -> dict[str, Any]:
    """Make the body in one form."""
    return {"json": _json, "slack": _slack, "mail": _mail}[form](told)


def visible(text: str) -> str:
    """Write control, bidi and invisible characters as escapes, so that what is read is what stands there."""
    return "".join(char if char in "\n\t" or not _hidden(char) else f"\\u{{{ord(char):x}}}" for char in text)


def _line(text: object) -> str:
    """Do as `visible`, on one line: what stands in it makes no line of its own."""
    return visible(str(text)).replace("\n", "\\n").replace("\t", "\\t")


def _hidden(char: str) -> bool:
    point = ord(char)
    return not char.isprintable() or point in _BLANK or any(first <= point <= last for first, last in _SELECTORS)


def _json(told: Told) -> dict[str, Any]:
    gate, card = told.gate, told.card
    return {
        "id": told.notice.id,
        "gate": gate.id,
        "run": gate.run,
        "fleet": told.fleet,
        "why": told.notice.why,
        "question": gate.kind == "question",
        "tool": gate.tool,
        "effect": card.get("effect"),
        "agent": gate.agent,
        "arguments": card.get("arguments", {}),
        "preview": card.get("preview"),
        "reason": gate.reason,
        "undo": card.get("reversible"),
        "needs": [{"who": need.who, "quorum": need.quorum} for need in gate.asks.needs],
        "expires_us": gate.expires_us,
        "link": told.link,
    }


def _slack(told: Told) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(_head(told), 150), "emoji": False}},
        {"type": "section", "text": {"type": "plain_text", "text": _cut(_lines(told), _SLACK_TEXT), "emoji": False}},
        _code(_arguments(told)),
    ]
    if told.card.get("preview"):
        blocks.append(_code(visible(str(told.card["preview"]))))
    if told.link is not None:
        button = {"type": "button", "text": {"type": "plain_text", "text": "Open and answer"}, "url": told.link}
        blocks.append({"type": "actions", "elements": [button]})
    return {"text": _cut(_mrkdwn(_head(told)), _SLACK_TEXT), "blocks": blocks}


def _code(text: str) -> dict[str, Any]:
    """A code block that its text cannot leave: backticks in a row become apostrophes."""
    inside = _cut(_mrkdwn(text).replace("```", chr(39) * 3), _SLACK_TEXT - 10)
    return {"type": "section", "text": {"type": "mrkdwn", "text": f"```{inside}```", "verbatim": True}}


def _mail(told: Told) -> dict[str, Any]:
    preview = visible(str(told.card.get("preview") or ""))
    text = "\n\n".join(
        part
        for part in (
            _lines(told),
            _quoted(_arguments(told)),
            _quoted(preview),
            f"Answer: {told.link}" if told.link else "",
        )
        if part
    )
    answer = f'<p><a href="{html.escape(told.link, quote=True)}">Open and answer</a></p>' if told.link else ""
    shown = "".join(f"<pre>{html.escape(part)}</pre>" for part in (_lines(told), _arguments(told), preview) if part)
    head = " ".join(_head(told).split())
    return {"subject": _cut(head, 200), "text": text, "html": f"<h1>{html.escape(head)}</h1>{shown}{answer}"}


def _head(told: Told) -> str:
    again = "Still waiting" if told.notice.why == "escalated" else "Waits for you"
    return _line(f"{again}: {told.gate.tool} in {told.fleet}")


def _lines(told: Told) -> str:
    gate, card = told.gate, told.card
    undo = card.get("reversible")
    until = datetime.fromtimestamp(gate.expires_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    needs = ", ".join(f"{need.quorum} of {need.who}" for need in gate.asks.needs)
    asked = f"{gate.tool} ({card.get('effect', '?')}), proposed by {gate.agent} in run {gate.run[:7]}"
    back = f"by {undo}" if undo else "not possible"
    facts = (asked, f"why: {gate.reason}", f"needs: {needs}", f"undo: {back}", f"until: {until}, then no")
    return "\n".join(_line(fact) for fact in facts)


def _arguments(told: Told) -> str:
    return visible(json.dumps(told.card.get("arguments", {}), ensure_ascii=False, indent=1))


def _quoted(text: str) -> str:
    """Mark each line as somebody else's, so that none passes for one of ours."""
    return "\n".join(f"| {line}" for line in text.split("\n")) if text else ""


def _mrkdwn(text: str) -> str:
    """Escape what Slack reads as control: `<!channel>`, `<@user>`, `<url|text>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 30]} … {len(text) - most + 30:,} more"
