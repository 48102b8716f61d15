"""Rules of imported tools: what of `mcp:`, `openapi:` and `langchain:` cannot be meant.

In:   the draft, the fleet file's folder. Out: problems. May import: `draft`, `files`; errors. Must not know: what a source answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from midwatch.config.draft import Draft
from midwatch.config.files import locate
from midwatch.config.specs_imports import SECRET
from midwatch.config.yaml_source import Place
from midwatch.errors import Problem

__all__ = ["check_imports"]

_SOURCE: Final = re.compile(
    r"(?:[^:\s]+\.py|[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*):[A-Za-z_][A-Za-z0-9_]*"
)


def check_imports(draft: Draft, base: Path) -> Iterator[Problem]:
    """Check every source of tools that is no file of Python with `@tool` in it."""
    yield from _mcp(draft)
    for name, service in draft.file.openapi.items():
        place: Place = ("openapi", name)
        if "://" in service.document:
            yield from _address(draft, (*place, "document"), service.document, private=service.private)
        else:
            yield from _file(draft, (*place, "document"), base, service.document, "document")
        if service.server is not None:
            yield from _address(draft, (*place, "server"), service.server, private=service.private)
    for name, library in draft.file.langchain.items():
        at: Place = ("langchain", name, "source")
        file = library.source.rpartition(":")[0]
        if _SOURCE.fullmatch(library.source) is None:
            yield draft.problem(
                at, f"`{library.source}` names no tools; write `FILE.py:NAME` or `MODULE:NAME`", "bad-tools"
            )
        elif file.endswith(".py"):
            yield from _file(draft, at, base, file, "tools file")
    yield from _headers(draft)
    yield from _twice(draft)


def _headers(draft: Draft) -> Iterator[Problem]:
    blocks = [("mcp", name, server.headers) for name, server in draft.file.mcp.items()]
    blocks += [("openapi", name, service.headers) for name, service in draft.file.openapi.items()]
    for block, name, headers in blocks:
        for header, value in headers.items():
            if "${" in SECRET.sub("", value):
                message = "a secret is written `${secret:NAME}`; nothing else is replaced"
                yield draft.problem((block, name, "headers", header), message, "misplaced-variable")
            elif not (value.isascii() and value.isprintable()):
                yield draft.problem(
                    (block, name, "headers", header), "holds a sign that no header can hold", "bad-form"
                )


def _mcp(draft: Draft) -> Iterator[Problem]:
    for name, server in draft.file.mcp.items():
        place: Place = ("mcp", name)
        if bool(server.command) == (server.url is not None):
            yield draft.problem(place, f"`{name}` must have exactly one of `command` and `url`", "mcp-shape")
        elif server.url is not None:
            yield from _address(draft, (*place, "url"), server.url, private=server.private)
            if server.env or server.runs == "broker":
                yield draft.problem(
                    place, f"`env` and `runs` are for a server with a `command`; take them from `{name}`", "mcp-shape"
                )
        elif server.headers or server.private:
            yield draft.problem(
                place, f"`headers` and `private` are for a server with a `url`; take them from `{name}`", "mcp-shape"
            )


def _address(draft: Draft, place: Place, text: str, *, private: bool) -> Iterator[Problem]:
    try:
        found = urlsplit(text)
        known = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:
        known = False
    if not known or "@" in found.netloc or found.fragment:
        yield draft.problem(
            place, "is no address; write `https://host/path`, without a name or password in it", "bad-address"
        )
    elif found.scheme == "http" and not private:
        yield draft.problem(
            place,
            "must be `https://`; only a server on a private address (`private: true`) may do without",
            "bad-address",
        )


def _file(draft: Draft, place: Place, base: Path, name: str, what: str) -> Iterator[Problem]:
    found = locate(base, name)
    if found.reason is not None:
        yield draft.problem(place, f"the {what} `{name}` {found.reason}", found.code)


def _twice(draft: Draft) -> Iterator[Problem]:
    """A source's name is the namespace of its tools, so that no two may have one."""
    seen: dict[str, str] = {}
    blocks: Mapping[str, Mapping[str, object]] = {
        "mcp": draft.file.mcp, "openapi": draft.file.openapi, "langchain": draft.file.langchain,
    }  # fmt: skip
    for block, names in blocks.items():
        for name in names:
            plain = name.replace("-", "_")
            if plain in seen:
                yield draft.problem(
                    (block, name),
                    f"`{name}` is the namespace of `{seen[plain]}`; choose another",
                    "duplicate-tool",
                )
            seen.setdefault(plain, f"{block}.{name}")
