"""YAML with lines: what is read, what is refused, and that nothing malformed gets further than `InvalidFleet`."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midwatch.config.file_model import FleetFile
from midwatch.config.fleet import Fleet
from midwatch.config.quantities import LARGEST
from midwatch.config.yaml_source import MAX_BYTES, from_python, read_file, read_yaml
from midwatch.errors import InvalidFleet

SEEDS = (
    "midwatch: 1",
    "fleet: x",
    "presets: {default: a, b: {a: b, b: a}}",
    "routes: {a: {provider: openai, model: m, base_url: '${env:X}'}}",
    "agents: {ceo: {role: ceo, route: a, prompt_text: hi, tools: [x]}}",
    "graph: {team: {ceo: ceo, specialists: [ceo], synthesis: ceo}}",
    'budgets: {run: {cost: "$1", wall: 1s}}',
    'grants: [{who: "agent:*", may: "*"}]',
    "gates: [{when: {effect: write}, ask: operator}]",
    "sandbox: {backend: process}",
    "schedules: [{name: n, cron: '* * * * *', input: {a: 1.5}}]",
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["ceo", "$1", "10m"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(tuple(FleetFile.model_fields))


def _codes(text: str) -> list[str]:
    with pytest.raises(InvalidFleet) as caught:
        read_yaml(text, "f.yaml")
    return [problem.code for problem in caught.value.problems]


@pytest.mark.req("CONFIG-3")
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("yes", "yes"), ("on", "on"), ("no", "no"), ("off", "off"), ("True", "True"), ("true", True), ("false", False),
        ("null", None), ("~", None), ("", None), ("12", 12), ("-3", -3), ("0", 0), ("010", "010"), ("0x10", "0x10"),
        ("1_000", "1_000"), ("12:30", "12:30"), ("2026-01-01", "2026-01-01"), ("1.5", 1.5), ("1e3", 1000.0),
        (".inf", ".inf"), ("1e999", "1e999"), ('"true"', "true"), ("'12'", "12"), ("120k", "120k"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_are_read_as_written(written: str, read: object) -> None:
    """Only what is unambiguous becomes a number or a boolean; the rest stays the text that it is."""
    value = read_yaml(f"a: {written}\n", "f").value
    assert {"a": read} == value
    assert isinstance(value, dict)
    assert type(read) is type(value["a"])


@pytest.mark.req("CONFIG-2")
def test_each_place_knows_its_line() -> None:
    """A key's line is the key's, not its value's; a place without a line has that of what encloses it."""
    source = read_yaml("a:\n  b:\n    - c\n    - {d:\n        e}\n", "f.yaml")
    expected: dict[tuple[str | int, ...], str] = {
        ("a",): "f.yaml:1",
        ("a", "b"): "f.yaml:2",
        ("a", "b", 0): "f.yaml:3",
        ("a", "b", 1): "f.yaml:4",
        ("a", "b", 1, "d"): "f.yaml:4",
        ("a", "b", 7, "x"): "f.yaml:2",
        ("nowhere",): "f.yaml:1",
    }
    assert expected == {place: source.where(place) for place in expected}


@pytest.mark.req("CONFIG-3")
def test_an_alias_repeats_what_it_names() -> None:
    """Aliases may be used, for values, within their bound."""
    assert {"a": [1, 2], "b": [1, 2]} == read_yaml("a: &x [1, 2]\nb: *x\n", "f").value


@pytest.mark.req("CONFIG-3")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty-file"),
        ("# nothing\n", "empty-file"),
        ("---\n...\n", "empty-file"),
        ("[" * 5000, "too-deep"),
        ("{a: " * 5000, "too-deep"),
        ("- " * 5000, "too-deep"),
        ("a: &a [*a]\n", "bad-alias"),
        ("&k a: b\n*k : c\n", "bad-key"),
        ("x: &x 1\n" + "".join(f"k{index}: *x\n" for index in range(200)), "too-many-aliases"),
        ("a: [" + "1," * 60_000 + "]", "too-many-values"),
        ("a: 1" + "0" * 10_000, "too-large-number"),
        (f"a: {LARGEST + 1}", "too-large-number"),
        ("a: !x b", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("? {a: b}\n: c\n", "bad-key"),
        ("a: 1\n--- \nb: 2\n", "many-documents"),
        ('a: "\\u0000"', "control-character"),
        ('a: "\\x1b[2J"', "control-character"),
        ("%YAML 9.9\n---\na: b\n", "not-yaml"),
        ("a: b: c", "not-yaml"),
        ("\ta: b", "not-yaml"),
        ("a: \ud800", "not-utf8"),
        ("x" * (MAX_BYTES + 1), "too-large"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_cannot_be_used_is_refused_by_name(text: str, code: str) -> None:
    """Each kind of malformed text has its own code."""
    assert code in _codes(text)


@pytest.mark.req("CONFIG-3")
def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    """Nine levels of nine aliases would be 387 million values; they are counted, not made."""
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
    )
    began = time.process_time()
    assert ["too-many-values"] == _codes(text)
    assert time.process_time() - began < 1


@pytest.mark.req("CONFIG-3")
def test_problems_have_an_end() -> None:
    """A file of nothing but mistakes is reported by its first hundred."""
    assert 100 == len(_codes("".join("a: !x b\n" for _ in range(500))))


@pytest.mark.req("CONFIG-3")
def test_files_that_are_none_are_refused_without_waiting(tmp_path: Path) -> None:
    """Missing, a folder, a pipe, a device, not UTF-8, too large, unreadable: each is said, and none is waited for."""
    (tmp_path / "latin.yaml").write_bytes(b"midwatch: 1\nfleet: na\xefve\n")
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "empty.yaml").write_bytes(b"")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    expected = {
        "gone.yaml": "missing-file",
        ".": "not-a-file",
        "pipe.yaml": "not-a-file",
        "latin.yaml": "not-utf8",
        "big.yaml": "too-large",
        "empty.yaml": "empty-file",
        "loop.yaml": "unreadable",
        "nul\0.yaml": "unreadable",
        "x" * 5000: "unreadable",
    }
    for name, code in expected.items():
        with pytest.raises(InvalidFleet) as caught:
            Fleet.load(tmp_path / name, environ={})
        assert [code] == [problem.code for problem in caught.value.problems], name
    with pytest.raises(InvalidFleet, match=r"latin.yaml:2: is not UTF-8"):
        read_file(tmp_path / "latin.yaml")
    with pytest.raises(InvalidFleet):
        read_file(Path("/dev/zero"))


@pytest.mark.req("CONFIG-3")
def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    """Some editors write one."""
    (tmp_path / "f.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert {"a": 1} == read_yaml(read_file(tmp_path / "f.yaml"), "f").value


@pytest.mark.req("CONFIG-3")
def test_a_mapping_from_python_is_held_to_the_same_bounds() -> None:
    """What YAML could not have given is refused, cycles included, and the caller's own mapping is not kept."""
    own: dict[str, Any] = {"a": [1]}
    copied = from_python(own, "f").value
    own["a"].append(2)
    assert {"a": [1]} == copied
    around: list[object] = []
    around.extend([around, around])
    for bad in ({1: 2}, {"a": object()}, {"a": float("nan")}, {"a": 2**60}, {"a": "\ud800"}, {"a": "\0"}, around):
        with pytest.raises(InvalidFleet):
            from_python(bad, "f")


def _loads_or_says_why(load: Callable[[], Fleet]) -> bool:
    try:
        load()
    except InvalidFleet as failure:
        return bool(failure.problems) and all(problem.message and problem.code for problem in failure.problems)
    return True


_FUZZ = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.req("CONFIG-3")
@_FUZZ
@given(data=st.binary(max_size=300))
def test_any_bytes_load_or_are_refused(tmp_path: Path, data: bytes) -> None:
    """No content of a file raises anything but `InvalidFleet`."""
    file = tmp_path / "fleet.yaml"
    file.write_bytes(data)
    assert _loads_or_says_why(lambda: Fleet.load(file, environ={}))


@pytest.mark.req("CONFIG-3")
@_FUZZ
@given(lines=st.lists(st.sampled_from(SEEDS) | st.text(max_size=30), max_size=8), cut=st.integers(0, 400))
def test_any_text_loads_or_is_refused(tmp_path: Path, lines: list[str], cut: int) -> None:
    """Pieces of real files in any order, cut anywhere, with anything between them."""
    text = "\n".join(lines)[: cut or None]
    assert _loads_or_says_why(lambda: Fleet.from_text(text, base=tmp_path, environ={"X": "y"}))


@pytest.mark.req("CONFIG-3")
@_FUZZ
@given(value=st.dictionaries(KEYS | st.text(max_size=8), PLAIN, max_size=6), key=KEYS, inner=PLAIN)
def test_any_values_under_real_keys_load_or_are_refused(
    tmp_path: Path, value: dict[str, object], key: str, inner: object
) -> None:
    """Every block is given every shape, as YAML and from Python alike."""
    mapping = {"midwatch": 1, "fleet": "x", "graph": {"import": "a:b"}, **value, key: inner}
    text = yaml.safe_dump(mapping, allow_unicode=False)
    assert _loads_or_says_why(lambda: Fleet.from_text(text, base=tmp_path))
    assert _loads_or_says_why(lambda: Fleet.from_mapping(mapping, base=tmp_path))
