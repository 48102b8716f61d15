"""Link to an MCP server: one connection in a thread of its own, made when it is needed and made again when it broke.

In:   an `McpSpec`, what its environment holds, names and arguments of calls.
Out:  the server's tools; results of calls, or `ToolFailure`. Nothing that a server says starts, asks or allows anything here.
May import: `mcp_transports`, config's specs, errors; the MCP client. Must not know: contracts, the fleet's rules.
Why a thread: the kernel's loop comes and goes with each run, and a server's connection holds on to the loop that made it.
Why no callback is given to the client: a server that asks for a model's answer, for a person's words or for the folders of this
machine is told that there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as Late
from pathlib import Path
from typing import Any, Final, TypeVar

import mcp_types as types
from mcp import Client, MCPError
from pydantic import ValidationError

from midwatch.config.specs_imports import McpSpec
from midwatch.errors import SandboxError, ToolFailure
from midwatch.sandbox.egress_secrets import Vault
from midwatch.tools.importing.foreign import Words
from midwatch.tools.importing.mcp_transports import Child, http, started

__all__ = ["Link", "Unreachable"]

START_S: Final = 20.0
_MOST_PAGES: Final = 50
_MOST_TOOLS: Final = 1_000
_T = TypeVar("_T")


class Unreachable(Exception):
    """A server that gives no tools; the message says why, and quotes nothing of it but the end of what it wrote to stderr."""


class Link:
    """One server. Safe to use from any thread and any loop."""

    def __init__(
        self, spec: McpSpec, base: Path, env: Mapping[str, str], vault: Vault, *, start_s: float = START_S
    ) -> None:
        self._spec, self._base, self._env, self._vault, self._start_s = spec, base, dict(env), vault, start_s
        self._lock = threading.Lock()
        self._open: _Session | None = None

    def listed(self) -> list[types.Tool]:
        """Connect, ask for every tool, and leave: nothing is kept open for a fleet that is only looked at.

        Raises:
            Unreachable: there is no answer.
        """
        session = self._session()
        try:
            return session.tools
        finally:
            self.close()

    async def call(
        self, name: str, arguments: dict[str, Any], same: Callable[[types.Tool], bool]
    ) -> types.CallToolResult:
        """Call a tool, if it is still the one that was loaded.

        Raises:
            ToolFailure: it is not; the server cannot be reached; it asked for something; its connection ended before it answered.
        """
        try:
            session = await asyncio.to_thread(self._session)
        except Unreachable as failure:
            raise ToolFailure("unavailable", "the tool's server cannot be reached", retryable=True) from failure
        return await asyncio.wrap_future(session.submit(session.call(name, arguments, same)))

    def close(self) -> None:
        """End the connection, and the server if it was started here. Safe to repeat; a later call connects anew."""
        with self._lock:
            session, self._open = self._open, None
        if session is not None:
            session.end()

    def _session(self) -> _Session:
        with self._lock:
            if self._open is None or not self._open.alive:
                if self._open is not None:
                    self._open.end()
                self._open = None
                session = _Session(self._spec, self._base, self._env, self._vault, self._start_s)
                session.begin()
                self._open = session
            return self._open


class _Session:
    """A connection from its first to its last byte: one thread, one loop."""

    def __init__(self, spec: McpSpec, base: Path, env: Mapping[str, str], vault: Vault, start_s: float) -> None:
        self._spec, self._base, self._env, self._vault, self._start_s = spec, base, env, vault, start_s
        self.tools: list[types.Tool] = []
        self.alive = False
        self._ready: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._client: Client | None = None
        self._child: Child | None = None
        self._thread = threading.Thread(target=self._run, name=f"midwatch-mcp-{spec.name}", daemon=True)

    def begin(self) -> None:
        """Connect and list.

        Raises:
            Unreachable: with the reason.
        """
        self._thread.start()
        try:
            self._ready.result(self._start_s + 5)
        except Late:
            self.end()
            raise Unreachable("it does not answer") from None

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run something in the connection's own loop."""
        if self._loop is None or not self.alive:
            work.close()
            raise ToolFailure("unavailable", "the tool's server has gone", retryable=True)
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def end(self) -> None:
        """Stop, and wait for that a little; the program of the server is killed in any case."""
        self.alive = False
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(stop.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(10)
        if self._child is not None:
            self._child.kill()

    async def call(
        self, name: str, arguments: dict[str, Any], same: Callable[[types.Tool], bool]
    ) -> types.CallToolResult:
        """Call a tool in this loop; see `Link.call`."""
        client = self._client
        if client is None:
            raise ToolFailure("unavailable", "the tool's server has gone", retryable=True)
        try:
            # Each time, and not only when the server says that its list has changed: one that means harm says nothing.
            if not any(tool.name == name and same(tool) for tool in await self._list(client)):
                raise ToolFailure(
                    "conflict", "the server has changed this tool since it was loaded; a person must look at it"
                )
            result = await client.session.call_tool(name, arguments, allow_input_required=True)
        except MCPError as refused:
            raise self._failed(refused) from Words(str(refused)[:4000])
        except (ValidationError, RuntimeError, Unreachable) as odd:
            raise ToolFailure("upstream", "the server's answer cannot be used; it is in the trace") from odd
        except (OSError, EOFError) as gone:
            self.alive = False
            raise _lost() from gone
        if not isinstance(result, types.CallToolResult):
            raise ToolFailure(
                "denied", "the server asked for something that no tool is given: a model, a person, or folders"
            )
        return result

    def _failed(self, refused: MCPError) -> ToolFailure:
        if refused.error.code in (types.CONNECTION_CLOSED, types.REQUEST_TIMEOUT):
            self.alive = False
            return _lost()
        if refused.error.code == types.INVALID_PARAMS:
            return ToolFailure("upstream", "the server refuses the arguments; its words are in the trace")
        return ToolFailure("upstream", "the server answered with an error; its words are in the trace")

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as raised:  # noqa: BLE001  the boundary to foreign code: whoever waits is told
            self._fail(raised)
        finally:
            self.alive = False
            if self._child is not None:
                self._child.kill()

    def _fail(self, raised: BaseException) -> None:
        if not self._ready.done():
            self._ready.set_exception(Unreachable(self._reason(raised)))

    def _reason(self, raised: BaseException) -> str:
        first: BaseException = raised
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if isinstance(first, Unreachable | SandboxError):
            reason = str(first)
        elif isinstance(first, TimeoutError | CancelledError | asyncio.CancelledError):
            reason = f"it does not answer within {self._start_s:g} seconds"
        elif isinstance(first, FileNotFoundError | PermissionError):
            reason = "its program cannot be started; correct `command`"
        else:
            reason = f"it does not speak the protocol ({type(first).__name__})"
        said = "" if self._child is None else self._child.said()
        return f"{reason}; it wrote: {self._vault.masked(said)}" if said else reason

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the client's own about older protocol versions
            client = Client(await self._transport(), read_timeout_seconds=None)
        async with contextlib.AsyncExitStack() as stack:
            if self._child is not None:
                stack.push_async_callback(self._child.close)
            async with asyncio.timeout(self._start_s):
                await stack.enter_async_context(client)
                self.tools = await self._list(client)
            self._client, self.alive = client, True
            self._ready.set_result(None)
            await self._ended()
            self.alive = False

    async def _ended(self) -> None:
        """Wait until somebody ends this, or the program of the server does."""
        if self._stop is None:
            return
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._stop.wait())]
        if self._child is not None:
            waits.append(asyncio.ensure_future(self._child.gone()))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        self.alive = False
        for wait in waits:
            wait.cancel()

    async def _transport(self) -> Any:
        if self._spec.url is not None:
            return http(self._spec, self._vault)
        self._child = await started(self._spec, self._base, self._env)
        return self._child.streams()

    async def _list(self, client: Client) -> list[types.Tool]:
        found: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor, cache_mode="refresh")
            found += page.tools
            cursor = page.next_cursor
            if cursor is None or len(found) > _MOST_TOOLS:
                break
        if cursor is not None or len(found) > _MOST_TOOLS:
            raise Unreachable(f"its list of tools does not end; at most {_MOST_TOOLS} are read")
        names = [tool.name for tool in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise Unreachable("it has two tools of one name")
        return found


def _lost() -> ToolFailure:
    """Whether the call was carried out is not known: `timeout` is the word for that, whatever ended the wait."""
    return ToolFailure(
        "timeout", "the tool's server ended before it answered; nobody knows what it did", retryable=False
    )
