"""Blocks: files out of prose, as models write them: fenced blocks with a name beside them, or `<file path="…">` elements.

In:   text. Out: every file that it names with its whole content, or the code of a refusal.
May import: markdown-it-py and the standard library. Must not know: file systems; where the files go, who asked for them.
Why all or nothing: a text that ends within a block, names one file twice with two contents, or names a place outside is not what its
writer meant. Half of it would be a change that nobody asked for.
Why names that could lead out are refused here already: whoever writes the files opens each folder by itself and without links; this is
the first of two fences, and it can say which name was meant.

    ```python src/app.py      the info string, after the language or as `title="…"`, `file=…`, `filename=…`, `path=…`, `python:src/app.py`
    **src/app.py**            the line before the block: bold, code, heading, or `File: …`
    # src/app.py              the first line of the content, as a comment; it is taken away
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["BLOCK_REFUSALS", "MAX_BLOCKS", "FileBlock", "RefusedBlocks", "file_blocks"]

LIMIT_BYTES: Final = 1 << 20
MAX_BLOCKS: Final = 200
BLOCK_REFUSALS: Final = ("empty", "too_long", "too_many", "no_candidate", "truncated", "ambiguous", "path")

_PATH: Final = r"(?:\./)?[\w.@+-]+(?:/+[\w.@+ -]+)*"
_NAMED: Final = re.compile(r"(?:title|file|filename|path|name)\s*[=:]\s*[\"']?(?P<path>[^\"'\s}]+)", re.IGNORECASE)
_COLON: Final = re.compile(r"^[\w+#.-]{1,30}:(?P<path>[^\s:][^\s]*)$")
_COMMENT: Final = re.compile(
    r"^\s*(?:#|//|--|;|%|<!--|/\*|\(\*|\"\"\"|REM\s)\s*(?:file(?:name)?\s*:\s*|path\s*:\s*)?(?P<path>[^\s*>\"]+)\s*(?:-->|\*/|\*\)|\"\"\")?\s*$",
    re.IGNORECASE,
)
_BEFORE: Final = re.compile(
    r"^[\s>*_#\d.)-]*(?:(?:file(?:name)?|path|create|write|save (?:as|to)|in|update)\b[\s:]*)?"
    r"[`*_\"']{0,4}(?P<path>[^\s`*\"']+)[`*\"']{0,4}\s*:?\s*$",
    re.IGNORECASE,
)
_ELEMENT: Final = re.compile(r"<file\s+(?:path|name)=(?P<quote>[\"'])(?P<path>[^\"']{1,1000})(?P=quote)\s*>")
_LIKELY: Final = re.compile(rf"^{_PATH}$")
_SUFFIX: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9_-]{0,14}$")
_BARE: Final = frozenset(
    {"Makefile", "Dockerfile", "Containerfile", "LICENSE", "Procfile", "Justfile", "Jenkinsfile", "Vagrantfile"}
)


@dataclass(frozen=True, slots=True)
class FileBlock:
    """One file: `path` is relative, with `/`, and leads nowhere else; `content` is the whole of it."""

    path: str
    content: str


@dataclass(frozen=True, slots=True)
class RefusedBlocks:
    """Nothing is to be written. `code` is one of `BLOCK_REFUSALS`; `name` is the name at fault, where one is."""

    code: str
    name: str = ""


class _Bad(Exception):
    def __init__(self, code: str, name: str = "") -> None:
        super().__init__(code)
        self.refused = RefusedBlocks(code, name)


def file_blocks(text: str, *, truncated: bool = False) -> tuple[FileBlock, ...] | RefusedBlocks:
    """Find the files in a text.

    Args:
        truncated: the writer was cut at its limit. Nothing is then taken, since the last block may look whole and not be.

    Returns:
        At least one file, in the order of the text, each path once; or why there is none. Blocks without a name are prose. Never raises
        for any text.
    """
    if truncated:
        return RefusedBlocks("truncated")
    if len(text) > LIMIT_BYTES or len(text.encode("utf-8", "surrogatepass")) > LIMIT_BYTES:
        return RefusedBlocks("too_long")
    if not text.strip():
        return RefusedBlocks("empty")
    try:
        found = [*_elements(text)] or [*_fenced(text)]
        return _one_each(found)
    except _Bad as bad:
        return bad.refused


def _one_each(found: list[FileBlock]) -> tuple[FileBlock, ...] | RefusedBlocks:
    if not found:
        return RefusedBlocks("no_candidate")
    if len(found) > MAX_BLOCKS:
        return RefusedBlocks("too_many")
    files: dict[str, FileBlock] = {}
    for block in found:
        first = files.setdefault(block.path, block)
        if first.content != block.content:
            return RefusedBlocks("ambiguous", block.path)
    folders = {path.rpartition("/")[0] for path in files}
    above = {part for folder in folders for part in _above(folder)}
    clash = next((path for path in files if path in above), None)
    return tuple(files.values()) if clash is None else RefusedBlocks("path", clash)


def _above(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _elements(text: str) -> Iterator[FileBlock]:
    """Read `<file path="…">` elements; their content is what stands between, without the line breaks at its ends."""
    position = 0
    while head := _ELEMENT.search(text, position):
        end = text.find("</file>", head.end())
        if end < 0:
            raise _Bad("truncated", head["path"])
        content = text[head.end() : end]
        if _ELEMENT.search(content):
            raise _Bad("ambiguous", head["path"])
        content = content.removeprefix("\n").removesuffix("\n")
        yield FileBlock(_jailed(head["path"]), f"{content}\n" if content else "")
        position = end


def _fenced(text: str) -> Iterator[FileBlock]:
    lines = text.splitlines()
    try:
        tokens = MarkdownIt("commonmark").parse(text)
    except RecursionError:
        raise _Bad("ambiguous") from None
    for token in tokens:
        if token.type != "fence" or token.map is None:
            continue
        closed = _closed(token, lines)
        name, content = _name(token, lines)
        if name is None:
            if not closed:  # its content may be what an outer block of the same length was meant to hold
                raise _Bad("truncated")
            continue
        if not closed:
            raise _Bad("truncated", name)
        yield FileBlock(_jailed(name), content)


def _closed(token: Token, lines: list[str]) -> bool:
    """Say whether a block has its closing fence: the parser ends one silently with the text, or with the list around it."""
    first, after = token.map or [0, 0]
    last = lines[after - 1].strip(" \t>") if after - 1 > first and after <= len(lines) else ""
    return len(last) >= len(token.markup) and not last.strip(token.markup[0])


def _name(token: Token, lines: list[str]) -> tuple[str | None, str]:
    """Find the name of a block, and give its content without the line that only held the name."""
    info = token.info.strip()
    for word in (_NAMED.search(info), *(_COLON.match(part) for part in info.split())):
        if word is not None:
            return word["path"], token.content
    likely = [part for part in info.split() if _names_file(part)]
    if likely:
        return likely[-1], token.content
    line = (token.map or [0])[0] - 1
    while line >= 0 and not lines[line].strip():
        line -= 1
    before = _BEFORE.match(lines[line]) if line >= 0 else None
    if before is not None and _names_file(before["path"]):
        return before["path"], token.content
    first, _, rest = token.content.partition("\n")
    comment = _COMMENT.match(first)
    if comment is not None and _names_file(comment["path"]) and not first.startswith("#!"):
        return comment["path"], rest
    return None, token.content


def _names_file(word: str) -> bool:
    """Say whether a word is a path and no plain word; whether it may be written is asked later."""
    last = word.replace("\\", "/").rpartition("/")[2]
    if last in _BARE:
        return True
    odd = word.startswith(("/", "~", "..")) or "\\" in word
    return bool(_SUFFIX.search(last)) and (odd or bool(_LIKELY.match(word)))


def _jailed(name: str) -> str:
    """Give a path that cannot lead out; refuse every other one."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    outside = name.startswith(("/", "~")) or ".." in parts or "\\" in name or ":" in name
    unfit = not name.isprintable() or any(
        len(part.encode("utf-8", "replace")) > 255 or part != part.strip() for part in parts
    )
    if outside or unfit or not parts or len(name) > 1000:
        raise _Bad("path", name if name.isprintable() else "")
    return "/".join(parts)
