"""Messages: what a channel is told of one question: JSON for programs, Slack, mail.

In:   a gate, its card, links. Out: the body of one POST.
May import: records, config. Must not know: how it is sent.
Why everything is escaped: an agent wrote most of it. It must not ping a channel, draw a button, or hide an argument.

    json   {id, gate, run, fleet, why, kind, tool, effect, agent, arguments, preview, reason, undo, needs, expires_us, links}
    slack  {text, blocks} for an incoming webhook: header, the action, buttons that open the links
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
_HIDDEN: Final = frozenset({0x00AD, 0x061C, 0x180E, 0x2060, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F)})
_MORE_HIDDEN: Final = ((0x2066, 0x206F), (0xE0000, 0xE007F), (0xFE00, 0xFE0F))


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


def _hidden(char: str) -> bool:
    point = ord(char)
    if point < 0x20 or 0x7F <= point < 0xA0 or point in _HIDDEN:
        return True
    return any(first <= point <= last for first, last in _MORE_HIDDEN)


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
        _section(_lines(told)),
        _section(f"```{_cut(_mrkdwn(_arguments(told)).replace('```', chr(39) * 3), _SLACK_TEXT - 10)}```", raw=True),
    ]
    if told.card.get("preview"):
        preview = _cut(_mrkdwn(visible(str(told.card["preview"]))).replace("```", chr(39) * 3), _SLACK_TEXT - 10)
        blocks.append(_section(f"```{preview}```", raw=True))
    if told.link is not None:
        button = {"type": "button", "text": {"type": "plain_text", "text": "Open and answer"}, "url": told.link}
        blocks.append({"type": "actions", "elements": [button]})
    return {"text": _cut(_mrkdwn(_head(told)), _SLACK_TEXT), "blocks": blocks}


def _section(text: str, *, raw: bool = False) -> dict[str, Any]:
    shown = text if raw else _mrkdwn(text)
    return {"type": "section", "text": {"type": "mrkdwn", "text": _cut(shown, _SLACK_TEXT), "verbatim": True}}


def _mail(told: Told) -> dict[str, Any]:
    preview = visible(str(told.card.get("preview") or ""))
    text = "\n\n".join(
        part for part in (_lines(told), _arguments(told), preview, f"Answer: {told.link}" if told.link else "") if part
    )
    answer = f'<p><a href="{html.escape(told.link, quote=True)}">Open and answer</a></p>' if told.link else ""
    shown = "".join(f"<pre>{html.escape(part)}</pre>" for part in (_lines(told), _arguments(told), preview) if part)
    head = " ".join(_head(told).split())
    return {"subject": _cut(head, 200), "text": text, "html": f"<h1>{html.escape(head)}</h1>{shown}{answer}"}


def _head(told: Told) -> str:
    again = "Still waiting" if told.notice.why == "escalated" else "Waits for you"
    return visible(f"{again}: {told.gate.tool} in {told.fleet}")


def _lines(told: Told) -> str:
    gate, card = told.gate, told.card
    undo = card.get("reversible")
    until = datetime.fromtimestamp(gate.expires_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    needs = ", ".join(f"{need.quorum} of {need.who}" for need in gate.asks.needs)
    return visible(
        f"{gate.tool} ({card.get('effect', '?')}), proposed by {gate.agent} in run {gate.run[:7]}\n"
        f"why: {gate.reason}\nneeds: {needs}\nundo: {f'by {undo}' if undo else 'not possible'}\nuntil: {until}, then no"
    )


def _arguments(told: Told) -> str:
    return visible(json.dumps(told.card.get("arguments", {}), ensure_ascii=False, indent=1))


def _mrkdwn(text: str) -> str:
    """Escape what Slack reads as control: `<!channel>`, `<@user>`, `<url|text>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 30]} … {len(text) - most + 30:,} more"
