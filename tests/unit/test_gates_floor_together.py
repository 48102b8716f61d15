"""What a call says in several arguments together: pasted, filled in, spread over objects, counted in numbers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from midwatch.gates.floor import TOGETHER, UNREADABLE, Hit, Roles, read


def always(role: str) -> Roles:
    """Give every argument one role, acted on."""
    return lambda _: (role, True)


APART: list[tuple[str, str, dict[str, Any]]] = [
    ("deploy", "content", {"left": "dep", "right": "loy"}),
    ("delete", "content", {"a": "d", "b": "el", "c": "ete"}),
    ("delete", "content", {"verb": "dele", "suffix": "te", "of": "all"}),
    ("delete", "content", {"x": ["de", "le", "te"]}),
    ("delete", "content", {"a": {"w": "dele"}, "b": {"w": "te"}}),
    ("database", "content", {"p": [{"k": "da", "n": 1}, {"k": "ta", "n": 2}, {"k": "base", "n": 3}]}),
    ("delete", "content", {"steps": [{"run": ["r''m", "-rf", "/srv/export"]}]}),
    ("delete", "content", {"program": "rm", "flags": "-rf", "path": "/srv"}),
    ("delete", "content", {"program": "rm", "flags": ["-rf", "/srv"]}),
    ("delete", "content", {"verb": "drop", "what": "table users"}),
    ("delete", "command", {"program": "r", "rest": "m -rf /x"}),
    ("delete", "command", {"env": {"TOOL": "rm"}, "run": "$TOOL -rf /x"}),
    ("delete", "command", {"env": {"A": "r", "B": "m"}, "run": "${A}${B} -rf /x"}),
    ("delete", "command", {"env": ["T=rm", "V=1"], "argv": ["sh", "-c", "$T -rf /x"]}),
    ("delete", "command", {"vars": "X=rm\nY=2", "run": "$X -rf /x"}),
    ("delete", "command", {"set": {"v": "xrmx"}, "run": "${v:1:2} -rf /x"}),
    ("delete", "command", {"inputs": {"verb": "rm"}, "run": "${{ inputs.verb }} -rf /x"}),
    ("delete", "command", {"run": "%VERB% /s C:\\x", "VERB": "del"}),
    ("delete", "content", {"template": "please {{a}}{{b}} it", "values": {"b": "ete", "n": 1, "a": "del"}}),
    ("deploy", "content", {"template": "%(a)s%(b)s it", "b": "loy", "z": ["-"], "a": "dep"}),
    ("delete", "content", {"payload": {"dele": "te", "user": "acme"}}),
    ("delete", "content", {"places": [4, 5, 12, 5, 20, 5]}),
    ("deploy", "content", {"bytes": [100, 101, 112, 108, 111, 121]}),
    ("delete", "command", {"codes": [114, 109, 32, 45, 114, 102, 32, 47]}),
]


@pytest.mark.req("GATES-1")
@pytest.mark.parametrize(("word", "role", "arguments"), APART)
def test_what_arguments_say_together_is_read(word: str, role: str, arguments: dict[str, Any]) -> None:
    """No argument says the word, the receiver would."""
    assert word in {hit.word for hit in read("jobs.add", arguments, always(role))}


@pytest.mark.req("GATES-2")
@pytest.mark.parametrize(
    "arguments",
    [
        {"first": "Bill", "last": "Accounts"},
        {"assignee": "Bill", "queue": "Customer happiness"},
        {"city": "Del", "street": "Eteweg 4"},
        {"a": "data", "b": "point"},
        {"title": "Sub", "note": "stance"},
        {"payload": {"data": "base camp", "pro": "ducks"}},
        {"labels": ["a", "b", "c", "d"]},
        {"labels": ["drop", "shadow"]},
        {"histogram": [72, 101, 108, 98, 90, 77, 64, 100]},
        {"env": {"LEVEL": "debug"}, "run": "./run.sh --log $LEVEL"},
        {"template": "Hello {{name}}, your desk is {{desk}}.", "values": {"name": "Ada", "desk": "4b"}},
        {"to": "ada@x.example", "subject": "Drop", "body": "in any time"},
    ],
)
def test_neighbours_that_nearly_spell_a_word_are_no_hit(arguments: dict[str, Any]) -> None:
    """Names beside names, templates of letters, numbers that are no letters."""
    assert read("jobs.add", arguments, always("content")) == ()


@pytest.mark.req("GATES-1")
def test_a_hit_of_several_arguments_names_them_and_how() -> None:
    """`joined` for pasted, `filled` for a name that got a value; the word alone in one argument is that one's hit only."""
    assert read("jobs.add", {"left": "dep", "right": "loy"}, always("content")) == (
        Hit("deploy", "left+right", "joined"),
    )
    assert read("jobs.add", {"v": "dele", "t": "{v}te it"}, always("content"))[-1] == Hit("delete", "t", "filled")
    assert read("jobs.add", {"a": "delete", "b": "it"}, always("content")) == (Hit("delete", "a", "plain"),)


@pytest.mark.req("GATES-1")
def test_what_nobody_acts_on_is_not_joined_either() -> None:
    """A report's two halves are data."""
    assert read("jobs.add", {"left": "dep", "right": "loy"}, lambda _: ("content", False)) == ()


@pytest.mark.req("GATES-1")
def test_more_than_can_be_joined_is_unreadable() -> None:
    """Thousands of arguments of a command: no answer is better than half of one."""
    many = {f"a{n}": {"b": "x" * 60, "c": "y" * 60} for n in range(TOGETHER // 200)}
    assert UNREADABLE in {hit.word for hit in read("jobs.add", many, always("command"))}
    assert read("jobs.add", many, always("content")) == ()


@pytest.mark.req("GATES-1")
@pytest.mark.parametrize(
    "arguments",
    [
        {"rows": [{"a": "de", "b": "f"} for _ in range(5000)]},
        {"words": ["ab"] * 20_000},
        {f"V{n}": "$V1" * 100 for n in range(2000)},
        {"text": "{a" * 400_000, "a": "b"},
        {"text": "<~a85" * 100_000, "a": "b"},
    ],
)
def test_hostile_calls_end_soon(arguments: dict[str, Any]) -> None:
    """Nothing in a call's shape costs more than seconds of CPU."""
    began = time.process_time()
    read("jobs.add", arguments, always("command"))
    assert time.process_time() - began < 10
