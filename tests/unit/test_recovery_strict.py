"""Strict decoding: what JSON carries unambiguously, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.recovery import NotStrict, loads_strict
from midwatch.recovery.strict import MAX_DEPTH, MAX_DIGITS, depth_of

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("duplicate_keys", '{"a": 1, "a": 1}'),
        ("duplicate_keys", '[{"b": {"a": 1, "c": 2, "\\u0061": 3}}]'),
        ("not_finite", "NaN"),
        ("not_finite", '{"a": -Infinity}'),
        ("not_finite", "[1e999]"),
        ("too_deep", "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)),
        ("too_deep", "[" * 100_000),
        ("too_deep", '{"a":' * 100_000),
        ("too_big", "9" * (MAX_DIGITS + 1)),
        ("surrogate", '"\\ud800"'),
        ("surrogate", '{"\\uDC00x": 1}'),
        ("surrogate", '"\ud800"'),
        ("syntax", ""),
        ("syntax", "   "),
        ("syntax", '{"a": 1,}'),
        ("syntax", '{"a": 1} x'),
        ("syntax", "{'a': 1}"),
        ("syntax", '"a\nb"'),
        ("syntax", '"open'),
        ("syntax", "\ufeff1"),
    ],
)
@pytest.mark.req("RECOVERY-2")
def test_what_is_not_strict_is_refused_by_name(code: str, text: str) -> None:
    """Each way of not being strict JSON has its own code, and there is one error type."""
    with pytest.raises(NotStrict) as caught:
        loads_strict(text)
    assert code == caught.value.code


def test_numbers_stay_exact() -> None:
    """A whole number beyond 64 bits is neither rounded nor refused."""
    assert 2**200 + 1 == loads_strict(str(2**200 + 1))


def test_a_surrogate_pair_is_a_character() -> None:
    """Escaped pairs are ordinary text."""
    assert loads_strict('"\\ud83d\\ude00"') == "😀"


def test_deepest_allowed_nesting() -> None:
    """The bound itself is allowed."""
    assert depth_of(loads_strict("[" * MAX_DEPTH + "]" * MAX_DEPTH)) == MAX_DEPTH


def test_the_message_repeats_nothing_of_the_text() -> None:
    """What stood in the text may be a secret, so the error does not say it."""
    with pytest.raises(NotStrict) as caught:
        loads_strict('{"hunter2": "hunter2", "hunter2": 1}')
    assert "hunter2" not in str(caught.value)


@given(JSON_VALUES)
def test_what_json_writes_is_read_back(value: Any) -> None:
    """Every JSON value of sane depth survives, with whitespace around it."""
    assert value == loads_strict(f"\n {json.dumps(value)} \t")
