"""Strict serialisation: what may be written, what is made when reading, and what is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import pathlib
import re
import uuid
import zoneinfo
from collections import deque
from typing import Any, NamedTuple

import ormsgpack
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send
from typing_extensions import TypedDict

from midwatch.graph.saver import Saver
from midwatch.graph.serde import StateRefused, StrictSerializer, types_of
from midwatch.records.run import Transition
from midwatch.store.memory import MemoryStore


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: tuple[int, ...]


class Model(pydantic.BaseModel):
    colour: Colour
    inner: Any = None
    aliased: int = pydantic.Field(default=0, alias="otherName")


class Root(pydantic.RootModel[list[int]]):
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    name: str
    parts: tuple[int, ...] = ()
    counted: int = dataclasses.field(init=False, default=3)


@dataclasses.dataclass
class Hidden:
    kept: int
    passed: dataclasses.InitVar[int]


USER = (Colour, Pair, Model, Root, Fact)
UTC = dt.UTC

VALUES = [
    None,
    True,
    -(2**63),
    1.5,
    "text",
    b"raw",
    bytearray(b"raw"),
    (1, [2, (3,)], {"k": (4,)}),
    {1, 2},
    frozenset({"a"}),
    deque([1, 2], 5),
    {1: "int key", "s": None},
    dt.datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    dt.date(2026, 1, 2),
    dt.time(1, 2, 3, tzinfo=UTC),
    dt.timedelta(days=1, microseconds=1),
    UTC,
    zoneinfo.ZoneInfo("UTC"),
    uuid.UUID(int=7),
    decimal.Decimal("1.10"),
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_network("fd00::/8"),
    pathlib.Path("/a/b"),
    re.compile("a+", re.IGNORECASE),
    HumanMessage("hi", id="1"),
    SystemMessage("be short"),
    AIMessage(
        "x",
        tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        response_metadata={"finish_reason": "stop"},
    ),
    ToolMessage("out", tool_call_id="c", artifact={"rows": (1, 2)}, status="error"),
    RemoveMessage(id="1"),
    Send("node", {"messages": [HumanMessage("q")]}),
    Command(goto="next", update={"n": (1,)}),
    Interrupt(value={"ask": 1}, id="i"),
    Overwrite([1]),
    _DeltaSnapshot([HumanMessage("d")]),
    Transition("r", 1, "", "n", "t", 1, "started", 3),
    Colour.RED,
    Pair(1, (2, 3)),
    Model(colour=Colour.RED, inner=(Fact("a"), AIMessage("kept whole")), otherName=4),
    Root([1, 2]),
    Fact("a", (1, 2)),
]


@pytest.mark.req("SAVER-7", "SAVER-8")
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_listed_types_come_back_equal_and_of_the_same_type(value: Any) -> None:
    """What may be written is read back as it was: tuples stay tuples, nested values keep their class."""
    serde = StrictSerializer(USER)
    found = serde.loads_typed(serde.dumps_typed(value))

    assert value == found
    assert type(value) is type(found)
    assert repr(value) == repr(found)


@pytest.mark.req("SAVER-8")
@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda: 1,
        Fact("not listed"),
        Colour.RED,
        Model(colour=Colour.RED),
        2**70,
        range(3),
        {"deep": [object()]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_could_not_be_read_back_is_refused(value: Any) -> None:
    """Types that are not listed, at any depth, are refused when written; nothing is pickled, nothing becomes its `repr`."""
    with pytest.raises(StateRefused, match="state"):
        StrictSerializer().dumps_typed(["around", value])


@pytest.mark.req("SAVER-8")
def test_a_class_that_could_not_be_made_again_is_refused_at_once() -> None:
    """A dataclass with an argument that is no field is refused when it is listed, not when a run is resumed."""
    with pytest.raises(StateRefused, match="`passed`"):
        StrictSerializer([Hidden])
    with pytest.raises(StateRefused, match="no dataclass"):
        StrictSerializer([object])


def _ext(code: int, *payload: Any) -> bytes:
    return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(list(payload))))


def _nested(code: int, *payload: Any) -> bytes:
    return ormsgpack.packb({"messages": [1, ormsgpack.Ext(code, ormsgpack.packb(list(payload)))]})


@pytest.mark.req("SAVER-7")
@pytest.mark.parametrize("wrap", [_ext, _nested], ids=["bare", "nested"])
@pytest.mark.parametrize(
    "payload",
    [
        (0, "os", "system", "touch PLANTED"),
        (1, "os", "system", ["touch PLANTED"]),
        (2, "subprocess", "run", {"args": ["touch", "PLANTED"]}),
        (3, "os", "system", "touch PLANTED", "__call__"),
        (4, "os", "system", {"command": "touch PLANTED"}),
        (5, "os", "system", {"command": "touch PLANTED"}, "model_validate_json"),
        (1, "midwatch_planted_module", "anything", []),
        (0, "builtins", "eval", "open('PLANTED', 'w')"),
        (3, "datetime", "datetime", "touch PLANTED", "strftime"),
        (0, "langchain_core.messages.ai", "AIMessage", "wrong code"),
        (6, "<i8", [1], "C", b"12345678"),
        (8, "os", "system"),
        (77, "a", "b", "c"),
    ],
    ids=lambda payload: f"{payload[0]}-{payload[1]}",
)
def test_a_planted_type_is_neither_imported_nor_called(
    wrap: Any, payload: tuple[Any, ...], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that name a function, or a module that would run on import, raise `StateRefused` and do nothing else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "midwatch_planted_module.py").write_text("open('PLANTED', 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    if payload[0] == 8:  # a tuple of plain strings is only a tuple
        assert StrictSerializer().loads_typed(("msgpack", _ext(*payload))) == ("os", "system")
    else:
        with pytest.raises(StateRefused):
            StrictSerializer().loads_typed(("msgpack", wrap(*payload)))

    assert [] == list(tmp_path.glob("PLANTED"))


@pytest.mark.req("SAVER-7")
@pytest.mark.parametrize("kind", ["pickle", "json", "yaml", ""])
def test_other_serialiser_types_are_not_read(kind: str) -> None:
    """No pickle, and no JSON constructors: a row that claims another serialiser is refused."""
    with pytest.raises(StateRefused, match="tampered"):
        StrictSerializer().loads_typed((kind, b"cos\nsystem\n(S'touch PLANTED'\ntR."))


@pytest.mark.req("SAVER-7")
def test_fields_that_do_not_fit_their_class_are_an_error() -> None:
    """A stored record with a missing or foreign field is refused; the raw payload is never handed out in its place."""
    serde = StrictSerializer(USER)
    kind, body = serde.dumps_typed(Model(colour=Colour.RED))
    with pytest.raises(StateRefused, match="does not fit"):
        serde.loads_typed((kind, body.replace(b"red", b"sad")))
    kind, body = serde.dumps_typed(Fact("a"))
    with pytest.raises(StateRefused, match="does not fit"):
        serde.loads_typed((kind, body.replace(b"name", b"eman")))
    with pytest.raises(StateRefused, match="damaged"):
        serde.loads_typed((kind, body[:-3]))


@pytest.mark.req("SAVER-7")
def test_a_refusal_does_not_leak_into_the_next_one() -> None:
    """Each refusal tells its own reason, and a good value after a bad one is written."""
    serde = StrictSerializer()
    with pytest.raises(StateRefused, match=r"`builtins.object`"):
        serde.dumps_typed([object()])
    with pytest.raises(StateRefused, match="64-bit"):
        serde.dumps_typed(2**70)
    assert [1] == serde.loads_typed(serde.dumps_typed([1]))


class Nested(TypedDict):
    fact: dict[str, list[Fact]]
    model: Model | None


@pytest.mark.req("SAVER-8")
def test_types_are_collected_from_a_schema() -> None:
    """`types_of` follows annotations into arguments and fields, and finds what such a state may hold."""
    assert {Fact, Model, Colour} == set(types_of(Nested))


@pytest.mark.req("SAVER-8")
def test_a_derived_saver_knows_more_types_and_the_first_one_does_not() -> None:
    """LangGraph's own allow-list reaches the serialiser, by class or by the name of a loaded one, without an import."""
    store = MemoryStore()
    saver = Saver(store)
    wider = saver.with_allowlist([(Fact.__module__, "Fact"), ("midwatch_never_imported", "Thing")])

    assert Fact("a") == wider.serde.loads_typed(wider.serde.dumps_typed(Fact("a")))
    with pytest.raises(StateRefused):
        saver.serde.dumps_typed(Fact("a"))
    assert saver is saver.with_allowlist([])
    store.close()
