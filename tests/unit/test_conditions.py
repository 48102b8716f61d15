"""Conditions: what counts as a yes, and what is said of them before a run."""

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.containment.condition_types import examine
from midwatch.containment.conditions import Condition, ConditionFault, compile_condition, compile_with, holds
from midwatch.containment.reach import Reach, Right
from midwatch.records.label import Cause

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "maximum": 10},
        "price": {"type": "number"},
        "to": {"type": "array", "items": {"type": "string"}},
        "mode": {"type": "string", "enum": ["fast", "slow"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "flag": {"type": "boolean"},
        "free": {},
        "bag": {"type": "object", "additionalProperties": True},
        "order": {"$ref": "#/$defs/Order"},
    },
    "additionalProperties": False,
    "$defs": {
        "Order": {
            "type": "object",
            "properties": {"lines": {"type": "integer"}, "name": {"type": "string"}},
            "additionalProperties": False,
        }
    },
}


@pytest.mark.req("POLICY-3")
@pytest.mark.parametrize(
    ("arguments", "source"),
    [
        ({}, "args.count < 5"),
        ({}, "args.count != 5"),
        ({}, "!(args.count == 5)"),
        ({"count": 2**70}, "args.count > 5"),
        ({"count": True}, "args.count < 5"),
        ({"count": None}, "args.count < 5"),
        ({"count": "3"}, "args.count < 5"),
        ({"count": (1,)}, "args.count != 1"),
        ({"count": object()}, "args.count != 1"),
        ({"count": 0}, "5 / args.count > 1"),
        ({"flag": "yes"}, "args.flag"),
        ({"flag": 1}, "args.flag"),
        ({"flag": [True]}, "args.flag"),
        ({"flag": False}, "args.flag"),
        ({"text": "["}, "'a'.matches(args.text)"),
        ({"text": "a"}, "args.text.nothing"),
    ],
)
def test_what_is_not_true_itself_is_a_no(arguments: dict[str, Any], source: str) -> None:
    """Each of these has a value that Python takes for true, or raises, or is another type; none of them lets anything happen."""
    assert holds(source, arguments) is False


@pytest.mark.req("POLICY-3")
def test_the_library_gives_an_error_as_something_truthy() -> None:
    """Why a condition looks at the type of its value: whoever asked `if value` would let an error pass."""
    found = compile_with("args.count < 5", {}).eval(data={"args": {}})
    assert ("ERROR", True) == (found.type().name(), bool(found.plain_value()))
    assert compile_condition("args.count < 5")({}) is False


@pytest.mark.req("POLICY-3")
@given(
    st.dictionaries(
        st.sampled_from(["count", "flag", "x"]), st.one_of(st.none(), st.integers(), st.text(), st.floats())
    )
)
def test_only_the_intended_arguments_are_a_yes(arguments: dict[str, Any]) -> None:
    """Whatever the arguments are: a yes means that the number is there and is small."""
    said = compile_condition("args.count < 5")(arguments)
    if said:
        assert arguments["count"] < 5
    assert isinstance(said, bool)


@pytest.mark.req("POLICY-3")
def test_a_condition_that_holds_is_a_yes() -> None:
    """The benign twin, also for a mapping that cannot be changed, a nested value, and an argument that may be missing."""
    arguments = MappingProxyType({"count": 3, "order": {"lines": 2}, "to": ["a@x.org"]})
    assert all(
        holds(source, arguments)
        for source in (
            "args.count < 5",
            "args.order.lines == 2",
            'args.to.all(t, t.endsWith("@x.org"))',
            "!has(args.note) || args.note == 'x'",
        )
    )


@pytest.mark.req("POLICY-3")
def test_a_right_whose_condition_fails_gives_nothing() -> None:
    """Reach takes only true, also of an evaluator that returns something truthy or raises."""

    def raises(_: Any) -> object:
        raise RuntimeError

    for condition, wanted in (
        (compile_condition("args.count < 5"), None),
        (lambda _: "yes", None),
        (raises, None),
        (compile_condition("!has(args.count)"), "policies"),
    ):
        reach = Reach((Right(("third_party:*",), ("mail.*",), frozenset({"control"}), condition=condition),))
        assert wanted == reach.may(Cause("third_party", "web.fetch"), "mail.send", "control", arguments={})


@pytest.mark.req("POLICY-3")
def test_a_condition_that_takes_too_many_steps_is_a_no() -> None:
    """An agent chooses how long its lists are; a comprehension over a comprehension of them must not hold up everybody."""
    nested = "args.count.all(x, args.count.all(y, args.count.all(z, x + y + z >= 0)))"
    assert (True, False) == (holds(nested, {"count": [1, 2]}), holds(nested, {"count": list(range(9_000))}))


@pytest.mark.req("POLICY-3")
def test_a_condition_is_compiled_once() -> None:
    """The same text is the same object, so a call costs no compilation."""
    first, second = compile_condition("args.count < 7"), compile_condition("args.count < 7")
    assert isinstance(first, Condition)
    assert first is second


@pytest.mark.req("POLICY-4")
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("args.cuont < 5", "no argument `cuont`"),
        ('args["cuont"] == 5', "no argument `cuont`"),
        ("args.order.lins < 5", "no argument `order.lins`"),
        ('args.count == "x"', "no matching overload"),
        ("args.order.name < 5", "no matching overload"),
        ("args.to.all(t, t == 1)", "no matching overload"),
        ("args.mode", "type is string"),
        ("args.free", "type is dyn"),
        ("args.count <", "Syntax error"),
        ("nothing(args)", "undeclared reference"),
        ("other.x == 1", "undeclared reference"),
        ('args.mode.matches("[")', "no regular expression"),
        ("args.count < 5" + " " * 5_000, "longer than"),
    ],
)
def test_what_cannot_hold_is_told_before_a_run(source: str, words: str) -> None:
    """Types, names and regular expressions come from the tool's schema, nested ones too."""
    fault = examine(source, SCHEMA).fault
    assert fault is not None
    assert words in fault


@pytest.mark.req("POLICY-4")
@pytest.mark.parametrize(
    "source",
    [
        "args.count < 5",
        "args.price <= 100",
        "args.flag",
        "has(args.note) && args.note.size() < 5",
        "args.order.lines > 3",
        'args.to.exists(t, t.matches("^[a-z]+$"))',
        'args.mode.startsWith("args.nope")',
        'args.mode in ["fast", "slow"]',
        'args.mode == "fast" || args.count > 100',
        "args.count > 4 && args.count < 6",
        "args.price > 4 && args.price < 5",
        "[1, 2].exists(n, n == args.count)",
    ],
)
def test_a_sound_condition_is_left_alone(source: str) -> None:
    """No false alarm: a lint that cries wolf is switched off."""
    found = examine(source, SCHEMA)
    assert (None, False, (), ()) == (found.fault, found.never, found.open, found.strange)


@pytest.mark.req("POLICY-4")
@pytest.mark.parametrize(
    "source",
    [
        "false",
        "args.flag == true && false",
        'args.mode == "fast" && args.mode == "slow"',
        'args.mode == "quick"',
        'args.mode in ["quick", "lazy"]',
        "args.count > 4 && args.count < 5",
        "args.count > 10",
        "11 <= args.count",
        "args.count >= -3 && args.count < -3",
        "args.price > 5 && args.price <= 5",
        "args.price == 5 && args.price > 6",
        'args.mode != "fast" && args.mode != "slow"',
    ],
)
def test_what_can_never_be_true_is_told(source: str) -> None:
    """Plain contradictions, with themselves or with the schema."""
    found = examine(source, SCHEMA)
    assert (None, True) == (found.fault, found.never)


@pytest.mark.req("POLICY-4")
def test_literals_and_open_types_are_told() -> None:
    """A literal that no enumeration has, wherever it stands, and what nobody can check."""
    assert (("mode", "quick"),) == examine('args.count > 1 || "quick" == args.mode', SCHEMA).strange
    assert ("free", "bag.x") == examine("args.free == 1 && args.bag.x == 2", SCHEMA).open


@pytest.mark.req("POLICY-4")
@given(st.text(max_size=80))
def test_any_text_is_judged_without_a_crash(source: str) -> None:
    """Whatever is written as a condition, it is judged; what does not compile never holds."""
    fault = examine(source, SCHEMA).fault
    try:
        compile_condition(source)
    except ConditionFault:
        assert fault is not None
        assert not holds(source, {})
