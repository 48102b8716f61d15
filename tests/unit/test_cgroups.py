"""Control groups, the pure parts: which kind of machine this is, what is written into which file, what is read from it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from midwatch.config.specs import SandboxLimits
from midwatch.errors import SandboxError
from midwatch.sandbox import cgroups
from midwatch.sandbox.cgroups import Clock, Group, Layout, Place, detect
from midwatch.sandbox.port import Stats

LIMITS = SandboxLimits(memory=64 << 20, processes=32, cpu_milli=500)
V2 = "cgroup.procs cgroup.freeze cgroup.kill memory.max memory.swap.max pids.max cpu.max cgroup.subtree_control cgroup.events"
V1 = "cgroup.procs memory.limit_in_bytes memory.memsw.limit_in_bytes pids.max cpu.cfs_period_us cpu.cfs_quota_us freezer.state"


@dataclass
class Machine:
    """A machine's files in a folder. `kernel` names the files that appear in each new group."""

    root: Path
    kernel: str = ""
    denied: set[str] = field(default_factory=set)
    now: int = 0

    def put(self, path: str, text: str = "") -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def may(self, path: Path, mode: int) -> bool:
        return path.exists() and str(path.relative_to(self.root)) not in self.denied

    def detect(self, mounts: str, own: str) -> Layout:
        return detect(mounts, own, root=self.root, may=self.may, clock=Clock(lambda: self.now, self.pause))

    def pause(self, us: int) -> None:
        self.now += us

    def read(self, *folders: Path) -> dict[str, str]:
        files = (file for folder in folders for file in sorted(folder.iterdir()) if file.is_file())
        return {file.name: text for file in files if (text := file.read_text())}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """An empty machine whose new groups have the files that `kernel` names."""
    made = Machine(tmp_path)
    mkdir = Path.mkdir

    def with_files(folder: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:  # noqa: FBT002
        new = not folder.exists()
        mkdir(folder, mode, parents, exist_ok)
        if new and "/cg" in str(folder):
            for name in made.kernel.split():
                (folder / name).write_text("")

    monkeypatch.setattr(Path, "mkdir", with_files)
    return made


def _v2_machine(machine: Machine, own: str = "/", controllers: str = "cpu memory pids") -> Layout:
    for path in (Path(own), *Path(own).parents):
        machine.put(f"/cg{path}/cgroup.procs")
        machine.put(f"/cg{path}/cgroup.controllers", controllers)
        machine.put(f"/cg{path}/cgroup.subtree_control", controllers)
        if str(path) != "/":
            machine.put(f"/cg{path}/cgroup.events", "populated 1\nfrozen 0\n")
    machine.kernel = V2
    return machine.detect("20 1 0:5 / /cg rw - cgroup2 none rw,nsdelegate", f"0::{own}")


def _v1_machine(machine: Machine, extra: str = "", own: str = "/") -> Layout:
    lines = []
    for number, names in enumerate(("memory", "pids", "cpu,cpuacct", "freezer", "devices")):
        machine.put(f"/cg/{names}/cgroup.procs")
        lines.append(f"{number} 1 0:{number} / /cg/{names} rw - cgroup none rw,{names}")
    machine.kernel = V1
    member = "\n".join(f"{n}:{names}:{own}" for n, names in enumerate(("memory", "pids", "cpu,cpuacct", "freezer")))
    return machine.detect("\n".join([*lines, extra]), f"{member}\n0::/")


@pytest.mark.req("CGROUP-1")
def test_pure_v2(machine: Machine) -> None:
    """A machine with version 2 alone has one hierarchy, with all that bounds a tree; a supervisor's group keeps its sandboxes."""
    layout = _v2_machine(machine, "/system.slice/mw.service", "cpu memory pids io")
    base = machine.root / "cg/system.slice/mw.service"
    assert layout.kind == "v2"
    assert layout.places == (Place(2, base, machine.root / "cg", frozenset({"cpu", "memory", "pids"})),)
    assert layout.missing(LIMITS) == ()


@pytest.mark.req("CGROUP-1")
def test_plain_user_below_a_delegated_group(machine: Machine) -> None:
    """A plain user's place is the nearest group that they may write, never one above it."""
    _v2_machine(machine, "/user.slice/user@7.service/app.slice/mw.scope")
    above = ("cg", "cg/user.slice")
    machine.denied = {
        name for path in above for name in (path, f"{path}/cgroup.procs", f"{path}/cgroup.subtree_control")
    }
    layout = _v2_machine(machine, "/user.slice/user@7.service/app.slice/mw.scope")
    assert machine.root / "cg/user.slice/user@7.service/app.slice/mw.scope" == layout.places[0].base
    assert layout.missing(LIMITS) == ()


@pytest.mark.req("CGROUP-1", "CGROUP-2")
def test_plain_user_without_delegation_has_nothing(machine: Machine) -> None:
    """Where no group may be written, everything is missing, and nothing can be made."""
    _v2_machine(machine)
    machine.denied = {"cg", "cg/cgroup.procs"}
    layout = _v2_machine(machine)
    assert ("v2", ()) == (layout.kind, layout.places)
    assert layout.missing(LIMITS) == ("memory", "processes", "cpu_milli", "freeze")
    with pytest.raises(SandboxError, match=r"cannot hold memory, processes, cpu_milli, freeze; run Midwatch as root"):
        layout.create("one", LIMITS)


@pytest.mark.req("CGROUP-1")
def test_occupied_group_is_passed_over_for_one_that_bounds(machine: Machine) -> None:
    """A group with other people's processes cannot give controllers on, so the nearest above that can is taken."""
    _v2_machine(machine, "/user.slice/session.scope")
    machine.put("/cg/user.slice/session.scope/cgroup.procs", f"{os.getpid()}\n4242\n")
    machine.put("/cg/user.slice/session.scope/cgroup.subtree_control")
    layout = machine.detect("20 1 0:5 / /cg rw - cgroup2 none rw", "0::/user.slice/session.scope")
    assert machine.root / "cg/user.slice" == layout.places[0].base


@pytest.mark.req("CGROUP-1")
def test_own_processes_are_moved_into_a_leaf_first(machine: Machine) -> None:
    """A group with this process alone gives its controllers on after the process has moved; found again from the leaf."""
    _v2_machine(machine, "/mw.scope")
    procs = machine.put("/cg/mw.scope/cgroup.procs", f"{os.getpid()}\n")
    control = machine.put("/cg/mw.scope/cgroup.subtree_control")
    layout = machine.detect("20 1 0:5 / /cg rw - cgroup2 none rw", "0::/mw.scope")
    assert layout.places[0].settle
    group = layout.create("one", LIMITS)
    leaf = procs.parent / cgroups.LEAF
    assert str(os.getpid()) == (leaf / "cgroup.procs").read_text()
    assert control.read_text() == "+cpu +memory +pids"
    assert procs.parent / "midwatch/one" == group.paths[0]
    procs.write_text("")
    again = machine.detect("20 1 0:5 / /cg rw - cgroup2 none rw", f"0::/mw.scope/{cgroups.LEAF}")
    assert (procs.parent, False) == (again.places[0].base, again.places[0].settle)


@pytest.mark.req("CGROUP-1")
def test_hybrid(machine: Machine) -> None:
    """Version 1 bounds, version 2 comes first, freezes and kills; what is no bound (devices) is left alone."""
    machine.put("/cg/unified/cgroup.procs")
    machine.put("/cg/unified/cgroup.controllers", "hugetlb")
    layout = _v1_machine(machine, "30 1 0:9 / /cg/unified rw - cgroup2 none rw")
    root = machine.root / "cg"
    assert layout.kind == "hybrid"
    assert [
        (2, root / "unified", set()),
        (1, root / "cpu,cpuacct", {"cpu", "cpuacct"}),
        (1, root / "freezer", {"freezer"}),
        (1, root / "memory", {"memory"}),
        (1, root / "pids", {"pids"}),
    ] == [(place.version, place.base, set(place.controllers)) for place in layout.places]


@pytest.mark.req("CGROUP-1")
def test_v1(machine: Machine) -> None:
    """Version 1 alone freezes by its freezer."""
    layout = _v1_machine(machine)
    assert ("v1", ()) == (layout.kind, layout.missing(LIMITS))
    assert (machine.root / "cg/freezer/midwatch/one/freezer.state", "FROZEN") == layout.create(
        "one", LIMITS
    ).can_freeze()


@pytest.mark.req("CGROUP-1", "CGROUP-2")
def test_none(machine: Machine) -> None:
    """A machine without control groups can hold nothing; a sandbox without limits lacks the freezer still."""
    layout = machine.detect("20 1 8:1 / / rw - ext4 /dev/sda rw", "")
    assert ("none", ("freeze",)) == (layout.kind, layout.missing(SandboxLimits()))


@pytest.mark.req("CGROUP-1")
def test_mounts_of_a_container(machine: Machine) -> None:
    """A mount of a part of the hierarchy, at a path with a space, is read as such."""
    machine.put("/my cg/box/cgroup.procs")
    layout = machine.detect(r"9 1 0:1 /docker/a /my\040cg rw - cgroup none rw,memory", "4:memory:/docker/a/box")
    assert machine.root / "my cg/box" == layout.places[0].base
    machine.put("/my cg/cgroup.procs")
    outside = machine.detect(r"9 1 0:1 /docker/a /my\040cg rw - cgroup none rw,memory", "4:memory:/docker/ab")
    assert machine.root / "my cg" == outside.places[0].base


@pytest.mark.req("CGROUP-3")
def test_limits_of_v2(machine: Machine) -> None:
    """Version 2: swap is closed beside the memory bound; the quota is a share of a tenth of a second."""
    group = _v2_machine(machine).create("one", LIMITS)
    expected = {"memory.max": str(64 << 20), "memory.swap.max": "0", "pids.max": "32", "cpu.max": "50000 100000"}
    assert expected == machine.read(*group.paths)
    assert (group.paths[0] / "cgroup.procs",) == group.join_files


@pytest.mark.req("CGROUP-3")
def test_limits_of_v1(machine: Machine) -> None:
    """Version 1: memory and swap together are held to the memory bound; the freezer's group is joined, too."""
    group = _v1_machine(machine).create("one", LIMITS)
    assert {
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
        "memory.limit_in_bytes": str(64 << 20),
        "memory.memsw.limit_in_bytes": str(64 << 20),
        "pids.max": "32",
    } == machine.read(*group.paths)
    assert len(group.join_files) == 4


@pytest.mark.req("CGROUP-3")
def test_small_share_of_a_processor(machine: Machine) -> None:
    """The kernel takes no quota below a millisecond, so three thousandths are counted over a second."""
    group = _v2_machine(machine).create("one", SandboxLimits(cpu_milli=3))
    assert {"cpu.max": "3000 1000000"} == machine.read(*group.paths)


@pytest.mark.req("CGROUP-2")
def test_swap_that_cannot_be_bounded_is_refused(machine: Machine) -> None:
    """On a machine that swaps, a memory bound without one for swap is none; nothing is left behind."""
    machine.put("/proc/swaps", "Filename Type\n/dev/sdb partition\n")
    layout = _v2_machine(machine)
    machine.kernel = V2.replace("memory.swap.max ", "")
    left: list[Path] = []

    def remove(path: Path) -> bool:
        left.append(path)
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroups, "_removed", remove)
        with pytest.raises(SandboxError, match=r"memory\.swap\.max` does not take `0`"):
            layout.create("one", LIMITS)
    assert [machine.root / "cg/midwatch/one"] == left


@pytest.mark.req("CGROUP-2")
@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "x" * 101, "a\nb"])
def test_names_that_are_none(machine: Machine, name: str) -> None:
    """A name that could lead elsewhere is refused before anything is made."""
    with pytest.raises(SandboxError, match="names no control group"):
        _v2_machine(machine).create(name, LIMITS)


@pytest.mark.req("CGROUP-2")
def test_name_that_is_taken(machine: Machine) -> None:
    """Two sandboxes never share a group."""
    layout = _v2_machine(machine)
    layout.create("one", LIMITS)
    with pytest.raises(SandboxError, match="sweep first"):
        layout.create("one", LIMITS)
    assert (machine.root / "cg/midwatch/one").is_dir()


def _grown(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.req("CGROUP-3")
def test_counters_of_v2(tmp_path: Path) -> None:
    """Version 2's counters, and those an older kernel lacks."""
    folder = _grown(
        tmp_path / "one",
        {
            "cgroup.procs": "5\n6\n",
            "cgroup.events": "populated 1\nfrozen 1\n",
            "memory.current": "4096\n",
            "memory.peak": "8192\n",
            "memory.events": "low 0\noom 3\noom_kill 2\n",
            "cpu.stat": "usage_usec 77\nnr_throttled 1\nthrottled_usec 9\n",
            "pids.current": "2\n",
            "pids.events": "max 4\n",
        },
    )
    group = Group("one", dict.fromkeys(("", "cpu", "memory", "pids"), folder))
    assert Stats(4096, 8192, 77, 9, 2, 2, None, 4, frozen=True) == group.stats()


@pytest.mark.req("CGROUP-3")
def test_counters_of_v1(tmp_path: Path) -> None:
    """Version 1's counters; nanoseconds are told as microseconds."""
    memory = {
        "memory.usage_in_bytes": "1",
        "memory.max_usage_in_bytes": "2",
        "memory.oom_control": "under_oom 0\noom_kill 3\n",
    }
    where = {
        "memory": _grown(tmp_path / "memory", memory),
        "pids": _grown(tmp_path / "pids", {"pids.current": "1", "pids.peak": "5", "pids.events": "max 6\n"}),
        "cpu": _grown(tmp_path / "cpu", {"cpu.stat": "nr_periods 9\nthrottled_time 8000\n"}),
        "cpuacct": _grown(tmp_path / "cpuacct", {"cpuacct.usage": "7000\n"}),
        "freezer": _grown(tmp_path / "freezer", {"freezer.state": "THAWED\n"}),
    }
    assert Stats(1, 2, 7, 8, 3, 1, 5, 6, frozen=False) == Group("one", where).stats()


@pytest.mark.req("CGROUP-4")
def test_freezing_is_bounded(machine: Machine) -> None:
    """A kernel that never says frozen is waited for no longer than the bound, and the caller is told."""
    group = _v2_machine(machine).create("one", SandboxLimits())
    with pytest.raises(SandboxError, match=r"not frozen within 1,000 µs; kill the sandbox"):
        group.freeze(1_000)
    assert 1_000 < machine.now < 2_000


@pytest.mark.req("CGROUP-5")
def test_kill_is_bounded(machine: Machine) -> None:
    """Who outlives the kernel's kill is named. Process 0, of a namespace that is not ours, is never signalled."""
    group = _v2_machine(machine).create("one", SandboxLimits())
    group.join_files[0].write_text("0\n")
    with pytest.raises(SandboxError, match=r"outlive SIGKILL by 50,000 µs: 0;"):
        group.kill(50_000)
    assert (group.paths[0] / "cgroup.kill").read_text() == "1"


@pytest.mark.req("CGROUP-5")
def test_unreadable_group_is_not_an_empty_one(tmp_path: Path) -> None:
    """When the kernel does not tell who lives in a group, that is an error and not `nobody`."""
    (tmp_path / "cgroup.procs").mkdir()
    with pytest.raises(SandboxError, match="who lives in the group is unknown"):
        Group("one", {"": tmp_path}).procs()


@pytest.mark.req("CGROUP-6")
def test_names_that_tell_their_supervisor() -> None:
    """A name made here is supervised as long as this process lives; a number used again is not the same process."""
    name = cgroups.named("run-1")
    assert cgroups.supervised(name)
    assert not cgroups.supervised(f"run-1.{os.getpid()}.1")
    assert not cgroups.supervised("run-1.4194999.1")
    assert cgroups.supervised("made-by-hand")
