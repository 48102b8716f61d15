"""Credentials that nobody issued: found in arguments, headers and files, and never quoted."""

from __future__ import annotations

import pytest

from midwatch.containment.acquired import Acquired, Issued, in_arguments, in_file, in_headers

KEY = b"0123456789abcdef"
TOKEN = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
NONE = Issued(KEY)


@pytest.mark.req("ACQUIRED-1")
@pytest.mark.parametrize(
    ("found", "where"),
    [
        (in_arguments({"url": "https://x", "note": f"use {TOKEN}"}, NONE), "argument note"),
        (in_arguments({"headers": [{"Authorization": f"Bearer {TOKEN}"}]}, NONE), "argument headers[0].Authorization"),
        (in_arguments({"password": "correct horse 7"}, NONE), "argument password"),
        (in_arguments({TOKEN: "x"}, NONE), f"argument {NONE.clean(TOKEN)}"),
        (in_headers([("Authorization", "Bearer whatever")], NONE), "header authorization"),
        (in_headers([("Cookie", "a=b")], NONE), "header cookie"),
        (in_headers([("X-Api-Key", "k")], NONE), "header x-api-key"),
        (in_headers([("X-Note", TOKEN)], NONE), "header x-note"),
        (in_file(".netrc", f"machine a login b password {TOKEN}".encode(), NONE), "file .netrc"),
        (in_file("k", b"-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----", NONE), "file k"),
    ],
    ids=range(10),
)
def test_a_known_form_that_nobody_issued_is_dead(found: tuple[Acquired, ...], where: str) -> None:
    """Wherever it is; what lies in a file is planted, all else is in use."""
    dead = [item for item in found if item.dead]
    assert [where] == sorted({item.where for item in dead})[-1:]
    assert {where.startswith("file")} == {item.planted for item in dead}


@pytest.mark.req("ACQUIRED-1")
def test_what_the_broker_issued_is_not() -> None:
    """The same value, wherever it stands."""
    issued = Issued(KEY, [TOKEN, "whatever"])
    assert () == in_arguments({"note": f"use {TOKEN}"}, issued)
    assert () == in_headers([("Authorization", "Bearer whatever"), ("X-Note", TOKEN)], issued)
    assert () == in_file("x", TOKEN.encode(), issued)
    assert in_headers([("Authorization", "Bearer whateveR")], issued)


@pytest.mark.req("ACQUIRED-2")
@pytest.mark.parametrize(
    "text",
    [
        "a plain report",
        "sha256:" + "ab" * 32,
        "123e4567-e89b-12d3-a456-426614174000",
        "src/midwatch/containment/authority",
        "",
        "max_tokens=900",
    ],
)
def test_ordinary_text_is_none(text: str) -> None:
    """Digests, ids, paths and prose."""
    assert () == in_arguments({"text": text}, NONE)
    assert () == in_headers([("X-Note", text), ("Accept", "text/html")], NONE)
    assert () == in_file("a", text.encode(), NONE)


@pytest.mark.req("ACQUIRED-2")
def test_what_is_only_random_is_marked_and_never_dead() -> None:
    """It goes behind a handle; nobody is denied for it."""
    (found,) = in_arguments({"text": "Xk29fQz7LmP0vTbR4sWy8NcD"}, NONE)
    assert ("entropy", False) == (found.kind, found.dead)


@pytest.mark.req("ACQUIRED-3")
def test_a_finding_holds_no_value_and_tells_two_from_one() -> None:
    """Markers are keyed: the same for the same value in one store, of no use elsewhere."""
    one, two = in_file("a", TOKEN.encode(), NONE)[0], in_file("b", TOKEN.encode(), NONE)[0]
    assert one.marker == two.marker
    assert TOKEN not in repr(one.to_json()) + repr(NONE) + repr(in_arguments({TOKEN: TOKEN}, NONE))
    assert one.marker != in_file("a", TOKEN.encode(), Issued(b"another key, as long"))[0].marker
