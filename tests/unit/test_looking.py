"""Which content a file had that was read: bounded, remembered only while that is safe, and never another file's."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from midwatch.sandbox.effects import Change
from midwatch.sandbox.fanotify import Observed
from midwatch.sandbox.looking import Digests, looked_at


def sha(text: str) -> str:
    """Hash a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def look(
    lower: Path, *paths: str, digests: Digests | None = None, most: tuple[int, int] = (99, 999)
) -> dict[str, Change]:
    """Look at files that were read."""
    told = looked_at(
        Observed(read=frozenset(paths)), (), earlier={}, lower=lower, digests=digests or Digests(), most=most
    )
    return {change.path: change for change in told}


@pytest.mark.req("FILES-14")
def test_what_is_too_large_is_told_by_size_and_time(tmp_path: Path) -> None:
    """One file over its bound, and all files over theirs: nothing is read, and that is said."""
    for name in ("a", "b", "c", "large"):
        (tmp_path / name).write_text(name * 4)
    found = look(tmp_path, "a", "b", "c", "large", most=(10, 9))
    assert [sha("aaaa"), sha("bbbb"), None, None] == [found[name].sha256 for name in ("a", "b", "c", "large")]
    large = found["large"]
    assert (("unhashed",), 20, (tmp_path / "large").stat().st_mtime_ns) == (large.flags, large.size, large.mtime_ns)
    assert ((), None) == (found["a"].flags, found["a"].mtime_ns)


@pytest.mark.req("FILES-14")
def test_a_digest_is_kept_only_once_the_times_of_its_file_can_be_relied_on(tmp_path: Path) -> None:
    """A file that changed a moment ago may change again within the same tick, with the same size."""
    file, digests = tmp_path / "a", Digests(most=1)
    file.write_text("1")
    state = file.stat()
    digests.put(state, sha("1"), now_ns=state.st_ctime_ns + 1_999_999_999)
    assert digests.get(state) is None
    digests.put(state, sha("1"), now_ns=state.st_ctime_ns + 2_000_000_001)
    assert sha("1") == digests.get(state)
    assert sha("1") == look(tmp_path, "a", digests=digests)["a"].sha256
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns - 1))
    assert digests.get(file.stat()) is None, "another time is another content"
    digests.put(file.stat(), sha("2"), now_ns=time.time_ns() + 10**10)
    assert (None, sha("2")) == (digests.get(state), digests.get(file.stat())), "the one used last is kept"


@pytest.mark.req("FILES-14")
def test_a_kept_digest_saves_the_reading(tmp_path: Path) -> None:
    """What is known costs nothing of what one reading may take."""
    (tmp_path / "a").write_text("1")
    state, digests = (tmp_path / "a").stat(), Digests()
    digests.put(state, sha("1"), now_ns=state.st_ctime_ns + 10**10)
    assert sha("1") == look(tmp_path, "a", digests=digests, most=(0, 0))["a"].sha256


@pytest.mark.req("FILES-14")
def test_what_the_workspace_got_meanwhile_is_flagged(tmp_path: Path) -> None:
    """Its hash is not surely that of what the call saw."""
    (tmp_path / "a").write_text("1")
    at = (tmp_path / "a").stat().st_ctime_ns
    seen = Observed(executed=frozenset({"a"}))
    flags = [looked_at(seen, (), earlier={}, lower=tmp_path, began_ns=began)[0].flags for began in (at - 1, at)]
    assert [("moved",), ()] == flags


@pytest.mark.req("FILES-14")
def test_no_link_folder_or_pipe_is_read_in_the_place_of_a_file(tmp_path: Path) -> None:
    """A name that is no plain file of the workspace has no content to tell, and nothing outside is opened."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "secret").write_text("s")
    (work / "link").symlink_to("../secret")
    (work / "out").symlink_to("..")
    (work / "folder").mkdir()
    os.mkfifo(work / "pipe")
    names = ("link", "out/secret", "folder", "pipe", "gone", "gone/too", "link/x")
    assert dict.fromkeys(names) == {path: item.sha256 for path, item in look(work, *names).items()}


@pytest.mark.req("FILES-14")
def test_what_the_run_left_is_told_as_the_run_left_it(tmp_path: Path) -> None:
    """Without reading: the workspace below holds something else, or nothing."""
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("below")
    earlier = {
        "a": Change("modified", "a", "file", 0o644, 1, sha("1"), sha("below"), sha("below")),
        "b": Change("deleted", "b", "file", base=sha("below"), before=sha("below")),
    }
    changes = [Change("deleted", "c", "file", base=sha("below"), before=sha("below"))]
    seen = Observed(read=frozenset("ab"), executed=frozenset("c"))
    told = looked_at(seen, changes, earlier=earlier, lower=tmp_path, digests=Digests())
    assert {"a": sha("1"), "b": None, "c": sha("below")} == {item.path: item.sha256 for item in told}
