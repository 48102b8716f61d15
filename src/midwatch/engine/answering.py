"""Answering: a person's word to a gate: yes, no, an answer in words, a review of a broken glass.

In:   a store, a gate, who speaks, a word, the time. Out: the changed row, and events that say so.
May import: gates, records, store (port), errors. Must not know: the graph, how the word came in.
Why one transaction: whether the word counts, whether enough was said, and what it closes are read and written together,
so that two words at one time cannot both be the deciding one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from midwatch.containment.credentials import SCRUB_KEY, Scrubber
from midwatch.engine.identity import named, present
from midwatch.engine.places import about
from midwatch.errors import Denied, GateNotUsable, NotFound, UsageProblem
from midwatch.gates.review import Refused, Speaker, met, roles_for
from midwatch.records.gate import GateAnswer, GateRow
from midwatch.records.principal import Principal
from midwatch.records.run import RunRow
from midwatch.store.port import Store, Tx

__all__ = ["answer", "answer_batch", "answer_link", "clean", "ended", "expire", "in_words", "review", "standing"]

_LONGEST: Final = 10_000
_LEAST_RANK: Final = "operator"


def answer(
    store: Store,
    gate: str,
    *,
    approve: bool,
    speaker: Speaker,
    reason: str,
    at_us: int,
    value: Mapping[str, Any] | None = None,
    break_glass: bool = False,
) -> GateRow:
    """Say yes or no to a gate. It closes at the first no, and when every need has enough yes.

    Args:
        gate: full id. at_us: now, microseconds UTC.
        value: for a question: `{answer, choice}`; a yes to a question needs it.
        break_glass: answer without the right to; needs a reason, and somebody else's review afterwards.

    Returns:
        The row: `open` while more must speak; its run goes on by `midwatch resume`.

    Raises:
        NotFound: no such gate.
        GateNotUsable: answered, used, too late, spoken to by the same person before, or its run has ended.
        Denied: this person may not. UsageProblem: a question's answer is missing or no choice of it.
    """

    def work(tx: Tx) -> GateRow | None:
        return _answer(
            tx, gate, approve=approve, speaker=speaker, reason=reason, at_us=at_us, value=value, break_glass=break_glass
        )

    return _in_time(store.write(work, durable=True), gate)


def answer_batch(
    store: Store, gate: str, *, approve: bool, speaker: Speaker, reason: str, at_us: int
) -> Sequence[GateRow]:
    """Say the same to every open gate of the very same action (tool, arguments, agent, policy), whatever its run.

    Each keeps its own binding; those whose run has ended, and those that this person spoke to already, are passed over.
    Raises as `answer`; then nothing was said to any of them.
    """

    def work(tx: Tx) -> list[GateRow]:
        first = _row(tx, gate)
        if first.kind == "question" or not first.action:
            raise UsageProblem(f"gate `{gate}` has no batch; answer it alone")
        same = [row for row in tx.gates.list(statuses=("open",), limit=100_000) if row.action == first.action]
        said = [
            _answer(tx, row.id, approve=approve, speaker=speaker, reason=reason, at_us=at_us)
            for row in same
            if at_us <= row.expires_us and _waits_for(tx, row, speaker)
        ]
        return [row for row in said if row is not None]

    rows = store.write(work, durable=True)
    if not rows:
        raise GateNotUsable(f"gate `{gate}` and its like no longer wait for an answer")
    return rows


def answer_link(
    store: Store, link: str, *, approve: bool, reason: str, at_us: int, value: Mapping[str, Any] | None = None
) -> GateRow:
    """Answer by a signed link, with the rights of the person that it was made for; the link is used up with the answer.

    Args:
        link: full id; its signature was checked by the caller (`gates.links`).

    Raises:
        As `answer`; `GateNotUsable` also for a link that was used, is late, or belongs to an earlier asking.
    """

    def work(tx: Tx) -> GateRow | None:
        row = tx.notices.use_link(link, at_us=at_us)
        gate = _row(tx, row.gate)
        if gate.nonce != row.nonce:
            raise GateNotUsable(f"gate `{gate.id}` has asked again since this link was made; use the newer one")
        speaker = named(tx, row.principal, "link")
        return _answer(tx, gate.id, approve=approve, speaker=speaker, reason=reason, at_us=at_us, value=value)

    return _in_time(store.write(work, durable=True), "of this link")


def review(store: Store, gate: str, by: str, *, speaker: Speaker, text: str, at_us: int) -> None:
    """Review an answer that `by` gave to `gate` by breaking the glass.

    Raises:
        NotFound: no such answer waits for a review. Denied: it takes an approver, and somebody else.
    """

    def work(tx: Tx) -> None:
        found = [item for item in tx.gates.unreviewed() if item.gate == gate and item.by == by]
        if not found:
            raise NotFound(f"no answer of `{by}` to gate `{gate}` waits for a review")
        who, words = present(tx, speaker), clean(tx, in_words(text))
        if who.principal is None or not who.has("approver") or who.name == by:
            raise Denied("a broken glass is reviewed by an approver, and not by whoever broke it")
        for item in found:
            tx.gates.review(gate, item.nonce, by, reviewer=speaker.name, text=words, at_us=at_us)
        row = _row(tx, gate)
        data = {"gate": gate, "by": by, "reviewer": speaker.name, "text": words}
        tx.ledger.append(about(tx, row.run, "gate.reviewed", data, gate=gate, at_us=at_us))

    store.write(work, durable=True)


def ended(row: GateRow, run: RunRow) -> bool:
    """Say whether a run's end took its gate with it.

    A run's changes may wait for their commit long after its end.

    What is made up outlives the end: whoever answers the real question first lets the run end before they come to it, and a
    refusal then would tell which it was.
    """
    return run.status == "cancelled" or (run.status == "done" and row.kind not in ("canary", "release"))


def expire(tx: Tx, at_us: int) -> None:
    """Close every gate that nobody answered in time, each with its event."""
    for gate in tx.gates.expire(at_us):
        row = tx.gates.get(gate)
        if row is not None:
            data = {"gate": gate, "digest": row.digest}
            tx.ledger.append(about(tx, row.run, "gate.expired", data, gate=gate, at_us=at_us))


def _answer(
    tx: Tx,
    gate: str,
    *,
    approve: bool,
    speaker: Speaker,
    reason: str,
    at_us: int,
    value: Mapping[str, Any] | None = None,
    break_glass: bool = False,
) -> GateRow | None:
    """Record one word; None when the gate was late, which is committed as its expiry."""
    row, speaker, reason = _row(tx, gate), present(tx, speaker), clean(tx, in_words(reason))
    if row.status == "open" and at_us > row.expires_us:
        expire(tx, at_us)
        return None
    run = tx.runs.get(row.run)
    if run is None or ended(row, run):
        status = "gone" if run is None else run.status
        raise GateNotUsable(f"run `{row.run[:7]}` is {status}, so gate `{gate}` no longer waits for an answer")
    if row.status != "open":
        raise GateNotUsable(f"gate `{gate}` is {row.status} already; the first answer counts")
    roles = _counted(row, speaker, approve=approve, at_us=at_us, reason=reason, break_glass=break_glass)
    body = _value(tx, row, value, speaker) if approve else None
    word = GateAnswer(
        gate=gate,
        nonce=row.nonce,
        by=speaker.name,
        word="approve" if approve else "deny",
        roles=",".join(roles) if approve else "",
        reason=reason,
        at_us=at_us,
        channel=speaker.channel,
        break_glass=break_glass,
    )
    tx.gates.say(word)
    said = {"gate": gate, "digest": row.digest, "approved": approve, "by": speaker.name, "reason": reason}
    how = {
        "channel": speaker.channel,
        "roles": list(roles),
        "break_glass": break_glass,
        "waited_us": at_us - row.opened_us,
    }
    seq = tx.ledger.append(about(tx, row.run, "gate.said", said | how, gate=gate, at_us=at_us))
    words = standing(tx, row)
    if approve and not met(row, words):
        return row
    by = ", ".join(dict.fromkeys(item.by for item in words if item.word == word.word))
    closed = tx.gates.answer(gate, approve=approve, by=by, reason=reason, at_us=at_us, answer=body)
    place = about(tx, row.run, "gate.answered", said | {"by": by}, gate=gate, at_us=at_us)
    tx.ledger.append(replace(place, causes=(*place.causes, seq)))
    if row.kind == "canary":
        missed = approve and row.edited_by is None  # who changed it has read it
        tx.ledger.append(
            about(tx, row.run, "canary.answered", {"gate": gate, "missed": missed, "by": by}, gate=gate, at_us=at_us)
        )
    return closed


def _waits_for(tx: Tx, row: GateRow, speaker: Speaker) -> bool:
    """Say whether a gate of a batch can hear this person: its run goes on, and they have not spoken to it yet."""
    run = tx.runs.get(row.run)
    return (
        run is not None
        and not ended(row, run)
        and all(word.by != speaker.name for word in tx.gates.said(row.id, row.nonce))
    )


def in_words(reason: str) -> str:
    """Give a reason that can be kept. UsageProblem: it is too long, or holds bytes that are no text."""
    if len(reason) > _LONGEST:
        raise UsageProblem(f"the reason is longer than {_LONGEST:,} characters; say it in fewer words")
    try:
        reason.encode()
    except UnicodeEncodeError as error:
        raise UsageProblem("the reason holds bytes that are no UTF-8 text; write it anew") from error
    return reason


def clean(tx: Tx, text: str) -> str:
    """Replace credentials in what a person wrote, as everywhere else, before it reaches the ledger or an agent."""
    key = tx.watch.setting(SCRUB_KEY)
    return text if key is None else Scrubber(key).text(text)[0]


def standing(tx: Tx, row: GateRow) -> list[GateAnswer]:
    """Give the words to this asking that count now, each with the roles that it still counts for.

    Whoever was disabled, lost a role or no longer reaches the tool does not count for it any more; nor does a word without a
    token once the home knows people. A word that came in by escalation is judged by the time at which it was said.
    """
    words = tx.gates.said(row.id, row.nonce)
    if not tx.principals.list():
        return list(words)
    found = []
    for word in words:
        roles = [] if word.word != "approve" else _kept(row, word, tx.principals.get(word.by))
        if roles or word.word != "approve":
            found.append(replace(word, roles=",".join(roles)))
    return found


def _kept(row: GateRow, word: GateAnswer, person: Principal | None) -> list[str]:
    if person is None or person.disabled_us is not None:
        return []
    given = word.roles.split(",")
    if word.break_glass:
        return given if person.has(_LEAST_RANK) else []
    now = roles_for(row, Speaker(person.name, person, word.channel), approve=True, at_us=word.at_us)
    return [] if isinstance(now, Refused) else [role for role in given if role in now]


def _counted(
    row: GateRow, speaker: Speaker, *, approve: bool, at_us: int, reason: str, break_glass: bool
) -> tuple[str, ...]:
    if break_glass:
        if speaker.principal is None:
            raise UsageProblem(
                "there is no glass to break: this home knows nobody by token, so an ordinary yes will do"
            )
        if not approve or not reason.strip():
            raise UsageProblem("breaking the glass is a yes, and needs `--reason`")
        if not speaker.has(_LEAST_RANK):
            raise Denied(f"`{speaker.name}` may not break the glass; it takes the role `{_LEAST_RANK}`")
        return tuple(dict.fromkeys(need.who for need in row.asks.needs))
    counted = roles_for(row, speaker, approve=approve, at_us=at_us)
    if isinstance(counted, Refused):
        raise Denied(counted.reason)
    return counted


def _value(tx: Tx, row: GateRow, value: Mapping[str, Any] | None, speaker: Speaker) -> str | None:
    """Keep the answer to a question; everything else takes none."""
    if row.kind != "question":
        if value is not None:
            raise UsageProblem(f"gate `{row.id}` asks for yes or no, not for an answer in words")
        return None
    card = orjson.loads(tx.blobs.get(row.card) or b"{}")
    choices = card.get("arguments", {}).get("choices", [])
    text, choice = (value or {}).get("answer", ""), (value or {}).get("choice")
    if choice is None and text in choices:
        choice = text
    if not isinstance(text, str) or not (text or choice) or len(text) > _LONGEST:
        raise UsageProblem(f"gate `{row.id}` is a question; answer it in words, at most {_LONGEST:,} characters")
    if choice is not None and choice not in choices:
        raise UsageProblem(f"`{choice}` is none of the choices: {', '.join(choices) or 'there are none'}")
    said = clean(tx, text) if text else choice
    return tx.blobs.put(orjson.dumps({"answer": said, "choice": choice, "by": speaker.name}))


def _row(tx: Tx, gate: str) -> GateRow:
    row = tx.gates.get(gate)
    if row is None:
        raise NotFound(f"no gate `{gate}` in this home; `midwatch inbox ls` lists those that wait")
    return row


def _in_time(row: GateRow | None, gate: str) -> GateRow:
    if row is None:  # raised out here, so that the expiry itself is committed
        raise GateNotUsable(f"gate `{gate}` has expired, which counts as no; `midwatch resume` tells the agent so")
    return row
