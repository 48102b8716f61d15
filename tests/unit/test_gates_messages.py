"""Messages, byte for byte: what each kind of channel is told, of an ordinary question and of a hostile one."""

from __future__ import annotations

import html
import re
import sys
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.config.specs import ChannelFormat
from midwatch.gates.messages import Told, message, visible
from midwatch.records.gate import GateRow, Need, Notice, Terms
from midwatch.surfaces.api.pages import card_page

GATE = GateRow(
    id="9" * 16,
    run="ab" * 16,
    agent="worker",
    tool="ops.place",
    digest="d",
    nonce="n" * 32,
    policy_digest="p",
    who="operator",
    reason="it is destructive",
    card="c",
    status="open",
    opened_us=1,
    expires_us=1_764_000_000_000_000,
    terms=Terms((Need("gates[0]", "operator", 2), Need("gates[1]", "dba")), ("ops",)).to_text(),
)
NOTICE = Notice(f"{GATE.id}:n:ops:opened", GATE.id, GATE.nonce, "ops", "opened", 1, 1)
CARD = {
    "effect": "destructive",
    "arguments": {"service": "shop", "replicas": 3},
    "preview": "shop: v1 -> v2",
    "reversible": "ops.restore",
}
LINK = "https://watch.example.com/l/TOKEN"
LINES = (
    "ops.place (destructive), proposed by worker in run abababa\n"
    "why: it is destructive\n"
    "needs: 2 of operator, 1 of dba\n"
    "undo: by ops.restore\n"
    "until: 2025-11-24 16:00:00Z, then no"
)
ARGUMENTS = '{\n "service": "shop",\n "replicas": 3\n}'


def told(form: ChannelFormat, **more: Any) -> dict[str, Any]:
    """Make a message of the ordinary question, with changes."""
    link = more.pop("link", LINK)
    card = {**CARD, **more.pop("card", {})}
    return message(Told(replace(GATE, **more), NOTICE, "office", card, link), form)


@pytest.mark.req("INBOX-2")
def test_the_message_for_programs() -> None:
    """Every documented field, and nothing else."""
    expected = {
        "id": NOTICE.id,
        "gate": GATE.id,
        "run": GATE.run,
        "fleet": "office",
        "why": "opened",
        "question": False,
        "tool": "ops.place",
        "effect": "destructive",
        "agent": "worker",
        "arguments": {"service": "shop", "replicas": 3},
        "preview": "shop: v1 -> v2",
        "reason": "it is destructive",
        "undo": "ops.restore",
        "needs": [{"who": "operator", "quorum": 2}, {"who": "dba", "quorum": 1}],
        "expires_us": GATE.expires_us,
        "link": LINK,
    }
    assert expected == told("json")


@pytest.mark.req("INBOX-2")
def test_the_message_for_slack() -> None:
    """Header, facts as plain text, arguments and preview as code, one button."""
    expected = {
        "text": "Waits for you: ops.place in office",
        "blocks": [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": "Waits for you: ops.place in office", "emoji": False},
            },
            {"type": "section", "text": {"type": "plain_text", "text": LINES, "emoji": False}},
            {"type": "section", "text": {"type": "mrkdwn", "text": f"```{ARGUMENTS}```", "verbatim": True}},
            {"type": "section", "text": {"type": "mrkdwn", "text": "```shop: v1 -&gt; v2```", "verbatim": True}},
            {
                "type": "actions",
                "elements": [
                    {"type": "button", "text": {"type": "plain_text", "text": "Open and answer"}, "url": LINK}
                ],
            },
        ],
    }
    assert expected == told("slack")


@pytest.mark.req("INBOX-2")
def test_the_message_for_mail() -> None:
    """One line of subject; what is quoted is marked; the HTML has what the text has."""
    expected = {
        "subject": "Waits for you: ops.place in office",
        "text": f'{LINES}\n\n| {{\n|  "service": "shop",\n|  "replicas": 3\n| }}\n\n| shop: v1 -> v2\n\nAnswer: {LINK}',
        "html": "<h1>Waits for you: ops.place in office</h1>"
        f"<pre>{LINES}</pre><pre>{html.escape(ARGUMENTS)}</pre><pre>shop: v1 -&gt; v2</pre>"
        f'<p><a href="{LINK}">Open and answer</a></p>',
    }
    assert expected == told("mail")


@pytest.mark.req("INBOX-2")
def test_no_line_of_an_agents_passes_for_one_of_ours() -> None:
    """A preview that plays the end of the message, and a reason that plays a fact, stay what they are."""
    forged = f"ok\n\nAnswer: https://evil.example/l/x\nneeds: nobody\n{LINK}"
    body = told("mail", reason="tidy\nneeds: nobody\nundo: always", card={"preview": forged})
    lines = body["text"].split("\n")
    assert [f"Answer: {LINK}"] == [line for line in lines if line.startswith("Answer:")]
    assert ["needs: 2 of operator, 1 of dba"] == [line for line in lines if line.startswith("needs:")]
    assert "why: tidy\\nneeds: nobody\\nundo: always" in lines
    facts = told("slack", reason="x\nneeds: nobody")["blocks"][1]["text"]["text"].split("\n")
    assert 5 == len(facts)


@pytest.mark.req("INBOX-2")
@given(st.text(max_size=300))
def test_no_text_leaves_its_place(text: str) -> None:
    """Whatever an agent writes: two fences a code block, no control sign of Slack's in it, no element of its own in the mail."""
    body = told("slack", card={"arguments": {"x": text, text: "x"}, "preview": text})
    for block in body["blocks"]:
        if block["type"] == "section" and block["text"]["type"] == "mrkdwn":
            inside = block["text"]["text"][3:-3]
            assert "```" not in inside
            assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", inside)
    mail = told("mail", card={"arguments": {"x": text}, "preview": text})["html"]
    assert {"h1", "pre", "p", "a"} >= set(re.findall(r"</?([a-zA-Z!][^\s>]*)", mail))


@pytest.mark.req("INBOX-2")
def test_slacks_limits_hold_for_the_longest_action() -> None:
    """A megabyte of arguments: each text within 3,000 characters, the header within 150, and the cut says how much is missing."""
    body = told("slack", tool="t" * 500, card={"arguments": {"x": "&" * 1_000_000}, "preview": "`" * 100_000})
    texts = [block["text"]["text"] for block in body["blocks"] if "text" in block]
    assert len(texts[0]) <= 150
    assert all(len(text) <= 3000 for text in [*texts, body["text"]])
    assert re.search(r"… [\d,]+ more", texts[2])
    assert len(body["blocks"]) <= 50


@pytest.mark.req("INBOX-2")
def test_nothing_that_unicode_calls_invisible_is_left() -> None:
    """Every control, format, separator and unassigned character, and the blank letters, are written as escapes."""
    bad = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    every = (chr(point) for point in range(sys.maxunicode + 1))
    left = [
        char for char in every if unicodedata.category(char) in bad and char not in "\n\t" and visible(char) == char
    ]
    assert [] == left
    for point in (0x00A0, 0x115F, 0x2800, 0x3164, 0xFE0F, 0xE0100, 0x034F):
        assert f"\\u{{{point:x}}}" == visible(chr(point))


@pytest.mark.req("INBOX-4")
def test_enter_in_the_reason_is_no_yes() -> None:
    """A browser presses a form's first button on Enter; that one is disabled, so that only a click on a word is a word."""
    facts = {
        "question": False,
        "card": CARD,
        "tool": "ops.place",
        "reason": "it is destructive",
        "agent": "worker",
        "run": GATE.run,
        "needs": [],
        "arguments": {"x": "</pre><script>alert(1)</script>"},
    }
    page = card_page(facts, principal="ann", until="soon")
    assert "<button disabled hidden></button>" == re.findall(r"<button.*?</button>", page)[0]
    assert "<script" not in page
    assert ["approve", "deny"] == re.findall(r'name="word" value="(\w+)"', page)
