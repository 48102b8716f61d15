"""Links and messages: a token that was not made here opens nothing; what an agent wrote steers no channel."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.gates.links import BadLink, new_link, open_token, token_of
from midwatch.gates.messages import Told, message, visible
from midwatch.records.gate import GateRow, Link, Need, Notice, Terms

KEY = b"k" * 32
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
    terms=Terms((Need("gates[0]", "operator", 2),), ("ops",)).to_text(),
)
LINK = new_link(GATE, principal="ann")
NOTICE = Notice("9:n:ops:opened", GATE.id, GATE.nonce, "ops", "opened", 1, 1)
NASTY = "<!channel> <@U1> <https://evil.example|click> ``` \u202egnp.exe\u200b & </pre><script>x</script>"


def find(*links: Link) -> Callable[[str], Link | None]:
    """Give a lookup of these links."""
    return {link.id: link for link in links}.get


@pytest.mark.req("INBOX-1")
def test_a_token_leads_to_its_link() -> None:
    """The row comes back; two links to one gate are two tokens, and a token says nothing of what it is for."""
    token = token_of(KEY, LINK)
    assert LINK == open_token(KEY, token, find(LINK))
    assert token != token_of(KEY, new_link(GATE, principal="ann"))
    assert not any(word in token for word in ("ann", GATE.id, GATE.nonce))


@pytest.mark.req("INBOX-1")
@pytest.mark.parametrize(
    "changed",
    [
        replace(LINK, gate="8" * 16),
        replace(LINK, nonce="m" * 32),
        replace(LINK, principal="bob"),
        replace(LINK, expires_us=LINK.expires_us + 1),
    ],
)
def test_a_row_that_was_changed_does_not_open(changed: Link) -> None:
    """The signature is over everything that the row says: whoever can edit the row cannot redirect the link."""
    with pytest.raises(BadLink):
        open_token(KEY, token_of(KEY, LINK), find(changed))


@pytest.mark.req("INBOX-1")
def test_every_forged_token_is_the_same_error() -> None:
    """Another key, a flipped bit at each place, cut, padded, joined, empty: one error, one message."""
    token = token_of(KEY, LINK)
    left, _, right = token.partition(".")
    forged = [token_of(b"x" * 32, LINK), "", ".", left, f"{left}.", f".{right}", f"{token}=", f"{token}A", token[:-1]]
    forged += [f"{left}.{right}.{right}", token.upper(), token.replace("-", "+").replace("_", "/") + " ", "é" * 66]
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        forged.append(token[:place] + other + token[place + 1 :])
    said = set()
    for item in forged:
        if item == token:
            continue
        with pytest.raises(BadLink) as refused:
            open_token(KEY, item, find(LINK))
        said.add(str(refused.value))
    assert 1 == len(said)


@pytest.mark.req("INBOX-1")
@given(st.text(max_size=100))
def test_no_text_opens_a_link_or_breaks_the_reader(text: str) -> None:
    """Whatever stands in the address, the answer is no."""
    with pytest.raises(BadLink):
        open_token(KEY, text, find(LINK))


def told(form: Any, card: dict[str, Any], *, link: str | None = "http://127.0.0.1:1/l/t") -> dict[str, Any]:
    """Make a message."""
    return message(Told(GATE, NOTICE, "office", card, link), form)


CARD = {"effect": "destructive", "arguments": {"service": NASTY}, "preview": NASTY, "reversible": "ops.restore"}


@pytest.mark.req("INBOX-2")
def test_programs_are_told_the_whole_question() -> None:
    """The documented keys, the arguments unchanged, the id that makes a repetition known as one."""
    body = told("json", CARD)
    assert {
        "id", "gate", "run", "fleet", "why", "question", "tool", "effect", "agent", "arguments", "preview", "reason", "undo",
        "needs", "expires_us", "link",
    } == set(body)  # fmt: skip
    assert (NOTICE.id, {"service": NASTY}, [{"who": "operator", "quorum": 2}]) == (
        body["id"],
        body["arguments"],
        body["needs"],
    )


@pytest.mark.req("INBOX-2")
def test_slack_is_told_without_pings_links_or_hidden_characters() -> None:
    """Control characters of its markup are escaped, a code block cannot be left, bidi marks are seen, limits are kept."""
    body = told("slack", CARD)
    texts = [block["text"]["text"] for block in body["blocks"] if "text" in block]
    joined = "\n".join([*texts, body["text"]])
    assert not any(sign in joined for sign in ("<!", "<@", "<http", "\u202e", "\u200b"))
    assert "\\u{202e}" in joined
    assert all(text.count("```") in (0, 2) for text in texts)
    assert ["http://127.0.0.1:1/l/t"] == [item["url"] for block in body["blocks"] for item in block.get("elements", ())]
    huge = told("slack", {**CARD, "arguments": {"service": "<" * 100_000}})
    assert all(len(block["text"]["text"]) <= 3000 for block in huge["blocks"] if "text" in block)
    assert "actions" not in [block["type"] for block in told("slack", CARD, link=None)["blocks"]]


@pytest.mark.req("INBOX-2")
def test_mail_is_told_without_markup_of_the_agents() -> None:
    """The subject is one line, the HTML has no element of the agent's, and the text says the same."""
    body = told("mail", CARD)
    assert "\n" not in body["subject"]
    assert "<script>" not in body["html"]
    assert "</pre><script" not in body["html"]
    assert "&lt;script&gt;" in body["html"]
    assert "Answer: http://127.0.0.1:1/l/t" in body["text"]
    assert "href" not in told("mail", CARD, link=None)["html"]


@pytest.mark.req("INBOX-2")
@given(st.text(max_size=200))
def test_nothing_invisible_is_left(text: str) -> None:
    """No control, bidi, zero-width or tag character survives, and plain text is untouched."""
    shown = visible(text)
    assert not any(point in shown for point in ("\u202e", "\u2066", "\u200b", "\x1b", "\U000e0041", "\x9b"))
    assert "plain text, naïve café 中文" == visible("plain text, naïve café 中文")
    assert shown == json.loads(json.dumps(shown))
