"""Blocking: a sandbox for code that is not async.

In:   what opens a sandbox. Out: `SyncSandbox`, whose methods wait.
May import: the port; anyio. Must not know: any backend.
Why a thread of its own: an event loop lives in it from the first call to the last, so that any number of threads may share one
sandbox. Calls still happen one after the other, as the port promises.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, TypeVarTuple, Unpack

from anyio.from_thread import BlockingPortal, start_blocking_portal

from midwatch.config.specs import SandboxLimits
from midwatch.errors import SandboxError
from midwatch.sandbox.layers import Layer
from midwatch.sandbox.port import RunResult, Sandbox, SandboxResult, Stats
from midwatch.sandbox.profile import INSIDE

__all__ = ["SyncSandbox"]

_T = TypeVar("_T")
_P = ParamSpec("_P")
_Ts = TypeVarTuple("_Ts")
_TIMEOUT_US: Final = 60_000_000
_MAX_BYTES: Final = 1 << 20


class SyncSandbox:
    """A sandbox as a context manager: `with SyncSandbox(open_sandbox(profile)) as box:`. Open from `__enter__` to `__exit__`."""

    def __init__(self, opening: AbstractAsyncContextManager[Sandbox]) -> None:
        """Take what `open_sandbox` gave; nothing is started yet."""
        self._opening = opening
        self._stack = contextlib.ExitStack()
        self._open: tuple[BlockingPortal, Sandbox] | None = None

    def __enter__(self) -> Self:
        """Start the sandbox.

        Raises:
            SandboxError: this machine cannot hold the profile.
        """
        with contextlib.ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="midwatch-sandbox"))
            box = stack.enter_context(portal.wrap_async_context_manager(self._opening))
            self._stack = stack.pop_all()
        self._open = portal, box
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the sandbox: what no layer holds is gone."""
        self._open = None
        self._stack.__exit__(kind, error, trace)

    @property
    def level(self) -> str:
        """`bubblewrap`, `docker`, `process`."""
        return self._opened[1].level

    @property
    def isolates(self) -> bool:
        """Whether a hostile program is kept from the rest of the machine."""
        return self._opened[1].isolates

    @property
    def name(self) -> str:
        """Unique among the living."""
        return self._opened[1].name

    def call(
        self,
        ref: str,
        arguments: str = "{}",
        *,
        facts: Mapping[str, Any] | None = None,
        limits: SandboxLimits | None = None,
        workdir: Path = Path(INSIDE),
        timeout_us: int = _TIMEOUT_US,
        max_bytes: int = _MAX_BYTES,
    ) -> SandboxResult:
        """As `Sandbox.call`."""
        return self._wait(
            self._opened[1].call,
            ref,
            arguments,
            facts=facts or {},
            limits=limits or SandboxLimits(),
            workdir=workdir,
            timeout_us=timeout_us,
            max_bytes=max_bytes,
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        limits: SandboxLimits | None = None,
        workdir: Path = Path(INSIDE),
        timeout_us: int = _TIMEOUT_US,
        max_bytes: int = _MAX_BYTES,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> RunResult:
        """As `Sandbox.run`."""
        return self._wait(
            self._opened[1].run,
            argv,
            limits=limits or SandboxLimits(),
            workdir=workdir,
            timeout_us=timeout_us,
            max_bytes=max_bytes,
            stdin=stdin,
            env=env,
        )

    def effects(self, into: Path) -> Layer:
        """As `Sandbox.effects`."""
        return self._wait(self._opened[1].effects, into)

    def pause(self) -> None:
        """As `Sandbox.pause`; from another thread than the one that waits for a call."""
        self._wait(self._opened[1].pause)

    def resume(self) -> None:
        """As `Sandbox.resume`."""
        self._wait(self._opened[1].resume)

    def kill(self) -> None:
        """As `Sandbox.kill`; from another thread than the one that waits for a call."""
        self._wait(self._opened[1].kill)

    def stats(self) -> Stats:
        """As `Sandbox.stats`."""
        return self._wait(self._opened[1].stats)

    def apply(self, function: Callable[[Sandbox, Unpack[_Ts]], Awaitable[_T]], *args: *_Ts) -> _T:
        """Await `function(sandbox, *args)` in the sandbox's own event loop."""
        portal, box = self._opened
        return portal.call(function, box, *args)

    @property
    def _opened(self) -> tuple[BlockingPortal, Sandbox]:
        if self._open is None:
            raise SandboxError("the sandbox is not open; use it inside `with SyncSandbox(…) as sandbox:`")
        return self._open

    def _wait(self, method: Callable[_P, Awaitable[_T]], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._opened[0].call(partial(method, *args, **kwargs))
