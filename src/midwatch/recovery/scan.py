"""Scan: where in a text does something stand that is, or was meant to be, a JSON object or array?

In:   text.
Out:  regions in the order of the text, none inside another: decoded strictly, refused with a code, or broken.
May import: recovery.strict, recovery.tags and the standard library. Must not know: schemas, repair.
Why regions: once an object is broken, the objects inside it are fragments. `{"tool": "move", "args": {"to": "b"},}`
must not be read as `{"to": "b"}`, so a broken region is passed over as a whole. Thoughts (`<think>…</think>`) are no
answer, but the same tag inside a JSON string is text; one pass from left to right tells the two apart.
Why a budget: each attempt may read far ahead and fail. All attempts together may read `WORK` times the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from midwatch.recovery.strict import MAX_DEPTH, NotStrict, decode_at
from midwatch.recovery.tags import OPENING, Tagged, tagged_at

__all__ = ["Region", "TooComplex", "scan"]

WORK: Final = 24
ATTEMPTS: Final = 4_096
_THOUGHT: Final = r"(?:think|thinking|thought|reasoning|scratchpad)"
_TOKEN: Final = re.compile(
    rf"(?P<think><(?P<tag>{_THOUGHT})>)|(?P<thought></{_THOUGHT}>)|(?P<fence>`{{3,}}|~{{3,}})|(?P<call>{OPENING})|(?P<open>[\[{{])",
    re.IGNORECASE,
)
_STRICT_START: Final = re.compile(r'\{\s{0,1000}["}]|\[\s{0,1000}["{\[\]0-9tfnNI-]')
_COMMENT: Final = r"(?://[^\n]{0,300}\n|/\*[^*]{0,300}\*/|\#[^\n]{0,300}\n)"
_QUOTE: Final = "[\"'`\u2018\u2019\u201c\u201d]"
_OBJECT_START: Final = re.compile(
    rf"\{{[\s,]{{0,1000}}(?:{_COMMENT}\s{{0,100}}){{0,5}}"
    rf"(?:\\?{_QUOTE}[^\"'`\u2018\u2019\u201c\u201d\n\\]{{0,200}}\\?{_QUOTE}|[\w$.-]{{1,100}})\s{{0,100}}:"
)
_ARRAY_START: Final = re.compile(r"\[\s{0,1000}(?:[\"'\u2018\u201c{\[]|-?\d|(?:true|false|null|True|False|None|NaN)\b)")
_COUNTED: Final = re.compile(r"\[\s{0,1000}[^\"'\u2018\u201c{\[]")
_INSIDE: Final = re.compile(
    r'"(?P<double>[^"\\]*(?:\\.[^"\\]*)*(?P<double_end>"?))'
    r"|(?<=[{\[,:(])(?P<space>\s{0,200})'(?P<single>[^'\\]*(?:\\.[^'\\]*)*(?P<single_end>'?))"
    r"|\\.|//[^\n]*|/\*|(?P<open>[{\[])|(?P<close>[}\]])|(?P<elided>\.\.\.|\u2026|`|\b(?:undefined|nil|NULL)\b)",
    re.DOTALL,
)
_CUT: Final = re.compile(rf"`{{3,}}|~{{3,}}|</(?:{_THOUGHT}|tool_call|function_call|answer|output)>", re.IGNORECASE)
_COMPLETE: Final = re.compile(r"(?:[}\]\"'\u201d]|\b(?:true|false|null|True|False|None))\s*\Z")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_PAIR: Final = {"}": "{", "]": "["}


class TooComplex(Exception):
    """The text begins more values than may be tried. `recover` turns it into a refusal."""


@dataclass(frozen=True, slots=True)
class Region:
    """One place of the text.

    Attributes:
        start, end: offsets in characters.
        fenced: inside a fenced block.
        code: empty for a strict value and for a broken region worth a repair; else why it can be neither.
        strict: decoded without any repair; `value` counts then.
        call: written as elements; its values have no types yet.
    """

    start: int
    end: int
    fenced: bool
    code: str = ""
    strict: bool = False
    value: Any = None
    call: Tagged | None = None


@dataclass(frozen=True, slots=True)
class _Extent:
    end: int
    closed: bool
    in_string: bool
    elided: bool
    too_deep: bool


def scan(text: str) -> list[Region]:
    """List the regions of the text.

    Raises:
        TooComplex: more than `ATTEMPTS` beginnings, or more than `WORK` times the text read ahead.
    """
    regions: list[Region] = []
    position, fenced, attempts, work = 0, False, 0, WORK * (len(text) + 1_000)
    while token := _TOKEN.search(text, position):
        position = token.end()
        if token["fence"]:
            fenced = not fenced
        elif token["think"]:
            closing = re.compile(f"</{token['tag']}>", re.IGNORECASE).search(text, position)
            position = closing.end() if closing else len(text)
        elif token["thought"]:
            # A lone end tag: the model's template swallowed the beginning, and all before it was thought.
            regions, fenced = [], False
        elif token["call"]:
            call, position = tagged_at(text, token.start())
            place = (token.start(), position, fenced)
            regions.append(
                Region(*place, code=call) if isinstance(call, str) else Region(*place, strict=True, call=call)
            )
            attempts += 1
        else:
            attempts += 1
            region, read = _region_at(text, token.start(), fenced)
            work -= read
            if attempts > ATTEMPTS or work < 0:
                raise TooComplex
            if region is not None:
                regions.append(region)
                position = region.end
    return regions


def _region_at(text: str, start: int, fenced: bool) -> tuple[Region | None, int]:  # noqa: FBT001 - private, positional
    """Give the region that begins at `start`, or None for prose, and how many characters were read to know."""
    read, code = 1, "syntax"
    if _STRICT_START.match(text, start):
        try:
            value, end = decode_at(text, start)
            return Region(start, end, fenced, strict=True, value=value), end - start
        except NotStrict as problem:
            code = problem.code
            read = (problem.at if problem.at >= 0 else len(text)) - start
    likely = _OBJECT_START if text[start] == "{" else _ARRAY_START
    if code == "syntax" and not likely.match(text, start):
        return None, read
    extent = _extent(text, start, len(text))
    read += extent.end - start
    if not extent.closed:
        if code == "syntax" and _COUNTED.match(text, start):
            return None, read  # a half-open interval such as `[0, 1)`; a list of objects never begins so
        cut = _CUT.search(text, start)
        if cut:
            extent = _extent(text, start, cut.start())
            read += extent.end - start
    return Region(start, extent.end, fenced, code=_doubt(text, start, extent) if code == "syntax" else code), read


def _doubt(text: str, start: int, extent: _Extent) -> str:
    """Say why a broken region must not be repaired, or nothing."""
    if extent.too_deep:
        return "too_deep"
    if extent.elided:
        return (
            "ambiguous"  # something was left out (`...`), or written in a way that repair reads wrongly: `x`, undefined
        )
    if _mixed_escapes(text[start : extent.end]):
        return "ambiguous"  # `C:\\Users\\new` with single backslashes: nobody can say which of them were meant
    if not extent.closed and (extent.in_string or not _COMPLETE.search(text, max(start, extent.end - 80), extent.end)):
        return "truncated"  # `{"name": "rest` would be repaired to a value that nobody wrote
    return ""


def _mixed_escapes(region: str) -> bool:
    """Say whether escapes that JSON knows, as for a new line, stand beside ones that it does not."""
    letters = set(_ESCAPE.findall(region))
    return bool(letters & set("bfnrt")) and bool(letters - set("bfnrtu\"'\\/\n"))


def _extent(text: str, start: int, stop: int) -> _Extent:
    """Find the end of a broken value: brackets are counted outside strings and comments."""
    stack: list[str] = []
    elided = too_deep = False
    position = start
    while token := _INSIDE.search(text, position, stop):
        position = token.end()
        if token["double"] is not None or token["single"] is not None:
            if not (token["double_end"] or token["single_end"]):
                return _Extent(stop, closed=False, in_string=True, elided=elided, too_deep=too_deep)
        elif token["elided"]:
            elided = True
        elif token["open"]:
            stack.append(token["open"])
            too_deep = too_deep or len(stack) > MAX_DEPTH
        elif token["close"]:
            _close(stack, _PAIR[token["close"]])
            if not stack:
                return _Extent(position, closed=True, in_string=False, elided=elided, too_deep=too_deep)
        elif token[0] == "/*":
            ending = text.find("*/", position, stop)
            position = ending + 2 if ending >= 0 else stop
    return _Extent(stop, closed=False, in_string=False, elided=elided, too_deep=too_deep)


def _close(stack: list[str], opener: str) -> None:
    """Close the innermost bracket of this kind and what was left open inside it; ignore one that closes nothing."""
    if opener in stack[-MAX_DEPTH:]:
        while stack.pop() != opener:
            pass
