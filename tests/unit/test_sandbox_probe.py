"""What the probe says of this machine, and what follows from what it says."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from midwatch.errors import SandboxError
from midwatch.sandbox import probe as probe_module
from midwatch.sandbox import probing, seccomp
from midwatch.sandbox.probe import NEEDS, Item, Report, level, missing, probe

ROOT = os.geteuid() == 0
EVERYTHING = {name for needs in NEEDS.values() for name in needs}


@pytest.fixture(scope="module")
def report() -> Report:
    """Of this machine."""
    return probe()


def made(broken: Mapping[str, str] = MappingProxyType({}), *, root: bool = True) -> Report:
    """A machine where all works but what is named."""
    items = (
        Item(name, name not in broken, broken.get(name, "fine"), "mend it" if name in broken else "")
        for name in EVERYTHING
    )
    return Report(root, tuple(items))


@pytest.mark.req("PROBE-1")
def test_it_tells_of_every_layer_and_what_to_do(report: Report) -> None:
    """All layers are there once; what does not work has a remedy, what works needs none; the whole is JSON."""
    names = [item.name for item in report.items]
    assert sorted({*EVERYTHING, "landlock", "fanotify"}) == sorted(names)
    assert all(item.detail and bool(item.remedy) != item.ok for item in report.items)
    assert report.to_json() == json.loads(json.dumps(report.to_json()))


@pytest.mark.req("PROBE-1")
def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No mount, no file, no control group, no process after a probe near a folder of its own; others may probe meanwhile."""
    mark, asked = f"mine{os.urandom(6).hex()}", list[int]()

    def token(size: int) -> str:
        asked.append(size)
        return mark

    monkeypatch.setattr(secrets, "token_hex", token)
    probe(tmp_path)
    assert asked or not ROOT, "the control group was named so"
    assert [] == list(tmp_path.iterdir())
    mounts = Path("/proc/self/mountinfo").read_text()
    assert (False, False) == (str(tmp_path) in mounts, mark in mounts)
    assert [] == list(Path("/sys/fs/cgroup").glob(f"**/*{mark}*"))
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listed


@pytest.mark.req("PROBE-1")
def test_what_a_namespace_forbids_is_seen(tmp_path: Path) -> None:
    """Where user namespaces are used up, the attempt itself fails, whatever the settings outside say."""
    source = tmp_path / "src"
    shutil.copytree(
        Path(probe_module.__file__).parents[1], source / "midwatch", ignore=shutil.ignore_patterns("__pycache__")
    )
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from midwatch.sandbox import probe;"
        "probe._cgroups = probe._docker = lambda: probe.Item('other', True, '');"
        "print(json.dumps(probe.probe().to_json()))"
    )
    done = subprocess.run(
        ["bwrap", "--unshare-user", "--disable-userns", "--dev-bind", "/", "/", "--proc", "/proc", "--bind", str(source), "/mnt",
         sys.executable, "-c", program, "/mnt"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    said = {item["name"]: item for item in json.loads(done.stdout)["items"]}
    assert not said["user_namespaces"]["ok"]
    assert not said["bubblewrap"]["ok"]
    assert said["no_new_privs"]["ok"]
    assert said["seccomp"]["ok"]


@pytest.mark.req("PROBE-2")
def test_a_level_needs_all_of_its_layers() -> None:
    """One layer less and the level is not claimed; what is missing is told with its remedy."""
    assert "bubblewrap" == level(made())
    assert "bubblewrap" == level(made({"docker": "none"}))
    assert "docker" == level(made({"bubblewrap": "not installed"}))
    assert "process" == level(made({"overlay": "refused"}))
    assert "process" == level(made({"seccomp": "refused"}, root=False))
    assert "bubblewrap" == level(made({"cgroups": "none", "idmapped_mounts": "root only"}, root=False))
    for name in NEEDS["bubblewrap", True]:
        (problem,) = missing(made({name: "refused"}), "bubblewrap")
        assert (name, "refused; mend it", "sandbox-missing") == (problem.where, problem.message, problem.code)


@pytest.mark.req("PROBE-2")
def test_what_was_not_tried_does_not_hold() -> None:
    """An empty report allows nothing but `process`; Docker without root is refused."""
    nothing = Report(ROOT, ())
    assert "process" == level(nothing)
    assert {"it was not tried"} == {problem.message for problem in missing(nothing, "bubblewrap")}
    assert () == missing(nothing, "process")
    assert ["sandbox-root"] == [problem.code for problem in missing(made(root=False), "docker")]


@pytest.mark.req("PROBE-1")
def test_a_setting_that_forbids_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """AppArmor's restriction of newer Ubuntu is told by the name of its setting."""
    settings = {"kernel/apparmor_restrict_unprivileged_userns": "1", "user/max_user_namespaces": "9"}
    monkeypatch.setattr(probe_module, "_setting", settings.get)
    assert "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in probe_module._remedy("user_namespaces")


@pytest.mark.req("PROBE-1")
@pytest.mark.parametrize("trouble", ["hangs", "garbage", "gone", "machine"])
def test_what_goes_wrong_is_an_answer(trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that hang or answer nonsense, and a processor without numbers, are findings, not errors."""
    script = tmp_path / "attempts.py"
    script.write_text({"hangs": "while True: pass", "garbage": "print('no JSON')"}.get(trouble, "raise SystemExit(3)"))
    monkeypatch.setattr(probing, "__file__", str(script))
    monkeypatch.setattr(probe_module, "_PATIENCE_S", 0.3)
    if trouble == "machine":
        monkeypatch.setattr(seccomp, "program", _unknown)
    found = probe()
    assert "process" == level(found)
    overlay = found.get("overlay")
    assert overlay is not None
    assert "could not be made" in overlay.detail
    machine = found.get("machine")
    assert machine is not None
    assert machine.ok == (trouble != "machine")


def _unknown(*_: Any) -> bytes:
    raise SandboxError("no seccomp filter for `vax`")


@pytest.mark.req("PROBE-1")
def test_an_engine_that_is_none_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without a socket, and an address of a network, are findings with a remedy."""
    for address, word in (
        (f"unix://{tmp_path}/none.sock", "no engine answers"),
        ("tcp://127.0.0.1:2375", "no socket of an engine"),
    ):
        monkeypatch.setenv("DOCKER_HOST", address)
        found = probe_module._docker()
        assert not found.ok
        assert word in found.detail
        assert found.remedy
