"""Delivery: tells channels of the questions that wait, until they took it or the question is over.

In:   a store with due notices, the environment, a way to post. Out: how many were taken and not; events that say so.
May import: gates, records, store (port), errors. Must not know: HTTP, who runs the pass.
Why an outbox: the run that asks may be gone before a channel answers. Whoever watches the home (the governor's process, `inbox
serve`, `inbox deliver`) carries the rest on. A channel is told at least once; the notice's id is in the body and in a header.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import orjson

from midwatch.config.fleet import Fleet
from midwatch.config.specs import ChannelSpec
from midwatch.engine.places import about
from midwatch.gates.links import new_link, token_of
from midwatch.gates.messages import Told, message
from midwatch.records.gate import GateRow, Notice
from midwatch.store.port import Store, Tx

__all__ = ["LINKS", "Passed", "Post", "deliver", "keep_channels", "link_key", "pending"]

LINKS: Final = "http://127.0.0.1:8787"
"""Where links lead unless `review.links` says otherwise: `midwatch inbox serve` on this machine."""

_FIRST_US: Final = 5_000_000
_MOST_US: Final = 600_000_000
_KEY: Final = "link-key"

Post = Callable[[str, bytes, Mapping[str, str]], int]
"""Posts a body to an address with headers; gives the status, or raises `OSError` when nothing answered in time."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What one pass did."""

    told: int
    failed: int
    escalated: int


def keep_channels(tx: Tx, fleet: Fleet) -> None:
    """Note where this fleet's channels lead, without secrets: whoever delivers knows only the home."""
    for name, spec in fleet.channels.items():
        body = {**asdict(spec), "links": fleet.review.links or LINKS}
        tx.watch.put(_setting(fleet.name, name), orjson.dumps(body))


def link_key(store: Store) -> bytes:
    """Give the home's own key for links; made once, first writer wins."""
    known = store.read(lambda tx: tx.watch.setting(_KEY))
    if known is None:
        known = store.write(lambda tx: tx.watch.setting(_KEY, secrets.token_bytes(32)), durable=True)
    return known or b""


def pending(store: Store) -> bool:
    """Say whether some open question still has to be told, or will escalate: somebody must stay awake for it."""

    def work(tx: Tx) -> bool:
        return bool(tx.notices.due(2**62, limit=1)) or bool(tx.gates.escalating())

    return store.read(work)


def deliver(store: Store, *, environ: Mapping[str, str], at_us: int, post: Post) -> Passed:
    """Announce escalations whose time has come, then tell every channel that is due.

    Args:
        environ: where `url_env` and `secret_env` are looked up.
    """
    escalated = _escalate(store, at_us)
    told = failed = 0
    for notice in store.read(lambda tx: tx.notices.due(at_us)):
        error = _one(store, notice, environ, at_us, post)
        store.write(lambda tx, notice=notice, error=error: _settle(tx, notice, error, at_us))  # type: ignore[misc]
        told, failed = (told + 1, failed) if error is None else (told, failed + 1)
    return Passed(told, failed, escalated)


def _one(store: Store, notice: Notice, environ: Mapping[str, str], at_us: int, post: Post) -> str | None:
    """Post one notice; gives what went wrong in a few words that name no address, or None."""
    gate = store.read(lambda tx: tx.gates.get(notice.gate))
    run = None if gate is None else store.read(lambda tx: tx.runs.get(gate.run))
    if gate is None or run is None:
        return "its question is gone"
    raw = store.read(lambda tx: tx.watch.setting(_setting(run.fleet, notice.channel)))
    if raw is None:
        return "the fleet names no such channel any more"
    spec = orjson.loads(raw)
    links = spec.pop("links")
    channel = ChannelSpec(**spec)
    url = channel.url or environ.get(channel.url_env or "")
    if not url:
        return f"the variable `{channel.url_env}` is not set where this runs"
    secret = environ.get(channel.secret_env) if channel.secret_env is not None else None
    if channel.secret_env is not None and not secret:
        return f"the variable `{channel.secret_env}` is not set where this runs"
    link = None if channel.principal is None else _link(store, gate, channel.principal, links)
    card = orjson.loads(store.read(lambda tx: tx.blobs.get(gate.card)) or b"{}")
    body = orjson.dumps(message(Told(gate, notice, run.fleet, card, link), channel.format))
    headers = {"content-type": "application/json", "idempotency-key": notice.id}
    if secret:
        headers["x-midwatch-signature"] = _signature(secret, body, at_us)
    try:
        status = post(url, body, headers)
    except OSError as error:
        return f"nothing answered ({type(error).__name__})"
    return None if 200 <= status < 300 else f"it answered {status}"


def _link(store: Store, gate: GateRow, principal: str, base: str) -> str:
    made = new_link(gate, principal=principal)
    store.write(lambda tx: tx.notices.link(made), durable=True)
    return f"{base.rstrip('/')}/l/{token_of(link_key(store), made)}"


def _signature(secret: str, body: bytes, at_us: int) -> str:
    """Sign time and body, so that an old message cannot be sent again unnoticed."""
    stamp = str(at_us // 1_000_000)
    mac = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={mac}"


def _settle(tx: Tx, notice: Notice, error: str | None, at_us: int) -> None:
    gate = tx.gates.get(notice.gate)
    if error is None:
        tx.notices.sent(notice.id, at_us=at_us)
    else:
        wait = min(_FIRST_US << min(notice.attempts, 10), _MOST_US)
        tx.notices.failed(notice.id, next_us=at_us + wait, error=error)
    if gate is not None:
        data = {
            "gate": gate.id,
            "channel": notice.channel,
            "why": notice.why,
            "ok": error is None,
            "attempt": notice.attempts + 1,
            "error": error,
        }
        tx.ledger.append(about(tx, gate.run, "gate.told", data, gate=gate.id, at_us=at_us))


def _escalate(store: Store, at_us: int) -> int:
    """Announce each escalation once; its notices go to the gate's channels again."""

    def work(tx: Tx) -> int:
        done = 0
        for gate in tx.gates.escalating():
            to = [need.escalate.to for need in gate.asks.needs if need.escalate and need.escalate.at_us <= at_us]
            if not to or at_us > gate.expires_us or not tx.gates.escalate(gate.id, at_us=at_us):
                continue
            done += 1
            data = {"gate": gate.id, "digest": gate.digest, "to": to}
            tx.ledger.append(about(tx, gate.run, "gate.escalated", data, gate=gate.id, at_us=at_us))
            for channel in gate.asks.channels:
                name = f"{gate.id}:{gate.nonce}:{channel}:escalated"
                tx.notices.add(Notice(name, gate.id, gate.nonce, channel, "escalated", at_us, at_us))
        return done

    if not store.read(lambda tx: tx.gates.escalating()):
        return 0
    return store.write(work)


def _setting(fleet: str, channel: str) -> str:
    return f"channel:{fleet}:{channel}"
