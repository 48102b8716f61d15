"""The decorator: what hints and docstring become, and every fault of a declaration at once."""

import enum
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from midwatch.errors import InvalidTool
from midwatch.records.envelope import Envelope
from midwatch.tools.arguments import Checked, check
from midwatch.tools.binding import ToolContext
from midwatch.tools.contract import Arg, ArgContract, Out, OutContract, ToolContract
from midwatch.tools.decorate import Tool, tool
from midwatch.tools.lint import lint
from midwatch.tools.registry import BUILTIN_GROUPS, Registry


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    """An item."""

    title: Annotated[str, Field(max_length=5), Arg(role="content", interprets=False)]
    count: Annotated[int, Field(ge=1, le=9), Arg(role="quantity")] = 1


@dataclass
class Box:
    items: list[Item]
    id: Annotated[str, Out(author="service", creates=True)] = "b"


class Options(TypedDict):
    deep: bool


@tool(effect="write", idempotent=True, reversible="boxes.unpack", open_world=False, timeout="5s", max_bytes="1KiB")
def pack(
    box: Box,
    colour: Colour,
    mode: Annotated[Literal["fast", "slow"], Arg(role="control")] = "fast",
    weight: Annotated[float, Field(gt=0)] | None = None,
    options: Options | None = None,
    *,
    context: ToolContext,
) -> Box:
    """Pack a box with items.

    It is closed afterwards.

    Args:
        box: what to pack,
            in order.
        colour: of the box.
    """
    assert isinstance(box.items[0], Item)
    assert isinstance(colour, Colour)
    return box


GOOD: dict[str, Any] = {"box": {"items": [{"title": "a"}], "id": "b"}, "colour": "red"}


def work(made: Tool[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Perform a call in this process."""
    facts = {"idempotency_key": "k", "run": "r", "agent": "a", "now_us": 1, "workdir": "/"}
    return made.work(json.dumps(arguments), facts)


@pytest.mark.req("TOOLS-1")
def test_the_contract_says_what_the_function_says() -> None:
    """Name, description, flags, bounds, roles and authors come from the declaration."""
    contract = pack.contract
    assert "test_tools_decorate.pack" == contract.name
    assert "Pack a box with items.\n\nIt is closed afterwards." == contract.description
    assert ("write", True, "boxes.unpack", False) == (
        contract.effect, contract.idempotent, contract.reversible, contract.open_world,
    )  # fmt: skip
    assert (5_000_000, 1024, "sandbox") == (contract.timeout_us, contract.max_bytes, contract.runs)
    assert (OutContract("id", "service", creates=True),) == contract.outs
    assert ArgContract("box.items.title", "content", None, interprets=False) in contract.args
    assert "quantity" == contract.arg("box.items.count").role
    assert "command" == contract.arg("box.items").role
    assert "control" == contract.arg("mode").role


@pytest.mark.req("TOOLS-1")
def test_the_schemas_are_closed_and_described() -> None:
    """Every object refuses unknown keys; descriptions and defaults are the author's; the context is no argument."""
    schema = pack.contract.input_schema
    assert ["box", "colour"] == schema["required"]
    assert {"box", "colour", "mode", "weight", "options"} == set(schema["properties"])
    assert "what to pack, in order." == schema["properties"]["box"]["description"]
    assert "fast" == schema["properties"]["mode"]["default"]
    assert [False] * 4 == [schema["additionalProperties"]] + [
        schema["$defs"][name]["additionalProperties"] for name in ("Box", "Item", "Options")
    ]
    assert {"fields", "cursor"} <= set(pack.offered_schema["properties"])
    assert {"items", "items.title", "items.count", "id"} == set(
        pack.offered_schema["properties"]["fields"]["items"]["enum"]
    )


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"box": {"items": [{"title": "a", "count": "1"}]}}, "/box/items/0/count"),
    ({"box": {"items": [{"title": "a", "count": 2.7}]}}, "/box/items/0/count"),
    ({"box": {"items": [{"title": "a", "count": True}]}}, "/box/items/0/count"),
    ({"box": {"items": [{"title": "a", "count": 10}]}}, "/box/items/0/count"),
    ({"box": {"items": [{"title": "abcdef"}]}}, "/box/items/0/title"),
    ({"box": {"items": [{"title": "a", "more": 1}]}}, "/box/items/0"),
    ({"colour": "green"}, "/colour"),
    ({"mode": "warp"}, "/mode"),
    ({"weight": "1"}, "/weight"),
    ({"weight": 0}, "/weight"),
    ({"options": {"deep": 1}}, "/options/deep"),
    ({"context": {}}, ""),
]


@pytest.mark.req("TOOLS-1", "TOOLS-9")
@pytest.mark.parametrize(("change", "path"), WRONG)
def test_wrong_types_are_refused(change: dict[str, Any], path: str) -> None:
    """No value is bent into its type: the field at fault is named, and the function's own types refuse it as well."""
    answer = check(pack, json.dumps(GOOD | change))
    assert isinstance(answer, Envelope)
    assert answer.error is not None
    assert path in {error.path for error in answer.error.field_errors}
    if "context" not in change:
        behind = work(pack, GOOD | change)["error"]
        assert "invalid_arguments" == behind["code"]


@pytest.mark.req("TOOLS-1")
def test_good_arguments_reach_the_function() -> None:
    """The function gets models, dataclasses, enums and its own defaults, and its result becomes JSON."""
    assert isinstance(check(pack, GOOD), Checked)
    assert {"items": [{"title": "a", "count": 1}], "id": "b"} == work(pack, GOOD)["value"]
    assert Box([Item(title="x")]) == pack(Box([Item(title="x")]), Colour.RED, context=None)  # type: ignore[arg-type]


@pytest.mark.req("TOOLS-9", "TOOLS-10")
@pytest.mark.parametrize(
    ("raw", "signal"),
    [('{"n": 1}', None), (' {"n":1}\n', None), ('Here: ```json\n{"n": 1}\n```', "fenced"), ('"{\\"n\\": 1}"', "unwrapped"),
     ('I call it with {"n": 1}.', "scan"), ("{'n': 1,}", "repair")],
)  # fmt: skip
def test_arguments_in_prose_carry_a_signal(raw: str, signal: str | None) -> None:
    """What had to be recovered says by which rule, and means the same bytes; cut, it is not recovered at all."""

    @tool(effect="pure")
    def one(n: int) -> int:
        """Give it back."""
        return n

    checked = check(one, raw)
    assert isinstance(checked, Checked)
    assert (signal, b'{"n":1}') == (checked.signal, checked.canonical)
    assert isinstance(check(one, raw, truncated=True), Envelope if signal else Checked) or signal is None


@pytest.mark.req("TOOLS-10")
def test_a_cut_text_is_not_recovered() -> None:
    """Arguments of a model that was cut at its length limit are refused unless they are whole JSON."""

    @tool(effect="pure")
    def one(n: int) -> int:
        """Give it back."""
        return n

    assert isinstance(check(one, '{"n": 1', truncated=True), Envelope)
    assert isinstance(check(one, 'so: {"n": 1}', truncated=True), Envelope)


@pytest.mark.req("TOOLS-2")
def test_every_fault_is_told_at_once() -> None:
    """One attempt shows all that is wrong, each with its code."""

    def bad(a: int, /, b, c: type, *d: int, fields: int, e: int = "x", **f: int):  # type: ignore[no-untyped-def,assignment]  # noqa: ANN202, ANN001
        """Bad."""

    with pytest.raises(InvalidTool) as caught:
        tool(timeout="3", max_bytes="5")(bad)
    expected = {
        "bad-timeout", "bad-max-bytes", "positional-only", "missing-hint", "no-schema", "var-positional", "var-keyword",
        "reserved-argument", "bad-default", "missing-return",
    }  # fmt: skip
    assert expected == {problem.code for problem in caught.value.problems}


@pytest.mark.req("TOOLS-2")
@pytest.mark.parametrize(
    ("declared", "code"),
    [({"name": "Bad.Name"}, "bad-name"), ({"name": "x" * 70}, "bad-name"), ({"effect": "nice"}, "bad-effect"),
     ({"effect": "pure", "open_world": True}, "pure-open-world"), ({"reversible": "undo it"}, "bad-reversible"),
     ({"runs": "anywhere"}, "bad-runs"), ({"max_bytes": "10B"}, "bad-size"), ({"timeout": "0s"}, "bad-timeout")],
)  # fmt: skip
def test_a_contradiction_is_refused(declared: dict[str, Any], code: str) -> None:
    """A declaration outside its closed words is refused, not interpreted."""

    def fine(n: int) -> int:
        """Fine."""
        return n

    with pytest.raises(InvalidTool) as caught:
        tool(**declared)(fine)
    assert [code] == [problem.code for problem in caught.value.problems]


@pytest.mark.req("TOOLS-2")
def test_a_foreign_schema_may_not_reach_out_or_stand_open() -> None:
    """A contract made elsewhere meets the same rules: no remote reference, no open object."""
    closed = {"type": "object", "additionalProperties": False, "properties": {}}
    for schema in ({"$ref": "http://10.0.0.1/x"}, {"type": "object", "properties": {"a": {"type": "string"}}}):
        with pytest.raises(InvalidTool) as caught:
            ToolContract("a.b", "1", "", closed, schema, "read")
        assert ["bad-schema"] == [problem.code for problem in caught.value.problems]


@tool
def silent(n: int) -> list[str]:
    """Say."""
    return [str(n)]


@pytest.mark.req("TOOLS-3")
def test_the_undeclared_is_the_worst_and_remembered() -> None:
    """A bare `@tool` grants authority, reaches everywhere, is seen by everyone, and every silence is on record."""
    contract = silent.contract
    assert ("grants_authority", True, ("everyone",), False, None) == (
        contract.effect, contract.open_world, contract.observers, contract.idempotent, contract.reversible,
    )  # fmt: skip
    expected = {"effect", "idempotent", "reversible", "open_world", "observers", "timeout", "args.n.role", "outs"}
    assert expected == contract.undeclared
    assert ("third_party", "command") == (contract.out("").author, contract.arg("n").role)


@pytest.mark.req("TOOLS-4")
def test_the_digest_is_stable() -> None:
    """The same declaration gives the same digest, made twice."""
    contract = pack.contract
    again = ToolContract(**{name: getattr(contract, name) for name in contract.to_json()})
    assert contract.digest == again.digest


@pytest.mark.req("TOOLS-12")
def test_the_lint_names_each_silence() -> None:
    """What is vague, silent or unbounded has a warning of its own."""

    @tool(name="my.handle")
    def handle(text: str, rows: list[int]) -> dict[str, Any]:
        """Handle."""
        return {}

    assert {
        "vague-name", "short-description", "undescribed-argument", "no-effect", "no-role", "no-timeout", "no-open-world",
        "no-author", "unbounded-argument", "free-form",
    } == {problem.code for problem in lint(handle.contract)}  # fmt: skip
    assert {"no-idempotent", "no-reversible"} <= {
        problem.code for problem in lint(tool(effect="write")(silent.fn).contract)
    }


@pytest.mark.req("TOOLS-12")
def test_the_builtin_tools_pass_their_own_lint() -> None:
    """No builtin tool is vague, silent or unbounded."""
    registry = Registry.load([f"builtin.{group}" for group in BUILTIN_GROUPS], Path("/"))
    assert [] == [str(problem) for name in registry.names() for problem in lint(registry.get(name).contract)]
