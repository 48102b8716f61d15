"""Strict serialisation: only listed types are written, and only listed types are made again when state is read.

In:   values of graph state; the user's own types, given by class.
Out:  `(type, bytes)` and back; `StateRefused` for anything else, in both directions.
May import: records, errors; LangGraph's and LangChain's types. Must not know: the store, the saver. Why not
LangGraph's serialiser as it is: on reading, its msgpack hook imports what the bytes name, and where a type is blocked
or cannot be made it quietly hands out the raw payload, so that state changes its type. Here the bytes only select
from a table of classes that were given beforehand; nothing is imported, and a mismatch is an error. On writing, a
value that could not be read back is refused, so that no run ends up with a checkpoint it cannot resume from.
Format: LangGraph's msgpack extension codes 0 to 7 as in `langgraph.checkpoint.serde.jsonplus`, so that its tools can
read our bytes, and code 8 for tuples, which it turns into lists.
"""

from __future__ import annotations

import dataclasses
import inspect
import ipaddress
import pathlib
import re
import sys
import threading
import typing
from collections import deque
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Final, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
from langchain_core import messages as lc
from langchain_core.documents import Document
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send, TimeoutPolicy
from pydantic import BaseModel, SecretBytes, SecretStr

from midwatch.errors import UsageProblem
from midwatch.records import call, decision, effect, envelope, event, gate, handoff, run, spend

__all__ = ["PACK", "StateRefused", "StrictSerializer", "types_of"]

SINGLE, POSITIONAL, KEYWORDS, METHOD, _PYDANTIC_1, PYDANTIC, _NUMPY, DELTA, TUPLE = range(9)

PACK: Final[int] = (
    ormsgpack.OPT_NON_STR_KEYS
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
    | ormsgpack.OPT_REPLACE_SURROGATES
)
_UNPACK: Final[int] = ormsgpack.OPT_NON_STR_KEYS
_REMEDY: Final[str] = "give its class to `kit.keep` (or to the saver in `types`), or keep plain data in state"

_Key = tuple[str, str]
_Encode = Callable[[Any], ormsgpack.Ext]
_Decode = Callable[[Any], Any]


class StateRefused(UsageProblem):
    """A value may not be kept in graph state, or stored bytes not be made into one; the message names the channel."""


def types_of(*schemas: type) -> tuple[type, ...]:
    """Collect the classes that state of these schemas may hold: dataclasses, pydantic models, enums, named tuples.

    Args:
        schemas: a graph's state, input, output or context classes; annotations are followed into arguments and fields.
    """
    found: dict[type, None] = {}
    seen: set[int] = set()
    todo: list[Any] = [hint for schema in schemas for hint in (schema, *_hints(schema))]
    while todo:
        hint = todo.pop()
        if id(hint) in seen:
            continue
        seen.add(id(hint))
        todo.extend(typing.get_args(hint))
        if isinstance(hint, type) and not typing.get_origin(hint):
            if _storable(hint):
                found[hint] = None
            todo.extend(_hints(hint))
    return tuple(found)


def _hints(schema: Any) -> tuple[Any, ...]:
    if not isinstance(schema, type) or schema.__module__ in {"builtins", "typing"}:
        return ()
    try:
        return tuple(typing.get_type_hints(schema, include_extras=True).values())
    except (NameError, TypeError):  # an annotation that only a type checker can resolve names nothing that we can allow
        return ()


def _storable(cls: type) -> bool:
    if cls in {BaseModel, Enum}:
        return False
    return dataclasses.is_dataclass(cls) or issubclass(cls, BaseModel | Enum) or _is_namedtuple(cls)


def _is_namedtuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _records() -> tuple[type, ...]:
    rooms = (call, decision, effect, envelope, event, gate, handoff, run, spend)
    return tuple(
        value
        for room in rooms
        for value in vars(room).values()
        if isinstance(value, type) and value.__module__ == room.__name__ and _storable(value)
    )


_MESSAGES: Final[tuple[type[BaseModel], ...]] = (
    lc.AIMessage,
    lc.AIMessageChunk,
    lc.ChatMessage,
    lc.ChatMessageChunk,
    lc.FunctionMessage,
    lc.FunctionMessageChunk,
    lc.HumanMessage,
    lc.HumanMessageChunk,
    lc.RemoveMessage,
    lc.SystemMessage,
    lc.SystemMessageChunk,
    lc.ToolMessage,
    lc.ToolMessageChunk,
    Document,
)
_GRAPH: Final[tuple[type, ...]] = (Interrupt, Command, Overwrite, TimeoutPolicy)
_ADDRESSES: Final[tuple[type, ...]] = (
    ipaddress.IPv4Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Address,
    ipaddress.IPv6Interface,
    ipaddress.IPv6Network,
)


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's typed serialiser with a closed list of types, no import on reading, and no pickle.

    Args:
        types: the user's classes that state may hold: dataclasses, pydantic models, enums, named tuples.

    Raises:
        StateRefused: from the constructor for a class whose instances could not be made again from their fields; from
            `dumps_typed` and `loads_typed` for a value, type or payload that is not on the list.
    """

    def __init__(self, types: Iterable[type] = ()) -> None:
        super().__init__(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=None)
        self._encoders: dict[type, _Encode] = {}
        self._decoders: dict[tuple[int, _Key], _Decode] = {}
        self._failure = threading.local()
        self._add_plain()
        for cls in (*_MESSAGES, *_GRAPH, *_records(), *types):
            self._add(cls)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Encode a value; `StateRefused` names the type that is not on the list."""
        if obj is None:
            return "null", b""
        if type(obj) is bytes:
            return "bytes", obj
        if type(obj) is bytearray:
            return "bytearray", bytes(obj)
        return "msgpack", self.pack(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Decode; `StateRefused` for a serialiser type, a class or a payload that is not on the list."""
        kind, body = data
        if kind == "msgpack":
            return self.unpack(body)
        if kind == "null":
            return None
        if kind == "bytes":
            return body
        if kind == "bytearray":
            return bytearray(body)
        raise StateRefused(f"stored state has the type `{kind}`, which is not read; the store may be tampered with")

    def pack(self, obj: Any) -> bytes:
        """Encode to msgpack bytes."""
        try:
            return ormsgpack.packb(obj, default=self._default, option=PACK)
        except TypeError as error:
            raise self._cause(f"a value cannot be stored ({str(error).lower()}); keep plain data in state") from error

    def unpack(self, body: bytes) -> Any:
        """Decode msgpack bytes."""
        try:
            return ormsgpack.unpackb(body, ext_hook=self._revive, option=_UNPACK)
        except ValueError as error:
            raise self._cause("stored state is not readable; the store may be damaged") from error

    def with_msgpack_allowlist(self, extra_allowlist: Iterable[tuple[str, ...] | type]) -> StrictSerializer:
        """Return a serialiser that also knows these classes. A name counts only when its module is loaded already."""
        named = [entry if isinstance(entry, type) else _loaded(entry) for entry in extra_allowlist]
        extra = [cls for cls in named if cls is not None and _storable(cls)]
        known = set(self._encoders)
        return self if known.issuperset(extra) else StrictSerializer((*self._own(), *extra))

    def _own(self) -> Collection[type]:
        return [cls for cls in self._encoders if _storable(cls)]

    def _cause(self, otherwise: str) -> StateRefused:
        # The C extension drops what a hook raises, so the hook leaves it here for the same thread.
        left = cast("StateRefused | None", getattr(self._failure, "error", None))
        self._failure.error = None
        return left if left is not None else StateRefused(otherwise)

    def _refuse(self, message: str) -> StateRefused:
        # The innermost refusal is the cause; those of the layers around it only pass it on.
        if getattr(self._failure, "error", None) is None:
            self._failure.error = StateRefused(message)
        return cast("StateRefused", self._failure.error)

    def _default(self, obj: Any) -> Any:
        cls = type(obj)
        if cls is tuple:
            return ormsgpack.Ext(TUPLE, self._inner(list(obj)))
        encode = self._encoders.get(cls)
        if encode is not None:
            return encode(obj)
        if isinstance(obj, BaseException):
            return repr(obj)  # LangGraph's own convention for the error of a task
        if isinstance(obj, SecretStr | SecretBytes) or hasattr(obj, "get_secret_value"):
            raise self._refuse("a secret may not be kept in graph state; pass it to the broker that needs it instead")
        if isinstance(obj, pathlib.PurePath):
            return self._ext(POSITIONAL, ("pathlib", cls.__name__), list(obj.parts))
        raise self._refuse(f"the type `{cls.__module__}.{cls.__qualname__}` may not be kept in graph state; {_REMEDY}")

    def _inner(self, obj: Any) -> bytes:
        return ormsgpack.packb(obj, default=self._default, option=PACK)

    def _ext(self, code: int, key: _Key, payload: Any, *more: Any) -> ormsgpack.Ext:
        return ormsgpack.Ext(code, self._inner([key[0], key[1], payload, *more]))

    def _revive(self, code: int, data: bytes) -> Any:
        inner = ormsgpack.unpackb(data, ext_hook=self._revive, option=_UNPACK)
        if code == TUPLE and type(inner) is list:
            return tuple(inner)
        if code == DELTA:
            return _DeltaSnapshot(inner)
        if type(inner) is not list or len(inner) < 3 or not all(type(part) is str for part in inner[:2]):
            raise self._refuse("stored state has a payload of unknown shape; the store may be tampered with")
        decode = self._decoders.get((code, (inner[0], inner[1])))
        if decode is None:
            raise self._refuse(f"stored state names `{inner[0]}.{inner[1]}`, which may not be made; {_REMEDY}")
        try:
            return decode(inner[2])
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, re.error) as error:
            raise self._refuse(
                f"stored state of the type `{inner[0]}.{inner[1]}` does not fit its class ({type(error).__name__}); "
                "resume with the version of the code that wrote it"
            ) from error

    def _register(self, cls: type, code: int, key: _Key, encode: Callable[[Any], Any], decode: _Decode) -> None:
        self._encoders[cls] = lambda obj: self._ext(code, key, encode(obj))
        self._decoders[code, key] = decode

    def _add_plain(self) -> None:
        """Register the standard library's values and LangGraph's `Send`, in LangGraph's own encoding."""

        def single(cls: type, encode: Callable[[Any], Any], decode: _Decode | None = None) -> None:
            self._register(cls, SINGLE, _key(cls), encode, decode or cls)

        def positional(cls: type, key: _Key, encode: Callable[[Any], list[Any]], make: Callable[..., Any]) -> None:
            self._register(cls, POSITIONAL, key, encode, lambda args: make(*args))

        self._encoders[_DeltaSnapshot] = lambda obj: ormsgpack.Ext(DELTA, self._inner(obj.value))
        single(UUID, lambda obj: obj.hex)
        single(Decimal, str)
        single(set, list)
        single(frozenset, list)
        single(ZoneInfo, lambda obj: obj.key)
        for cls in _ADDRESSES:
            single(cls, str)
        positional(deque, _key(deque), lambda obj: [list(obj), obj.maxlen], deque)
        positional(re.Pattern, ("re", "compile"), lambda obj: [obj.pattern, obj.flags], re.compile)
        positional(timedelta, _key(timedelta), lambda obj: [obj.days, obj.seconds, obj.microseconds], timedelta)
        positional(date, _key(date), lambda obj: [obj.year, obj.month, obj.day], date)
        positional(timezone, _key(timezone), lambda obj: list(obj.__getinitargs__()), timezone)
        positional(Send, _key(Send), _send_args, _send)
        for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath"):
            self._decoders[POSITIONAL, ("pathlib", name)] = _path(getattr(pathlib, name))
        self._register(time, KEYWORDS, _key(time), _time_fields, lambda fields: time(**fields))
        self._encoders[datetime] = lambda obj: self._ext(METHOD, _key(datetime), obj.isoformat(), "fromisoformat")
        self._decoders[METHOD, _key(datetime)] = datetime.fromisoformat

    def _add(self, cls: type) -> None:
        """Register a dataclass, pydantic model, enum or named tuple by class."""
        key = _key(cls)
        if not isinstance(cls, type) or not _storable(cls):
            raise StateRefused(f"`{cls!r}` is no dataclass, pydantic model, enum or named tuple; state cannot hold it")
        if issubclass(cls, Enum):
            self._register(cls, SINGLE, key, lambda obj: obj.value, cls)
        elif issubclass(cls, BaseModel):
            self._encoders[cls] = lambda obj: self._ext(PYDANTIC, key, _model_fields(obj), "model_validate_json")
            self._decoders[PYDANTIC, key] = _model_maker(cls)
        elif _is_namedtuple(cls):
            self._register(cls, KEYWORDS, key, lambda obj: obj._asdict(), lambda fields: cls(**fields))
        else:
            self._register(cls, KEYWORDS, key, *_dataclass_codec(cls))


def _loaded(entry: tuple[str, ...]) -> type | None:
    found: Any = sys.modules.get(entry[0])
    for name in entry[1].split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) else None


def _key(cls: type) -> _Key:
    return cls.__module__, cls.__qualname__


def _path(cls: type[pathlib.PurePath]) -> _Decode:
    return lambda parts: cls(*parts)


def _send_args(obj: Send) -> list[Any]:
    return [obj.node, obj.arg] if obj.timeout is None else [obj.node, obj.arg, obj.timeout]


def _send(node: str, arg: Any, timeout: Any = None) -> Send:
    return Send(node, arg, timeout=timeout)


def _time_fields(obj: time) -> dict[str, Any]:
    return {
        "hour": obj.hour,
        "minute": obj.minute,
        "second": obj.second,
        "microsecond": obj.microsecond,
        "tzinfo": obj.tzinfo,
        "fold": obj.fold,
    }


def _model_fields(obj: BaseModel) -> dict[str, Any]:
    # Shallow, unlike `model_dump`: a nested value keeps its own class instead of being cut to the field's declared one.
    extra = obj.__pydantic_extra__
    return {**obj.__dict__, **extra} if extra else obj.__dict__


def _model_maker(cls: type[BaseModel]) -> _Decode:
    def make(fields: Any) -> BaseModel:
        if "__pydantic_root_model__" in vars(cls) or getattr(cls, "__pydantic_root_model__", False):
            fields = fields["root"]
        return cls.model_validate(fields, by_alias=False, by_name=True)

    return make


def _dataclass_codec(cls: type) -> tuple[Callable[[Any], Any], _Decode]:
    fields = dataclasses.fields(cls)
    names = tuple(field.name for field in fields)
    initial = frozenset(field.name for field in fields if field.init)
    hidden = [name for name, kind in inspect.get_annotations(cls).items() if _is_init_var(kind)]
    if hidden:
        raise StateRefused(
            f"`{cls.__qualname__}` takes `{hidden[0]}`, which is no field, so it could not be made again"
        )

    def make(values: dict[str, Any]) -> Any:
        made = cls(**{name: value for name, value in values.items() if name in initial})
        for name in names:
            if name not in initial:
                object.__setattr__(made, name, values[name])
        return made

    return lambda obj: {name: getattr(obj, name) for name in names}, make


def _is_init_var(kind: Any) -> bool:
    return isinstance(kind, dataclasses.InitVar) or (isinstance(kind, str) and "InitVar" in kind)
