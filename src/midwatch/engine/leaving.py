"""Leaving: whose words a commit carries, and whether it may go without a person.

In:   a planned commit, the fleet, its tools; the ledger. Out: the label of all that leaves; `Ask` where somebody must say yes, or None.
May import: containment, config, records, tools, `containing`, `planned`, `trails`; store (port). Must not know: how files are written.

    nobody ordered it, the fleet enforces → per call that left something: all causes have the reach of whoever executes it there,
                                            or one grant bound where all of it lies
                                          → else people are asked, beside whatever the gates' rules ask

Who executes it is what the fleet says of the place (`containment.commits`); of any other, and of what is sent, whoever has most rights.

Why the observed paths and not the arguments: a grant binds what a call names; what leaves is what it did. Why a person's own order asks
nobody: it is theirs, and they see what it carries.
Source: CONTAINMENT.md, clauses 3, 20, 26.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

from midwatch.config.fleet import Fleet
from midwatch.containment import policies
from midwatch.containment.explain import Lack
from midwatch.containment.policies import slot
from midwatch.containment.reach import CONTROL, Reach
from midwatch.containment.slots import accepts
from midwatch.engine.planned import Planned
from midwatch.engine.staged import Staged
from midwatch.engine.trails import label_of
from midwatch.gates.rules import besides
from midwatch.records.decision import Allowed, Ask
from midwatch.records.gate import Need, Terms
from midwatch.records.label import UNKNOWN, Cause, Label, join
from midwatch.sandbox.effects import CHANGING
from midwatch.store.port import Store
from midwatch.tools.registry import Registry

__all__ = ["asked", "carried", "lacks"]

_SHOWN: Final = 3
_STRONGEST: Final = "operator"
_ANYWHERE: Final = frozenset({"*", "**", "/**", "**/*", "*/**"})


def carried(store: Store, found: Planned) -> Label:
    """Join the labels of the calls whose changes and requests leave; what cannot be read is unknown."""
    try:
        return join(*(label for _, label in _labelled(store, found)))
    except Exception:  # noqa: BLE001  # whether it may go is judged by `asked`; here it is only written down
        return UNKNOWN


def lacks(store: Store, fleet: Fleet, registry: Registry, found: Planned) -> tuple[Lack, ...]:
    """Give the causes, each once, that may not bring this commit about."""
    run = store.read(lambda tx: tx.runs.get(found.order.run))
    reach = Reach(requester=None if run is None else run.asked_by or None)
    rights = Reach(policies.rights(fleet, registry))
    missing = {
        cause: None
        for item, label in _labelled(store, found)
        if not _bound(fleet, registry, found, item)
        for executor in sorted(_executors(fleet, found, item))
        for cause in sorted(label.causes)
        if not reach.has(cause) and not _lesser(fleet, registry, rights, executor, cause)
    }
    return tuple(Lack(CONTROL, CONTROL, cause) for cause in missing)


def asked(store: Store, fleet: Fleet, registry: Registry, found: Planned, ruled: Ask | None) -> Ask | None:
    """Ask beside what the gates' rules ask; what cannot be judged is asked, too."""
    spec = fleet.containment
    if spec.mode != "enforce" or found.order.speaker is not None:
        return ruled
    try:
        chain = lacks(store, fleet, registry, found)
        names = ", ".join(f"`{lack.cause}`" for lack in chain[:_SHOWN])
        why = f"{names} may have led to what the run changed" if chain else ""
    except Exception as fault:  # noqa: BLE001  # a guard that fails must not let pass
        why = f"whose words led to what the run changed could not be told ({type(fault).__name__})"
    if not why:
        return ruled
    reason = f"{why}, and may not bring about its commit"
    need = Terms((Need("containment", spec.ask),))
    return besides(ruled or Allowed("seen"), Ask(reason, "containment", spec.ask, spec.timeout_us, need))


def _labelled(store: Store, found: Planned) -> list[tuple[Staged, Label]]:
    """Give each call of which something leaves, with the label of what it made."""
    paths = set(found.paths)
    sending = {item.seq for item, _ in found.kept}
    leaving = [item for item in found.held if item.seq in sending or _paths(item) & paths]
    return store.read(lambda tx: [(item, label_of(tx, item.seq)) for item in leaving])


def _bound(fleet: Fleet, registry: Registry, found: Planned, item: Staged) -> bool:
    """Say whether one grant bound in advance where all lies that a call changed; a request that was kept lies nowhere."""
    if any(kept.seq == item.seq for kept, _ in found.kept) or item.tool not in registry.names():
        return False
    contract, mine = registry.get(item.tool).contract, _paths(item) & set(found.paths)
    grants = (
        grant
        for grant in fleet.grants
        if any(fnmatchcase(f"agent:{item.agent}", who) for who in grant.who)
        and any(fnmatchcase(item.tool, may) for may in grant.may)
    )
    return any(
        all(any(accepts(slot(glob, "path"), path, "path") for glob in globs) for path in mine)
        for grant in grants
        for name, globs in grant.where.items()
        if contract.arg(name).role == "target" and not _ANYWHERE & set(globs)
    )


def _executors(fleet: Fleet, found: Planned, item: Staged) -> set[str]:
    """Give who executes what a call leaves; where nothing is said of a path, and for a request, it is the strongest there is."""
    if any(kept.seq == item.seq for kept, _ in found.kept):
        return {_STRONGEST}
    said: set[str] = set()
    for path in _paths(item) & set(found.paths):
        fits = [
            target.executed_by
            for target in fleet.containment.commits
            if any(accepts(slot(glob, "path"), path, "path") for glob in target.paths)
        ]
        said.update(fits or [_STRONGEST])
    return said


def _lesser(fleet: Fleet, registry: Registry, rights: Reach, executor: str, cause: Cause) -> bool:
    """Say whether whoever executes it can do no more than its cause may bring about: nobody can do nothing, an agent what its tools do."""
    kind, _, name = executor.partition(":")
    if kind == "nobody":
        return True
    if kind != "agent" or name not in fleet.agents:
        return False
    sandbox = fleet.sandbox_of(name)
    inside = sandbox.backend != "process" and not sandbox.egress
    contracts = (registry.get(tool).contract for tool in registry.names())
    return all(
        all(rights.may(cause, contract.name, role, arguments={}) is not None for role in (CONTROL, "command"))
        for contract in contracts
        if contract.effect != "pure"
        and not (contract.runs == "sandbox" and inside)
        and any(fnmatchcase(contract.name, glob) for glob in fleet.agents[name].tools)
    )


def _paths(item: Staged) -> set[str]:
    return {change.path for change in item.layer.changes if change.op in CHANGING}
