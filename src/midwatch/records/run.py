"""A run: one input on its way to one output, in segments, under one id for its whole life."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

__all__ = ["EXIT_CODES", "RUN_STATUSES", "RunResult", "RunRow", "RunStatus", "Transition", "new_run_id"]

RunStatus = Literal["created", "running", "waiting", "paused", "interrupted", "failed", "denied", "cancelled", "done"]
"""`waiting`: for a person. `paused`: at a bound, or by the governor. `interrupted`: its process died; `resume` goes on."""

RUN_STATUSES: Final[tuple[RunStatus, ...]] = get_args(RunStatus)

EXIT_CODES: Final[Mapping[RunStatus, int]] = {
    "created": 1,
    "running": 0,
    "waiting": 3,
    "paused": 5,
    "interrupted": 1,
    "failed": 1,
    "denied": 4,
    "cancelled": 130,
    "done": 0,
}
"""What the command line ends with (DESIGN.md, section 7)."""


def new_run_id() -> str:
    """Make a run id: 32 random hex digits, also an OpenTelemetry trace id and a LangGraph thread id."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class RunRow:
    """The materialised row of a run, updated in the transaction of each event that changes it.

    Attributes:
        fleet_path: file the run was started from, so that `resume` finds it; None for a fleet made in Python.
        fleet_digest, graph_digest, policy_digest: hex SHA-256; a resume under others is refused.
        fleet_blob: blob digest of the fleet file's text as it was.
        preset: preset of routes chosen at the start, or None.
        segment: how often the run was taken up, from 0.
        input, output: blob digests; output is set when `done`.
        error_code, error_message: why it ended otherwise.
        cost, tokens, tool_calls, steps: settled so far; micro-dollars and whole numbers.
        working_us: sum of the segments' durations.
        head: hash of the ledger's head when the run ended or stopped, for an anchor.
        asked_by: name of the principal that started it, or `local:USER`.
    """

    id: str
    fleet: str
    fleet_path: str | None
    fleet_digest: str
    fleet_blob: str
    graph_digest: str
    policy_digest: str
    preset: str | None
    status: RunStatus
    created_us: int
    input: str
    segment: int = 0
    started_us: int | None = None
    ended_us: int | None = None
    output: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    cost: int = 0
    tokens: int = 0
    tool_calls: int = 0
    steps: int = 0
    working_us: int = 0
    head: str | None = None
    asked_by: str = ""


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of the transition index: a node's task, without its state.

    Attributes:
        seq: ledger sequence number of the `node.started` event.
        ns: LangGraph checkpoint namespace of the graph the node is in, empty for the root.
        task: checkpoint namespace of the task itself.
        step: LangGraph's superstep.
        bytes_out: encoded size of the node's writes.
    """

    run: str
    seq: int
    ns: str
    node: str
    task: str
    step: int
    status: Literal["started", "finished", "failed", "waiting"]
    started_us: int
    ended_us: int | None = None
    bytes_out: int | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """What `Kernel.run` gives back; a stopped run is a result with a status, not an exception.

    Attributes:
        output: JSON value of the run's output when `status` is `done`.
        gates: ids of gates that wait for a person when `status` is `waiting`.
        in_doubt: ids of effects with unknown outcome when `status` is `waiting`.
        head: hash of the ledger's head; give it to `midwatch verify --head`.
    """

    run: str
    status: RunStatus
    output: Any
    error_code: str | None
    error_message: str | None
    cost: int
    tokens: int
    tool_calls: int
    steps: int
    head: str
    gates: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Say whether the run reached its end."""
        return self.status == "done"

    @property
    def exit_code(self) -> int:
        """Give the process exit code that fits `status`."""
        return EXIT_CODES[self.status]
