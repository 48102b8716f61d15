"""Errors: everything Midwatch raises on purpose, each with its remedy.

In:   nothing; this is the lowest room.
Out:  one tree. `exit_code` is what the command line ends with when the error reaches it (DESIGN.md, section 7).
May import: the standard library only.

    MidwatchError
    ├── UsageProblem            the user's input; 2
    │   ├── InvalidFleet        a fleet file, all problems at once
    │   ├── InvalidTool         a tool's declaration, all problems at once
    │   ├── InvalidScenario     a scenario of the scripted provider, all problems at once
    │   ├── NotGuaranteed       asks for a guarantee that this version does not give
    │   └── MissingExtra        an optional dependency is not installed
    ├── NotFound                no such run, effect, gate, blob; 6
    ├── Ambiguous               a short id that fits several; 2
    ├── BoundReached            a budget scope is spent; the run stops, resumable; 5
    ├── Unpriced                a model without a price; nothing is sent; 5
    ├── Denied                  a gate or containment said no; 4
    ├── GateNotUsable           an answer that cannot be used: expired, used, other digest; 4
    ├── RunHalted               a person or the governor stopped the run; 1
    ├── FenceLost               another process took the run over; this one must stop; 1
    ├── RunHeld                 another live process holds the run; 2
    ├── InDoubt                 an effect's outcome is unknown; a person decides; 3
    ├── Divergence              a replayed step asked for something else under the same key; 1
    ├── ModelFailure            a provider failed; the engine retries what is retryable; 1
    ├── ToolFailure             raised by tool authors: an error the agent may read; 1
    ├── HandoffRefused          a plan or handoff that breaks its contract; 1
    ├── SandboxError            a sandbox cannot be what its profile says; it is refused, never weakened; 1
    │   ├── LayerLost           what a run did earlier is missing or damaged; the run stops
    │   └── Unseen              what a sandbox does is not seen any more; it is killed, and the run stops
    ├── Conflict                what is to be committed was changed meanwhile by someone else; 1
    └── StoreError              the durable state; 1
        ├── StoreBusy           locked for longer than the bounded wait
        ├── StoreCorrupt        not a database, or damaged
        ├── StoreFull           no space left
        ├── StoreUnreadable     permissions, missing directory
        └── StoreTooNew         written by a newer version
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "Ambiguous",
    "BoundReached",
    "Conflict",
    "Denied",
    "Divergence",
    "FenceLost",
    "GateNotUsable",
    "HandoffRefused",
    "InDoubt",
    "InvalidFleet",
    "InvalidScenario",
    "InvalidTool",
    "LayerLost",
    "MidwatchError",
    "MissingExtra",
    "ModelFailure",
    "NotFound",
    "NotGuaranteed",
    "Problem",
    "RunHalted",
    "RunHeld",
    "SandboxError",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreTooNew",
    "StoreUnreadable",
    "ToolFailure",
    "Unpriced",
    "Unseen",
    "UsageProblem",
]


class MidwatchError(Exception):
    """Base of every error that Midwatch raises on purpose."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what a user wrote.

    Attributes:
        where: `file.yaml:12` or `agents.ceo.tools`; empty when the whole is meant.
        message: lowercase sentence, the user's words in backticks, what to do.
        code: stable kebab-case name, for `--json` and for tests.
    """

    where: str
    message: str
    code: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageProblem(MidwatchError):
    """What the user wrote cannot be used; `problems` holds every reason, not only the first."""

    exit_code: ClassVar[int] = 2

    def __init__(self, problems: tuple[Problem, ...] | str) -> None:
        self.problems = (Problem("", problems, "usage"),) if isinstance(problems, str) else problems
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InvalidFleet(UsageProblem):
    """The fleet file breaks its schema or refers to what does not exist."""


class InvalidTool(UsageProblem):
    """A tool's declaration breaks the contract of CONTAINMENT.md, section B."""


class InvalidScenario(UsageProblem):
    """A scenario file of the scripted provider cannot be used."""


class NotGuaranteed(UsageProblem):
    """The fleet asks for a guarantee that this version does not give; it is refused instead of ignored."""


class MissingExtra(UsageProblem):
    """An optional dependency is needed; the message names the extra to install."""

    def __init__(self, extra: str, needed_for: str) -> None:
        self.extra = extra
        super().__init__(f"{needed_for} needs the extra `{extra}`; install it with `pip install 'midwatch[{extra}]'`")


class NotFound(MidwatchError):
    """Nothing in this home has that name."""

    exit_code: ClassVar[int] = 6


class Ambiguous(MidwatchError):
    """A short id fits more than one; write more of it."""

    exit_code: ClassVar[int] = 2


class BoundReached(MidwatchError):
    """A scope has no room for what was asked. Nothing was sent; the run stops and can be resumed with a larger bound.

    Attributes:
        held: part of `used` that is only reserved; `passing` says that there is room once that is given back.
    """

    exit_code: ClassVar[int] = 5

    def __init__(self, *, scope: str, unit: str, cap: int, used: int, asked: int, held: int = 0) -> None:
        self.scope, self.unit, self.cap, self.used, self.asked, self.held = scope, unit, cap, used, asked, held
        self.passing = held > 0 and used - held + asked <= cap
        super().__init__(
            f"scope `{scope}` has used {used:,} of {cap:,} {unit} and was asked for {asked:,} more; "
            f"`midwatch budget topup {scope} {unit} AMOUNT` gives it more, or give it less to do"
        )


class Unpriced(MidwatchError):
    """A model has no known price, so its cost cannot be bounded; the fleet file may price it."""

    exit_code: ClassVar[int] = 5


class Denied(MidwatchError):
    """A gate or containment said no. The agent was told as data; this reaches a user when the run cannot go on."""

    exit_code: ClassVar[int] = 4


class GateNotUsable(MidwatchError):
    """The approval does not fit: unknown, expired, already used, or given for another action."""

    exit_code: ClassVar[int] = 4


class RunHalted(MidwatchError):
    """A person or the governor stopped this run; the mark is sticky until it is resumed by a person."""


class FenceLost(MidwatchError):
    """Another process has taken this run over; whatever this process was about to do did not happen."""


class RunHeld(MidwatchError):
    """Another live process holds this run; wait for it, or `midwatch cancel` it first."""

    exit_code: ClassVar[int] = 2


class InDoubt(MidwatchError):
    """An effect began and its outcome is not known; `midwatch resolve EFFECT --done|--not-done|--retry` decides."""

    exit_code: ClassVar[int] = 3


class Divergence(MidwatchError):
    """A repeated step asked for another action under the same key; the run stops rather than guess."""


class ModelFailure(MidwatchError):
    """A provider did not answer as it must. `retryable` failures are tried again by the engine, each as a new reservation.

    Attributes:
        code: closed list `rate_limited, upstream, timeout, cut, no_finish, no_usage, refused, malformed, auth, bad_request`.
        retry_after_us: the provider's own wish, or None.
        dispatched: the request left this process, so that it may have been charged. The reservation is then settled in full.
    """

    def __init__(
        self, code: str, message: str, *, retryable: bool, dispatched: bool, retry_after_us: int | None = None
    ) -> None:
        self.code, self.retryable, self.dispatched, self.retry_after_us = code, retryable, dispatched, retry_after_us
        super().__init__(message)


class ToolFailure(MidwatchError):
    """Raise this in a tool to tell the agent what went wrong, in words that are meant for it.

    Any other exception becomes `internal` for the agent; its text goes to the trace only.

    Args:
        code: one of `midwatch.records.envelope.CODES`.
        message: for the agent; must not quote a protected value.
        retryable: the same call may work later.
        retry_after_us: when, in microseconds from now.
        hint: what to try instead.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after_us: int | None = None,
        hint: str | None = None,
    ) -> None:
        self.code, self.message, self.retryable = code, message, retryable
        self.retry_after_us, self.hint = retry_after_us, hint
        super().__init__(message)


class HandoffRefused(MidwatchError):
    """A plan or a handoff breaks its contract; the agent is told why and may try again within its bounds."""


class SandboxError(MidwatchError):
    """A sandbox cannot be what its profile says on this machine. Nothing was started, nothing was weakened."""


class LayerLost(SandboxError):
    """What a run did earlier cannot be laid over its workspace: a layer is missing or damaged. The run stops, resumable."""


class Unseen(SandboxError):
    """What a sandbox reads and executes is not seen any more, so it was killed. The run stops, resumable."""


class Conflict(MidwatchError):
    """Files that are to be committed are no longer as the run found them; the message names them. Nothing was written."""


class StoreError(MidwatchError):
    """The durable state cannot be used; no effect happens."""


class StoreBusy(StoreError):
    """The database stayed locked by another process for longer than the bounded wait."""


class StoreCorrupt(StoreError):
    """The database is damaged or is not a Midwatch database."""


class StoreFull(StoreError):
    """The disk has no room for what must be recorded."""


class StoreUnreadable(StoreError):
    """The home directory or its database cannot be opened."""


class StoreTooNew(StoreError):
    """The database was written by a newer version of Midwatch."""
