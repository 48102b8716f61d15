"""What lies: names, encodings, comments, anchors and keys that hide a grant; contents that cannot be read; detectors that fail."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from importlib import metadata
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.containment.authority import BUILTIN, Detector, File, Granted, Http, Inert, Sql, granted, installed, judge
from midwatch.containment.authority.facts import MOST, Effect, Finding
from midwatch.containment.authority.registry import GROUP
from midwatch.sandbox import watched
from midwatch.sandbox.effects import Change, Request
from tests.attack.authority.pairs import changed, told

BILLIONS = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n + 1, n + 1, b",".join([b"*%c" % n] * 9)) for n in range(97, 104)
)
"""Each list holds the one before nine times."""
FLOW = "on: push\njobs: {a: {steps: [{run: make}]}}\n"
EVIL = "on: push\njobs: {a: {steps: [{run: make}, {run: curl x}]}}\n"


@pytest.mark.req("AUTHORITY-3")
@pytest.mark.parametrize(
    "path",
    [
        ".GITHUB/Workflows/ci.yml", ".git\u200chub/workflows/ci.yml", "\uff0egithub/workflows/ci.yml", "a/.github /workflows/ci.yml",
        unicodedata.normalize("NFD", "é/.github/workflows/ci.yml"), ".github/workflows/ci.YML", ".github./workflows/c\u0131.yml",
    ],
)  # fmt: skip
def test_another_spelling_of_a_name_is_judged_the_same(path: str) -> None:
    """A disk that ignores case, composition, width or blanks at ends takes them for one."""
    assert told(changed(path, FLOW, EVIL)).grants


@pytest.mark.req("AUTHORITY-2", "AUTHORITY-3")
@pytest.mark.parametrize(
    ("path", "content"),
    [
        (".github/workflows/ci.yml", FLOW.encode("utf-16")),
        (".github/workflows/ci.yml", b"\xef\xbb\xbf" + FLOW.encode()),
        (".github/workflows/ci.yml", (FLOW + "# a\u2028- run: curl\n").encode()),
        (".github/workflows/ci.yml", (FLOW + "# a\x85- run: curl\n").encode()),
        (".github/workflows/ci.yml", (FLOW + "on: pull_request_target\n").encode()),
        (".github/workflows/ci.yml", BILLIONS),
        (".github/workflows/ci.yml", b"[" * 100_000),
        (".github/workflows/ci.yml", b"on: push\n? [a]\n: b\n"),
        (".github/workflows/ci.yml", FLOW.encode() + b"# " + b"x" * MOST),
        ("etc/sudoers", b"root ALL=(ALL) ALL\n# \xff\n"),
        ("etc/sudoers", "root ALL=(ALL) ALL\n# a \u202e b\n".encode()),
        ("package.json", b'{"name": "a", "name": "b"}'),
        ("package.json", b'{"name": "a" "b"}'),
        ("package.json", b"{" * 5000),
        ("pyproject.toml", b"[project]\nname = 'a'\nname = 'b'\n"),
        ("conftest.py", b"def (:\n"),
        ("conftest.py", b"x = " + b"(" * 5000 + b")" * 5000),
        (".git/config", b"[core\n"),
        (".git/config", b"[core]\n\x0c hooksPath = x\n"),
        (".env", b"A=1\x00B=2\n"),
    ],
    ids=range(20),
)  # fmt: skip
def test_what_cannot_be_read_or_could_be_read_in_two_ways_counts_as_granting(path: str, content: bytes) -> None:
    """Whoever it is for, a person looks."""
    found = told(changed(path, "on: push\n" if path.endswith("yml") else "", content))
    assert found.grants
    assert "unknown" in {item.to_whom for item in found.grants}


@pytest.mark.req("AUTHORITY-2")
def test_a_content_that_is_not_at_hand_counts_as_granting_where_it_matters() -> None:
    """Lost or too large: on a path of authority it grants, elsewhere it is nobody's business."""
    for path, count in ((".github/workflows/ci.yml", 1), ("Makefile", 1), ("notes/a.txt", 0)):
        change = Change("modified", path, "file", mode=0o644, was="file", was_mode=0o644)
        assert count == len(judge(File(change, unread="it is too large")).grants)
    request = Request(1, "POST", "api.github.com", 443, "/repos/a/b/issues")
    assert judge(Http(request, None, "it is lost")).grants


@pytest.mark.req("AUTHORITY-2")
@pytest.mark.parametrize("kind", ["link", "other"])
def test_a_link_or_device_in_place_of_a_file_that_is_obeyed_counts_as_granting(kind: str) -> None:
    """Whatever it leads to would be obeyed."""
    assert told(changed("Makefile", "all:\n", "", kind=kind, target="x.txt")).grants


@pytest.mark.req("AUTHORITY-2")
def test_every_name_of_the_watch_list_grants_unless_a_detector_proves_it_inert() -> None:
    """A content that no detector knows is inert only where it can but hide files from agents and images."""
    names = [*watched.NAMES, *(f"{folder}/x" for folder in watched.FOLDERS), *(f"a{end}" for end in watched.SUFFIXES)]
    hides = [".dockerignore", ".cursorignore", ".aiderignore", ".agentignore"]
    assert hides == [
        name for name in names if not told(changed(name, None, "strange: {hunter3: [1]}\nand more = yes\n")).grants
    ]


@pytest.mark.req("AUTHORITY-2", "AUTHORITY-5")
def test_a_detector_that_fails_counts_as_granting_and_none_takes_a_finding_away() -> None:
    """Whether it fails at the question, at the judgement, or gives what is no finding."""

    def fails(_: Effect) -> Iterable[Finding]:
        raise RuntimeError("secret hunter2")

    def asks(_: Effect) -> bool:
        raise RuntimeError("secret hunter2")

    def lies(effect: Effect) -> Iterable[Finding]:
        return [Inert("x", "mine", "it is fine")]

    plain = changed("notes.txt", None, "x")
    for bad in (
        Detector("a", lambda _: True, fails),
        Detector("a", asks, lies),
        Detector("a", lambda _: True, lambda _: cast("list[Finding]", ["yes"])),
    ):
        (found,) = judge(plain, [bad]).grants
        assert ("a", False, False) == (found.how, found.proven, "hunter2" in repr(found))
    kind = Detector("mine", lambda _: True, lies)
    assert judge(changed(".github/workflows/ci.yml", FLOW, EVIL), [kind]).grants
    unknown = Http(Request(1, "POST", "crm.example", 443, "/v1/events"), b"")
    assert ([False], ()) == ([item.proven for item in judge(unknown).grants], judge(unknown, [kind]).grants)


@pytest.mark.req("AUTHORITY-5")
def test_packages_bring_detectors_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not load counts as granting, on every effect."""
    mine = Detector("mine", lambda _: True, lambda _: [granted("x", "y", "z", "mine", "w")])
    points = [
        metadata.EntryPoint("broken", "no_such_module:x", GROUP),
        metadata.EntryPoint("good", f"{__name__}:MINE", GROUP),
        metadata.EntryPoint("wrong", "os:sep", GROUP),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == GROUP else [])
    monkeypatch.setattr(
        metadata.EntryPoint,
        "load",
        lambda self: (
            mine if self.name == "good" else __import__("importlib").import_module(self.module).__dict__[self.attr]
        ),
    )
    found = judge(changed("a.txt", None, "x"), installed())
    assert [("broken", False), ("mine", True), ("wrong", False)] == sorted(
        (item.how, item.proven) for item in found.grants
    )


@pytest.mark.req("AUTHORITY-4")
@pytest.mark.parametrize(
    "effect",
    [
        changed(".env", "", "API_KEY=hunter2hunter2\n"),
        changed("etc/sudoers", "", "ghp_0123456789abcdefghijABCDEFGHIJ012345 ALL=(ALL) ALL\n"),
        changed(".npmrc", "", "registry=https://ann:hunter2@evil.example/\n"),
        changed(".git/config", "", '[url "https://ann:hunter2@evil.example/"]\n insteadOf = x\n'),
        Sql("ALTER USER bob WITH PASSWORD 'hunter2'"),
        changed("compose.yaml", "services: {}\n", "services: {a: {environment: {X: hunter2}}}\n"),
    ],
    ids=range(6),
)
def test_a_finding_quotes_no_value(effect: Effect) -> None:
    """Names of accounts, settings and hosts alone; a credential that stands where a name should is hidden."""
    found = told(effect)
    assert found.grants
    assert "ghp_" not in repr(found)


@pytest.mark.req("AUTHORITY-4")
def test_what_a_finding_says_can_be_shown() -> None:
    """No control characters, no letters that turn the direction, nothing without an end."""
    made = granted("a\x1b[2Jb", "x" * 1000 + "\u202e", "p\n", "h", "w" * 5000)
    assert made.to_whom.isprintable()
    assert 400 > max(map(len, (made.what, made.to_whom, made.why)))
    assert "\x1b" not in repr(list(made.to_json().values()))


@pytest.mark.req("AUTHORITY-2")
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*watched.NAMES, ".git/config", "rbac.yaml", "m.sql", ".git/hooks/x", "etc/hosts"]),
    st.binary(max_size=200),
    st.text(max_size=200),
)
def test_no_content_makes_a_judgement_fail(path: str, one: bytes, other: str) -> None:
    """Whatever is written, a finding comes out, and the same each time."""
    effect = changed(path, one, other)
    assert judge(effect) == judge(effect)
    assert all(isinstance(item, Granted) for item in judge(effect).grants)


@pytest.mark.req("AUTHORITY-1")
def test_every_detector_has_a_name_of_its_own() -> None:
    """Sixteen families, and what `os` and others bring is none of them."""
    assert len(BUILTIN) == len({detector.name for detector in BUILTIN})
    assert 15 <= len(BUILTIN)
    assert os.sep == "/"


MINE = Detector("mine", lambda _: True, lambda _: [granted("x", "y", "z", "mine", "w")])
