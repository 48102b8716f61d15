"""Attacks on the list of what needs a person: the watched file is changed under a name that is on no list."""

from pathlib import Path

import pytest

from midwatch.config.specs import ObservedWhen
from midwatch.gates import seen
from midwatch.sandbox import release, watched
from midwatch.sandbox.effects import Change
from midwatch.sandbox.layers import Spool, write
from midwatch.sandbox.release import Release


def planned(folder: Path, path: str) -> Release:
    """Plan the commit of a run that created a file."""
    spool = Spool(folder)
    change = Change("created", path, "file", 0o644, 2, spool.add(b"x\n"))
    workspace = folder / "workspace"
    return release.plan([write(folder / "call.layer", [change], (), spool)], workspace)


@pytest.mark.req("ISOLATION-6")
@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        (".git/hooks/pre-commit", "../../scripts/check", "scripts/check"),
        ("CLAUDE.md", "docs/guide.txt", "docs/guide.txt"),
        (".husky", "scripts", "scripts/below/it"),
        (".github/workflows", "{root}/ci", "ci/build.txt"),
        ("Makefile", "one", "two"),
    ],
)
def test_what_a_watched_link_leads_to_needs_a_person(tmp_path: Path, link: str, target: str, path: str) -> None:
    """A link of the workspace's own makes its target a hook, an instruction, a pipeline; the release says so."""
    root = tmp_path / "workspace"
    for folder in (root / "scripts" / "below", root / "docs", root / "ci", (root / link).parent):
        folder.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(target.format(root=root))
    (root / "one").symlink_to("two")
    found = planned(tmp_path, path)
    assert [path] == [item.path for item in found.person]
    assert f"`{link}` leads to it" in found.items[0].person[0]
    assert () == planned(tmp_path, "scripts.txt").person


@pytest.mark.req("ISOLATION-6")
def test_a_link_stands_for_what_a_rule_means_below_it() -> None:
    """`deploy/*` asks about a link named `deploy`; not about `deployed`, nor a plain file."""
    observed = ObservedWhen(paths=("deploy/*", "a/b/*.yml"))
    told = {
        "deploy": Change("created", "deploy", "link", target="payload"),
        "Deploy": Change("created", "Deploy", "link", target="payload"),
        "a": Change("created", "a", "link", target="payload"),
        "deployed": Change("created", "deployed", "link", target="payload"),
        "a/b/c": Change("created", "a/b/c", "link", target="payload"),
    }
    assert {"deploy", "Deploy", "a"} == {name for name, change in told.items() if seen._changed(observed, change)}
    assert not seen._changed(observed, Change("created", "deploy", "file"))


@pytest.mark.req("ISOLATION-6")
@pytest.mark.parametrize(
    "path",
    [
        ".hg/hgrc",
        "sub/.jj/repo/config.toml",
        ".svn/wc.db",
        "sitecustomize/__init__.py",
        ".git/refs/replace/ab",
        ".git/packed-refs",
    ],
)
def test_other_places_that_are_run_or_obeyed_by_habit(path: str) -> None:
    """Other version control, packages in the place of modules, and what makes git show another history than it has."""
    assert watched.why(path) is not None
