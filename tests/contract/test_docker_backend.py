"""The `docker` backend against a real engine: what a container of ours is, can, and cannot."""

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from midwatch.config.specs import MountSpec, SandboxLimits
from midwatch.errors import SandboxError
from midwatch.sandbox import cgroups, docker_image
from midwatch.sandbox.celled import CelledSandbox
from midwatch.sandbox.docker import DockerBackend
from midwatch.sandbox.docker_plan import LABEL
from tests.contract.docker_ground import TREE, Ground, nothing_left, run, said, soon

TOOL = """
import json
class Tool:
    def work(self, arguments, facts):
        with open("/workspace/made.txt", "a") as file:
            file.write(arguments)
        return {"asked": json.loads(arguments), "facts": dict(facts)}
tool = Tool()
"""
SUPERVISOR = """
import sys, anyio
from pathlib import Path
from midwatch.sandbox.docker import DockerBackend
from midwatch.sandbox.profile import SandboxProfile
async def body():
    backend = DockerBackend(host=sys.argv[1])
    sandbox = await backend.start(SandboxProfile(Path(sys.argv[2])))
    print(backend._client.folder, backend._client._process.pid, sandbox._parts.tree.group.paths[0], flush=True)
    await anyio.sleep(100)
anyio.run(body)
"""


@pytest.fixture(scope="module")
def backend(docker_host: str) -> Iterator[DockerBackend]:
    """One backend for all tests here; its launcher takes every view away at the end."""
    made = DockerBackend(docker_host)
    yield made
    made.shut()


@pytest.fixture
def ground(docker_host: str, backend: DockerBackend, tmp_path: Path) -> Ground:
    """A workspace with one file."""
    return Ground.below(tmp_path, docker_host, backend)


@pytest.mark.req("DOCKER-11")
def test_a_tool_and_a_program_act_in_one_workspace(ground: Ground, tmp_path: Path) -> None:
    """A call answers, a program sees what it did, the layer tells both, and the machine's own files are as they were."""
    tool = tmp_path / "tool.py"
    tool.write_text(TOOL)

    async def body() -> None:
        async with ground.sandbox(code=(tool,)) as sandbox:
            answer = await sandbox.call(
                f"{tool}:tool",
                '{"n": 1}',
                facts={"who": "x"},
                limits=SandboxLimits(),
                workdir=ground.workspace,
                timeout_us=10_000_000,
                max_bytes=10_000,
            )
            assert ("answered", {"asked": {"n": 1}, "facts": {"who": "x", "workdir": "/workspace"}}) == (
                answer.status,
                answer.answer,
            )
            seen = await said(sandbox, "sh", "-c", "cat made.txt base.txt; rm base.txt; echo no >&2; exit 3")
            assert (b'{"n": 1}base\n', b"no\n", 3) == (seen.stdout, seen.stderr, seen.exit_code)
            layer = await sandbox.effects(ground.layers / "one")
            assert [("deleted", "base.txt"), ("created", "made.txt")] == [
                (item.op, item.path) for item in layer.changes
            ]
        async with ground.sandbox(layer) as again:
            assert b"made.txt\n" == (await said(again, "ls")).stdout

    run(body)
    assert ["base.txt"] == [path.name for path in ground.workspace.iterdir()]


@pytest.mark.req("DOCKER-11")
def test_what_was_read_and_executed_is_seen(ground: Ground) -> None:
    """By the kernel, across the engine's namespaces; what it took to begin is no call's doing."""
    (ground.workspace / "tool").write_text("#!/bin/sh\n. ./base.txt\n")
    (ground.workspace / "tool").chmod(0o755)
    (ground.workspace / "base.txt").write_text("true\n")

    async def body() -> None:
        async with ground.sandbox() as sandbox:
            await said(sandbox, "./tool")
            layer = await sandbox.effects(ground.layers / "one")
            assert [("read", "base.txt"), ("executed", "tool")] == [(item.op, item.path) for item in layer.changes]

    run(body)


@pytest.mark.req("DOCKER-5")
def test_a_container_has_nothing_that_it_was_not_given(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own user, no right, no environment of ours, no network but loopback, nothing to write to but the workspace and `/tmp`."""
    monkeypatch.setenv("MW_SECRET", "very-own-secret")
    script = (
        "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; "
        "cat /proc/net/dev | grep -c : ; cat /proc/*/environ | tr '\\0' '\\n' | grep -c very-own; "
        "ls /run/midwatch-control | wc -l; ls /run/midwatch | wc -l; ls -d /root/.ssh /home/* /var/run/docker.sock 2>/dev/null | wc -l; "
        "for f in /x /etc/x /usr/x /run/x /run/midwatch-control/x /dev/x /etc/passwd; do (echo x > $f) 2>/dev/null && echo wrote $f; done; "
        "echo x > /tmp/x && echo x > /dev/shm/x && echo x > /workspace/x && echo ok; kill -9 1; echo alive"
    )

    async def body() -> None:
        async with ground.sandbox() as sandbox, ground.sandbox() as other:
            text = (await said(sandbox, "sh", "-c", script)).stdout.decode().split()
            assert [
                "CapBnd:0000000000000000",
                "NoNewPrivs:1",
                "Seccomp:2",
                "1",
                "0",
                "0",
                "0",
                "0",
                "ok",
                "alive",
            ] == text[2:]
            assert int(text[0]) > 0x70000000 - 1
            assert text[0] != (await said(other, "id", "-u")).stdout.decode().strip()

    run(body)


@pytest.mark.req("DOCKER-5")
def test_what_is_mounted_is_read_only(ground: Ground, tmp_path: Path) -> None:
    """A mount of the operator's is seen at its place, and a file that only its owner may read is read by the agent, too."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "f").write_text("seen")
    code = tmp_path / "own.py"
    code.write_text("x = 1\n")
    code.chmod(0o600)

    async def body() -> None:
        async with ground.sandbox(mounts=(MountSpec(tmp_path / "data", "/data"),), code=(code,)) as sandbox:
            seen = await said(sandbox, "sh", "-c", f"cat /data/f {code}; echo x > /data/f")
            assert (b"seenx = 1\n", 2) == (seen.stdout, seen.exit_code)

    run(body)
    assert "seen" == (tmp_path / "data" / "f").read_text()


@pytest.mark.req("DOCKER-6")
def test_bounds_hold_and_are_counted(ground: Ground) -> None:
    """Memory by the kernel's killer, processes by a refused fork, the workspace and `/tmp` by a full disk, a file by its signal."""
    bomb = "import os\ntry:\n    while os.fork() or True: pass\nexcept OSError as e: print(e.errno, flush=True)"
    fill = "for f in /workspace/f /tmp/f; do head -c 30000000 /dev/zero > $f 2>/dev/null; echo $?; rm $f; done"

    async def body() -> None:
        async with ground.sandbox(memory=96 << 20, processes=24, disk=16 << 20, file_size=40 << 20) as sandbox:
            assert b"1\n1\n" == (await said(sandbox, "sh", "-c", fill)).stdout
            assert b"11" == (await said(sandbox, "python3", "-c", bomb)).stdout[:2]
            hog = await said(sandbox, "python3", "-c", "x = bytearray(400 << 20)")
            assert ("ended", -signal.SIGKILL) == (hog.status, hog.exit_code)
            stats = await sandbox.stats()
            assert stats.oom_kills
            assert stats.processes_refused
            assert 0 < (stats.memory_peak or 0) <= 96 << 20
        async with ground.sandbox(file_size=1 << 20) as sandbox:
            big = await said(sandbox, "python3", "-c", "open('f', 'wb').write(b'x' * (2 << 20))")
            assert 0 != big.exit_code

    run(body)


@pytest.mark.req("DOCKER-7")
def test_sixty_processes_are_frozen_and_killed_as_one(ground: Ground) -> None:
    """Frozen they use no time at all; killed while frozen none is left; the call that started them ends as crashed."""

    async def body() -> None:
        async with ground.sandbox(processes=80) as sandbox, anyio.create_task_group() as group:
            ended: list[str] = []

            async def grow() -> None:
                ended.append((await said(sandbox, "python3", "-c", TREE, timeout_us=50_000_000)).status)

            group.start_soon(grow)
            tree = sandbox._parts.tree
            assert await soon(lambda: (tree.stats().processes or 0) >= 61)
            await sandbox.pause()
            before = await sandbox.stats()
            await anyio.sleep(0.2)
            assert before.cpu_us == (await sandbox.stats()).cpu_us
            assert before.frozen
            await sandbox.kill()
            after = await sandbox.stats()
            assert (0, 61) == (after.processes, min(after.processes_peak or 0, 61))
            assert await soon(lambda: ended == ["crashed"])

    run(body)


@pytest.mark.req("DOCKER-7")
def test_what_a_call_leaves_behind_is_gone_before_the_next(ground: Ground) -> None:
    """A daemon that left its session is killed with the call, and the cell reaps it."""

    async def body() -> None:
        async with ground.sandbox() as sandbox:
            await said(sandbox, "sh", "-c", "setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & sleep 0.05")
            left = await said(sandbox, "sh", "-c", "echo /proc/[0-9]*")
            assert 2 == len(left.stdout.split())  # the cell, and who asks

    run(body)


def _over(process: int) -> bool:
    """Say whether a process is gone, or waits only for somebody to take note of its end."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.req("DOCKER-8")
@pytest.mark.parametrize("launcher_too", [False, True])
def test_a_killed_supervisor_leaves_nothing(ground: Ground, launcher_too: bool) -> None:
    """Its launcher kills a frozen container; were both killed at once, another backend's start does, and takes the folder away."""
    command = [sys.executable, "-c", SUPERVISOR, ground.host, str(ground.workspace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            words = child.stdout.readline().split()
            assert 3 == len(words)
            folder, launcher, group = Path(words[0]), int(words[1]), Path(words[2])
            assert group.is_dir()
            if launcher_too:
                os.kill(launcher, signal.SIGKILL)
        finally:
            child.kill()

    async def body() -> None:
        if not launcher_too:
            assert await soon(lambda: not group.exists())
        assert await soon(lambda: _over(launcher))  # whoever still dies holds what it held
        fresh = DockerBackend(host=ground.host)
        sandbox = await fresh.start(ground.profile())
        await sandbox.close()
        await fresh.close()
        assert await soon(lambda: not group.exists())
        assert await soon(lambda: not folder.exists())
        async with ground.engine() as engine:
            assert [] == await engine.containers({LABEL: None, "midwatch.folder": str(folder)})

    run(body)


@pytest.mark.req("DOCKER-8")
def test_what_an_engine_keeps_of_a_container_that_ended_is_removed(ground: Ground) -> None:
    """Its supervisor ended while the engine did not answer. One of a supervisor that lives stays, also when it has ended."""

    async def body() -> None:
        mine = cgroups.named("mw-test")
        async with ground.engine() as engine:
            image = await docker_image.of_machine(engine)
            for name in (mine, "mw-test.1.1"):
                what = {"Image": image.name, "Entrypoint": ["true"], "Labels": {LABEL: name}}
                made = await engine.create(name, what)
                await engine.start(made)
                await engine.wait(made, 10)
            fresh = DockerBackend(host=ground.host)
            await (await fresh.start(ground.profile())).close()
            await fresh.close()
            assert [mine] == [left.name for left in await engine.containers({LABEL: None})]
            await engine.remove(mine)

    run(body)


@pytest.mark.req("DOCKER-11")
def test_sandboxes_begin_side_by_side(ground: Ground) -> None:
    """One launcher, one image, no name and no user twice."""

    async def body() -> None:
        fresh = DockerBackend(host=ground.host)
        made: list[CelledSandbox] = []

        async def one() -> None:
            made.append(await fresh.start(ground.profile()))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(one)
        users = {(await said(sandbox, "id", "-u")).stdout for sandbox in made}
        assert (4, 4) == (len(users), len({sandbox.name for sandbox in made}))
        await fresh.close()
        await nothing_left(ground)

    run(body)


@pytest.mark.req("DOCKER-14")
def test_a_sandbox_under_gvisor_is_the_same(ground: Ground) -> None:
    """Its kernel is another, what it changes is seen as ever, it is frozen and killed; an engine without it says so."""

    async def body() -> None:
        async with ground.engine() as engine:
            runtimes = (await engine.info()).runtimes
        if "runsc" not in runtimes:
            with pytest.raises(SandboxError, match="no runtime `runsc`"):
                await ground.backend.start(ground.profile(runtime="runsc"))
            return
        async with ground.sandbox(runtime="runsc") as sandbox:
            seen = await said(sandbox, "sh", "-c", "echo x > made.txt; rm base.txt; id -u")
            assert 0 == seen.exit_code
            assert platform.release().encode() not in (await said(sandbox, "uname", "-r")).stdout
            layer = await sandbox.effects(ground.layers / "one")
            assert {("deleted", "base.txt"), ("created", "made.txt")} <= {
                (item.op, item.path) for item in layer.changes
            }
            assert (await sandbox.stats()).frozen
            await sandbox.kill()
            assert 0 == (await sandbox.stats()).processes

    run(body)


class Door:
    """A broker that answers everything with one line."""

    @contextlib.asynccontextmanager
    async def attach(self, socket_path: Path, profile: Any, owner: tuple[int, int] | None) -> AsyncIterator[Any]:
        assert owner is not None
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(socket_path))
            os.chown(socket_path, *owner)
            door.listen()
            thread = threading.Thread(target=self._serve, args=(door,), daemon=True)
            thread.start()
            yield self
            door.shutdown(socket.SHUT_RDWR)
            thread.join(5)

    def _serve(self, door: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = door.accept()
                with caller:
                    caller.recv(4096)
                    caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nheld")

    def requests(self) -> tuple[()]:
        return ()

    def bodies(self) -> dict[str, bytes]:
        return {}


@pytest.mark.req("DOCKER-13")
def test_the_only_way_out_is_the_brokers_socket(ground: Ground) -> None:
    """A client that knows only `HTTP_PROXY` reaches the broker; without it every address is unreachable."""
    ask = "import urllib.request as u; print(u.urlopen('http://example.org/x', timeout=5).read())"
    direct = "import socket; s = socket.socket(); s.settimeout(5); print(s.connect_ex(('192.0.2.1', 80)))"

    async def body() -> None:
        async with ground.sandbox(egress=Door()) as sandbox:
            assert b"b'held'\n" == (await said(sandbox, "python3", "-c", ask)).stdout
            assert b"101\n" == (await said(sandbox, "python3", "-c", direct)).stdout

    run(body)


@pytest.mark.req("DOCKER-11")
def test_a_backend_that_is_closed_leaves_no_container(ground: Ground) -> None:
    """Also those that nobody closed."""

    async def body() -> None:
        fresh = DockerBackend(host=ground.host)
        sandbox: CelledSandbox = await fresh.start(ground.profile())
        client = fresh._client
        assert client is not None
        await fresh.close()
        assert not client.folder.exists()
        with pytest.raises(SandboxError, match="has ended"):
            await sandbox.pause()
        async with ground.engine() as engine:
            assert [] == await engine.containers({LABEL: sandbox.name})

    run(body)
