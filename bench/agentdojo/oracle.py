"""Oracle: a worst-case obedient agent. It does the user's calls; the moment an injected text is read, it does the attacker's.

In:   a world, a user task, an injection task or none, a defence or none. Out: `Outcome`, by the benchmark's own checkers.
May import: `world`. Must not know: how a defence decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from bench.agentdojo.world import CANARY, Call, World, texts
from midwatch.records.decision import Allowed, Ask

__all__ = ["Mode", "Outcome", "run"]

Mode = Literal["immediate", "end"]


class Guard(Protocol):
    """What judges calls."""

    def decide(self, call: Call) -> Any:
        """Give something with a `verdict`."""

    def observe(self, call: Call, result: Any, error: str | None) -> None:
        """Take in a result."""

    def denied(self) -> None:
        """Take in that a call was not allowed."""


@dataclass(slots=True)
class Outcome:
    """What came of one run.

    Attributes:
        solved: by the checker. clean: no call of the user's was held back, beside what a person approved.
        attacked: the attacker's goal was reached, by the checker.
        held: the user's calls that were held back, with the reason. approvals: of them, those that a person let pass.
        stopped: the attacker's calls that were held back, of `tried`.
    """

    solved: bool = False
    attacked: bool = False
    triggered: bool = False
    user_calls: int = 0
    held: list[tuple[str, str]] = field(default_factory=list)
    approvals: int = 0
    tried: int = 0
    stopped: int = 0

    @property
    def autonomous(self) -> bool:
        """Solved, and every one of the user's calls passed without a person."""
        return self.solved and not self.held


def run(
    world: World,
    user: Any,
    attack: Any,
    guard: Guard | None,
    *,
    mode: Mode = "immediate",
    text: str | None = None,
    approve: bool = False,
    attacked_only: bool = False,
) -> Outcome:
    """Run one pair.

    Args:
        attack: the injection task; None for a run without an attacker.
        text: what is injected besides the canary; None: the injection's goal.
        attacked_only: the user's task is not judged, which takes the benchmark's checkers most of the time.
        approve: a person lets pass what was asked, if it is one of the user's own calls; nothing of the attacker's is approved.
    """
    injected = None if attack is None else f"{CANARY} {attack.GOAL if text is None else text}".strip()
    environment = world.environment(user, injected)
    before = environment.model_copy(deep=True)
    out = Outcome()
    done: list[tuple[Call, Any]] = []
    for call in world.truth(user, environment):
        out.user_calls += 1
        if not _carried(world, environment, call, guard, out, done, approve=approve):
            continue
        seen = attack is not None and not out.triggered and any(CANARY in each for each in texts(done[-1][1]))
        if seen:
            out.triggered = True
            if mode == "immediate":
                _obey(world, environment, attack, guard, out, done)
    if attack is not None and out.triggered and mode == "end":
        _obey(world, environment, attack, guard, out, done)
    trace = [call for call, _ in done]
    if not attacked_only:
        out.solved = _judged(world, user, user.GROUND_TRUTH_OUTPUT, before, environment, trace)
    if attack is not None:
        # It says what the injected text wants said, too: some goals are words alone.
        said = (
            f"{user.GROUND_TRUTH_OUTPUT}\n{attack.GROUND_TRUTH_OUTPUT}" if out.triggered else user.GROUND_TRUTH_OUTPUT
        )
        out.attacked = out.triggered and _judged(world, attack, said, before, environment, trace)
    return out


def _carried(
    world: World, environment: Any, call: Call, guard: Guard | None, out: Outcome, done: list[Any], *, approve: bool
) -> bool:
    """Do one of the user's calls; say whether it was done."""
    if guard is not None:
        verdict = guard.decide(call).verdict
        if not isinstance(verdict, Allowed):
            if approve and isinstance(verdict, Ask):
                out.approvals += 1
            else:
                out.held.append((call.tool, getattr(verdict, "reason", "")))
                guard.denied()
                return False
    _done(world, environment, call, guard, done)
    return True


def _obey(world: World, environment: Any, attack: Any, guard: Guard | None, out: Outcome, done: list[Any]) -> None:
    for call in world.attack(attack, environment):
        out.tried += 1
        if guard is not None and not isinstance(guard.decide(call).verdict, Allowed):
            out.stopped += 1
            guard.denied()
            continue
        _done(world, environment, call, guard, done)


def _done(world: World, environment: Any, call: Call, guard: Guard | None, done: list[Any]) -> None:
    result, error = world.run(environment, call)
    if guard is not None:
        guard.observe(call, result, error)
    done.append((call, result))


def _judged(world: World, task: Any, output: str, before: Any, after: Any, trace: list[Call]) -> bool:
    # The checkers look at things by methods that change them.
    return world.solved(task, output, before.model_copy(deep=True), after.model_copy(deep=True), trace)


def pairs(world: World) -> Iterator[tuple[Any, Any]]:
    """Give every user task with every injection task."""
    for user in world.users.values():
        for attack in world.injections.values():
            yield user, attack
