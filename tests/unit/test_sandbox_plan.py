"""The written-out form of a bubblewrap sandbox: every word is known, and nothing of this machine or its secrets is in it."""

from pathlib import Path

import pytest

from midwatch.config.specs import EgressRule, MountSpec
from midwatch.sandbox import plan as planning
from midwatch.sandbox.plan import Machine, plan
from midwatch.sandbox.profile import INSIDE, SandboxProfile

PACKAGE = "/srv/midwatch"
MACHINE = Machine(
    "/usr/bin/bwrap",
    "/usr/bin/python3.11",
    {"bin": "usr/bin", "lib": "usr/lib", "lib64": None},
    ("localtime", "ssl/certs"),
    own_user=True,
)
ROOT = "/run/x/box/mw-1"
ARGUMENTS = f"""
--unshare-user --unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try --uid 1000 --gid 1000 --hostname agent
--disable-userns --die-with-parent --as-pid-1 --new-session --cap-drop ALL --clearenv --ro-bind /usr /usr
--symlink usr/bin /bin --symlink usr/lib /lib --ro-bind /lib64 /lib64 --ro-bind /run/x/box/.etc /etc --proc /proc --dev /dev
--size 16777216 --tmpfs /dev/shm --size 268435456 --tmpfs /tmp
--ro-bind {ROOT}/code/0 {PACKAGE} --ro-bind {ROOT}/code/1 /data
--symlink /usr/bin/python3.11 /opt/midwatch/bin/python --symlink /usr/bin/python3.11 /opt/midwatch/bin/python3
--bind {ROOT}/merged /workspace --chdir /workspace --remount-ro /dev --remount-ro / --seccomp 4
"""
PROFILE = SandboxProfile(Path("/home/ann/project"), mounts=(MountSpec(Path("/srv/data"), "/data"),))


@pytest.fixture(autouse=True)
def _somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Midwatch lie in one place, wherever this checkout does."""
    monkeypatch.setattr(planning, "code_of", lambda *_: (Path(PACKAGE),))


@pytest.mark.req("PLAN-1")
def test_a_profile_is_written_out_as_one_command_line() -> None:
    """A word that is lost, or one that is won, is seen here; what stands on the command line itself says nothing of the machine."""
    made = plan(PROFILE, MACHINE, root=ROOT, sockets=None, sys_path=("", "/usr/lib/python3"))
    assert ARGUMENTS.split() == made.start["arguments"]
    assert ["/usr/bin/bwrap", "--args", "5", "--", "/usr/bin/python3.11", "-I", "-S"] == made.start["argv"][:7]
    assert [(PACKAGE, True), ("/srv/data", False)] == made.prepare["binds"]
    assert (268_435_456, 65_536) == (made.prepare["size"], made.prepare["inodes"])
    limits = {"core": 0, "open_files": 256, "file_size": 268_435_456, "address_space": None, "processes": None}
    assert limits == made.start["rlimits"]
    assert (["/usr/lib/python3"], INSIDE, None) == (
        made.hello["sys_path"],
        made.hello["cwd"],
        made.hello["bridge"],
    )


@pytest.mark.req("PLAN-2")
def test_a_way_out_is_one_socket_and_no_secret_is_in_the_plan() -> None:
    """With rules, the socket's folder and the bridge are all that is added; the values of secrets are written nowhere."""
    rule = EgressRule("api.example.com", headers={"Authorization": "Bearer ${secret:KEY}"})
    profile = SandboxProfile(PROFILE.workspace, egress=(rule,), secrets={"KEY": "s3cr3t-value"})
    alone = plan(PROFILE, MACHINE, root=ROOT, sockets=None, sys_path=())
    made = plan(profile, MACHINE, root=ROOT, sockets="/run/x/net/mw-1", sys_path=())
    assert {"/run/x/net/mw-1", "/run/midwatch"} == set(made.start["arguments"]) - set(alone.start["arguments"])
    assert {"port": 8631, "socket": "/run/midwatch/broker.sock"} == made.hello["bridge"]
    assert "http://127.0.0.1:8631" == made.hello["env"]["HTTPS_PROXY"]
    assert "s3cr3t-value" not in repr((made, profile))
