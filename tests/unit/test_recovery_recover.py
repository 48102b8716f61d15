"""From prose to a value that fits: nasty inputs, each with the outcome that was meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.recovery import REFUSALS, RULES, Clean, Recovered, Refused, compile_schema, recover
from midwatch.recovery.recover import LIMIT_BYTES

ACTION = compile_schema(
    {
        "type": "object",
        "properties": {
            "action": {"enum": ["restart", "delete", "list"]},
            "target": {"type": "string"},
            "count": {"type": "integer"},
            "ok": {"type": "boolean"},
            "args": {"type": "object"},
        },
        "required": ["action"],
        "additionalProperties": False,
    }
)
LOOSE = compile_schema({"type": "object"})
NUMBERS = compile_schema({"type": "array", "items": {"type": "integer"}})
CALLS = compile_schema(
    {
        "anyOf": [
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": {"type": "object", "required": [need]}},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for name, need in (("read", "path"), ("stop", "reason"))
        ]
    }
)
R: dict[str, Any] = {"action": "restart"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (R, '{"action":"restart"}'),
        (R, '\ufeff\n  {"action": "restart"}\r\n'),
        ({**R, "target": "<think>x</think>"}, '{"action":"restart","target":"<think>x</think>"}'),
        ({**R, "target": '```json\n{"action":"delete"}\n```'},
         '{"action":"restart","target":"```json\\n{\\"action\\":\\"delete\\"}\\n```"}'),
        ({**R, "count": 10**30}, '{"action":"restart","count":1' + "0" * 30 + "}"),
        ({**R, "target": "😀 é 日本"}, '{"action":"restart","target":"😀 é 日本"}'),
    ],
)  # fmt: skip
@pytest.mark.req("RECOVERY-1")
def test_clean(value: Any, text: str) -> None:
    """What is JSON as a whole is taken as it stands and leaves no signal."""
    assert Clean(value) == recover(text, ACTION)


RECOVERED: list[tuple[Any, ...]] = [
    ("fenced", R, 'Sure!\n```json\n{"action":"restart"}\n```\nDone.'),
    ("fenced", R, '~~~\n{"action":"restart"}\n~~~'),
    ("fenced", R, '- step:\n  ````json\n  {"action":"restart"}\n  ````'),
    ("fenced", R, '```json {"action":"restart"} ```'),
    ("fenced", R, '```json\n{"action":"restart"}'),
    ("scan", R, 'The answer is {"action":"restart"}.'),
    ("scan", R, 'For {name} I choose {"action":"restart"} (not {other}).'),
    ("scan", R, 'On [0, 1) it holds: {"action":"restart"}'),
    ("scan", R, 'See [1] and [the docs](x) and - [ ] todo: {"action":"restart"}'),
    ("scan", R, '[2024-01-01 12:00] {"action":"restart"}'),
    ("scan", R, '{"action":"restart"}}'),
    ("scan", R, '{{"action":"restart"}}'),
    ("scan", R, 'Draft: {"action":"delete"}\nOn reflection: {"action":"restart"}'),
    ("scan", R, '{"action":"delete"}\n{"action":"restart"}'),
    ("scan", R, '{"action":"restart"} with the note {"why": 5}'),
    ("scan", R, '{"type":"object","properties":{"action":{}}}\n{"action":"restart"}'),
    ("scan", R, '{"action":"delete","action":"list"} was wrong; {"action":"restart"}'),
    ("scan", R, '<think>{"action":"delete"}</think>{"action":"restart"}'),
    ("scan", R, '<Thinking>\nmaybe {"action":"delete"}\n</Thinking>\n{"action":"restart"}'),
    ("scan", R, 'maybe {"action":"delete"}</think>{"action":"restart"}'),
    ("scan", R, '{"action":"restart"}<think>or {"action":"delete"}</think>'),
    ("scan", R, '{"action":"restart"}<think>or {"action":"delete"}'),
    ("scan", R, '<think>a { brace [ here</think> {"action":"restart"}'),
    ("scan", R, '<tool_call>{"action":"restart"}</tool_call>'),
    ("scan", R, '\u200b\u00a0{"action":"restart"}\u00a0'),
    ("scan", {**R, "args": {"x": [1, {"y": "}"}]}}, 'x {"action":"restart","args":{"x":[1,{"y":"}"}]}} y'),
    ("unwrapped", R, '"{\\"action\\": \\"restart\\"}"'),
    ("unwrapped", R, ' "\\n{\\"action\\": \\"restart\\"}\\n" '),
    ("fenced", R, '"```json\\n{\\"action\\": \\"restart\\"}\\n```"'),
    ("repair", R, '{"action":"restart",}'),
    ("repair", R, "{'action': 'restart'}"),
    ("repair", R, "{action: restart}"),
    ("repair", R, '{action: "restart"}'),
    ("repair", R, "{“action”: “restart”}"),
    ("repair", R, '{\\"action\\": \\"restart\\"}'),
    ("repair", R, '{"action": "restart", // as agreed\n}'),
    ("repair", R, '{/* as agreed */ "action": "restart"}'),
    ("repair", R, "{'action': 'restart', # as agreed\n}"),
    ("repair", {**R, "target": "it's"}, "{'action':'restart','target':\"it's\"}"),
    ("repair", {**R, "ok": True}, '{"action": "restart", "ok": True}'),
    ("repair", {**R, "target": "x"}, '{"action": "restart" "target": "x"}'),
    ("repair", {**R, "target": "x", "count": 1}, '{"action": "restart",\n"target": "x"\n"count": 1}'),
    ("repair", {**R, "target": "x"}, '{"action": "restart"; "target": "x"}'),
    ("repair", {**R, "target": "a\nb"}, '{"action": "restart", "target": "a\nb"}'),
    ("repair", {**R, "target": 'he said "hi" ok'}, '{"action":"restart","target":"he said "hi" ok"}'),
    ("repair", {**R, "target": "\\d+"}, '{"action":"restart","target":"\\d+"}'),
    ("repair", {**R, "args": {"x": 1}}, '{"action":"restart","args":{"x":1}'),
    ("repair", {**R, "args": {"x": 1}}, '<tool_call>\n{"action":"restart","args":{"x":1}\n</tool_call>'),
    ("repair", {**R, "args": {"a": [1, 2]}}, '{"action":"restart","args":{"a":[1,2}}'),
    ("repair", R, "{'action':'delete'} no: {'action':'restart'}"),
    ("repair_fenced", R, "```json\n{'action': 'restart'}\n```"),
    ("repair_fenced", R, '```json\n{"action": "restart"\n```\nIs that right?'),
    (
        "repair_fenced",
        {**R, "target": "```\n{x}\n```"},
        '```json\n{"action": "restart", "target": "```\n{x}\n```",}\n```',
    ),
]


@pytest.mark.parametrize(("rule", "value", "text"), RECOVERED)
def test_recovered(rule: str, value: Any, text: str) -> None:
    """What can be read in one way only is read, and the rule that read it is named."""
    found = recover(text, ACTION)
    assert isinstance(found, Recovered), found
    assert (rule, value) == (found.rule, found.value)
    assert rule in RULES


REFUSED: list[tuple[Any, ...]] = [
    ("empty", ""),
    ("empty", " \r\n\t\ufeff"),
    ("no_candidate", "I cannot do that."),
    ("no_candidate", "<action>restart</action>"),
    ("no_candidate", "use {name} and [link]"),
    ("no_candidate", '<think>{"action":"restart"}</think>'),
    ("no_candidate", '<think>{"action":"restart"}'),
    ("no_candidate", '{"action"="restart"}'),
    ("no_candidate", '"just a string"'),
    ("no_candidate", "NaN"),
    ("schema", "true"),
    ("schema", "null"),
    ("schema", "[]"),
    ("schema", '[{"action":"restart"}]'),
    ("schema", '{"action":"explode"}'),
    ("schema", '{"action":"restart","extra":1}'),
    ("schema", '{"action":"restart","count":"5"}'),
    ("schema", '{"args":{"action":"restart"}}'),
    ("schema", '{"args":{"action":"restart"},}'),
    ("schema", "{args: {'action': 'restart'}}"),
    ("schema", '{"action":"restart","target":None}'),
    ("schema", '{"action":"restart","count":0x10}'),
    ("schema", '{"action":"restart","ok":"tru' + '"}'),
    ("duplicate_keys", '{"action":"restart","target":"a","action":"delete"}'),
    ("duplicate_keys", '{"action":"restart","\\u0061ction":"delete"}'),
    ("duplicate_keys", "{'action':'restart','action':'delete'}"),
    ("duplicate_keys", '{"action":"restart","args":{"a":1,"a":2}}'),
    ("duplicate_keys", '{"action":"restart","args":{"a":1,"a":2},}'),
    ("duplicate_keys", '```\n{"action":"restart","action":"restart"}\n```'),
    ("duplicate_keys", '{"action":"list"} then {"action":"restart","action":"delete"}'),
    ("duplicate_keys", '"{\\"action\\":\\"restart\\",\\"action\\":\\"list\\"}"'),
    ("not_finite", '{"action":"restart","count":NaN}'),
    ("not_finite", '{"action":"restart","count":1e999}'),
    ("too_big", '{"action":"restart","count":' + "9" * 3000 + "}"),
    ("surrogate", '{"action":"restart","target":"\\ud800"}'),
    ("truncated", '{"action":"restart","target":"a'),
    ("truncated", '{"action":"restart","count":12'),
    ("truncated", '{"action":"restart","ok":tru'),
    ("truncated", '{"action":"restart","target":'),
    ("truncated", '{"action":"list"} then {"action":"restart","target":"a'),
    ("ambiguous", '{"action":"restart", ...}'),
    ("ambiguous", '{"action":"restart","args":{"a":1, …},}'),
    ("ambiguous", '{"action":"restart","target":`x`}'),
    ("ambiguous", '{"action":"restart","target":undefined}'),
    ("ambiguous", "{action: 'restart', target: nil}"),
    ("ambiguous", '{"action":"restart","target":"C:\\Users\\new"}'),
    ("ambiguous", "{\"action\":\"restart\"} or {'action':'delete'}"),
    ("ambiguous", "```\n{'action':'delete'}\n```\nor {'action':'restart'}"),
    ("too_deep", '{"action":"restart","args":{"a":' + "[" * 70 + "]" * 70 + "}}"),
    ("too_deep", "[" * 60_000),
    ("too_deep", '{"a":' * 12_000),
    ("too_long", "x" * (LIMIT_BYTES + 1)),
    ("too_long", "é" * (LIMIT_BYTES // 2 + 1)),
]


@pytest.mark.parametrize(("code", "text"), REFUSED)
def test_refused(code: str, text: str) -> None:
    """What cannot be read, or can be read in two ways, is refused with its reason."""
    found = recover(text, ACTION)
    assert isinstance(found, Refused), found
    assert code == found.code
    assert code in REFUSALS
    assert ("schema" == code) == bool(found.field_errors)


@pytest.mark.parametrize(
    "text",
    [
        '{"tool": "move", "args": {"to": "b"},',
        '{"tool": "move", "args": {"to": "b"}, "then": "',
        '{"tool": "move", "args": {"to": "b"}, "n": NaN}',
        '{"tool": "move", "tool": "copy", "args": {"to": "b"}}',
    ],
)
@pytest.mark.req("RECOVERY-1")
def test_a_fragment_is_never_the_value(text: str) -> None:
    """With a loose schema the inside of a broken object would fit; it must not be taken for the whole."""
    assert isinstance(recover(text, LOOSE), Refused)


def test_a_broken_object_is_repaired_as_a_whole() -> None:
    """The outer object is what was meant, also when the inner one alone is strict JSON."""
    found = recover('{"tool": "move", "args": {"to": "b"},}', LOOSE)
    assert isinstance(found, Recovered)
    assert {"tool": "move", "args": {"to": "b"}} == found.value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([3, 4], "from [1] to [3, 4]"),
        ([1, 2], "[1, 2,]"),
        ([1, 2, 3], "[1 2 3]"),
        (None, "[1, 2"),
        (None, "[1, 2, ...]"),
        (None, '[1, "2"]'),
        (None, "(1, 2)"),
    ],
)
def test_arrays(value: Any, text: str) -> None:
    """Arrays are found like objects; a list that stops or leaves something out is refused."""
    found = recover(text, NUMBERS)
    assert value == (found.value if isinstance(found, Recovered) else None)


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"name": "read", "arguments": {"path": "/etc/hosts"}}\n```',
        '<tool_call>\n{"name": "read", "arguments": {"path": "/etc/hosts"}}\n</tool_call>',
        'I will read it.\n\n{"name": "read", "arguments": {"path": "/etc/hosts"}}',
        "<tool_call>{'name': 'read', 'arguments': {'path': '/etc/hosts'}}</tool_call>",
        '<tool_call>\n{"name": "read", "arguments": {"path": "/etc/hosts"}\n</tool_call>',
        "<tool_call>\n<function=read>\n<parameter=path>\n/etc/hosts\n</parameter>\n</function>\n</tool_call>",
        '<invoke name="read"><parameter name="path">/etc/hosts</parameter></invoke>',
        '<tool_call><name>read</name><arguments>{"path": "/etc/hosts"}</arguments></tool_call>',
        (
            "<function=read><parameter=path>/x</parameter></function> no:\n"
            "<function=read><parameter=path>/etc/hosts</parameter></function>"
        ),
    ],
)
def test_tool_calls_written_as_text(text: str) -> None:
    """A model without native tool calls writes them as text; the schema of the allowed calls is the gate."""
    found = recover(text, CALLS)
    assert isinstance(found, Recovered)
    assert {"name": "read", "arguments": {"path": "/etc/hosts"}} == found.value


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("truncated", "<function=read>\n<parameter=path>\n/etc/hosts"),
        ("truncated", "<function=read>\n<parameter=path>/etc/hosts</parameter>\n"),
        ("duplicate_keys", "<function=read><parameter=path>a</parameter><parameter=path>b</parameter></function>"),
        ("ambiguous", "<function=read><parameter=path>a</parameter>and more</function>"),
        ("schema", "<function=shell><parameter=cmd>rm</parameter></function>"),
        (
            "schema",
            '<function=read><parameter=text>{"name": "read", "arguments": {"path": "/x"}}</parameter></function>',
        ),
        ("no_candidate", "<think><function=read><parameter=path>/etc/hosts</parameter></function></think>"),
        ("duplicate_keys", '<tool_call><name>read</name><arguments>{"path": "a", "path": "b"}</arguments></tool_call>'),
    ],
)
def test_a_call_in_elements_is_read_whole_or_not_at_all(code: str, text: str) -> None:
    """What stands inside a value is never the call; a cut call, a name twice or words between parts refuse it."""
    found = recover(text, CALLS)
    assert isinstance(found, Refused)
    assert code == found.code


def test_a_tool_that_is_not_allowed_is_refused() -> None:
    """The gate names the broken rule and not the tool that was asked for."""
    found = recover('```json\n{"name": "shell", "arguments": {"cmd": "rm"}}\n```', CALLS)
    assert isinstance(found, Refused)
    assert "schema" == found.code
    assert not any("shell" in error.message or "rm" in error.path for error in found.field_errors)


@pytest.mark.parametrize(
    "text",
    [
        '{"action":"restart",}',
        '{"action":"restart"',
        'Draft {"action":"restart"} but',
        '```json\n{"action":"restart"}\n```',
        "",
        "12",
        "tru",
    ],
)
@pytest.mark.req("RECOVERY-3")
def test_a_cut_answer_is_never_repaired(text: str) -> None:
    """What the length limit cut is refused, even if a part of it would fit."""
    found = recover(text, compile_schema({}), truncated=True)
    assert isinstance(found, Refused)
    assert found.code in {"truncated", "empty"}


@pytest.mark.req("RECOVERY-3")
def test_a_whole_object_at_the_limit_counts() -> None:
    """An object that closed exactly at the limit is complete; a number that did may not be."""
    assert Clean(R) == recover('{"action":"restart"}', ACTION, truncated=True)
    assert Refused("truncated") == recover("12", compile_schema({"type": "integer"}), truncated=True)
    assert Clean(12) == recover("12", compile_schema({"type": "integer"}))


def test_what_was_dropped_is_counted() -> None:
    """Dropped bytes are UTF-8 bytes, candidates are places, repairs are named."""
    text = 'né {"action":"delete"} dann {"action":"restart"}'
    found = recover(text, ACTION)
    assert Recovered(R, "scan", (), len(text.encode()) - len(b'{"action":"restart"}'), 2) == found
    repaired = recover("{action: restart}", ACTION)
    assert isinstance(repaired, Recovered)
    assert repaired.repairs
    assert "restart" not in " ".join(repaired.repairs)


@pytest.mark.req("RECOVERY-6")
def test_a_megabyte_of_prose_is_refused_unread() -> None:
    """The usual limit refuses it; no value at its end is looked for."""
    text = "It was a quiet night on the bridge. " * 30_000 + '{"action":"restart"}'
    assert Refused("too_long") == recover(text, ACTION)
    found = recover(text, ACTION, limit=2 << 20)
    assert isinstance(found, Recovered)
    assert R == found.value


HOSTILE = [
    "[1 ", "[1, ", '{"a" ', '{"a": ', '{"a', '["', "[{", "{[", "{{", "{'a': ", "{`", "}{", "][", '"', "'", "\\", "{/*",
    "{//", "{#", "```", "~~~{", "<think>", "</think>{", "{a:", "[[1],", '{"a":1 "a":', '["{', '{"a":"\\', "[NaN,",
    "[1e999", "...{", "“{", "{“a”:“", '{"a":"b"}', "{'a':'b'}", "{a:b}", "[tru ", "{ ", "[ ", "[\n", "{,", "{}", "[]",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("ending", ["", "}", '"}]', '{"action":"restart"}'])
@pytest.mark.req("RECOVERY-6")
def test_hostile_repetition_ends(piece: str, ending: str) -> None:
    """64 KB of any repeated beginning is answered within the test's time, without an error."""
    text = piece * ((LIMIT_BYTES - 64) // len(piece.encode())) + ending
    for validator in (ACTION, LOOSE, NUMBERS):
        found = recover(text, validator)
        assert isinstance(found, Refused) or validator.fits(found.value)


FRAGMENTS = st.sampled_from(
    [
        *HOSTILE,
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"action"',
        '"restart"',
        "'delete'",
        "1",
        "-",
        "true",
        "\n",
        " ",
        "x",
        "é",
        "\ud800",
    ]
)


@pytest.mark.parametrize("validator", [ACTION, LOOSE, NUMBERS, CALLS], ids=["action", "loose", "numbers", "calls"])
@pytest.mark.req("RECOVERY-1")
@settings(max_examples=300, deadline=None)
@given(text=st.lists(FRAGMENTS, max_size=40).map("".join) | st.text(max_size=200), truncated=st.booleans())
def test_never_a_value_that_the_schema_refuses(validator: Any, text: str, *, truncated: bool) -> None:
    """For any text: no exception, and whatever comes back fits and can be written as JSON again."""
    found = recover(text, validator, truncated=truncated)
    if isinstance(found, Refused):
        assert found.code in REFUSALS
        return
    assert not (truncated and isinstance(found, Recovered))
    assert validator.fits(found.value)
    assert found.value == json.loads(json.dumps(found.value, allow_nan=False).encode("utf-8"))


@pytest.mark.req("RECOVERY-1")
@settings(max_examples=200, deadline=None)
@given(
    value=st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=20) | st.booleans(), max_size=4),
    before=st.text(alphabet="abc .,:!?\n", max_size=30),
    after=st.text(alphabet="abc .,:!?\n", max_size=30),
)
def test_a_strict_object_in_harmless_prose_is_found_exactly(value: dict[str, Any], before: str, after: str) -> None:
    """Prose without brackets around a strict object changes nothing of it."""
    found = recover(f"{before}{json.dumps(value)}{after}", LOOSE)
    assert not isinstance(found, Refused)
    assert value == found.value
