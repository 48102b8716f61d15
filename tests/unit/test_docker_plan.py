"""The written-out form of a container, what is refused before one is made, and what is read of an engine's words."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from midwatch.config.specs import MountSpec, SandboxLimits
from midwatch.errors import SandboxError
from midwatch.sandbox import docker, docker_api, docker_image, docker_plan, docker_tree, seccomp
from midwatch.sandbox.docker_api import Info
from midwatch.sandbox.docker_image import Image
from midwatch.sandbox.docker_plan import Place
from midwatch.sandbox.plan import cell_command
from midwatch.sandbox.profile import INSIDE, SandboxProfile

PACKAGE = Path(docker_plan.__file__).resolve().parents[1]
PLACE = Place("mw-1", "/run/x/box/mw-1", "/run/x/control/mw-1", "/run/x/net/mw-1", (70001, 70001), "/run/x")
IMAGE = Image("midwatch-python:0", "/usr/bin/python3.11")
ENGINE = Info("linux", "x86_64", "6.1", "runc", ("runc",), ("seccomp",), True, True, True, True, "cgroupfs", "2")


def _bind(source: str, target: str, *, read_only: bool = True) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


@pytest.mark.req("DOCKER-1")
def test_a_profile_is_written_out_as_one_container() -> None:
    """The whole body is known: a line that is lost, or one that is won, is seen here."""
    profile = SandboxProfile(Path("/home/ann/project"), mounts=(MountSpec(Path("/srv/data"), "/data"),))

    body = docker_plan.container(profile, PLACE, IMAGE)

    host = body.pop("HostConfig")
    assert body == {
        "Image": "midwatch-python:0",
        "Entrypoint": cell_command("/usr/bin/python3.11", "/run/midwatch-control/cell.sock"),
        "Cmd": [],
        "Env": [],
        "User": "70001:70001",
        "WorkingDir": "/",
        "Hostname": "agent",
        "Domainname": "",
        "NetworkDisabled": True,
        "AttachStdin": False,
        "OpenStdin": False,
        "Tty": False,
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {"midwatch.sandbox": "mw-1", "midwatch.folder": "/run/x"},
    }
    assert host.pop("Mounts") == [
        _bind("/run/x/box/mw-1/merged", INSIDE, read_only=False),
        _bind("/run/x/control/mw-1", "/run/midwatch-control"),
        _bind("/run/x/net/mw-1", "/run/midwatch"),
        *(
            _bind(f"/run/x/box/mw-1/etc/{name}", f"/etc/{name}")
            for name in ("passwd", "group", "hosts", "nsswitch.conf", "resolv.conf")
        ),
        _bind("/run/x/box/mw-1/code/0", str(PACKAGE)),
        _bind("/run/x/box/mw-1/code/1", "/data"),
    ]


@pytest.mark.req("DOCKER-1")
def test_a_profile_is_written_out_as_bounds_and_rights() -> None:
    """None of them is left to the engine's own choice."""
    host = docker_plan.container(SandboxProfile(Path("/w")), PLACE, IMAGE)["HostConfig"]

    assert len(host.pop("Mounts")) == 9
    privileges, filtered = host.pop("SecurityOpt")
    assert privileges == "no-new-privileges"
    assert json.loads(filtered.removeprefix("seccomp=")) == seccomp.docker_profile()
    assert host == {
        "NetworkMode": "none",
        "IpcMode": "none",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "Privileged": False,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": [],
        "Init": False,
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}},
        "Runtime": "",
        "Memory": 1 << 30,
        "MemorySwap": 1 << 30,
        "PidsLimit": 64,
        "NanoCpus": 1_000_000_000,
        "OomKillDisable": False,
        "OomScoreAdj": 500,
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": 256, "Hard": 256},
            {"Name": "fsize", "Soft": 256 << 20, "Hard": 256 << 20},
        ],
        "Devices": [],
        "Tmpfs": {
            "/tmp": "rw,exec,nosuid,nodev,mode=1777,size=268435456,nr_inodes=65536",
            "/dev/shm": "rw,noexec,nosuid,nodev,mode=1777,size=16777216",
        },
    }


@pytest.mark.req("DOCKER-1")
def test_secrets_and_environment_are_no_part_of_a_container() -> None:
    """An engine keeps what a container was made with, for all who may ask it."""
    profile = SandboxProfile(Path("/w"), secrets={"KEY": "s3cret-value"}, env={"MODE": "very-own"})

    written = json.dumps([docker_plan.container(profile, PLACE, IMAGE), docker_plan.view(profile, (7, 7))])

    assert "s3cret" not in written
    assert "very-own" not in written
    assert "very-own" == docker_plan.hello(profile, IMAGE, (), bridged=False)["env"]["MODE"]


@pytest.mark.req("DOCKER-1")
def test_the_view_names_the_agent_by_the_user_it_really_is() -> None:
    """No user is mapped in a container, so that what `id` says inside is what `ps` says outside."""
    view = docker_plan.view(SandboxProfile(Path("/w")), (70001, 70001))

    assert "agent:x:70001:70001::/tmp:/bin/sh" in view["etc"]["passwd"].splitlines()
    assert [(str(PACKAGE), True)] == view["binds"]
    assert ("/w", 256 << 20, 65_536, "") == (
        view["workspace"],
        view["size"],
        view["inodes"],
        view["etc"]["resolv.conf"],
    )


@pytest.mark.req("DOCKER-10")
def test_an_images_own_python_imports_its_own_library_first() -> None:
    """Of this machine's entries only those that are shown inside are kept; relative ones never."""
    image = Image(
        "theirs:1", "/usr/local/bin/python3", ("/usr/local/lib/python3.11", "/usr/local/lib/python3.11/site-packages")
    )
    own = ("", "/usr/lib/python3.11", str(PACKAGE / "x"))

    told = docker_plan.hello(SandboxProfile(Path("/w")), image, own, bridged=True)

    assert ["/usr/local/lib/python3.11", str(PACKAGE / "x"), "/usr/local/lib/python3.11/site-packages"] == told[
        "sys_path"
    ]
    assert {"port": 8631, "socket": "/run/midwatch/broker.sock"} == told["bridge"]
    assert ["/usr/lib/python3.11", str(PACKAGE / "x")] == docker_plan.hello(
        SandboxProfile(Path("/w")), IMAGE, own, bridged=False
    )["sys_path"]


@pytest.mark.req("DOCKER-3")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernel": "5.0"}, "another kernel"),
        ({"system": "windows"}, "another kernel"),
        ({"security": ()}, "filters no system calls"),
        ({"security": ("seccomp", "rootless")}, "rootless"),
        ({"security": ("seccomp", "userns")}, "userns-remap"),
        ({"memory": False}, "no memory"),
        ({"pids": False}, "no processes"),
        ({"cpu": False}, "no processor time"),
        ({"runtime": "runsc"}, "name it as the sandbox's `runtime`"),
    ],
)
def test_what_an_engine_cannot_hold_is_refused(
    change: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thing that is missing is one sentence; an engine that has all of it is refused nothing."""
    monkeypatch.setattr("platform.release", lambda: "6.1")
    profile = SandboxProfile(Path("/w"))

    assert [] == docker.refused(ENGINE, profile)
    (told,) = docker.refused(replace(ENGINE, **change), profile)
    assert words in told


@pytest.mark.req("DOCKER-3")
def test_a_runtime_that_the_engine_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never replaced by the engine's own; one that is there is passed on by its name."""
    monkeypatch.setattr("platform.release", lambda: "6.1")
    profile = SandboxProfile(Path("/w"), runtime="runsc")

    (told,) = docker.refused(ENGINE, profile)
    assert "no runtime `runsc`, only runc" in told
    assert [] == docker.refused(replace(ENGINE, runtimes=("runc", "runsc")), profile)
    host = docker_plan.container(profile, PLACE, IMAGE)["HostConfig"]
    assert ("runsc", 64 * 4 + 256) == (host["Runtime"], host["PidsLimit"])


@pytest.mark.req("DOCKER-2")
@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:2375", "http://h", "ssh://root@h", "unix://relative", "/var/run/docker.sock", "npipe:////./x"],
)
def test_an_address_that_is_no_unix_socket_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given, or found in the environment."""
    with pytest.raises(SandboxError, match="no Unix socket"):
        docker_api.socket_of(address)
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(SandboxError, match="no Unix socket"):
        docker_api.Engine()


@pytest.mark.req("DOCKER-2")
def test_no_engine_is_said_with_what_to_do(tmp_path: Path) -> None:
    """The path that was tried is named."""

    async def body() -> None:
        async with docker_api.Engine(f"unix://{tmp_path}/none.sock") as engine:
            with pytest.raises(SandboxError, match=r"no Docker engine answers at .*none\.sock.*bubblewrap"):
                await engine.info()

    anyio.run(body)


@pytest.mark.req("DOCKER-2")
def test_a_fleet_is_refused_before_its_run_begins_where_no_engine_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its every call would fail otherwise, in a run that ends as if it were done."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    backend = docker.DockerBackend(f"unix://{tmp_path}/none.sock")
    with pytest.raises(SandboxError, match=r"no Docker engine answers at .*none\.sock.*DOCKER_HOST.*bubblewrap"):
        backend.refuse(SandboxLimits())


class Answers:
    """An engine that has one image, whose Python says what it is told to."""

    def __init__(self, said: str, volumes: dict[str, Any] | None = None) -> None:
        self.said, self.volumes, self.removed = said, volumes, 0

    async def image(self, name: str) -> dict[str, Any] | None:
        return {"Config": {"Volumes": self.volumes}} if name == "theirs:1" else None

    async def create(self, name: str, body: dict[str, Any]) -> str:
        assert "none" == body["HostConfig"]["NetworkMode"]
        return "id"

    async def start(self, container: str) -> None:
        if not self.said:
            raise SandboxError('exec: "python3": not found')

    async def wait(self, container: str, timeout: float) -> int:
        return 1

    async def logs(self, container: str, limit: int) -> bytes:
        return self.said.encode()

    async def remove(self, container: str) -> None:
        self.removed += 1


@pytest.mark.req("DOCKER-10")
@pytest.mark.parametrize(
    ("engine", "name", "words"),
    [
        (Answers("{}"), "absent:1", "docker pull absent:1"),
        (Answers(""), "theirs:1", "no `python3` that can be started"),
        (Answers("Traceback: broken"), "theirs:1", "does not run: it ended with 1: Traceback: broken"),
        (Answers('{"soabi": "cpython-27m"}'), "theirs:1", "binary interface is `cpython-27m`"),
        (Answers("{}", {"/data": {}}), "theirs:1", "declares volumes (/data)"),
    ],
)
def test_an_image_that_no_cell_can_run_on_is_refused(engine: Any, name: str, words: str) -> None:
    """In words that say why, and the container that was asked is gone."""

    async def body() -> None:
        with pytest.raises(SandboxError) as raised:
            await docker_image.of_operator(engine, name)
        assert words in str(raised.value)

    anyio.run(body)
    assert engine.removed == int(name == "theirs:1" and engine.volumes is None)


@pytest.mark.req("DOCKER-9")
def test_the_image_holds_the_interpreter_with_what_it_loads_and_no_more() -> None:
    """Its library without tests, the C library, a shell; nothing that is installed, nothing of a home."""
    held = docker_image.contents()

    python = docker_image.interpreter()
    assert python == held["opt/midwatch/bin/python"]
    assert held.get(python[1:], "") is None
    assert any(path.endswith("/json/decoder.py") for path in held)
    assert any("libc.so.6" in path or "libc.musl" in path for path in held)
    assert not [path for path in held if "site-packages" in path or "/test/" in path or path.startswith("home/")]


GROUPS = "/midwatch/c0ffee"


@pytest.mark.req("DOCKER-7")
@pytest.mark.parametrize(
    ("mounts", "membership", "expected"),
    [
        (
            ["/ /cg rw - cgroup2 cgroup2 rw,nsdelegate"],
            f"0::{GROUPS}\n",
            {"": f"/cg{GROUPS}"},
        ),
        (
            [
                "/ /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct",
                "/ /cg/fr rw - cgroup cgroup rw,freezer",
                "/ /cg/u rw - cgroup2 none rw",
            ],
            f"5:cpu,cpuacct:{GROUPS}\n3:freezer:{GROUPS}\n1:name=systemd:/x\n0::{GROUPS}\n",
            {
                "cpu": f"/cg/cpu{GROUPS}",
                "cpuacct": f"/cg/cpu{GROUPS}",
                "freezer": f"/cg/fr{GROUPS}",
                "": f"/cg/u{GROUPS}",
            },
        ),
        (
            ["/midwatch /my\\040groups rw - cgroup2 none rw"],
            f"0::{GROUPS}\n",
            {"": "/my groups/c0ffee"},
        ),
        (["/ /cg/u rw - cgroup2 none rw"], "0::/\n", {}),
        (["/other /cg rw - cgroup2 none rw"], f"0::{GROUPS}\n", {}),
    ],
)
def test_where_a_process_is_grouped_is_read_from_the_kernel(
    mounts: list[str], membership: str, expected: dict[str, str]
) -> None:
    """Version 2, hybrid, a mount of a part, the root group (which is nobody's own), and a part that is not to be seen."""
    text = "".join(f"30 25 0:26 {line}\n" for line in mounts)

    assert expected == {name: str(path) for name, path in docker_tree.groups(text, membership)}


@pytest.mark.req("DOCKER-7")
def test_control_groups_that_are_not_the_containers_own_are_refused() -> None:
    """This process is in no container, so none of its groups may be frozen in the name of one."""
    with pytest.raises(SandboxError, match="not to be seen from here"):
        docker_tree.group_of(1, "c0ffee", "mw-1")
