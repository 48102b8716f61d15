"""What a release says, and what its commit does to an honest workspace."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.errors import Conflict, Denied, SandboxError
from midwatch.sandbox.effects import Change
from midwatch.sandbox.layers import Layer, write
from midwatch.sandbox.release import Release, commit, plan, resume_commit
from tests.crash.trees import Tree, layer, look, make

BEFORE: dict[str, Any] = {"a": "1", "d": None, "d/x": "2", "run": "3"}


class Place:
    """A workspace, a run's layer over it, and the journal."""

    def __init__(self, base: Path, before: Tree, after: Tree) -> None:
        base.mkdir(exist_ok=True)
        self.work, self.journal = base / "work", base / "journal"
        make(self.work, before)
        self.layers = [layer(base / "layer", before, after)]

    def plan(self) -> Release:
        """Plan."""
        return plan(self.layers, self.work)

    def commit(self, **more: Any) -> tuple[str, ...]:
        """Plan and commit, with everybody's yes."""
        release = self.plan()
        return commit(release, self.layers, self.work, self.journal, **{"approved": release.digest, **more})


@pytest.fixture(autouse=True)
def _umask() -> Any:
    """The modes below are those of this mask; none of ours depends on it."""
    old = os.umask(0o022)
    yield
    os.umask(old)


# --------------------------------------------------------------------------------------------------- honest work


@pytest.mark.req("FILES-12")
def test_a_commit_is_the_run_and_a_second_one_nothing(tmp_path: Path) -> None:
    """All is there, what was not touched is as it was, and nothing lies beside."""
    after = {
        "a": "11",
        "d": None,
        "d/y": ("link", "../a"),
        "run": ("3", 0o755),
        "n": None,
        "n/m": None,
        "n/m/o": "4",
        "empty": None,
    }
    place = Place(tmp_path, BEFORE, after)
    release = place.plan()
    assert () == release.conflicts
    assert ("a", "d/x", "d/y", "empty", "n", "run") == place.commit()
    make(tmp_path / "wanted", after)
    assert look(tmp_path / "wanted") == look(place.work)
    assert () == place.commit()
    assert () == commit(release, place.layers, place.work, place.journal, approved=release.digest)
    assert {"none"} == {item.action for item in place.plan().items}
    assert "done" == resume_commit(place.journal, place.work)


TREES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "c\\x0a", "\\xff"]), min_size=1, max_size=3).map("/".join),
    st.sampled_from([None, "", "x", "y", ("x", 0o755), ("x", 0o600), (None, 0o700), ("link", "a"), ("link", "x")]),
    max_size=8,
)


def _whole(tree: dict[str, Any]) -> dict[str, Any]:
    # A tree in which everything that has something below is a folder.
    whole = dict(tree)
    for path in tree:
        while "/" in path:
            path = path.rpartition("/")[0]  # noqa: PLW2901 (upwards)
            if not (path in whole and (whole[path] is None or whole[path] == (None, 0o700))):
                whole[path] = None
    return dict(sorted(whole.items()))


@pytest.mark.req("FILES-9", "FILES-12")
@settings(max_examples=150, deadline=None)
@given(before=TREES.map(_whole), after=TREES.map(_whole))
def test_from_any_tree_to_any_other(tmp_path_factory: pytest.TempPathFactory, before: Tree, after: Tree) -> None:
    """Every kind may become every other, at any depth."""
    base = tmp_path_factory.mktemp("case")
    place = Place(base, before, after)
    place.commit()
    make(base / "wanted", after)
    assert look(base / "wanted") == look(place.work)
    assert () == place.commit()


@pytest.mark.req("FILES-11")
def test_owner_and_mode_stay_where_only_the_content_changed(tmp_path: Path) -> None:
    """And what the run gave group and others to write is not given."""
    place = Place(
        tmp_path,
        {"a": ("1", 0o664), "s": "1", "m": ("1", 0o664)},
        {"a": ("2", 0o664), "s": "1", "m": ("1", 0o777), "n": ("1", 0o6777)},
    )
    place.commit()
    assert [0o664, 0o644, 0o775, 0o755] == [stat.S_IMODE((place.work / name).stat().st_mode) for name in "asmn"]


@pytest.mark.req("FILES-11")
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_callers_mask_changes_nothing(tmp_path: Path, umask: int) -> None:
    """The same release gives the same modes, whoever commits it."""
    place = Place(tmp_path, {}, {"n": "1", "d": None, "d/x": ("1", 0o755)})
    os.umask(umask)
    place.commit()
    assert [0o644, 0o755, 0o755] == [stat.S_IMODE((place.work / name).stat().st_mode) for name in ("n", "d", "d/x")]


@pytest.mark.req("FILES-8")
def test_some_paths_of_a_release(tmp_path: Path) -> None:
    """Folders that a path needs come with it; a folder that goes takes all that is below; the rest stays."""
    place = Place(tmp_path, BEFORE, {"a": "11", "run": "3", "n": None, "n/m": "4", "n/o": "5"})
    assert ("n",) == place.commit(only={"n/m"})
    assert ["a", "d", "d/x", "n", "n/m", "run"] == list(look(place.work))
    assert ("d",) == place.commit(only={"d"})
    assert ("a", "n/o") == place.commit()
    with pytest.raises(SandboxError, match="did not change"):
        place.commit(only={"run"})


# ------------------------------------------------------------------------------------------------------- a person


@pytest.mark.req("FILES-8")
def test_what_is_flagged_waits_for_a_person(tmp_path: Path) -> None:
    """Without a yes nothing is written, also not the rest; a yes for another release is none."""
    place = Place(tmp_path, BEFORE, {**BEFORE, "a": "11", ".envrc": "x", "out": ("link", "/etc/passwd")})
    release = place.plan()
    assert {".envrc", "out"} == {item.path for item in release.person}
    for approved in (None, "0" * 64):
        with pytest.raises(Denied, match=r"\.envrc"):
            commit(release, place.layers, place.work, place.journal, approved=approved)
    assert "1" == (place.work / "a").read_text()
    assert ("a",) == commit(release, place.layers, place.work, place.journal, only={"a"})
    assert (".envrc", "out") == place.commit()


@pytest.mark.req("FILES-8")
def test_a_yes_is_for_one_release(tmp_path: Path) -> None:
    """Another content, another action, another workspace: another digest. A release that was altered is none."""
    one, two = (
        Place(tmp_path / "1", BEFORE, {**BEFORE, "a": "11"}),
        Place(tmp_path / "2", BEFORE, {**BEFORE, "a": "12"}),
    )
    digests = {one.plan().digest, two.plan().digest, plan(one.layers, two.work).digest}
    assert 3 == len(digests)
    with pytest.raises(SandboxError, match="plan it again"):
        commit(two.plan(), one.layers, one.work, one.journal)
    release = one.plan()
    forged = Release((), release.workspace, release.layers, release.digest)
    with pytest.raises(SandboxError, match="plan it again"):
        commit(forged, one.layers, one.work, one.journal)


@pytest.mark.req("FILES-8")
def test_the_folder_that_git_takes_hooks_from_is_watched(tmp_path: Path) -> None:
    """Whatever the repository's settings call it."""
    before = {
        ".git": None,
        ".git/config": "[core]\n\thooksPath = tools/./on-commit\n",
        "tools": None,
        "tools/on-commit": None,
    }
    place = Place(tmp_path, before, {**before, "tools/on-commit/pre-commit": "x", "tools/other": "x"})
    assert ["tools/on-commit/pre-commit"] == [item.path for item in place.plan().person]


# ------------------------------------------------------------------------------------------------------ conflicts


@pytest.mark.req("FILES-9")
@pytest.mark.parametrize(
    ("after", "meanwhile", "path", "words"),
    [
        ({"a": "11"}, {"a": "edited"}, "a", "it has changed"),
        ({"a": "11"}, {"a": ...}, "a", "it is gone"),
        ({"a": "11"}, {"a": None}, "a", "it is a folder now"),
        ({"a": "11"}, {"a": ("link", "run")}, "a", "it is a link now"),
        ({"a": ...}, {"a": "edited"}, "a", "it has changed"),
        ({"a": ("1", 0o755)}, {"a": ("1", 0o600)}, "a", "its mode has changed"),
        ({"a": ("1", 0o755)}, {"a": "evil"}, "a", "it has changed"),
        ({"new": "x"}, {"new": "y"}, "new", "there is a file of that name"),
        ({"new": None, "new/x": "1"}, {"new": "y"}, "new", "there is a file of that name"),
        ({"d/new": "x"}, {"d": ..., "d/x": ...}, "d/new", "the folder above it is gone"),
        ({"d": ..., "d/x": ...}, {"d/theirs": "y"}, "d", "it holds `theirs`"),
        ({"d": "file", "d/x": ...}, {"d/theirs": "y"}, "d", "it holds `theirs`"),
        ({"d": ..., "d/x": ...}, {"d/x": "edited"}, "d/x", "it has changed"),
        ({"A": "x"}, {}, "A", "takes it for `a`"),
        ({"é": "x"}, {"e\u0301": "y"}, "é", "takes it for"),
        ({"n1": "x", "N1": "y"}, {}, "n1", "takes it for `N1`"),
        ({"D": None, "D/x": "1"}, {}, "D", "takes it for `d`"),
    ],
)  # fmt: skip
def test_a_conflict_writes_nothing(
    tmp_path: Path, after: Tree, meanwhile: dict[str, Any], path: str, words: str
) -> None:
    """It is planned, named with its reason at the commit, and everything else of the release stays out, too."""
    wanted = {name: value for name, value in {**BEFORE, "other": "o", **after}.items() if value is not ...}
    place = Place(tmp_path, BEFORE, wanted)
    for name in sorted(meanwhile, reverse=True):
        there = place.work / name
        if there.is_dir():
            there.rmdir()
        else:
            there.unlink(missing_ok=True)
    make(place.work, {name: value for name, value in meanwhile.items() if value is not ...})
    before = look(place.work)
    assert words in str({item.path: item.conflict for item in place.plan().conflicts}[path])
    with pytest.raises(Conflict, match=path):
        place.commit()
    assert before == look(place.work)


@pytest.mark.req("FILES-9")
def test_all_conflicts_are_named(tmp_path: Path) -> None:
    """In one message."""
    place = Place(tmp_path, BEFORE, {**BEFORE, "a": "11", "run": "33"})
    make(place.work, {"a": "x", "run": "y"})
    with pytest.raises(Conflict, match=r"`a`: .*`run`: "):
        place.commit()


@pytest.mark.req("FILES-9")
def test_a_file_that_moved_under_the_run_is_a_conflict(tmp_path: Path) -> None:
    """Its hash is that of a file the run never saw."""
    place = Place(tmp_path, BEFORE, BEFORE)
    change = place.layers and layer(tmp_path / "x", {"a": "1"}, {"a": "2"}).changes[0]
    assert isinstance(change, Change)
    moved = Change(**{**{name: getattr(change, name) for name in Change.__slots__}, "flags": ("moved",)})
    place.layers = [write(tmp_path / "moved", [moved])]
    assert ["a"] == [item.path for item in place.plan().conflicts]


@pytest.mark.req("FILES-12")
def test_what_a_person_did_alike_is_no_conflict(tmp_path: Path) -> None:
    """The workspace is already as the run wants it there; the rest is committed."""
    place = Place(tmp_path, BEFORE, {"a": "11", "d": None, "run": "3", "n": None, "n/m": "4"})
    make(place.work, {"a": "11", "n": None})
    (place.work / "d/x").unlink()
    assert ("n/m",) == place.commit()


@pytest.mark.req("FILES-9")
def test_case_may_change_by_renaming(tmp_path: Path) -> None:
    """Where the other spelling goes in the same release."""
    place = Place(tmp_path, {"readme": "1"}, {"README": "1"})
    place.commit()
    assert ["README"] == list(look(place.work))


@pytest.mark.req("FILES-9")
def test_one_commit_at_a_time(tmp_path: Path) -> None:
    """A second one, of whichever run, is refused while the first is under way."""
    place = Place(tmp_path, BEFORE, {**BEFORE, "a": "11"})
    seen: list[str] = []

    def meanwhile(_: str) -> None:
        if not seen:
            seen.append("tried")
            with pytest.raises(Conflict, match="under way"):
                Place.commit(place, step=None)

    assert ("a",) == place.commit(step=meanwhile)
    assert ["tried"] == seen


@pytest.mark.req("FILES-9")
def test_a_layer_without_its_content_is_refused(tmp_path: Path) -> None:
    """And the workspace stays as it is."""
    place = Place(tmp_path, BEFORE, BEFORE)
    place.layers = [write(tmp_path / "empty", [Change("created", "n", "file", 0o644, 1, "0" * 64)]), Layer()]
    before = look(place.work)
    with pytest.raises(SandboxError, match="no layer holds"):
        place.commit()
    assert before == look(place.work)
