"""Documents: an OpenAPI 3.0 or 3.1 document becomes a list of operations with closed schemas of their own.

In:   the text of a document. Out: `Operation`s, each with where its arguments go; reasons for those that are left out.
May import: recovery's refusal, errors; PyYAML. Must not know: networks, contracts, what the fleet declares.
Why aliases are refused in YAML: a few lines of them unfold to more than this machine holds.
Source: OpenAPI 3.1.1, sections 4.7 and 4.8; 3.0.4 for `nullable` and boolean bounds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import yaml

from midwatch.recovery.schema import SchemaRefused

__all__ = ["MAX_DOCUMENT", "Operation", "Place", "operations", "parsed", "server_of"]

MAX_DOCUMENT: Final = 2 * 1024 * 1024
_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
_OWN: Final = frozenset({"accept", "content-type", "authorization", "host", "cookie", "content-length"})
_DROPPED: Final = frozenset(
    {"example", "examples", "xml", "discriminator", "externalDocs", "deprecated", "readOnly", "writeOnly", "nullable"}
)
_COMPONENTS: Final = "#/components/schemas/"
_MOST: Final = 2_000

Place = Literal["path", "query", "header", "body"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        path: with `{name}` where a path argument goes. places: where each argument goes.
        input, output: JSON Schemas; the output has `status` and `body`.
        refused: why it cannot be a tool, or None.
    """

    name: str
    method: str
    path: str
    description: str = ""
    places: Mapping[str, Place] = field(default_factory=dict)
    input: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    refused: str | None = None


class _Loader(yaml.SafeLoader):
    """Reads what JSON could say: a date stays text."""


_Loader.yaml_implicit_resolvers = {
    sign: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for sign, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parsed(text: str) -> dict[str, Any]:
    """Read a document.

    Raises:
        SchemaRefused: it is none, or too large.
    """
    if len(text) > MAX_DOCUMENT:
        raise SchemaRefused(f"the document is longer than {MAX_DOCUMENT:,} characters")
    try:
        if text.lstrip().startswith("{"):
            found = json.loads(text)
        else:
            if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, _Loader)):
                raise SchemaRefused("the document uses YAML aliases; write out what they stand for")
            found = yaml.load(text, _Loader)  # noqa: S506  a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        raise SchemaRefused("the document is neither JSON nor YAML") from None
    version = found.get("openapi") if isinstance(found, dict) else None
    if not isinstance(version, str) or not version.startswith(("3.0", "3.1")):
        raise SchemaRefused("the document is not of OpenAPI 3.0 or 3.1")
    return cast("dict[str, Any]", found)


def server_of(document: Mapping[str, Any]) -> str | None:
    """Give the address of the document's first server, where that is whole."""
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers else None
    url = first.get("url") if isinstance(first, Mapping) else None
    return url if isinstance(url, str) and "://" in url and "{" not in url else None


def operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    """Give every operation of a document."""
    paths = document.get("paths")
    count = 0
    for path, item in paths.items() if isinstance(paths, Mapping) else ():
        found = _followed(document, item)
        for method in _METHODS:
            operation = found.get(method)
            if not isinstance(operation, Mapping) or not isinstance(path, str):
                continue
            count += 1
            if count > _MOST:
                return
            name = operation.get("operationId")
            name = (
                name
                if isinstance(name, str) and name
                else f"{method}{path}".replace("/", "_").replace("{", "").replace("}", "")
            )
            try:
                yield _operation(document, name, method.upper(), path, {**found, **operation}, found)
            except (SchemaRefused, AttributeError, TypeError, KeyError) as refused:
                told = (
                    str(refused)
                    if isinstance(refused, SchemaRefused)
                    else "its description is not of the form that OpenAPI asks for"
                )
                yield Operation(name[:64], method.upper(), path, refused=told)


def _operation(
    document: Mapping[str, Any],
    name: str,
    method: str,
    path: str,
    operation: Mapping[str, Any],
    item: Mapping[str, Any],
) -> Operation:
    both = [_followed(document, one) for one in [*(item.get("parameters") or ()), *(operation.get("parameters") or ())]]
    parameters = {(one["in"], one["name"]): one for one in both}
    properties: dict[str, Any] = {}
    places: dict[str, Place] = {}
    required: list[str] = []
    for (where, called), one in parameters.items():
        if where == "cookie" or (where == "header" and called.lower() in _OWN):
            if one.get("required") and called.lower() not in ("accept", "content-type"):
                raise SchemaRefused(
                    f"it needs the {where} parameter `{called[:40]}`; credentials stand under `headers:` in the fleet file"
                )
            continue
        if where not in ("path", "query", "header") or called in properties:
            raise SchemaRefused("two of its parameters have one name, or one has no place")
        properties[called] = _described(one.get("schema") or {"type": "string"}, one.get("description"))
        places[called] = where
        if one.get("required") or where == "path":
            required.append(called)
    body = _followed(document, operation.get("requestBody") or {})
    if body:
        if "body" in properties:
            raise SchemaRefused("one of its parameters is called `body`")
        properties["body"] = _json_of(body)
        places["body"] = "body"
        if body.get("required"):
            required.append("body")
    defs = _definitions(document, [properties, operation.get("responses")])
    taken = {"type": "object", "properties": _plain(properties), "required": required, "additionalProperties": False}
    words = operation.get("description") or operation.get("summary") or ""
    return Operation(
        name, method, path, str(words), places, _with(taken, defs), _with(_answer(document, operation), defs)
    )


def _described(schema: Any, words: Any) -> Any:
    return (
        {**schema, "description": words}
        if isinstance(schema, Mapping) and isinstance(words, str) and "$ref" not in schema
        else schema
    )


def _json_of(body: Mapping[str, Any]) -> Any:
    for kind, found in (body.get("content") or {}).items():
        if kind.partition(";")[0].strip() == "application/json" or kind.endswith("+json"):
            return found.get("schema") or {}
    raise SchemaRefused("it takes a body that is not JSON")


def _answer(document: Mapping[str, Any], operation: Mapping[str, Any]) -> dict[str, Any]:
    """Give the schema of the result: every 2xx answer that is described, or a text where none is."""
    forms: list[Any] = []
    for status, given in (operation.get("responses") or {}).items():
        if str(status)[:1] != "2":
            continue
        content = _followed(document, given).get("content") or {}
        if not content:
            forms.append({"type": "null"})
        for kind, found in content.items():
            is_json = kind.partition(";")[0].strip() == "application/json" or kind.endswith("+json")
            forms.append(found.get("schema") or {"type": "string"} if is_json else {"type": "string"})
    kept: list[Any] = []
    for form in forms or [{"type": ["string", "null"]}]:
        if form not in kept:
            kept.append(form)
    body = _plain(kept[0]) if len(kept) == 1 else {"anyOf": [_plain(form) for form in kept]}
    return {
        "type": "object",
        "properties": {"status": {"type": "integer"}, "body": body},
        "required": ["status", "body"],
        "additionalProperties": False,
    }


def _followed(document: Mapping[str, Any], item: Any) -> Mapping[str, Any]:
    """Follow a reference inside the document."""
    for _ in range(8):
        reference = item.get("$ref") if isinstance(item, Mapping) else None
        if reference is None:
            return item if isinstance(item, Mapping) else {}
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise SchemaRefused(f"it refers outside the document (`{str(reference)[:80]}`)")
        item = document
        for part in reference[2:].split("/"):
            item = item.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(item, Mapping) else None
    raise SchemaRefused("its references do not end")


def _definitions(document: Mapping[str, Any], roots: Any) -> dict[str, Any]:
    """Give every schema of the document that is reached from here, by name."""
    known = (document.get("components") or {}).get("schemas") or {}
    found: dict[str, Any] = {}
    todo = list(_names(roots)) + [name for response in _responses(document, roots) for name in _names(response)]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        if name not in known:
            raise SchemaRefused(f"it refers to the schema `{name[:80]}`, which the document does not have")
        found[name] = _plain(known[name])
        todo += _names(known[name])
    return found


def _responses(document: Mapping[str, Any], roots: Any) -> Iterator[Mapping[str, Any]]:
    for given in (roots[1] or {}).values():
        yield _followed(document, given)


def _names(value: Any) -> Iterator[str]:
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, Mapping):
            reference = one.get("$ref")
            if isinstance(reference, str) and reference.startswith(_COMPONENTS):
                yield reference.removeprefix(_COMPONENTS)
            todo += one.values()
        elif isinstance(one, list):
            todo += one


def _with(schema: dict[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Add the definitions that a schema reaches, and no others."""
    needed: set[str] = set()
    todo = [name for name in defs if f'"#/$defs/{name}"' in json.dumps(schema)]
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            text = json.dumps(defs[name])
            todo += [other for other in defs if f'"#/$defs/{other}"' in text]
    return {**schema, "$defs": {name: defs[name] for name in sorted(needed)}} if needed else schema


def _plain(schema: Any) -> Any:
    """Write a schema of OpenAPI as one of JSON Schema 2020-12."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {
        key: value if key in ("enum", "const", "default") else _plain(value)
        for key, value in schema.items()
        if key not in _DROPPED
    }
    if "properties" in schema and isinstance(schema["properties"], Mapping):  # a property may be called `example`
        made["properties"] = {name: _plain(part) for name, part in schema["properties"].items()}
    reference = made.get("$ref")
    if isinstance(reference, str) and reference.startswith(_COMPONENTS):
        made["$ref"] = "#/$defs/" + reference.removeprefix(_COMPONENTS)
    for bound, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(made.get(bound), bool) and made.pop(bound) and plain in made:
            made[bound] = made.pop(plain)
    if schema.get("nullable") is True and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
    return made
