"""Answered: `midwatch resume --answered [--follow]`: goes on with every run of the home whose questions were answered.

In:   a home. Out: one line a run on stderr; with `--json` one object, and with `--follow` one a run, each on its line.
May import: errors; the engine's following and the wiring when it runs. Must not know: who answered.
Why the token is read again before each run: whoever was disabled meanwhile goes on with nothing.
Why one process for all: a run that waits is a row. Whoever follows holds a kernel a fleet, not a process a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from midwatch.errors import Divergence, MidwatchError
from midwatch.surfaces.cli.cards import kernel_of
from midwatch.surfaces.cli.common import Settings, began_in, emit, say, store_of
from midwatch.surfaces.cli.speaking import speaker

if TYPE_CHECKING:
    from midwatch.engine.kernel import Kernel
    from midwatch.records.run import RunResult, RunRow

__all__ = ["go_on"]


def go_on(settings: Settings, token_file: str | None, *, workdir: str | None, follow: bool) -> int:
    """Go on with what was answered; with `follow`, until interrupted.

    Returns:
        0 when every run that was tried went on, 1 when one could not.
    """
    with contextlib.ExitStack() as stack:
        work = _Work(settings, token_file, workdir, stack)
        with _until_told() as stopped:
            asyncio.run(work.run(stopped, follow=follow))
        return 1 if work.failed else 0


class _Work:
    """Kernels by fleet file, its version and folder, opened when the first of its runs goes on."""

    def __init__(
        self, settings: Settings, token_file: str | None, workdir: str | None, stack: contextlib.ExitStack
    ) -> None:
        self._settings, self._token, self._workdir, self._stack = settings, token_file, workdir, stack
        self._kernels: dict[tuple[str | None, ...], Kernel] = {}
        self.failed = False
        self.outcomes: list[dict[str, Any]] = []

    async def run(self, stopped: _Flag, *, follow: bool) -> None:
        """Go on with all, once or until stopped."""
        from midwatch import wiring
        from midwatch.engine import following

        with store_of(self._settings) as store:
            if not follow:
                for row in following.ready(store, since_us=0, at_us=wiring.clock()):
                    try:
                        self.told(row, await self.resume(row))
                    except MidwatchError as error:
                        self.told(row, error)
                self._sum_up()
                return
            say("going on with runs as they are answered; stop with Ctrl-C")
            await following.follow(
                store,
                self.resume,
                clock=wiring.clock,
                pause=wiring.pause,
                stopped=stopped.is_set,
                told=self._told_at_once,
            )

    async def resume(self, row: RunRow) -> RunResult:
        """Resume one run under its own fleet."""
        with store_of(self._settings) as store:
            speaker(store, self._token)
        key = (row.fleet_path, row.preset, row.fleet_digest, self._workdir or began_in(self._settings, row.id))
        if key not in self._kernels:
            opened = kernel_of(self._settings, row.id, self._token, workdir=self._workdir)
            self._kernels[key] = self._stack.enter_context(opened)
        try:
            return await self._kernels[key].aresume(row.id, lift=False)
        except Divergence:
            self._kernels.pop(key, None)  # the file is another one now; when it is put back, it is read again
            raise

    def told(self, row: RunRow, outcome: RunResult | MidwatchError) -> None:
        """Tell one outcome."""
        if isinstance(outcome, MidwatchError):
            self.failed = True
            said = {"ok": False, "run": row.id, "error": {"type": type(outcome).__name__, "message": str(outcome)}}
        else:
            said = {"ok": outcome.ok, **dataclasses.asdict(outcome)}
        self.outcomes.append(said)
        if self._settings.json:
            return
        if isinstance(outcome, MidwatchError):
            say(f"run {row.id[:7]} could not go on: {outcome}")
        else:
            say(f"run {row.id[:7]}  {outcome.status}{': ' + outcome.error_message if outcome.error_message else ''}")

    def _told_at_once(self, row: RunRow, outcome: RunResult | MidwatchError) -> None:
        self.told(row, outcome)
        if self._settings.json:
            emit(self.outcomes[-1])
        self.outcomes.clear()

    def _sum_up(self) -> None:
        if self._settings.json:
            emit({"ok": not self.failed, "runs": self.outcomes})
        elif not self.outcomes:
            say("nothing that waits was answered")


class _Flag:
    """Set by a signal."""

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        """Say whether it was set."""
        return self._set

    def set(self) -> None:
        """Set it."""
        self._set = True


@contextlib.contextmanager
def _until_told() -> Iterator[_Flag]:
    """Turn the first SIGINT or SIGTERM into a flag, so that runs under way reach their next stop; the second one cuts them."""
    flag = _Flag()
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.getsignal(number) for number in numbers}

    def stop(*_: object) -> None:
        flag.set()
        for number, handler in old.items():
            signal.signal(number, handler)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield flag
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
