"""Ways to an MCP server: a program of its own, in a sandbox or beside the kernel; or HTTPS to one checked host.

In:   an `McpSpec`, its environment, the vault. Out: streams for the MCP client; `Child`, the program.
May import: config's specs, the sandbox's plan and egress rules; anyio, httpx2, the MCP types. Must not know: tools, contracts.
Why not the SDK's own ways: its program gets part of this process's environment, and a line of any length is read; its HTTP follows
names to any address.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import sysconfig
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
import mcp_types as types
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from midwatch.config.specs import EgressRule
from midwatch.config.specs_imports import McpSpec
from midwatch.errors import SandboxError
from midwatch.sandbox.bubblewrap import find_bwrap
from midwatch.sandbox.egress_rules import Allow
from midwatch.sandbox.egress_secrets import Refused, Vault
from midwatch.sandbox.egress_upstream import Failed, checked, resolve
from midwatch.sandbox.egress_wire import EgressLimits
from midwatch.sandbox.profile import interpreter

__all__ = ["Child", "http", "sandboxed", "started"]

MAX_LINE: Final = 17 * 1024 * 1024
"""Of one message, bytes: a little more than a contract's `body_limit`, so that a result over it is told as such."""
_MOST_PROSE: Final = 1_000
_KEPT: Final = 2_000
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


class Child:
    """A server's program, and all that it started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._tail: deque[bytes] = deque(maxlen=20)
        self._closed = asyncio.Event()

    def said(self) -> str:
        """Give the end of what it wrote to stderr, in one line."""
        text = b"".join(self._tail)[-_KEPT:].decode("utf-8", "replace")
        return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[-400:]

    def kill(self) -> None:
        """Kill its whole process group. Safe to repeat."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def gone(self) -> None:
        """Wait until it has ended, or says nothing more."""
        await self._closed.wait()

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[tuple[Any, Any]]:
        """Give its messages and take ours; it is killed when the block ends."""
        into, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, out = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._hear, into)
                group.start_soon(self._tell, out)
                group.start_soon(self._errors)
                async with read, write:
                    yield read, write
                self.kill()
                group.cancel_scope.cancel()
        finally:
            self._closed.set()
            await self.close()

    async def close(self) -> None:
        """Kill it, and let go of its pipes while the loop that holds them still runs. Safe to repeat."""
        self.kill()
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await self._process.wait()
            self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001  asyncio has no other way
            for _ in range(3):
                await asyncio.sleep(0)

    async def _hear(self, into: Any) -> None:
        """Pass on whole messages. Prose on stdout is nobody's message: it is passed over, and not for ever."""
        prose = 0
        try:
            async with into:
                while (line := await self._line()) is not None:
                    try:
                        message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                    except (ValueError, RecursionError):
                        prose += 1
                        if prose > _MOST_PROSE:
                            return
                        continue
                    await into.send(SessionMessage(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        finally:
            self._closed.set()
            self.kill()

    async def _line(self) -> bytes | None:
        stdout = self._process.stdout
        if stdout is None:
            return None
        try:
            return await stdout.readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            return None

    async def _tell(self, out: Any) -> None:
        stdin = self._process.stdin
        with contextlib.suppress(OSError, anyio.ClosedResourceError):
            async with out:
                async for message in out:
                    if stdin is None:
                        return
                    body = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    stdin.write(body.encode() + b"\n")
                    await stdin.drain()

    async def _errors(self) -> None:
        while self._process.stderr is not None and (data := await self._process.stderr.read(4096)):
            self._tail.append(data)


async def started(spec: McpSpec, base: Path, env: Mapping[str, str]) -> Child:
    """Start a server's program: no variable of this process reaches it but those that the fleet names.

    Raises:
        SandboxError: this machine cannot hold a sandbox. OSError: there is no such program.
    """
    program = _program(spec.command[0], base)
    words = [program, *spec.command[1:]]
    own = {"PATH": _PATH, "LANG": "C.UTF-8", **env}
    if spec.runs == "sandbox":
        words = sandboxed(words, base)
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=own,
        cwd=base,
        limit=MAX_LINE,
        start_new_session=True,
    )
    return Child(process)


def _program(word: str, base: Path) -> str:
    if word in ("python", "python3"):
        return sys.executable
    if "/" in word:
        return str((base / word).absolute())
    found = shutil.which(word)
    if found is None:
        raise FileNotFoundError(word)
    return found


def sandboxed(words: Sequence[str], base: Path) -> list[str]:
    """Write the command that runs a server with no network, no home, and nothing to see but programs and what it names.

    Raises:
        SandboxError: bubblewrap is not installed.
    """
    wanted = {Path(path).absolute().parents[1] for path in (interpreter(), sys.executable)} | {
        Path(sysconfig.get_path("purelib"))
    }
    named = {Path(os.path.normpath(base / word)) for word in words if word and not word.startswith("-")}
    wanted |= {place for place in named if place.exists() and place not in (base, Path("/"))}
    shown: list[Path] = []
    for path in sorted(wanted - {Path("/usr")}):
        if not any(path.is_relative_to(other) for other in (Path("/usr"), *shown)):
            shown.append(path)
    if any(Path.home().is_relative_to(path) for path in shown):
        raise SandboxError(
            "the server's program stands where your whole home would be shown; move it, or say `runs: broker`"
        )
    roots = [f"/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")]
    links = [
        part for root in roots if Path(root).is_symlink() for part in ("--symlink", str(Path(root).readlink()), root)
    ]
    folders = [
        part
        for root in roots
        if Path(root).is_dir() and not Path(root).is_symlink()
        for part in ("--ro-bind", root, root)
    ]
    return [
        find_bwrap(),
        *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "server"),
        *("--ro-bind", "/usr", "/usr"),
        *links,
        *folders,
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),  # noqa: S108 - inside
        *(
            "--ro-bind-try",
            "/etc/alternatives",
            "/etc/alternatives",
            "--ro-bind-try",
            "/etc/ld.so.cache",
            "/etc/ld.so.cache",
        ),
        *(part for path in shown for part in ("--ro-bind", str(path), str(path))),
        *("--dir", str(base), "--chdir", str(base)),
        "--",
        *words,
    ]


def http(spec: McpSpec, vault: Vault) -> AbstractAsyncContextManager[Any]:
    """Give the streams of a server that is reached by its address: one host, resolved once a request, no redirects, no proxies."""
    return _http(spec, vault)


@contextlib.asynccontextmanager
async def _http(spec: McpSpec, vault: Vault) -> AsyncIterator[tuple[Any, Any]]:
    url = httpx2.URL(spec.url or "")
    rule = EgressRule(url.host, url.port, tls=url.scheme == "https", private=spec.private)
    pinned = Pinned(Allow(rule, url.host, url.port or (443 if rule.tls else 80), url.path))
    client = httpx2.AsyncClient(
        transport=pinned,
        headers=dict(vault.filled(spec.headers)),
        timeout=httpx2.Timeout(30.0, read=None),
        follow_redirects=False,
        trust_env=False,
    )
    async with (
        client,
        streamable_http_client(spec.url or "", http_client=client, max_sse_event_size=MAX_LINE) as streams,
    ):
        yield streams


class Pinned(httpx2.AsyncBaseTransport):
    """Sends to one host only, at an address that was checked for this very request."""

    def __init__(self, allow: Allow) -> None:
        self._allow = allow
        self._own = httpx2.AsyncHTTPTransport(trust_env=False, retries=0)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Resolve, check, and send to that address; TLS proves the name."""
        allow = self._allow
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        if (request.url.host, port, request.url.scheme == "https") != (allow.host, allow.port, allow.rule.tls):
            raise httpx2.ConnectError("the server is not at the address that the fleet names")
        try:
            addresses = await checked(allow, resolve, EgressLimits())
        except (Refused, Failed) as refused:
            raise httpx2.ConnectError(str(refused)) from None
        request.extensions = {**request.extensions, "sni_hostname": allow.host}
        request.url = request.url.copy_with(host=addresses[0])
        response = await self._own.handle_async_request(request)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream)
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        await self._own.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends in an error where it is longer than a message may be; what a stream of events holds back is bounded by the SDK."""

    def __init__(self, own: httpx2.AsyncByteStream) -> None:
        self._own = own

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._own:
            size += len(part)
            if size > 4 * MAX_LINE:
                raise httpx2.ReadError("the server's answer is too long")
            yield part

    async def aclose(self) -> None:
        """Close what lies below."""
        await self._own.aclose()
