"""Budgeting: what people say about caps and bills: set, add, put right; and where every scope stands.

In:   a store, a scope, an amount, who speaks. Out: changed accounts, one event each; rows to show.
May import: identity, answering's manners; governor, records, errors; store (port). Must not know: runs under way, commands.
Why a person: a cap is authority. An agent has no name here, and what it says reaches nobody; see `identity`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from midwatch.engine.answering import clean, in_words
from midwatch.engine.identity import present, require
from midwatch.errors import Ambiguous, NotFound, UsageProblem
from midwatch.gates.review import Speaker
from midwatch.governor.budgets import amount, amounts
from midwatch.governor.scopes import base
from midwatch.records.event import Event, EventDraft
from midwatch.records.spend import HELD_UNITS, UNITS, Account, Order, Unit
from midwatch.store.port import Store, Tx

__all__ = ["Amended", "Changed", "history", "reconcile", "resolve_scope", "set_cap", "show", "topup"]

KINDS: Final = ("budget.set", "budget.reconciled", "budget.degraded", "budget.would_stop")
_SHARED: Final = ("fleet:", "vertical:", "agent:", "scope:")


@dataclass(frozen=True, slots=True)
class Changed:
    """A cap before and after; None: nothing bounds it."""

    scope: str
    unit: Unit
    before: int | None
    after: int | None
    seq: int


@dataclass(frozen=True, slots=True)
class Amended:
    """A settled call that was put right, and by how much in each unit."""

    reservation: str
    differences: Mapping[Unit, int]
    seq: int


@dataclass(frozen=True, slots=True)
class _Now:
    """What holds now: the cap, and what was said of the scope in every window (`order`) and in this one (`own`)."""

    cap: int | None
    order: Order
    own: Order


def set_cap(
    store: Store, scope: str, unit: str, value: int | str, *, speaker: Speaker, reason: str = "", at_us: int
) -> Changed:
    """Put a cap in the place of the fleet file's, in this window and later ones, until the file itself says something else.

    Args:
        value: an amount, or `file`: what the file says holds again.

    Raises:
        Denied: it takes an operator. NotFound, Ambiguous: no such scope. UsageProblem: no such unit or amount.
    """
    which = _unit(unit)
    wanted = None if value == "file" else amount(which, value)

    def change(tx: Tx, now: _Now) -> int | None:
        order, added = now.order, now.own.added
        file = order.file if order.cap is not None else (None if now.cap is None else now.cap - added)
        tx.budgets.order(replace(order, file=None if wanted is None else file, cap=wanted))
        held = file if wanted is None else wanted
        return None if held is None else held + added

    return _change(store, scope, which, change, what="set", speaker=speaker, reason=reason, at_us=at_us)


def topup(
    store: Store, scope: str, unit: str, value: int | str, *, speaker: Speaker, reason: str = "", at_us: int
) -> Changed:
    """Add to the cap of one scope, in its present window; a run that stopped there goes on with `midwatch resume`.

    Raises:
        As `set_cap`; UsageProblem also where nothing bounds the scope in that unit.
    """
    which = _unit(unit)
    more = amount(which, value)
    if not more:
        raise UsageProblem("a top-up adds something; name an amount above 0")

    def change(tx: Tx, now: _Now) -> int | None:
        if now.cap is None:
            raise UsageProblem(
                f"nothing bounds {which} of `{now.own.scope}`, so nothing can be added; `budget set` bounds it"
            )
        tx.budgets.order(replace(now.own, added=now.own.added + more))
        return now.cap + more

    return _change(store, scope, which, change, what="topup", speaker=speaker, reason=reason, at_us=at_us)


def _change(
    store: Store,
    scope: str,
    unit: Unit,
    change: Callable[[Tx, _Now], int | None],
    *,
    what: str,
    speaker: Speaker,
    reason: str,
    at_us: int,
) -> Changed:
    words = in_words(reason) if reason else ""

    def work(tx: Tx) -> Changed:
        require(present(tx, speaker), "operator", f"{what} a budget")
        name = resolve_scope(tx, scope)
        account = next((row for row in tx.budgets.accounts([name]) if row.unit == unit), None)
        orders = tx.budgets.orders(sorted({name, base(name)}))
        before = None if account is None else account.cap
        order, own = (orders.get((one, unit), Order(one, unit)) for one in (base(name), name))
        after = change(tx, _Now(before, order, own))
        tx.budgets.set_cap(name, unit, after)
        data = {
            "what": what,
            "scope": name,
            "unit": unit,
            "before": before,
            "after": after,
            "by": speaker.name,
            "channel": speaker.channel,
            "reason": clean(tx, words),
        }
        seq = tx.ledger.append(EventDraft("budget.set", _run_of(tx, name), at_us, data))
        return Changed(name, unit, before, after, seq)

    return store.write(work, durable=True)


def reconcile(
    store: Store, run: str, bills: Iterable[Mapping[str, Any]], *, speaker: Speaker, source: str = "", at_us: int
) -> Sequence[Amended]:
    """Put what the provider says a call truly cost in the place of what was charged, on every scope of its path alike.

    Args:
        bills: one object a call: `effect` (its id, or a prefix), `attempt` (1 unless given), and `cost`, `tokens` as amounts.

    Raises:
        Denied: it takes an operator. NotFound: no such call. UsageProblem: a bill that cannot be read, or a call not settled yet.
    """
    wanted = [(dict(bill), _truth(bill)) for bill in bills]

    def work(tx: Tx) -> list[Amended]:
        require(present(tx, speaker), "operator", "put a bill right")
        row = tx.runs.get(run)
        if row is None:
            raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
        charged = tx.budgets.charged(run)
        done = []
        for bill, truth in wanted:
            name = _reservation(tx, run, bill, charged)
            before = {unit: charged[name].get(unit, 0) for unit in truth}
            differences = tx.budgets.amend(name, truth)
            tx.runs.add_spend(run, differences)
            data = {
                "reservation": name,
                "scope": f"run:{run}",
                "charged": before,
                "truth": dict(truth),
                "differences": dict(differences),
                "source": clean(tx, source),
                "by": speaker.name,
                "channel": speaker.channel,
            }
            done.append(Amended(name, differences, tx.ledger.append(EventDraft("budget.reconciled", run, at_us, data))))
        return done

    return store.write(work, durable=True)


def show(store: Store, scope: str | None = None, *, run: str | None = None) -> Sequence[Account]:
    """Give the accounts of a scope; of a run, with its agents and nodes; or of everything that runs share, in its newest window."""

    def work(tx: Tx) -> list[Account]:
        if run is not None:
            found = [row for kind in ("agent", "node") for row in tx.budgets.accounts(prefix=f"{kind}:{run}/")]
            return [*tx.budgets.accounts([f"run:{run}"]), *found]
        if scope is not None:
            return list(tx.budgets.accounts([resolve_scope(tx, scope)]))
        rows = [row for prefix in _SHARED for row in tx.budgets.accounts(prefix=prefix)]
        rows = [row for row in rows if "@" in row.scope or row.scope.startswith("scope:")]
        newest: dict[str, str] = {}
        for row in rows:
            newest[base(row.scope)] = max(row.scope, newest.get(base(row.scope), ""))
        return [row for row in rows if newest[base(row.scope)] == row.scope]

    return store.read(work)


def history(store: Store, scope: str | None = None) -> Sequence[Event]:
    """Give what happened to caps and bills, oldest first: orders, corrections, ladders, shadows."""

    def work(tx: Tx) -> list[Event]:
        names = None if scope is None else base(resolve_scope(tx, scope))
        found: list[Event] = []
        after = 0
        while batch := tx.ledger.read(after=after, kinds=KINDS, limit=1000):
            after = batch[-1].seq
            found += [each for each in batch if names is None or base(str(each.data.get("scope", ""))) == names]
        return found

    return store.read(work)


def resolve_scope(tx: Tx, text: str) -> str:
    """Find the account that is meant: its name; without its window, the newest; `fleet:`, `vertical:` may be left out; a run's short id.

    Raises:
        NotFound, Ambiguous: none, or several.
    """
    kind, _, rest = text.partition(":")
    if kind in ("run", "agent", "node") and rest:
        run, slash, tail = rest.partition("/")
        with_run = tx.runs.find(run).id if kind == "run" or _is_run(tx, run) else run
        text = f"{kind}:{with_run}{slash}{tail}"
    every = {row.scope for name in _starts(text) for row in tx.budgets.accounts(prefix=name)}
    if text in every:
        return text
    meant = {name for name in every if base(name) in _starts(text)}
    bases = {base(name) for name in meant}
    if len(bases) > 1:
        raise Ambiguous(f"`{text}` fits several scopes: {', '.join(sorted(bases))}; write more of it")
    if not meant:
        raise NotFound(f"no scope `{text}` in this home; `midwatch budget show` lists them")
    return max(meant)


def _starts(text: str) -> tuple[str, ...]:
    return (text,) if ":" in text else (f"fleet:{text}", f"vertical:{text}", f"agent:{text}", f"scope:{text}")


def _is_run(tx: Tx, text: str) -> bool:
    try:
        return bool(tx.runs.find(text).id)
    except (NotFound, Ambiguous):
        return False


def _run_of(tx: Tx, name: str) -> str | None:
    run = name.partition(":")[2].partition("/")[0]
    return run if name.startswith(("run:", "agent:", "node:")) and tx.runs.get(run) is not None else None


def _unit(text: str) -> Unit:
    for unit in UNITS:
        if unit == text:
            return unit
    raise UsageProblem(f"`{text}` is no unit; name one of {', '.join(UNITS)}")


def _truth(bill: Mapping[str, Any]) -> dict[Unit, int]:
    if not isinstance(bill, Mapping) or not isinstance(bill.get("effect"), str):
        raise UsageProblem("each bill is an object with `effect`, and `cost` or `tokens`")
    truth = amounts({unit: bill[unit] for unit in UNITS if unit in bill and unit not in HELD_UNITS})
    if not truth:
        raise UsageProblem(f"the bill of `{bill['effect'][:40]}` names no amount; give `cost` or `tokens`")
    return truth


def _reservation(tx: Tx, run: str, bill: Mapping[str, Any], charged: Mapping[str, Any]) -> str:
    effect = tx.effects.find(bill["effect"])
    attempt = bill.get("attempt", 1)
    name = f"{effect.kind[0]}:{effect.id}:{attempt}"
    if effect.run != run or name not in charged:
        raise NotFound(f"run `{run[:7]}` has no settled attempt {attempt} of `{bill['effect'][:40]}`")
    return name
