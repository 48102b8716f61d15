"""Registry: all detectors, and the one question: what does this effect grant, before it leaves the sandbox?

In:   an effect; the detectors that Midwatch, installed packages and the fleet's own files bring. Out: `Judged`.
May import: facts, every detector, the watch-list. Must not know: who asks, what becomes of the answer.

    every detector that is responsible  ->  findings;  one that fails, or cannot read it  ->  it counts as granting
    nothing found, but it is on the watch-list, or a request, a statement, a command      ->  it counts as granting

A package brings detectors by the entry point group `midwatch.authority`: each names a `Detector` or a list of them. One that does not load
is a detector that fails: on every effect. A detector can add findings, and prove inert what no other knows; it takes no finding away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import metadata
from types import ModuleType
from typing import Final

from midwatch.containment.authority import (
    accounts,
    agents,
    ci,
    commands,
    containers,
    gitrepo,
    kube,
    modes,
    network,
    packages,
    registries,
    services,
    sql,
    ssh,
    startup,
)  # fmt: skip
from midwatch.containment.authority.facts import (
    UNKNOWN,
    Detector,
    Effect,
    File,
    Finding,
    Granted,
    Inert,
    Judged,
    Unreadable,
    all_of,
    granted,
    resource_of,
)  # fmt: skip
from midwatch.containment.authority.places import last
from midwatch.sandbox import watched
from midwatch.sandbox.effects import CHANGING, Change

__all__ = ["BUILTIN", "GROUP", "installed", "judge", "reads"]

GROUP: Final = "midwatch.authority"
"""Entry points of packages that bring detectors."""

FLOOR: Final = "watched"
_DECLARES: Final = (".yml", ".yaml", ".json")
"""Endings of files of which only the content says whether they are about authority."""
_MODULES: Final[tuple[ModuleType, ...]] = (
    accounts, agents, ci, commands, containers, gitrepo, kube, modes, network, packages, registries, services, sql, ssh, startup,
)  # fmt: skip
BUILTIN: Final[tuple[Detector, ...]] = tuple(Detector(item.NAME, item.concerns, item.judge) for item in _MODULES)


def judge(effect: Effect, more: Sequence[Detector] = ()) -> Judged:
    """Say what an effect grants, by Midwatch's detectors and `more`. Never raises."""
    if isinstance(effect, File) and effect.change.op not in CHANGING:
        return Judged()
    found: list[Finding] = []
    for detector in (*BUILTIN, *more):
        found += _asked(detector, effect)
    return all_of(found or _floor(effect))


def reads(change: Change, more: Sequence[Detector] = ()) -> bool:
    """Say whether any detector wants to see what a file holds; cheap, for trees of many files."""
    if more or watched.why(change.path) is not None or last(change.path).endswith(_DECLARES):
        return True
    effect = File(change)
    return any(detector.name != modes.NAME and detector.concerns(effect) for detector in BUILTIN)


def installed() -> tuple[Detector, ...]:
    """Give the detectors that installed packages bring."""
    found: list[Detector] = []
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda item: item.name):
        try:
            loaded = point.load()
            brought = [loaded] if isinstance(loaded, Detector) else list(loaded)
            if not all(isinstance(item, Detector) for item in brought):
                raise TypeError("it brings what is no detector")
        except Exception as error:  # noqa: BLE001 - whatever a package does, what it should have judged counts as granting
            found.append(_failing(point.name, type(error).__name__))
        else:
            found += brought
    return tuple(found)


def _asked(detector: Detector, effect: Effect) -> Iterable[Finding]:
    try:
        if not detector.concerns(effect):
            return ()
        if isinstance(effect, File) and effect.change.op == "permission" and detector.name != modes.NAME:
            return ()
        found = tuple(detector.judge(effect))
        if not all(isinstance(item, Granted | Inert) for item in found):
            raise TypeError("it found what is no finding")
    except Unreadable as error:
        return (_unknown(effect, detector.name, str(error)),)
    except Exception as error:  # noqa: BLE001 - a detector that fails must not let an effect pass
        return (_unknown(effect, detector.name, f"it could not be judged ({type(error).__name__})"),)
    return found


def _unknown(effect: Effect, how: str, why: str) -> Granted:
    reason = watched.why(effect.change.path) if isinstance(effect, File) else None
    return granted(reason or "a power that nobody can say", UNKNOWN, resource_of(effect), how, why, proven=False)


def _floor(effect: Effect) -> Iterable[Finding]:
    """Give what the coarse list says of an effect that no detector could judge."""
    if not isinstance(effect, File):
        return (
            granted(
                "what nobody can say",
                UNKNOWN,
                resource_of(effect),
                FLOOR,
                "no detector knows it to be harmless",
                proven=False,
            ),
        )
    reason = watched.why(effect.change.path)
    if reason is None or effect.change.kind == "folder":
        return ()
    if effect.change.op == "deleted":
        return (Inert(effect.change.path, FLOOR, "it is taken away"),)
    return (
        granted(
            reason,
            UNKNOWN,
            effect.change.path,
            FLOOR,
            "it is on the watch-list, and no detector knows its format",
            proven=False,
        ),
    )


def _failing(name: str, why: str) -> Detector:
    def judged(_: Effect) -> Iterable[Finding]:
        raise Unreadable(f"the detector {name} did not load ({why})")

    return Detector(name, lambda _: True, judged)
