"""Denied, changed, retried: what counts as the same, and as a change."""

from __future__ import annotations

import time

import pytest

from midwatch.containment.retries import Attempt, Retries, attempted, refused, refused_request
from midwatch.containment.roles import Place
from midwatch.sandbox.effects import Request


def at(
    value: object, *, kind: str | None = None, name: str = "path", effect: str = "write", tool: str = "files.write"
) -> Attempt:
    """Make what a call of some tool attempts."""
    return attempted(tool, effect, [Place(name, name, value, "target", None, kind)])  # type: ignore[arg-type]


def after(*, depended: list[str] | None, changes: list[tuple[int, str]], first: Attempt | None = None) -> Retries:
    """Make a tree that was refused at event 10, and changed something."""
    tree = Retries()
    tree.refused(refused(10, first or at("etc/x", kind="path"), "containment", depended))
    for seq, resource in changes:
        tree.changed(seq, resource)
    return tree


@pytest.mark.req("RETRY-1")
@pytest.mark.parametrize(
    "again",
    [
        at("etc/x", kind="path"),
        at("etc/../etc/./x", kind="path"),
        at("etc/x", name="file", tool="shell.cat"),
        at("./etc/x"),
    ],
)
def test_the_same_resource_after_a_change_of_authority_is_an_escalation(again: Attempt) -> None:
    """By any tool, argument or spelling; the chain names both events."""
    found = after(depended=None, changes=[(12, "etc/sudoers"), (14, "grants")]).escalation(again)
    assert found is not None
    assert (10, 12, "etc/sudoers", False) == (found.refused, found.changed, found.resource, found.known)
    assert "event 10" in found.reason()
    assert {
        "refused": 10,
        "changed": 12,
        "resource": "etc/sudoers",
        "how": "containment",
        "known": False,
    } == found.to_json()


@pytest.mark.req("RETRY-1")
@pytest.mark.parametrize(
    "twin",
    [
        (at("etc/y", kind="path"), [(12, "etc/sudoers")]),
        (at("etc/x", kind="path", effect="read"), [(12, "etc/sudoers")]),
        (at("etc/x", kind="path"), []),
        (at("etc/x", kind="path"), [(9, "etc/sudoers")]),
    ],
)
def test_another_resource_or_effect_or_no_change_since_is_none(twin: tuple[Attempt, list[tuple[int, str]]]) -> None:
    """A plain retry, something else, and what changed before the refusal."""
    again, changes = twin
    assert after(depended=None, changes=changes).escalation(again) is None


@pytest.mark.req("RETRY-2")
def test_a_known_dependency_counts_alone_and_an_unknown_one_is_any() -> None:
    """What the outcome did not depend on changes nothing."""
    again = at("etc/x", kind="path")
    assert after(depended=["grants"], changes=[(12, "etc/sudoers")]).escalation(again) is None
    found = after(depended=["grants"], changes=[(12, "etc/sudoers"), (13, "grants")]).escalation(again)
    assert found is not None
    assert (13, True) == (found.changed, found.known)
    assert after(depended=[], changes=[(12, "grants")]).escalation(again) is None


@pytest.mark.req("RETRY-2")
def test_what_a_person_changed_or_overruled_is_no_escalation() -> None:
    """A person who grants it has granted it."""
    again, tree = at("etc/x", kind="path"), after(depended=None, changes=[])
    tree.changed(12, "grants", by_person=True)
    assert tree.escalation(again) is None
    tree.changed(13, "grants")
    assert tree.escalation(again) is not None
    tree.overruled(10)
    assert tree.escalation(again) is None
    tree.refused(refused(20, again, "gate"))
    tree.changed(21, "etc/group")
    found = tree.escalation(again)
    assert found is not None
    assert (20, 21, "gate") == (found.refused, found.changed, found.how)


@pytest.mark.req("RETRY-1")
@pytest.mark.parametrize(("status", "is_one"), [(401, True), (403, True), (404, False), (200, False), (None, False)])
def test_a_service_that_refuses_is_a_refusal_too(status: int | None, is_one: bool) -> None:
    """401 and 403 by the address, however the next tool spells it."""
    request = Request(1, "PUT", "api.example.com", 443, "/v1/x", "sent", status=status)
    found = refused_request(10, request)
    assert is_one == (found is not None)
    if found is not None:
        tree = Retries()
        tree.refused(found)
        tree.changed(11, ".env")
        assert (
            tree.escalation(at("HTTPS://API.example.com/v1/./x", kind="url", name="url", tool="http.put")) is not None
        )
        assert tree.escalation(at("https://api.example.com/v1/y", kind="url", name="url", tool="http.put")) is None


@pytest.mark.req("RETRY-1")
def test_a_call_that_names_nothing_is_about_its_tool() -> None:
    """Two calls of a tool without targets are the same."""
    tree = Retries()
    tree.refused(refused(1, attempted("deploy.now", "destructive", []), "gate"))
    tree.changed(2, "fleet.yaml")
    assert tree.escalation(attempted("deploy.now", "destructive", [])) is not None
    assert tree.escalation(attempted("deploy.later", "destructive", [])) is None


@pytest.mark.alone
@pytest.mark.req("RETRY-3")
def test_a_look_up_costs_the_same_after_ten_thousand_steps() -> None:
    """Refusals and changes are indexed, and the same refusal is kept once."""
    tree = Retries()
    for seq in range(0, 40_000, 4):
        tree.refused(refused(seq, at(f"d/{seq % 400}", kind="path"), "containment"))
        tree.changed(seq + 1, f"a/{seq}")
    again = at("d/8", kind="path")
    begun = time.perf_counter()
    for _ in range(1000):
        assert tree.escalation(again) is not None
    assert 0.2 > time.perf_counter() - begun


@pytest.mark.req("RETRY-1")
def test_a_change_that_is_read_late_hides_none_that_came_after_the_refusal() -> None:
    """What a sandbox left is looked at only when it matters, so an early change may be told last; the later one counts all the same."""
    found = after(depended=None, changes=[(20, "late"), (3, "early")]).escalation(at("etc/x", kind="path"))
    assert found is not None
    assert (10, 20, "late") == (found.refused, found.changed, found.resource)


@pytest.mark.req("RETRY-1")
@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("/ws/etc/x", "etc/x"),
        ("file:///ws/etc/x", "etc/x"),
        ("https://api.example/x", "https://API.example:443/x/?again=1"),
        ("https://api.example/x", "http://ann@api.example/x#again"),
        ("Ann@example.org", "mailto:ann@example.org"),
        ("db.users", "DB.Users"),
        ("caf\u00e9 menu", "cafe\u0301  menu"),
        (7, "7"),
    ],
)
def test_attack_another_spelling_of_what_was_refused(first: object, again: object) -> None:
    """Case, schemes, users, queries, composed letters, the folder in front: services take them for the same, so they are."""
    place = [Place("to", "to", first, "target", None, None)]
    tree = after(depended=None, changes=[(12, "grants")], first=attempted("files.write", "write", place, root="/ws"))
    place = [Place("to", "to", again, "target", None, None)]
    assert tree.escalation(attempted("other.write", "write", place, root="/ws")) is not None


@pytest.mark.req("RETRY-1")
@pytest.mark.parametrize(
    ("first", "other"),
    [("/ws/etc/x", "/etc/x"), ("https://api.example/x", "https://api.example/y"), ("a@example.org", "b@example.org")],
)
def test_twin_another_thing_is_another_thing(first: object, other: object) -> None:
    """What is written much alike and is something else was not refused."""
    place = [Place("to", "to", first, "target", None, None)]
    tree = after(depended=None, changes=[(12, "grants")], first=attempted("files.write", "write", place, root="/ws"))
    place = [Place("to", "to", other, "target", None, None)]
    assert tree.escalation(attempted("other.write", "write", place, root="/ws")) is None
