"""Commits that somebody works against: layers made to lead out, a workspace that is changed at every step."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch.errors import Conflict, MidwatchError, SandboxError
from midwatch.sandbox import beneath, live
from midwatch.sandbox.effects import Change
from midwatch.sandbox.layers import Layer, Spool, write
from midwatch.sandbox.release import commit, plan, resume_commit
from tests.crash.commit_child import AFTER, BEFORE
from tests.crash.trees import layer, look, make

Edit = Callable[[Path], Any]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut leaves is not looked at here, and a disk that is asked hundreds of times takes its minute."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def _ready(base: Path) -> tuple[Path, Layer]:
    base.mkdir()
    make(base / "work", BEFORE)
    return base / "work", layer(base / "layer", BEFORE, AFTER)


def _commit(work: Path, layers: list[Layer], step: Callable[[str], None] | None = None) -> None:
    release = plan(layers, work)
    commit(release, layers, work, work.parent / "journal", approved=release.digest, step=step)


def _steps(base: Path) -> int:
    work, made = _ready(base)
    seen: list[str] = []
    _commit(work, [made], seen.append)
    return len(seen)


# ---------------------------------------------------------------------------------------------- at every step

EDITS: dict[str, tuple[str, Edit]] = {
    "in place": ("edited", lambda work: (work / "edited").write_text("a person's")),
    "by renaming": (
        "edited",
        lambda work: (work.parent / "mine").write_text("a person's") and (work.parent / "mine").rename(work / "edited"),
    ),
    "of what goes": ("gone", lambda work: (work / "gone").write_text("a person's")),
    "into a folder that goes": ("d/e/mine", lambda work: (work / "d/e/mine").write_text("a person's")),
    "where something comes": ("new", lambda work: (work / "new").write_text("a person's")),
    "into a folder that is a file then": ("f/mine", lambda work: (work / "f/mine").write_text("a person's")),
}


@pytest.mark.req("FILES-13")
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_at_any_step_is_kept(tmp_path: Path, edit: str) -> None:
    """The commit is whole with the edit on top, or it is refused and the workspace is as before, with the edit."""
    path, act = EDITS[edit]
    before, after = _tree(tmp_path / "before", BEFORE), _tree(tmp_path / "after", AFTER)
    outcomes = set()
    for number in range(_steps(tmp_path / "count")):
        base = tmp_path / str(number)
        work, made = _ready(base)
        wrote = False
        count = 0

        def step(_: str) -> None:
            nonlocal count, wrote
            count += 1
            if count == number + 1:  # noqa: B023 (called within the turn)
                try:
                    act(work)  # noqa: B023 (as above)
                except OSError:
                    return  # its folder went already
                wrote = True

        try:
            _commit(work, [made], step)
            outcome, expected = "done", after
        except Conflict:
            outcome, expected = "refused", before
        outcomes.add(outcome)
        found = look(work)
        if wrote:
            assert b"a person's" == found.pop(path, (None, b"a person's"))[1], f"step {number}, {outcome}"
            assert "a person's" in _everything(work), f"step {number}, {outcome}: lost"
            expected = {name: value for name, value in expected.items() if name != path}
        assert expected == {name: value for name, value in found.items() if ".midwatch-" not in name}, (
            f"step {number}, {outcome}"
        )
    assert {"done", "refused"} == outcomes


@pytest.mark.req("FILES-11", "FILES-13")
def test_a_folder_that_becomes_a_link_at_any_step_leads_nowhere(tmp_path: Path) -> None:
    """Whoever swaps a folder of the workspace for a link to another place: nothing is written, read or removed there."""
    outside = {"secret": "s", "kept": "ten", "gone": "x", "in": "five"}
    for number in range(_steps(tmp_path / "count")):
        base = tmp_path / str(number)
        work, made = _ready(base)
        make(base / "outside", outside)
        there = look(base / "outside")
        count = 0

        def step(_: str) -> None:
            nonlocal count
            count += 1
            if count == number + 1:  # noqa: B023 (called within the turn)
                (work / "h").rename(base / "moved")  # noqa: B023 (as above)
                (work / "h").symlink_to(base / "outside")  # noqa: B023 (as above)

        try:
            _commit(work, [made], step)
        except MidwatchError as refused:
            assert isinstance(refused, Conflict | SandboxError)  # noqa: PT017 (either is an answer)
        assert there == look(base / "outside"), f"step {number}"


# -------------------------------------------------------------------------------------------- layers that lie


@pytest.mark.req("FILES-11")
@pytest.mark.parametrize(
    "path",
    ["../out", "/etc/out", "d/../../out", ".", "..", "d//x", "d/\\x2e\\x2e/\\x2e\\x2e/out", "a\\x00b", "\\x2fetc"],
)
def test_a_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    """However it is written."""
    work, _ = _ready(tmp_path / "base")
    spool = Spool(tmp_path)
    made = write(tmp_path / "layer", [Change("created", path, "file", 0o644, 1, spool.add(b"x"))], (), spool)
    with pytest.raises((SandboxError, Conflict)):
        _commit(work, [made])
    assert _tree(tmp_path / "before", BEFORE) == look(work)
    assert not (tmp_path / "out").exists()


@pytest.mark.req("FILES-11")
def test_a_link_of_the_run_is_never_written_through(tmp_path: Path) -> None:
    """A layer that makes a link and then a file below it writes neither inside nor outside."""
    work, _ = _ready(tmp_path / "base")
    make(tmp_path / "outside", {"kept": "1"})
    spool = Spool(tmp_path)
    changes = [
        Change("created", "evil", "link", 0o777, None, None, target=str(tmp_path / "outside")),
        Change("created", "evil/kept", "file", 0o644, 1, spool.add(b"x")),
    ]
    with pytest.raises((SandboxError, Conflict)):
        _commit(work, [write(tmp_path / "layer", changes, (), spool)])
    assert "1" == (tmp_path / "outside/kept").read_text()
    assert _tree(tmp_path / "before", BEFORE) == look(work)


@pytest.mark.req("FILES-11")
def test_a_link_of_the_workspace_is_never_written_through(tmp_path: Path) -> None:
    """A link that stands where the run had a folder or a file is replaced or refused, and what it leads to stays."""
    make(tmp_path / "outside", {"x": "1"})
    before = {"l": ("link", "../outside"), "f": ("link", "../outside/x")}
    make(tmp_path / "work", before)
    made = layer(tmp_path / "layer", before, {"l": None, "l/x": "2", "f": "2"})
    _commit(tmp_path / "work", [made])
    assert {"f", "l", "l/x"} == set(look(tmp_path / "work"))
    assert "1" == (tmp_path / "outside/x").read_text()


@pytest.mark.req("FILES-11")
def test_odd_kinds_are_left_behind(tmp_path: Path) -> None:
    """A device, a FIFO and a socket need a person, and are not made even then; setuid, setgid, sticky are not given."""
    work, _ = _ready(tmp_path / "base")
    spool = Spool(tmp_path)
    changes = [
        Change("created", "null", "other", 0o666, flags=("special",)),
        Change("created", "su", "file", 0o6755, 1, spool.add(b"x"), flags=("setuid",)),
        Change("created", "t", "folder", 0o3777),
    ]
    _commit(work, [write(tmp_path / "layer", changes, (), spool)])
    assert not os.path.lexists(work / "null")
    assert [0o755, 0o755] == [stat.S_IMODE((work / name).stat().st_mode) for name in ("su", "t")]


@pytest.mark.req("FILES-11")
def test_attributes_do_not_come_along(tmp_path: Path) -> None:
    """What replaces a file has none of its own and takes none over."""
    work, made = _ready(tmp_path / "base")
    os.setxattr(work / "edited", "user.note", b"x")
    _commit(work, [made])
    assert [] == os.listxattr(work / "edited")


@pytest.mark.req("FILES-11")
def test_another_name_of_the_same_file_stays(tmp_path: Path) -> None:
    """A file that is also known elsewhere is replaced here, not written into."""
    work, made = _ready(tmp_path / "base")
    (tmp_path / "elsewhere").hardlink_to(work / "edited")
    _commit(work, [made])
    assert ["one", "ONE"] == [path.read_text() for path in (tmp_path / "elsewhere", work / "edited")]


@pytest.mark.req("FILES-10")
def test_an_edit_after_a_crash_is_not_lost(tmp_path: Path) -> None:
    """Killed in the middle, then edited: the next one finishes around the edit, or says what it cannot put right."""
    for number in range(_steps(tmp_path / "count")):
        base = tmp_path / str(number)
        work, made = _ready(base)
        pid = os.fork()
        if pid == 0:
            try:
                _die_at(work, made, number + 1)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        for path in ("edited", "mode", "new"):
            (work / path).write_text("a person's")
        try:
            resume_commit(base / "journal", work)
        except MidwatchError:
            assert list(work.rglob(".midwatch-*")), "nothing of what was replaced may be gone"
        assert ["a person's"] * 3 == [(work / path).read_text() for path in ("edited", "mode", "new")], f"step {number}"


@pytest.mark.req("FILES-11")
def test_without_the_system_calls_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No walk that a link could lead astray takes the place of the one that it cannot."""
    work, made = _ready(tmp_path / "base")
    before = look(work)
    monkeypatch.setattr(beneath, "_OPENAT2", 100_000)
    with pytest.raises(SandboxError, match="openat2"):
        _commit(work, [made])
    assert before == look(work)


@pytest.mark.req("FILES-10")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EXDEV, errno.ENOSPC])
def test_a_file_system_that_cannot_swap_gets_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What was put before the first swap failed is taken back."""
    work, made = _ready(tmp_path / "base")
    before = look(work)

    def rename_at(old_folder: int, old: bytes, new_folder: int, new: bytes, how: int) -> None:
        if how == beneath.EXCHANGE:
            raise OSError(number, os.strerror(number))
        beneath.rename_at(old_folder, old, new_folder, new, how)

    monkeypatch.setattr(live, "rename_at", rename_at)
    with pytest.raises((SandboxError, Conflict), match="nothing was committed"):
        _commit(work, [made])
    assert before == look(work)


@pytest.mark.req("FILES-11")
def test_a_hole_of_folders_is_committed(tmp_path: Path) -> None:
    """Five thousand folders in each other, without as many descriptors and without a path that no system takes."""
    work, _ = _ready(tmp_path / "base")
    changes = [Change("created", "/".join(["d"] * depth), "folder", 0o755) for depth in range(4, 5004)]
    changes += [Change("created", "/".join(["n"] * depth), "folder", 0o755) for depth in (1, 2, 3)]
    with pytest.raises(Conflict):
        _commit(work, [write(tmp_path / "torn", changes)])
    made = write(
        tmp_path / "layer", [Change("created", "/".join(["n"] * depth), "folder", 0o755) for depth in range(1, 5001)]
    )
    try:
        _commit(work, [made])
        assert {"none"} == {item.action for item in plan([made], work).items}
    finally:
        subprocess.run(["rm", "-rf", str(work)], check=True)  # the system's own can: Python's cannot


@pytest.mark.req("FILES-10")
def test_a_damaged_journal_is_not_guessed_at(tmp_path: Path) -> None:
    """It says what to look for, and the next commit waits for that."""
    work, made = _ready(tmp_path / "base")
    (work.parent / "journal").write_text("{}")
    with pytest.raises(SandboxError, match="cannot be read"):
        _commit(work, [made])


def _die_at(work: Path, made: Layer, number: int) -> None:
    count = 0

    def step(_: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            os._exit(9)

    _commit(work, [made], step)


def _tree(folder: Path, tree: dict[str, Any]) -> dict[str, Any]:
    make(folder, tree)
    return look(folder)


def _everything(work: Path) -> str:
    return "".join(path.read_text() for path in work.rglob("*") if path.is_file() and not path.is_symlink())
