"""Docker API: the few things that a sandbox asks of a Docker engine, over the engine's Unix socket.

In:   an engine's address, `unix:///…`; names, bodies, bytes. Out: the engine's answers as typed values; its refusals, in its words,
      as `SandboxError`.
May import: errors, httpx. Must not know: profiles, what a container is for.
Why only a Unix socket: whoever speaks to an engine is root on its machine, and a port can be spoken to by anybody.
Why no `exec`: a process started that way outlives the client that was killed, so that a call could act after its end.
Source: Docker Engine API 1.41; newer engines are asked in the words of 1.44, which the newest ones still take.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from midwatch.errors import SandboxError

__all__ = ["DEFAULT_HOST", "Container", "Engine", "Info", "State", "Version", "discard", "socket_of"]

DEFAULT_HOST: Final = "unix:///var/run/docker.sock"
_OLDEST, _NEWEST = (1, 41), (1, 44)
"""1.41 is the first to know control group namespaces and statistics of one moment."""
_HEAD: Final = 8
"""Bytes before each piece of a log: stream, three zeros, length."""


@dataclass(frozen=True, slots=True)
class Version:
    """What answers: `api` is the version that is spoken with it."""

    engine: str
    api: str


@dataclass(frozen=True, slots=True)
class Info:
    """What an engine says of itself.

    Attributes:
        runtime: the engine's own. runtimes: names that `HostConfig.Runtime` may have. security: such as `seccomp`, `userns`, `rootless`.
        memory, swap, pids, cpu: whether such a bound is enforced.
        driver: of control groups; `cgroups`: their version, `1` or `2`.
    """

    system: str
    machine: str
    kernel: str
    runtime: str
    runtimes: tuple[str, ...]
    security: tuple[str, ...]
    memory: bool
    swap: bool
    pids: bool
    cpu: bool
    driver: str
    cgroups: str


@dataclass(frozen=True, slots=True)
class State:
    """How a container is.

    Attributes:
        status: `created`, `running`, `paused`, `exited`, `dead`, … pid: of its first process, as the engine counts; 0: none.
        error: why it could not be started, in the engine's words.
    """

    status: str
    pid: int
    exit_code: int
    oom_killed: bool
    error: str


@dataclass(frozen=True, slots=True)
class Container:
    """One line of a list."""

    id: str
    name: str
    labels: Mapping[str, str]
    status: str


def socket_of(host: str | None = None) -> str:
    """Give the path of the engine's socket: of `host`, else of DOCKER_HOST, else the usual one.

    Raises:
        SandboxError: the address is none of a Unix socket.
    """
    address = host or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    scheme, _, path = address.partition("://")
    if scheme != "unix" or not path.startswith("/"):
        raise SandboxError(
            f"the engine's address `{address}` is no Unix socket; an engine that can be reached over a network gives root on "
            f"its machine to all who reach it. Set DOCKER_HOST to `unix:///path`, or leave it out for `{DEFAULT_HOST}`"
        )
    return path


class Engine:
    """Speaks with one engine. An async context manager: its connections end with it."""

    def __init__(self, host: str | None = None, *, timeout: float = 30.0) -> None:
        """Take an address, as `socket_of`. `timeout`: seconds that the engine may be silent, where nothing else is said."""
        self.path = socket_of(host)
        self._timeout = timeout
        self._version = ""
        transport = httpx.AsyncHTTPTransport(uds=self.path, verify=False)  # there is no TLS on a Unix socket
        self._client = httpx.AsyncClient(
            transport=transport, base_url="http://docker", timeout=timeout, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections."""
        await self._client.aclose()

    # ------------------------------------------------------------------------------------------- the engine
    async def ping(self) -> None:
        """Do nothing when the engine answers.

        Raises:
            SandboxError: it does not.
        """
        await self._ask("GET", "/_ping", plain=True, timeout=5)

    async def version(self) -> Version:
        """Find what answers, and settle in which version to speak with it.

        Raises:
            SandboxError: nothing answers, or nothing that is new enough.
        """
        said = (await self._ask("GET", "/version", plain=True, timeout=5)).json()
        newest, oldest = _number(said["ApiVersion"]), _number(said.get("MinAPIVersion", "1.0"))
        spoken = max(min(newest, _NEWEST), oldest)
        if newest < _OLDEST:
            raise SandboxError(
                f"the Docker engine {said['Version']} speaks API {said['ApiVersion']}; 1.41 (Docker 20.10) is the oldest "
                "that can hold a sandbox"
            )
        self._version = "/v{}.{}".format(*spoken)
        return Version(said["Version"], self._version[2:])

    async def info(self) -> Info:
        """Give what the engine says of itself."""
        said = (await self._ask("GET", "/info")).json()
        return Info(
            system=said["OSType"],
            machine=said["Architecture"],
            kernel=said["KernelVersion"],
            runtime=said.get("DefaultRuntime", ""),
            runtimes=tuple(sorted(said["Runtimes"])),
            security=tuple(part.partition("=")[2].partition(",")[0] for part in said.get("SecurityOptions") or ()),
            memory=bool(said.get("MemoryLimit")),
            swap=bool(said.get("SwapLimit")) or str(said.get("CgroupVersion")) == "2",
            pids=bool(said.get("PidsLimit")),
            cpu=bool(said.get("CpuCfsQuota")),
            driver=said.get("CgroupDriver", ""),
            cgroups=str(said.get("CgroupVersion", "1")),
        )

    # ------------------------------------------------------------------------------------------- images
    async def image(self, name: str) -> dict[str, Any] | None:
        """Give what the engine knows of an image; None when it has none of that name. Nothing is ever pulled."""
        answer = await self._ask("GET", f"/images/{quote(name, safe='/:@')}/json", fine=(404,))
        return None if answer is None else _object(answer)

    async def import_image(
        self, tar: AsyncIterable[bytes], repository: str, tag: str, changes: tuple[str, ...]
    ) -> None:
        """Make an image of one layer. `changes`: lines of a Dockerfile, such as `ENV A=b`."""
        query = [("fromSrc", "-"), ("repo", repository), ("tag", tag), *(("changes", line) for line in changes)]
        answer = await self._ask("POST", "/images/create", query=query, content=tar, timeout=120)
        # It answers 200 first and tells in the body, line by line, how it went.
        for line in answer.text.splitlines():
            said = json.loads(line)
            if "error" in said:
                raise SandboxError(f"the Docker engine could not import the image: {said['error']}")

    async def remove_image(self, name: str) -> None:
        """Remove an image; none of that name is fine."""
        await self._ask("DELETE", f"/images/{quote(name, safe='/:@')}", fine=(404,))

    # ------------------------------------------------------------------------------------------- containers
    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Make a container and give its id; nothing runs yet."""
        answer = await self._ask("POST", "/containers/create", query=[("name", name)], body=body)
        return str(answer.json()["Id"])

    async def start(self, container: str) -> None:
        """Start what was made; it runs when this returns."""
        await self._ask("POST", f"/containers/{container}/start", timeout=60)

    async def wait(self, container: str, timeout: float) -> int:
        """Wait until a container has ended and give its exit code; `timeout`: seconds."""
        answer = await self._ask("POST", f"/containers/{container}/wait", timeout=timeout)
        return int(answer.json()["StatusCode"])

    async def logs(self, container: str, limit: int) -> bytes:
        """Give the last of what a container printed, both streams in one, at most `limit` bytes."""
        query = {"stdout": "1", "stderr": "1", "tail": "200"}
        kept = bytearray()
        with self._words("read the logs"):
            async with self._client.stream(
                "GET", f"{self._version}/containers/{container}/logs", params=query, timeout=10
            ) as answer:
                if answer.is_error:
                    await answer.aread()
                _refused(answer)
                left = bytearray()
                async for part in answer.aiter_bytes():
                    left += part
                    for piece in _pieces(left):
                        kept += piece
                        del kept[:-limit]
        return bytes(kept)

    async def kill(self, container: str) -> None:
        """Kill every process of a container; one that has ended, or is not there, is fine."""
        await self._ask("POST", f"/containers/{container}/kill", fine=(404, 409))

    async def pause(self, container: str) -> None:
        """Freeze a container."""
        await self._ask("POST", f"/containers/{container}/pause")

    async def unpause(self, container: str) -> None:
        """Let a frozen container go on."""
        await self._ask("POST", f"/containers/{container}/unpause")

    async def remove(self, container: str) -> None:
        """Kill a container and remove it with its volumes; not there, or on its way out, is fine."""
        query = [("force", "1"), ("v", "1")]
        await self._ask("DELETE", f"/containers/{container}", query=query, fine=(404, 409))

    async def inspect(self, container: str) -> State | None:
        """Give how a container is; None when there is none."""
        answer = await self._ask("GET", f"/containers/{container}/json", fine=(404,))
        if answer is None:
            return None
        said = answer.json()["State"]
        return State(
            status=said["Status"],
            pid=said["Pid"],
            exit_code=said["ExitCode"],
            oom_killed=said["OOMKilled"],
            error=said["Error"],
        )

    async def stats(self, container: str) -> dict[str, Any]:
        """Give the engine's counters of one moment; the control group's own files are faster and say more."""
        query = [("stream", "0"), ("one-shot", "1")]
        return _object(await self._ask("GET", f"/containers/{container}/stats", query=query))

    async def containers(self, labels: Mapping[str, str | None]) -> list[Container]:
        """List containers, ended ones too, that have all these labels; None: with any value."""
        wanted = [key if value is None else f"{key}={value}" for key, value in labels.items()]
        query = [("all", "1"), ("filters", json.dumps({"label": wanted}))]
        answer = await self._ask("GET", "/containers/json", query=query)
        return [
            Container(item["Id"], (item["Names"] or ["/"])[0][1:], item["Labels"] or {}, item["State"])
            for item in answer.json()
        ]

    # ------------------------------------------------------------------------------------------- asking
    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Any = None,
        body: Mapping[str, Any] | None = None,
        content: AsyncIterable[bytes] | None = None,
        timeout: float | None = None,
        plain: bool = False,
        fine: tuple[int, ...] = (),
    ) -> Any:
        """Ask, and give the answer; None for a refusal that is fine: 404, it is not there; 409, it is so already."""
        if not plain and not self._version:
            await self.version()
        with self._words(f"{method} {path}"):
            answer = await self._client.request(
                method,
                path if plain else self._version + path,
                params=query,
                json=body,
                content=content,
                headers=None if content is None else {"Content-Type": "application/x-tar"},
                timeout=self._timeout if timeout is None else timeout,
            )
        if answer.status_code in fine:
            return None
        _refused(answer)
        return answer

    @contextmanager
    def _words(self, what: str) -> Iterator[None]:
        """Say in whose words nothing was heard."""
        try:
            yield
        except httpx.TimeoutException as silent:
            raise SandboxError(f"the Docker engine at `{self.path}` did not answer in time ({what})") from silent
        except httpx.TransportError as broken:
            raise SandboxError(
                f"no Docker engine answers at `{self.path}`: {broken or type(broken).__name__}. Start it, set DOCKER_HOST to its "
                "`unix://` address, or choose `sandbox: bubblewrap`"
            ) from broken


def discard(path: str, container: str) -> None:
    """Kill and remove a container without a loop, for what ends when there is none; as `Engine.remove`.

    Args:
        path: of the engine's socket.
    """
    transport = httpx.HTTPTransport(uds=path, verify=False)
    with httpx.Client(transport=transport, base_url="http://docker", timeout=30, trust_env=False) as client:
        try:
            answer = client.delete(f"/containers/{container}", params={"force": "1", "v": "1"})
        except httpx.HTTPError as broken:
            raise SandboxError(
                f"the Docker engine at `{path}` cannot be asked to remove `{container}`: {broken}"
            ) from broken
        if answer.status_code not in (404, 409):
            _refused(answer)


def _refused(answer: httpx.Response) -> None:
    if answer.is_error:
        try:
            words = str(answer.json()["message"])
        except (ValueError, KeyError, TypeError):
            words = answer.text[:500]
        raise SandboxError(f"the Docker engine refused ({answer.status_code}): {words.strip()}")


def _object(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    return found


def _number(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def _pieces(data: bytearray) -> Iterator[bytes]:
    """Take whole pieces of a log from the front of `data`."""
    while len(data) >= _HEAD:
        end = _HEAD + int.from_bytes(data[4:_HEAD])
        if len(data) < end:
            return
        yield bytes(data[_HEAD:end])
        del data[:end]
