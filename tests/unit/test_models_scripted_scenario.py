"""Scenario files: what is refused, and what templates and expressions compute."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from midwatch.errors import InvalidScenario
from midwatch.models.scripted import load_scenario, parse_scenario
from midwatch.models.scripted.expressions import VARIABLES, ExpressionFault, compile_expression, plain
from midwatch.models.scripted.faults import KINDS
from midwatch.models.scripted.functions import FUNCTIONS
from midwatch.models.scripted.template import compile_template

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "scenario.md"

DATA: dict[str, object] = {
    "agent": "disks",
    "model": "m",
    "turn": 1,
    "schema": "",
    "system": "",
    "user": 'before {"plan": [1, 2]} and [3] after',
    "messages": [],
    "tools": [],
    "results": [
        {"name": "disks", "content": {"rows": [{"n": "a", "v": 3}, {"n": "b", "v": 9}, {"n": "c"}]}},
        {"name": "disks", "content": {"rows": []}},
        {"name": "raw", "content": "no json"},
    ],
}


def problems(text: str) -> list[str]:
    """The problems of a scenario, as the user reads them."""
    with pytest.raises(InvalidScenario) as caught:
        parse_scenario(text, "s.yaml")
    return [str(problem) for problem in caught.value.problems]


def rendered(value: object, **more: object) -> object:
    """A template rendered over DATA; a problem in it fails the test."""

    def fail(path: tuple[str | int, ...], message: str) -> None:
        pytest.fail(f"{path}: {message}")

    return compile_template(value, frozenset(more), fail).render({**DATA, **more})


@pytest.mark.req("SCRIPTED-1")
def test_every_problem_is_reported_with_its_line() -> None:
    """One load reports all problems of a file, in the order of its lines."""
    text = """\
scenario: 1
colour: red
prices: {m: {input: 0.25, output: "$2"}}
rules:
  - agent: []
    say: "${ nope }"
    turn: -1
  - name: a
    when: "turn + 1"
    say: x
    answer: {}
  - name: a
    fault: {kind: status, status: 200, bytes: 4}
  - tool_calls: [{arguments: {}}]
    usage: {tokens: 3}
  - answer: {x: {for: results, do: 1}}
  - say: "${ turn"
    fault: explode
"""
    found = problems(text)
    lines = [int(one.split(":")[1]) for one in found]
    assert sorted(lines) == lines
    expected = [
        ("2", "`colour`"), ("3", "`input`"), ("5", "`agent`"), ("6", "nope"), ("7", "`-1`"), ("9", "turn + 1"),
        ("11", "either `say` or `answer`"), ("12", "two rules are called `a`"), ("13", "`bytes`"), ("13", "from 400"),
        ("14", "tool call"), ("15", "`tokens`"), ("16", "`as`"), ("17", "not closed"), ("18", "kind"),
    ]  # fmt: skip
    for line, words in expected:
        assert [one for one in found if one.startswith(f"s.yaml:{line}:") and words in one], (line, words, found)
    assert len(expected) == len(found)


@pytest.mark.req("SCRIPTED-1")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a map"),
        ("- a", "must be a map"),
        ("rules: [{say: x}]", "`scenario: 1`"),
        ("scenario: 2\nrules: [{say: x}]", "`scenario: 1`"),
        ("scenario: 1", "at least one rule"),
        ("scenario: 1\nrules: []", "at least one rule"),
        ("scenario: 1\nrules: [{agent: a}]", "needs `say`"),
        ("scenario: 1\nrules: [{fault: {kind: status, times: 1}}]", "needs `say`"),
        ("scenario: 1\nrules: [{say: x, say: y}]", "twice"),
        ("scenario: 1\nrules: [{say: !!python/object:os.system x}]", "tag"),
        ("scenario: 1\nrules: &r [{answer: *r}]", "levels"),
        ("scenario: 1\nrules: [", "not YAML"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("scenario: 1\n1: x\nrules: [{say: x}]", "`1` is not known"),
        ("scenario: 1\nmodels: [a]\nprices: {b: {input: '$1', output: '$1'}}\nrules: [{say: x}]", "`b` has a price"),
        ("scenario: 1\nrules: [{say: x, finish_reason: done}]", "`done`"),
        ("scenario: 1\nrules: [{say: x, let: {turn: 1}}]", "`turn` cannot name"),
        ("scenario: 1\nrules: [{say: '${ b + a }', let: {a: 1}}]", "'b'"),
        ("scenario: 1\nrules: [{answer: {for: results, as: agent, do: 1}}]", "`agent` cannot name"),
        ("scenario: 1\nrules: [{answer: {if: turn, then: 1}}]", "true or false"),
        ("scenario: 1\nrules: [{say: x, fault: {kind: lying_usage, multiplier: -1}}]", "`multiplier`"),
        ("scenario: 1\nrules: [{say: x, fault: {kind: slow, delay_ms: true}}]", "`delay_ms`"),
        ("scenario: 1\nstream_chars: 0\nrules: [{say: x}]", "from 1"),
    ],
)
def test_a_wrong_file_is_refused(text: str, words: str) -> None:
    """Each kind of mistake is named in the user's words."""
    assert [one for one in problems(text) if words in one], problems(text)


@pytest.mark.req("SCRIPTED-1")
def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    """A missing file, a directory, one that is not UTF-8 and one that is too large are each a clear error."""
    (tmp_path / "latin.yaml").write_bytes(b"scenario: 1 # \xe9")
    (tmp_path / "large.yaml").write_bytes(b"#" * (4 * 2**20 + 1))
    for name, words in (("none.yaml", "cannot be read"), ("latin.yaml", "UTF-8"), ("large.yaml", "larger than")):
        with pytest.raises(InvalidScenario, match=words):
            load_scenario(tmp_path / name)
    with pytest.raises(InvalidScenario, match="cannot be read"):
        load_scenario(tmp_path)


@pytest.mark.req("SCRIPTED-1")
def test_plain_words_stay_words() -> None:
    """`no`, `on`, dates and times in a scenario are text, not booleans or numbers."""
    scenario = parse_scenario("scenario: 1\nrules: [{answer: {a: no, b: 12:30, c: 2026-01-02, d: true, e: 1.5}}]")
    answer = scenario.rules[0].answer
    assert answer is not None
    assert {"a": "no", "b": "12:30", "c": "2026-01-02", "d": True, "e": 1.5} == answer.render({})


@pytest.mark.req("SCRIPTED-2")
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("${ turn }", 1),
        ("${ results[0].content.rows[1] }", {"n": "b", "v": 9}),
        ("at ${ turn } of ${ agent }", "at 1 of disks"),
        ("$${ turn } ${ turn }", "${ turn } 1"),
        ("${ {'a': {'b': '}'}}.a.b }!", "}!"),
        ("plain", "plain"),
        ([1, {"if": "turn == 2", "then": 2}, 3], [1, 3]),
        ({"a": {"if": "turn == 2", "then": 2}, "b": {"if": "turn == 1", "then": 1, "else": 0}}, {"b": 1}),
        ({"for": "results[0].content.rows", "as": "r", "do": "${ r.n }"}, ["a", "b", "c"]),
        (
            {"for": "${ results[0].content.rows }", "as": "r", "where": "has(r.v) && r.v > 3", "do": {"n": "${ r.n }"}},
            [{"n": "b"}],
        ),
        (["x", {"for": "[1, 2]", "as": "i", "do": "${ i }"}, "y"], ["x", 1, 2, "y"]),
        (
            {"for": "[1, 2]", "as": "i", "do": {"for": "[3, 4]", "as": "j", "do": "${ i * j }"}},
            [[3, 4], [6, 8]],
        ),
        ({"for": "[1, 2, 3]", "as": "i", "do": {"if": "i != 2", "then": "${ i }"}}, [1, 3]),
    ],
)  # fmt: skip
def test_templates(template: object, expected: object) -> None:
    """Each template form gives what the reference says."""
    assert expected == rendered(template)


@pytest.mark.req("SCRIPTED-2")
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("bytes_text(1536)", "1.5 KiB"),
        ("bytes_text(512)", "512 B"),
        ("count_by([{'k': 'a'}, {'k': 'b'}, {'k': 'b'}], 'k')", [{"count": 2, "key": "b"}, {"count": 1, "key": "a"}]),
        ("find(user, '\"plan\": (.)')", "["),
        ("find(user, 'zzz')", ""),
        ("find_all('a1 b22', '[0-9]+')", ["1", "22"]),
        ("flatten([[1], [2, 3]])", [1, 2, 3]),
        ("get(results, '0.content.rows.1.v', 0)", 9),
        ("get(results, '0.content.rows.2.v', 'none')", "none"),
        ("join(['a', 1, null, 2.0], '-')", "a-1--2"),
        ("json('[1, 2]')", [1, 2]),
        ("json_values(user)", [{"plan": [1, 2]}, [3]]),
        ("keys({'b': 1, 'a': 2})", ["a", "b"]),
        ("latest(results, 'disks').rows", []),
        ("latest(results, 'never')", None),
        ("size(named(results, 'disks'))", 2),
        ("percent(1, 3)", 33.3),
        ("percent(1, 0)", 0.0),
        ("round(2.345, 1)", 2.3),
        ("round(2.6, 0)", 3),
        ("sort_by(results[0].content.rows, 'v').map(r, r.n)", ["c", "a", "b"]),
        ("sum([1, 2, 3])", 6),
        ("take([1, 2, 3], 2)", [1, 2]),
        ("text({'b': [1], 'a': null})", '{"a": null, "b": [1]}'),
        ("top(results[0].content.rows, 1, 'v')[0].n", "b"),
        ("unique([1, 2, 1])", [1, 2]),
    ],
)
def test_functions(source: str, expected: object) -> None:
    """Each function gives what the reference says."""
    assert expected == compile_expression(source).value(DATA)


@pytest.mark.req("SCRIPTED-3")
@pytest.mark.parametrize(
    "source",
    [
        "results[7].name", "results[0].nothing", "1 / 0", "1.0 / 0.0", "sum(['a'])", "json('{')", "json('NaN')",
        "find('a', '(')", "percent('1', 2)", "take([1], 'x')", "join(1, ',')", "b'bytes'", "duration('1s')",
        "optional.of(1)", "{1: 2}", "keys([1])", "get([], 1, 2)", "latest(results, 'never').rows",
    ],
)  # fmt: skip
def test_an_expression_without_a_value_fails(source: str) -> None:
    """An evaluation error, which CEL gives back as a truthy value, is never taken for one."""
    with pytest.raises(ExpressionFault):
        compile_expression(source).value(DATA)


@pytest.mark.req("SCRIPTED-3")
@pytest.mark.parametrize(
    "source", ["results[7].name == 'a'", "results[0].nothing", "results[0].content", "agent.size() > 1 && results[7].x"]
)
def test_only_a_bool_counts_as_yes(source: str) -> None:
    """A condition that errs, or whose value is no bool, is a failure and not a match."""
    with pytest.raises(ExpressionFault):
        compile_expression(source).truth(DATA)


@pytest.mark.req("SCRIPTED-2")
def test_numbers_beyond_64_bits_do_not_poison_expressions() -> None:
    """One huge number in a result fails no expression; it is a double from then on."""
    data = {**DATA, "results": plain([{"name": "x", "content": {"big": 2**70, "small": 1}}])}
    assert 1 == compile_expression("results[0].content.small").value(data)
    assert float(2**70) == compile_expression("results[0].content.big").value(data)


@pytest.mark.req("SCRIPTED-1")
def test_the_reference_is_complete_and_its_examples_load() -> None:
    """Every function, variable and fault stands in the reference, and every scenario printed there is valid."""
    page = REFERENCE.read_text(encoding="utf-8")
    for name in FUNCTIONS:
        assert f"`{name}(" in page, name
    for name in (*VARIABLES, *KINDS):
        assert f"`{name}`" in page, name
    examples = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "scenario: 1" in block]
    assert len(examples) == 1
    assert 6 == len(parse_scenario(examples[0]).rules)
