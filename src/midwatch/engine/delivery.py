"""Delivery: tells channels of the questions that wait, until they took it or the question is over.

In:   a store with due notices, the environment, a way to post. Out: how many were taken and not; events that say so.
May import: gates, records, store (port), `answering`, errors. Must not know: HTTP, who runs the pass.
Why an outbox: the run that asks may be gone before a channel answers. Whoever watches the home (the governor's process, `inbox
serve`, `inbox deliver`) carries the rest on. A channel is told at least once; the notice's id is in the body and in a header.
Why a claim: two processes may watch one home. One of them sends; if it dies meanwhile, the notice is due again `_CLAIM_US` later.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson

from midwatch.config.fleet import Fleet
from midwatch.config.specs import ChannelSpec
from midwatch.engine import answering
from midwatch.engine.places import about
from midwatch.gates.links import new_link, token_of
from midwatch.gates.messages import Told, message
from midwatch.records.gate import GateRow, Notice
from midwatch.records.run import RunRow
from midwatch.store.port import Store, Tx

__all__ = ["LINKS", "Passed", "Post", "deliver", "keep_channels", "kept", "link_key", "setting_of"]

LINKS: Final = "http://127.0.0.1:8787"
"""Where links lead unless `review.links` says otherwise: `midwatch inbox serve` on this machine."""

_FIRST_US: Final = 5_000_000
_MOST_US: Final = 600_000_000
_CLAIM_US: Final = 30_000_000
_PASS_US: Final = 5_000_000
"""How long one channel is told in one pass; with `_AT_ONCE` channels at a time a pass has an end, however slow they are."""

_AT_ONCE: Final = 8
_KEY: Final = "link-key"
_OVER: Final = ("done", "cancelled")

Post = Callable[[str, bytes, Mapping[str, str]], int]
"""Posts a body to an address with headers; gives the status, or raises `OSError` when nothing answered in time."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What one pass did.

    Attributes:
        failed: not taken, tried again later. owed: an open question still has to be told, now or when it escalates.
    """

    told: int
    failed: int
    escalated: int
    owed: bool


@dataclass(frozen=True, slots=True)
class _Sender:
    """What a pass is made with; `clock` gives microseconds UTC."""

    store: Store
    environ: Mapping[str, str]
    clock: Callable[[], int]
    post: Post
    over: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Target:
    """Where one channel is; `secret` signs the body, None: unsigned."""

    channel: ChannelSpec
    links: str
    url: str
    secret: str | None


class _NotHereError(Exception):
    """This process cannot tell the channel: the message says what it lacks. Another one may, so nothing counts as tried."""


def keep_channels(tx: Tx, fleet: Fleet) -> None:
    """Note where this fleet's channels lead, without secrets: whoever delivers knows only the home."""
    for name, spec in fleet.channels.items():
        tx.watch.put(setting_of(fleet.name, name), kept(fleet, spec))


def kept(fleet: Fleet, spec: ChannelSpec) -> bytes:
    """Give what is noted of a channel."""
    return orjson.dumps({**asdict(spec), "links": fleet.review.links or LINKS})


def link_key(store: Store) -> bytes:
    """Give the home's own key for links; made once, first writer wins."""
    known = store.read(lambda tx: tx.watch.setting(_KEY))
    if known is None:
        known = store.write(lambda tx: tx.watch.setting(_KEY, secrets.token_bytes(32)), durable=True)
    return known or b""


def deliver(
    store: Store,
    *,
    environ: Mapping[str, str],
    clock: Callable[[], int],
    post: Post,
    over: Callable[[], bool] = lambda: False,
) -> Passed:
    """Close what is late, announce escalations whose time has come, then tell every channel that is due.

    Args:
        environ: where `url_env` and `secret_env` are looked up. clock: microseconds UTC; read again for each message.
        over: asked before each message; true ends the pass.
    """
    sender = _Sender(store, environ, clock, post, over)
    now = clock()
    if store.read(lambda tx: tx.gates.overdue(now)):
        store.write(lambda tx: answering.expire(tx, now))
    escalated, ahead = _escalate(store, now)
    channels: dict[tuple[str, str], list[Notice]] = {}
    for notice in store.read(lambda tx: tx.notices.due(now, limit=1000)):
        run = store.read(lambda tx, notice=notice: _run(tx, notice))  # type: ignore[misc]
        channels.setdefault(("" if run is None else run.fleet, notice.channel), []).append(notice)
    told = failed = 0
    if channels:
        with ThreadPoolExecutor(min(_AT_ONCE, len(channels)), "midwatch-channel") as pool:
            for taken, not_taken in pool.map(lambda notices: _channel(sender, notices), channels.values()):
                told, failed = told + taken, failed + not_taken
    return Passed(told, failed, escalated, ahead or store.read(lambda tx: tx.notices.owed(clock())))


def _channel(sender: _Sender, notices: Sequence[Notice]) -> tuple[int, int]:
    """Tell one channel in turn; the first time that nothing answers, the rest waits as long as that one."""
    told = failed = 0
    until = sender.clock() + _PASS_US
    for place, notice in enumerate(notices):
        if sender.over() or sender.clock() > until:
            break
        error, silent = _one(sender, notice)
        if error is None:
            told += 1
        elif error:
            failed += 1
        if silent:
            _put_off(sender, notices[place + 1 :], error or "")
            break
    return told, failed


def _one(sender: _Sender, notice: Notice) -> tuple[str | None, bool]:
    """Tell one notice.

    Returns:
        None when it was taken; empty when there was nothing to do; else what went wrong, in a few words that name no address.
        And whether nothing answered at all.
    """
    gate, run = sender.store.read(lambda tx: (tx.gates.get(notice.gate), _run(tx, notice)))
    if gate is None or gate.nonce != notice.nonce or run is None:
        return "", False
    if run.status in _OVER:
        late = gate.expires_us + 1
        sender.store.write(lambda tx: tx.notices.failed(notice.id, next_us=late, error="its run is over"))
        return "", False
    try:
        target = _target(sender, run, notice)
    except _NotHereError as lacks:
        return _untried(sender, notice, str(lacks)), False
    begun = sender.clock()
    if not sender.store.write(lambda tx: tx.notices.claim(notice.id, at_us=begun, until_us=begun + _CLAIM_US)):
        return "", False
    body, headers = _written(sender, target, Told(gate, notice, run.fleet, {}, None), begun)
    try:
        status = sender.post(target.url, body, headers)
    except OSError:
        return _settle(sender, notice, "nothing answered"), True
    return _settle(sender, notice, None if 200 <= status < 300 else f"it answered {status}"), False


def _target(sender: _Sender, run: RunRow, notice: Notice) -> _Target:
    raw = sender.store.read(lambda tx: tx.watch.setting(setting_of(run.fleet, notice.channel)))
    if raw is None:
        raise _NotHereError("the fleet names no such channel any more")
    channel, links = _spec(raw)
    url = channel.url or _variable(sender.environ, channel.url_env)
    secret = None if channel.secret_env is None else _variable(sender.environ, channel.secret_env)
    return _Target(channel, links, url, secret)


def _written(sender: _Sender, target: _Target, told: Told, at_us: int) -> tuple[bytes, dict[str, str]]:
    """Write body and headers; each try has a link of its own, since the last one may have been read."""
    store, gate, person = sender.store, told.gate, target.channel.principal
    link = None if person is None else _link(store, gate, person, target.links)
    card = orjson.loads(store.read(lambda tx: tx.blobs.get(gate.card)) or b"{}")
    body = orjson.dumps(message(replace(told, card=card, link=link), target.channel.format))
    headers = {"content-type": "application/json", "idempotency-key": told.notice.id}
    if target.secret is not None:
        headers["x-midwatch-signature"] = _signature(target.secret, body, at_us)
    return body, headers


def _spec(raw: bytes) -> tuple[ChannelSpec, str]:
    try:
        spec: dict[str, Any] = orjson.loads(raw)
        links = str(spec.pop("links"))
        return ChannelSpec(**spec), links
    except (ValueError, TypeError, KeyError) as error:
        raise _NotHereError("what another version noted of this channel cannot be read; start a run anew") from error


def _variable(environ: Mapping[str, str], name: str | None) -> str:
    value = environ.get(name or "")
    if not value:
        raise _NotHereError(f"the variable `{name}` is not set where this runs")
    return value


def _run(tx: Tx, notice: Notice) -> RunRow | None:
    gate = tx.gates.get(notice.gate)
    return None if gate is None else tx.runs.get(gate.run)


def _link(store: Store, gate: GateRow, principal: str, base: str) -> str:
    made = new_link(gate, principal=principal)
    store.write(lambda tx: tx.notices.link(made), durable=True)
    return f"{base.rstrip('/')}/l/{token_of(link_key(store), made)}"


def _signature(secret: str, body: bytes, at_us: int) -> str:
    """Sign time and body, so that an old message cannot be sent again unnoticed."""
    stamp = str(at_us // 1_000_000)
    mac = hmac.new(secret.encode("utf-8", "surrogateescape"), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={mac}"


def _settle(sender: _Sender, notice: Notice, error: str | None) -> str | None:
    """Keep what came of a try, with its event. Gives `error` back."""
    now = sender.clock()

    def work(tx: Tx) -> None:
        if error is None:
            tx.notices.sent(notice.id, at_us=now)
        else:
            tx.notices.failed(notice.id, next_us=now + _wait(notice), error=error)
        _record(tx, notice, error, now)

    sender.store.write(work)
    return error


def _untried(sender: _Sender, notice: Notice, error: str) -> str:
    """Say once that this process cannot; the notice stays due, for another one may be able to. Gives `error` back."""
    now = sender.clock()

    def work(tx: Tx) -> None:
        if _untouched(tx, notice):
            tx.notices.failed(notice.id, next_us=notice.next_us, error=error)
            _record(tx, notice, error, now)

    if notice.error is None:
        sender.store.write(work)
    return error


def _record(tx: Tx, notice: Notice, error: str | None, at_us: int) -> None:
    gate = tx.gates.get(notice.gate)
    if gate is None:
        return
    data = {
        "gate": gate.id,
        "channel": notice.channel,
        "why": notice.why,
        "ok": error is None,
        "attempt": notice.attempts + 1,
        "error": error,
    }
    tx.ledger.append(about(tx, gate.run, "gate.told", data, gate=gate.id, at_us=at_us))


def _put_off(sender: _Sender, notices: Sequence[Notice], error: str) -> None:
    """Let the rest wait as well: a channel that does not answer must not take a time-out for each."""
    now = sender.clock()

    def work(tx: Tx) -> None:
        for notice in notices:
            if _untouched(tx, notice):
                tx.notices.failed(notice.id, next_us=now + _wait(notice), error=error)

    if notices:
        sender.store.write(work)


def _untouched(tx: Tx, notice: Notice) -> bool:
    """Say whether nobody claimed, sent or put off a notice since it was read."""
    return notice in tx.notices.list(notice.gate)


def _wait(notice: Notice) -> int:
    return min(_FIRST_US << min(notice.attempts, 10), _MOST_US)


def _escalate(store: Store, at_us: int) -> tuple[int, bool]:
    """Announce each escalation once, to the gate's channels again; gives how many, and whether more are ahead."""
    waiting = [gate for gate in store.read(lambda tx: tx.gates.escalating()) if at_us <= gate.expires_us]
    due = [gate for gate in waiting if _to(gate, at_us)]

    def announce(tx: Tx, gate: GateRow) -> bool:
        now = tx.gates.get(gate.id)
        run = tx.runs.get(gate.run)
        if now is None or now.nonce != gate.nonce or run is None or run.status in _OVER:
            return False
        if not tx.gates.escalate(gate.id, at_us=at_us):
            return False
        data = {"gate": gate.id, "digest": gate.digest, "to": _to(gate, at_us)}
        tx.ledger.append(about(tx, gate.run, "gate.escalated", data, gate=gate.id, at_us=at_us))
        for channel in gate.asks.channels:
            name = f"{gate.id}:{gate.nonce}:{channel}:escalated"
            tx.notices.add(Notice(name, gate.id, gate.nonce, channel, "escalated", at_us, at_us))
        return True

    done = store.write(lambda tx: sum(announce(tx, gate) for gate in due)) if due else 0
    return done, len(waiting) > len(due)


def _to(gate: GateRow, at_us: int) -> list[str]:
    return [need.escalate.to for need in gate.asks.needs if need.escalate and need.escalate.at_us <= at_us]


def setting_of(fleet: str, channel: str) -> str:
    """Name the note of one channel."""
    return f"channel:{fleet}:{channel}"
