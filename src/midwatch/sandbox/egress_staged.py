"""Egress staged: what a commit sends of the requests that were kept back.

In:   a staged `Request`, its body, the rules and secrets of today. Out: the same request with how it ended.
May import: the broker's other parts. Must not know: who commits, why.
The `Idempotency-Key` is the client's own, or made of the request, so that a host that knows such keys acts once however often a commit is
repeated. What the host answers is read and dropped: nobody who asked is there any more.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from midwatch.config.specs import EgressRule
from midwatch.sandbox.effects import Request
from midwatch.sandbox.egress_book import NO_ANSWER, Record, recorded
from midwatch.sandbox.egress_rules import problem
from midwatch.sandbox.egress_secrets import Pair, Refused, Vault
from midwatch.sandbox.egress_upstream import Failed, Order, Resolve, ask, asked_at, checked, order
from midwatch.sandbox.egress_wire import EgressLimits

__all__ = ["Means", "idempotency_key", "send_staged"]


@dataclass(frozen=True, slots=True)
class Means:
    """What the broker sends with; see `Broker`."""

    clock: Callable[[], int]
    resolve: Resolve
    limits: EgressLimits
    context: Callable[[EgressRule], ssl.SSLContext]
    known: Callable[[str], bool] | None
    record: Record | None


def idempotency_key(request: Request) -> str:
    """Give the key under which a staged request is sent, however often."""
    return hashlib.sha256(json.dumps(request.to_json(), sort_keys=True).encode()).hexdigest()[:32]


async def send_staged(
    request: Request, body: bytes, rules: Sequence[EgressRule], vault: Vault, means: Means
) -> Request:
    """Send one, with the same checks as any other; see the module's head.

    Returns:
        `sent` with the host's status; `refused`: nothing left; `failed`: it may have arrived, so only a host that knows the key
        may be asked again.
    """
    tried = replace(request, at_us=means.clock(), outcome="failed", reason=NO_ANSWER, sent=len(body))
    try:
        found = _ordered(request, body, rules, vault, means.known)
        addresses = await checked(found.allow, means.resolve, means.limits)
        headers = vault.filled(found.allow.rule.headers)
        if not any(name.lower() == "idempotency-key" for name, _ in (*found.headers, *headers)):
            headers.append(("Idempotency-Key", idempotency_key(request)))
        await recorded(means.record, None, tried)
        async with asyncio.timeout(means.limits.exchange_us / 1e6):
            return await _sent(found, addresses, headers, body, tried, means)
    except Refused as refused:
        return replace(tried, outcome="refused", reason=str(refused), sent=0)
    except Failed as failed:
        return replace(tried, reason=str(failed))
    except TimeoutError:
        return replace(tried, reason="the exchange took too long")


def _ordered(
    request: Request, body: bytes, rules: Sequence[EgressRule], vault: Vault, known: Callable[[str], bool] | None
) -> Order:
    if request.outcome != "staged" or request.url is None or request.body != hashlib.sha256(body).hexdigest():
        raise Refused("this is no staged request, or not with its own body")
    for rule in rules:
        wrong = problem(rule)
        if wrong:
            raise Refused(f"egress rule: {wrong}")
    found = order(rules, vault, known, request.method, asked_at(request.url), request.headers)
    if reason := vault.refusal(found.headers, body):
        raise Refused(reason)
    return found


async def _sent(
    found: Order, addresses: Sequence[str], headers: Sequence[Pair], body: bytes, tried: Request, means: Means
) -> Request:
    received = 0
    async with ask(found, addresses, headers, body, means.context(found.allow.rule), means.limits) as response:
        async for data in response.aiter_raw():
            received += len(data)
            if received > means.limits.answer:
                break  # whether it was sent is known; the rest of the answer is nobody's
        return replace(tried, outcome="sent", reason="", status=response.status_code, received=received)
