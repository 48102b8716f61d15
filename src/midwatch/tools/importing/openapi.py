"""OpenAPI: each operation of a described service is a tool, called by the broker, which alone holds the credential.

In:   an `OpenApiSpec`, the fleet's folder, the environment. Out: `Brought`: its operations under contracts.
May import: `foreign`, `openapi_document`, the egress of sandboxes, config's specs, records, errors. Must not know: who calls, gates.
Why the egress of sandboxes: it resolves a name once and connects to the address it has checked, follows no redirects, uses no proxies
and lets no secret come back. Why the method is believed only so far: GET reads, and may tell a stranger whatever is in its address.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import anyio

from midwatch.config.specs import EgressRule
from midwatch.config.specs_imports import OpenApiSpec, secrets_in
from midwatch.errors import InvalidTool, Problem, ToolFailure
from midwatch.records.effect import EffectClass
from midwatch.recovery.schema import SchemaRefused
from midwatch.sandbox.egress_secrets import Echoed, Refused, Vault
from midwatch.sandbox.egress_upstream import Asked, Failed, ask, checked, order, resolve
from midwatch.sandbox.egress_wire import EgressLimits
from midwatch.tools.contract import DEFAULT_BODY_LIMIT
from midwatch.tools.importing.foreign import Brought, Call, Described, Words, brought
from midwatch.tools.importing.openapi_document import MAX_DOCUMENT, Operation, operations, parsed, server_of

__all__ = ["bring"]

_READS: Final = ("GET", "HEAD", "OPTIONS")
_CODES: Final[Mapping[int, str]] = {
    400: "invalid_arguments", 401: "denied", 403: "denied", 404: "not_found", 409: "conflict", 410: "not_found", 412: "conflict",
    422: "invalid_arguments", 429: "rate_limited", 503: "unavailable",
}  # fmt: skip
_BEFORE: Final = ("cannot be reached", "cannot be resolved", "has no address")
"""In the words of a failure that came before anything was sent."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Service:
    """One host, and how it is asked."""

    rule: EgressRule
    tls: bool
    host: str
    port: int | None
    root: str
    vault: Vault

    @classmethod
    def at(cls, address: str, spec: OpenApiSpec, vault: Vault, headers: Mapping[str, str]) -> _Service:
        """Read an address.

        Raises:
            SchemaRefused: it is not HTTPS, and the fleet does not say that it is private.
        """
        parts = urlsplit(address)
        tls = parts.scheme == "https"
        if not parts.hostname or (not tls and not (parts.scheme == "http" and spec.private)):
            raise SchemaRefused("its server is not `https://`; name it under `server:`")
        rule = EgressRule(parts.hostname, parts.port, tls=tls, headers=headers, private=spec.private)
        return cls(rule, tls, parts.hostname, parts.port, parts.path.rstrip("/"), vault)

    async def send(
        self, method: str, path: str, query: str | None, headers: list[tuple[str, str]], body: bytes, most: int
    ) -> _Answer:
        """Ask once.

        Raises:
            Refused, Failed, Echoed: with fixed words.
        """
        asked = Asked(self.tls, self.host, self.port, f"{self.root}{path}" or "/", query)
        wanted = order([self.rule], self.vault, None, method, asked, headers)
        limits = EgressLimits()
        addresses = await checked(wanted.allow, resolve, limits)
        scan, parts, size = self.vault.scan(), [], 0
        async with ask(
            wanted, addresses, self.vault.filled(self.rule.headers), body, ssl.create_default_context(), limits
        ) as response:
            async for part in response.stream:  # type: ignore[union-attr]  # of an asynchronous transport
                size += len(part)
                if size > most:
                    raise Failed("the answer is too long")
                parts.append(scan.feed(part))
            parts.append(scan.end())
            return _Answer(
                response.status_code, {name.lower(): value for name, value in response.headers.items()}, b"".join(parts)
            )


def bring(spec: OpenApiSpec, base: Path, environ: Mapping[str, str]) -> Brought:
    """Read the document and make tools of its operations.

    Raises:
        InvalidTool: it cannot be had, or is none.
    """
    source = f"openapi.{spec.name}"
    wanted = secrets_in(spec.headers)
    missing = sorted(name for name in wanted if not environ.get(name))
    if missing:
        raise InvalidTool((Problem(source, f"needs the environment variable `{missing[0]}`; set it", "missing-env"),))
    vault = Vault({name: environ[name] for name in wanted})
    try:
        document = parsed(_text(spec, base))
        address = spec.server or server_of(document)
        if address is None:
            raise SchemaRefused("the document names no server by its whole address; write one under `server:`")
        service = _Service.at(address, spec, vault, spec.headers)
    except SchemaRefused as refused:
        raise InvalidTool((Problem(source, f"gives no tools: {refused}", "no-document"),)) from None
    found = list(operations(document))
    known = {one.name: one for one in found if one.refused is None}
    notes = [
        Problem(source, f"`{one.name[:64]}` is left out: {one.refused}", "tool-left-out")
        for one in found
        if one.refused is not None
    ]
    if len(known) + len(notes) != len(found):
        raise InvalidTool(
            (Problem(source, "two of its operations have one name; correct the document", "duplicate-tool"),)
        )

    def call(one: Described) -> Call:
        operation = known[one.name]

        async def send(arguments: dict[str, Any], key: str) -> Any:
            return await _called(service, operation, arguments, key)

        return send

    made = brought(
        source, [_described(one, address) for one in known.values()], call, rules=spec.rules, pin=spec.digest
    )
    return Brought(made.source, made.digest, made.tools, made.pending, (*notes, *made.notes))


def _text(spec: OpenApiSpec, base: Path) -> str:
    """Read the document. Only the service is given credentials, never the place that describes it."""
    try:
        if "://" not in spec.document:
            return (base / spec.document).read_text(encoding="utf-8-sig")
        parts = urlsplit(spec.document)
        where = _Service.at(f"{parts.scheme}://{parts.netloc}", spec, Vault({}), {})

        async def fetch() -> _Answer:
            async with asyncio.timeout(30):
                return await where.send("GET", parts.path or "/", parts.query or None, [], b"", MAX_DOCUMENT)

        answer: _Answer = _apart(fetch)
    except (OSError, UnicodeDecodeError, Refused, Failed, TimeoutError) as failure:
        reason = str(failure) if isinstance(failure, Refused | Failed) else "it cannot be read"
        raise SchemaRefused(f"the document: {reason}") from None
    if answer.status != 200:
        raise SchemaRefused(f"the document: its host answers {answer.status}; redirects are not followed")
    return answer.body.decode("utf-8", "replace")


def _apart(work: Any) -> Any:
    """Run a coroutine from wherever this is: a loop may be running in this thread."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only for a document at an address

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, work).result()


def _described(one: Operation, address: str) -> Described:
    pin = {
        "name": one.name,
        "description": one.description,
        "input": one.input,
        "output": one.output,
        "method": one.method,
        "path": one.path,
        "server": address,
    }
    default: EffectClass = "read" if one.method in _READS else "destructive"
    return Described(one.name, one.description, one.input, one.output, pin, said="read", default=default)


async def _called(service: _Service, one: Operation, arguments: dict[str, Any], key: str) -> Any:
    """Call an operation.

    Raises:
        ToolFailure: whatever else than a 2xx answer of the described form comes of it.
    """
    path, query, headers, body = _request(one, arguments, key)
    reads = one.method in _READS
    try:
        answer = await service.send(one.method, path, query, headers, body, DEFAULT_BODY_LIMIT)
    except Refused as refused:
        raise ToolFailure("denied", f"the request is not sent: {refused}") from refused
    except Echoed as echoed:
        raise ToolFailure("upstream", "the answer holds a credential, so it is not shown") from echoed
    except Failed as failed:
        if any(words in str(failed) for words in _BEFORE):
            raise ToolFailure("unavailable", f"nothing was sent: {failed}", retryable=True) from failed
        raise ToolFailure("upstream" if reads else "timeout", f"{failed}", retryable=reads) from failed
    return _value(answer)


def _request(
    one: Operation, arguments: Mapping[str, Any], key: str
) -> tuple[str, str | None, list[tuple[str, str]], bytes]:
    path, pairs, headers, body = one.path, [], [("Accept", "application/json")], b""
    for name, value in arguments.items():
        place = one.places[name]
        if place == "body":
            body = json.dumps(value, ensure_ascii=False).encode()
            headers.append(("Content-Type", "application/json"))
        elif place == "path":
            text = _word(value)
            if text in ("", ".", ".."):
                raise ToolFailure("invalid_arguments", f"the argument `{name}` cannot be a part of an address")
            path = path.replace(f"{{{name}}}", quote(text, safe=""))
        elif place == "query":
            pairs += [(name, _word(part)) for part in (value if isinstance(value, list) else [value])]
        else:
            text = _word(value)
            if not text.isascii() or not text.isprintable():
                raise ToolFailure("invalid_arguments", f"the argument `{name}` holds what no header can")
            headers.append((name, text))
    if one.method not in _READS:
        headers.append(("Idempotency-Key", key))
    return path, urlencode(pairs) if pairs else None, headers, body


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)


def _value(answer: _Answer) -> Any:
    text = answer.body.decode("utf-8", "replace")
    if 200 <= answer.status < 300:
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise ToolFailure("upstream", "the answer is compressed, which was not asked for")
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        if not answer.body:
            return {"status": answer.status, "body": None}
        if kind == "application/json" or kind.endswith("+json"):
            try:
                return {"status": answer.status, "body": json.loads(text)}
            except (ValueError, RecursionError) as broken:
                raise ToolFailure("upstream", "the answer says that it is JSON and is not") from broken
        return {"status": answer.status, "body": text}
    code = _CODES.get(answer.status, "upstream")
    after = answer.headers.get("retry-after", "")
    raise ToolFailure(
        code,
        f"the service answers {answer.status}; its words are in the trace",
        retryable=answer.status in (429, 503),
        retry_after_us=int(after) * 1_000_000 if after.isdigit() and len(after) < 7 else None,
    ) from Words(text[:4000])
