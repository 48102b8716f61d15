"""Upper folders that a hostile program has filled, read from real overlays."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midwatch.sandbox.effects import raw, shown

CHILD = Path(__file__).with_name("overlay_child.py")


class Overlays:
    """The process that mounts them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, *calls: list[list[Any]], seed: list[list[Any]] | None = None, **more: Any) -> dict[str, Any]:
        """Play calls over a workspace that `seed` made; give what was told."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"seed": seed or [], "calls": list(calls), **more}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def last(self, *calls: list[list[Any]], **more: Any) -> dict[str, dict[str, Any]]:
        """Give the last call's changes by path."""
        answer = self.ask(*calls, **more)
        assert "refused" not in answer, answer
        return {change["path"]: change for change in answer["calls"][-1]}

    def close(self) -> None:
        """End it, and with it every mount."""
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def overlays() -> Iterator[Overlays]:
    """One process for all cases."""
    made = Overlays()
    yield made
    made.close()


def sha(text: str) -> str:
    """SHA-256 of latin-1 text."""
    return hashlib.sha256(text.encode("latin-1")).hexdigest()


# ------------------------------------------------------------------------------------------------ the property

NAMES = st.sampled_from(["a", "b", "B", "c\n", "\xff\xfe", "d\\x0a", "\x1b[2J", ".git", "é", " "])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o700, 0o4755, 0o1777, 0o444, 0o000])
TEXTS = st.sampled_from(["", "x", "y" * 5000, "a", "b"])
ACTS = st.one_of(
    st.tuples(st.just("write"), PATHS, TEXTS),
    st.tuples(st.just("append"), PATHS, TEXTS),
    st.tuples(st.just("folder"), PATHS),
    st.tuples(st.just("link"), PATHS, st.sampled_from(["a", "../a", "/etc/passwd", "b/c"])),
    st.tuples(st.just("hardlink"), PATHS, PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("mode"), PATHS, MODES),
    st.tuples(st.just("touch"), PATHS),
    st.tuples(st.just("hole"), PATHS, st.sampled_from([0, 1, 70_000, 2_000_000])),
    st.tuples(st.just("special"), PATHS, st.sampled_from([0, 1])),
).map(list)
CALLS = st.lists(ACTS, max_size=8)


@pytest.mark.req("FILES-4", "FILES-2")
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=CALLS, calls=st.lists(CALLS, min_size=1, max_size=4))
def test_layers_rebuild_the_tree(overlays: Overlays, seed: list[list[Any]], calls: list[list[list[Any]]]) -> None:
    """Names, kinds, modes and contents are the same in a view that the layers were laid over, and nothing is left to tell."""
    answer = overlays.ask(*calls, seed=seed)
    assert "refused" not in answer, answer
    assert answer["tree"] == answer["replayed"]
    assert [] == answer["left"]


# --------------------------------------------------------------------------------------------- what a call tells


@pytest.mark.req("FILES-6")
def test_a_call_tells_only_its_own(overlays: Overlays) -> None:
    """The second call tells what it found and what stood there before the run; what the first call did is not told again."""
    seed = [["write", "kept", "1"], ["write", "turned", "1"]]
    found = overlays.last(
        [["write", "turned", "2"], ["write", "new", "n"]], [["write", "turned", "3"]], seed=seed
    )  # fmt: skip
    assert ["turned"] == list(found)
    assert (sha("3"), sha("2"), sha("1")) == tuple(found["turned"][key] for key in ("sha256", "before", "base"))


@pytest.mark.req("FILES-6")
def test_what_was_made_and_taken_away_is_told_twice_and_folds_to_nothing(overlays: Overlays) -> None:
    """The upper folder holds no trace of it any more; the earlier layers know it."""
    answer = overlays.ask([["write", "x/y", "1"]], [["remove", "x"]])
    assert [("deleted", "x"), ("deleted", "x/y")] == [(item["op"], item["path"]) for item in answer["calls"][1]]
    assert {} == answer["fold"]


@pytest.mark.req("FILES-6")
def test_copied_up_without_change_is_no_effect(overlays: Overlays) -> None:
    """A touched file, and a mode set to what it was, tell nothing; another mode alone is `permission`."""
    seed = [["write", "touched", "1"], ["write", "same", "1"], ["write", "mode", "1"]]
    found = overlays.last([["touch", "touched"], ["mode", "same", 0o644], ["mode", "mode", 0o600]], seed=seed)
    assert [("mode", "permission", 0o600)] == [(path, item["op"], item["mode"]) for path, item in found.items()]


@pytest.mark.req("FILES-5")
def test_a_replaced_folder_tells_what_was_below(overlays: Overlays) -> None:
    """An opaque folder hides the workspace's own children: each is told as deleted, at any depth."""
    seed = [["write", "a/b/c", "1"], ["write", "a/d", "2"]]
    found = overlays.last([["remove", "a"], ["write", "a/d", "3"]], seed=seed)
    assert {"a/b": "deleted", "a/b/c": "deleted", "a/d": "modified"} == {
        path: item["op"] for path, item in found.items()
    }
    assert (sha("1"), sha("2")) == (found["a/b/c"]["base"], found["a/d"]["base"])


@pytest.mark.req("FILES-5")
@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (["write", "x", "1"], ["folder", "x"], "folder"),
        (["write", "x/y", "1"], ["write", "x", "2"], "file"),
        (["write", "x", "a"], ["link", "x", "a"], "link"),
    ],
)
def test_another_kind_is_modified(overlays: Overlays, before: list[Any], after: list[Any], kind: str) -> None:
    """A file that becomes a folder, and the other ways round, also where the bytes are the same."""
    found = overlays.last([["remove", "x"], after], seed=[before])
    assert ("modified", kind) == (found["x"]["op"], found["x"]["kind"])


@pytest.mark.req("FILES-6")
def test_a_file_that_somebody_changed_under_the_run_is_told(overlays: Overlays) -> None:
    """The hash of what stands there now is not that of what the run saw: its flag says so, also after later calls."""
    seed = [["write", "theirs", "1"], ["write", "ours", "1"]]
    call = [["append", "theirs", "x"], ["append", "ours", "x"]]
    answer = overlays.ask(call, [["append", "theirs", "y"]], seed=seed, between=[["write", "theirs", "2"]])
    flags = {change["path"]: change.get("flags") for change in answer["calls"][0]}
    assert {"theirs": ["moved"], "ours": None} == flags
    assert ["moved"] == answer["fold"]["theirs"]["flags"]


# ----------------------------------------------------------------------------------------------------- hostility


@pytest.mark.req("FILES-5")
@pytest.mark.parametrize(
    ("acts", "path", "flag"),
    [
        ([["link", "evil", "/etc/shadow"]], "evil", "leaves"),
        ([["link", "evil", "../../etc"]], "evil", "leaves"),
        ([["folder", "d"], ["link", "d/evil", "x/../../.."]], "d/evil", "leaves"),
        ([["special", "pipe", 0]], "pipe", "special"),
        ([["special", "talk", 1]], "talk", "special"),
        ([["write", "root", "x"], ["mode", "root", 0o4755]], "root", "setuid"),
        ([["write", "one", "x"], ["hardlink", "one", "two"]], "two", "hardlink"),
        ([["write", "a\nb", "x"]], "a\\x0ab", "name"),
        ([["write", "\x1b[31mred", "x"]], "\\x1b[31mred", "name"),
        ([["write", "\xff", "x"]], "\\xff", "name"),
        ([["write", "back\\slash", "x"]], "back\\x5cslash", "name"),
        ([["write", "\xe2\x80\xaegnp.exe", "x"]], "\\xe2\\x80\\xaegnp.exe", "name"),
        ([["write", "blank ", "x"]], "blank ", "name"),
        ([["write", "run", "x"], ["mode", "run", 0o755]], "run", "watched:it becomes a program"),
        ([["write", ".git/hooks/pre-commit", "x"]], ".git/hooks/pre-commit", "watched:a hook that git runs by itself"),
    ],
)
def test_what_a_person_must_see_is_flagged(overlays: Overlays, acts: list[list[Any]], path: str, flag: str) -> None:
    """Each trick is told by its flag, and the name is one that no terminal mistakes."""
    assert flag in overlays.last(acts)[path]["flags"]


@pytest.mark.req("FILES-5")
def test_a_link_that_stays_is_only_a_link(overlays: Overlays) -> None:
    """A relative link to a neighbour needs nobody."""
    found = overlays.last([["link", "l", "a/b"], ["folder", "d"], ["link", "d/up", "../a"]])
    assert [None, None] == [found[path].get("flags") for path in ("l", "d/up")]


@pytest.mark.req("FILES-5")
def test_a_link_for_a_folder_is_not_followed(overlays: Overlays) -> None:
    """A folder of the workspace that becomes a link to another place: the other place is not read, the children are gone."""
    found = overlays.last([["remove", "d"], ["link", "d", "/etc"]], seed=[["write", "d/passwd", "1"]])
    assert {"d": "modified", "d/passwd": "deleted"} == {path: item["op"] for path, item in found.items()}


@pytest.mark.req("FILES-5")
def test_a_mark_of_the_agent_is_no_mark(overlays: Overlays) -> None:
    """An attribute that the agent itself may set does not make a folder hide what is below it."""
    answer = overlays.ask(
        [["mark", "d", "user.overlay.opaque"], ["write", "d/new", "1"]], seed=[["write", "d/old", "1"]]
    )
    assert ["d/new"] == [change["path"] for change in answer["calls"][0]]
    assert answer["tree"] == answer["replayed"]


@pytest.mark.req("FILES-5")
def test_a_file_of_a_terabyte_is_refused_at_once(overlays: Overlays) -> None:
    """Holes cost the agent nothing; the sizes that files say to have are bounded together."""
    answer = overlays.ask([["write", "x", "y"], ["hole", "x", 1 << 40]])
    assert "SandboxError" == answer["kind"]
    assert "limits.disk" in answer["refused"]
    many = [act for n in range(20) for act in (["write", f"x{n}", "y"], ["hole", f"x{n}", 1 << 20])]
    assert "SandboxError" == overlays.ask(many, limit=10 << 20)["kind"]


@pytest.mark.req("FILES-5")
def test_a_large_file_goes_through_whole(overlays: Overlays) -> None:
    """Contents beyond what is held in memory are kept once, and checked when they come back."""
    answer = overlays.ask([["write", "x", "y"], ["hole", "x", 5 << 20], ["hardlink", "x", "z"], ["write", "w", "y"]])
    assert answer["tree"] == answer["replayed"]
    assert 5 << 20 == len(answer["tree"]["z"][1])


@pytest.mark.req("FILES-5")
def test_a_hole_of_folders_has_a_bottom(overlays: Overlays) -> None:
    """Five thousand folders in each other are read without as many descriptors, and come back."""
    answer = overlays.ask([["deep", "x", 5000]], trees=False)
    assert 5002 == len(answer["calls"][0])
    assert [] == answer["left"]
    assert 30 > answer["took"][0]


@pytest.mark.req("FILES-5")
def test_names_without_end_are_refused(overlays: Overlays) -> None:
    """Paths add up with depth: beyond a bound the call is refused, before the memory is full."""
    assert "SandboxError" == overlays.ask([["deep", "x" * 200, 9000]], replay=False, trees=False)["kind"]


@pytest.mark.req("FILES-5")
def test_a_hundred_thousand_files_are_read(overlays: Overlays) -> None:
    """Their number alone refuses nothing, and is read in seconds."""
    answer = overlays.ask([["folder", "x"], ["many", "x", 100_000]], replay=False, trees=False, size="600m")
    assert 100_001 == len(answer["calls"][0])
    assert 30 > answer["took"][0]


@pytest.mark.req("FILES-5")
def test_what_the_agent_may_not_read_itself_is_read(overlays: Overlays) -> None:
    """A file and a folder without any right are told as what they are, and keep their modes."""
    answer = overlays.ask([["write", "d/f", "1"], ["mode", "d/f", 0], ["mode", "d", 0]])
    assert ["d---------", "----------"] == [answer["tree"][path][0] for path in ("d", "d/f")]
    assert answer["tree"] == answer["replayed"]


@pytest.mark.req("FILES-5")
@given(st.binary(min_size=1, max_size=40))
def test_a_shown_name_is_read_back(name: bytes) -> None:
    """Without loss, and without anything that a terminal obeys."""
    assert name == raw(shown(name))
    assert shown(name).isprintable()
