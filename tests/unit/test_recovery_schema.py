"""Schemas of strangers: no network, no echo of the value, bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.recovery import SchemaRefused, compile_schema
from midwatch.recovery.schema import MAX_ERRORS

SECRET = "hunter2-very-secret"


class _Counting(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Counting)
        self.server.paths.append(self.path)
        body = b'{"type": "integer"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[_Counting]:
    """Give a loopback server that remembers who asked for what."""
    with _Counting() as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join(timeout=10)


def test_the_library_would_fetch(server: _Counting) -> None:
    """The danger is real: left alone, the library asks the server. If this ends, the guard may be simplified."""
    jsonschema_rs.validator_for({"$ref": f"{server.url}/x"})
    assert server.paths == ["/x"]


@pytest.mark.parametrize(
    "make",
    [
        lambda url: {"$ref": f"{url}/x"},
        lambda url: {"properties": {"a": {"items": {"$ref": f"{url}/x#/definitions/y"}}}},
        lambda url: {"$dynamicRef": f"{url}/x"},
        lambda url: {"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": f"{url}/x"},
        lambda url: {"$id": f"{url}/base/", "$ref": "other"},
        lambda url: {"$id": f"{url}/base/", "allOf": [{"$ref": "/other"}]},
        lambda url: {"$schema": f"{url}/meta", "type": "object"},
        lambda url: {"$defs": {"a": {"$ref": url.replace("http:", "")}}, "$ref": "#/$defs/a"},
        lambda _url: {"$ref": "file:///etc/passwd"},
        lambda _url: {"$ref": "other.json"},
        lambda _url: {"$ref": ""},
        lambda url: {"$ref": f" {url}/x"},
        lambda url: {"$defs": {"a": ({"$ref": f"{url}/x"},)}},
        lambda url: {"properties": {"$ref": {"$ref": f"{url}/x"}}},
        lambda url: {"dependencies": {"a": {"$ref": f"{url}/x"}}, "$schema": "http://json-schema.org/draft-07/schema#"},
    ],
)
@pytest.mark.req("RECOVERY-4")
def test_no_reference_leaves_the_schema(server: _Counting, make: Any) -> None:
    """However a schema tries to reach outside, it is refused, and the server hears nothing."""
    with pytest.raises(SchemaRefused):
        compile_schema(make(server.url))
    assert [] == server.paths


@pytest.mark.req("RECOVERY-4")
def test_the_second_lock_holds_alone(server: _Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a reference slip past our own check, the library's network is off as well."""
    monkeypatch.setattr("midwatch.recovery.schema._REFERENCES", frozenset())
    with pytest.raises(SchemaRefused):
        compile_schema({"$ref": f"{server.url}/x"})
    assert [] == server.paths


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nope"},
        {"$ref": "#/nowhere"},
        {"pattern": "("},
        {"type": {1, 2}},
        {"const": float("nan")},
        ["type"],
    ],
)
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    """A schema that does not compile is refused with our own error."""
    with pytest.raises(SchemaRefused):
        compile_schema(schema)


def test_a_bottomless_schema_is_refused() -> None:
    """A stranger's nesting exhausts neither our stack nor the library's."""
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"items": schema}
    with pytest.raises(SchemaRefused):
        compile_schema(schema)


def test_local_references_work() -> None:
    """References inside the schema are what they are for, loops included; a property may be called `$ref`."""
    validator = compile_schema(
        {
            "$ref": "#/$defs/node",
            "$defs": {
                "node": {
                    "properties": {"next": {"$ref": "#/$defs/node"}, "$ref": {"type": "integer"}},
                    "type": "object",
                }
            },
        }
    )
    assert validator.fits({"next": {"next": {}}, "$ref": 1})
    assert not validator.fits({"next": {"next": 1}})
    assert [("/next/next", "type")] == [(e.path, e.rule) for e in validator.errors({"next": {"next": 1}})]


EVERY_RULE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"enum": ["restart", "delete"]},
        "kind": {"const": "x"},
        "count": {"type": "integer", "minimum": 1, "maximum": 5},
        "name": {"type": "string", "pattern": "^[a-c]+$", "maxLength": 3},
        "tags": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "maxItems": 2},
        "either": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"n": {"type": "integer"}}}]},
        "one": {"oneOf": [{"type": "integer"}, {"type": "boolean"}]},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}, "propertyNames": {"maxLength": 2}},
        "no": {"not": {"type": "string"}},
        "has": {"contains": {"type": "integer"}},
    },
    "required": ["action", "target"],
    "additionalProperties": False,
}
WRONG: dict[str, Any] = {
    "action": SECRET,
    "kind": SECRET,
    "count": SECRET,
    "name": SECRET,
    "tags": [SECRET, SECRET],
    "either": {"n": SECRET},
    "one": SECRET,
    "map": {SECRET: SECRET},
    "no": SECRET,
    "has": [SECRET],
    SECRET: SECRET,
}


@pytest.mark.req("RECOVERY-5")
def test_errors_never_repeat_the_value() -> None:
    """Neither values nor keys that the value chose appear, in no rule; what the schema says does."""
    errors = compile_schema(EVERY_RULE).errors(WRONG)
    told = " ".join(f"{e.path} {e.rule} {e.message}" for e in errors)
    assert SECRET not in told
    assert "must be one of `restart`, `delete`" in told
    assert "needs the key `target`" in told
    assert {"/action", "/kind", "/count", "/name", "/either/n", "/one", "/map/*", "/no", "/has", ""} <= {
        e.path for e in errors
    }


@pytest.mark.req("RECOVERY-5")
@given(st.text(alphabet="QZXJ", min_size=6, max_size=12))
def test_no_made_up_word_of_the_value_is_repeated(word: str) -> None:
    """Whatever word stands in keys and values, no error holds it."""
    errors = compile_schema(EVERY_RULE).errors({word: word, "action": word, "map": {word: word}, "name": word})
    assert errors
    assert not any(word in e.path + e.message for e in errors)


@pytest.mark.req("RECOVERY-6")
def test_the_list_of_errors_is_bounded() -> None:
    """A thousand wrong items give a short list."""
    assert MAX_ERRORS == len(compile_schema({"items": {"type": "integer"}}).errors(["x"] * 1000))


def test_the_nearest_form_explains_itself() -> None:
    """For a choice of tool calls the errors are those of the call that was meant."""
    call = {
        "anyOf": [
            {
                "type": "object",
                "properties": {"tool": {"const": name}, "args": {"type": "object", "required": [need]}},
                "required": ["tool", "args"],
            }
            for name, need in (("read", "path"), ("stop", "reason"))
        ]
    }
    errors = compile_schema(call).errors({"tool": "stop", "args": {}})
    assert [("anyOf", ""), ("required", "/args")] == [(e.rule, e.path) for e in errors]
    assert "needs the key `reason`" == errors[1].message


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, {1: 2}, object(), {"a": {3}}])
def test_what_json_cannot_carry_never_fits(value: Any) -> None:
    """A value from outside JSON is one error, not an exception."""
    validator = compile_schema({"type": "object", "properties": {}, "additionalProperties": False})
    assert not validator.fits(value)
    assert validator.errors(value)


def test_a_hungry_pattern_ends() -> None:
    """A pattern that explodes when it backtracks is cut by the engine, and the value does not fit."""
    assert not compile_schema({"pattern": "^(?=a)(a+)+\\1$"}).fits("a" * 60 + "b")
