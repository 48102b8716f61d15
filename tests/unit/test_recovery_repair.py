"""Repair on its own: keys named twice are seen, and the depths of the text do not matter."""

from __future__ import annotations

import pytest

from midwatch.recovery import NotStrict
from midwatch.recovery.repair import repair


@pytest.mark.parametrize(
    "text",
    [
        "{'a': 1, 'a': 2}",
        "{a: 1, b: 2, a: 3}",
        '{"a": 1 "a": 2}',
        '{"x": [{"a": 1, "a": 1,}]}',
        '{"x": {"a": 1, "a": 2},}',
        '[{"a": 1, "a": 2},]',
        "{'a': 1, \"a\": 2}",
        '{"a": 1, a: 2}',
        '{"a": 1, "\\u0061": 2,}',
        '{"a": 1, // "a"\n "a": 2}',
        '[{"a": 1 "a": 2}]',
        '{"a": [1], "a": [2],}',
    ],
)
@pytest.mark.req("RECOVERY-2")
def test_keys_named_twice_are_refused(text: str) -> None:
    """The library would let the last one win; here nobody wins."""
    with pytest.raises(NotStrict) as caught:
        repair(text)
    assert "duplicate_keys" == caught.value.code


def test_equal_keys_in_different_objects_are_fine() -> None:
    """Only one object may not name a key twice."""
    assert {"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]} == repair("{'a': {'a': 1}, 'b': [{'a': 1}, {'a': 2}]}")[0]


def test_keys_are_plain_strings() -> None:
    """The trick with the keys does not leak into the value."""
    value, _ = repair("{a: {b: 1}}")
    assert [str] == [type(key) for key in value]
    assert [str] == [type(key) for key in value["a"]]


@pytest.mark.parametrize("text", ["[" * 10_000, "{[" * 5_000, "{`" * 8_000, '{"a":(' * 5_000, '{"a":' * 5_000])
@pytest.mark.req("RECOVERY-6")
def test_depth_is_bounded(text: str) -> None:
    """Bottomless text is refused, not followed."""
    with pytest.raises(NotStrict):
        repair(text)


@pytest.mark.req("RECOVERY-5")
def test_the_notes_repeat_nothing() -> None:
    """A comment in the text is noted, its words are not."""
    _, notes = repair("{'a': 1, // hunter2\n /* hunter2 */ 'b': hunter2}")
    assert notes
    assert not any("hunter2" in note for note in notes)
