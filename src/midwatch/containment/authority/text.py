"""Text: contents as lines that mean something, and what is new in them.

In:   a file effect. Out: its two texts; lists of entries without comments; a judgement line by line.
May import: facts, the watch-list's spelling. Must not know: any one format.
Why some text is refused as unreadable: what one program takes for a comment another runs. A lone carriage return, a form feed, a line
separator, a byte order mark that was not there, letters that turn the direction, bytes that are no UTF-8: a person looks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from midwatch.containment.authority.facts import MOST, File, Finding, Inert, Power, Unreadable, granted

__all__ = ["Lines", "continued", "hashed", "judge_lines", "new_in", "script", "texts"]

_ODD: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]|\r(?!\n)|\ufeff"
)


@dataclass(frozen=True, slots=True)
class Lines:
    """How a format of lines is judged.

    Attributes:
        entries: the lines that mean something. gains: the power that a new one gives; None: none.
        losses: the power that a line gives by going. ordered: a line that only moved counts, with this power.
    """

    entries: Callable[[str], Sequence[str]]
    gains: Callable[[str], Power | None]
    losses: Callable[[str], Power | None] = lambda _: None
    ordered: Power | None = None


def texts(effect: File) -> tuple[str, str]:
    """Give the text before and after; empty where there is no file.

    Raises:
        Unreadable: it is not given, no text, no plain file, or holds what programs read in different ways.
    """
    change = effect.change
    if effect.unread:
        raise Unreadable(effect.unread)
    if change.op != "deleted" and change.kind == "link":
        raise Unreadable("it is a link: whatever it leads to is obeyed in its place")
    if change.op != "deleted" and change.kind == "other":
        raise Unreadable("it is a device, FIFO or socket")
    before = effect.before or b""
    after = b"" if change.op == "deleted" else effect.after
    if after is None:
        raise Unreadable("its content is not at hand")
    if max(len(before), len(after)) > MOST:
        raise Unreadable("it is too large to be looked through")
    new = _decoded(after)
    try:
        old = _decoded(before)
    except Unreadable:
        old = ""  # whatever it was, all of what it is now counts as new
    strange = set(_ODD.findall(new)) - set(_ODD.findall(old))
    if strange:
        raise Unreadable("it holds characters that hide, or that programs read in different ways")
    return old.removeprefix("\ufeff").replace("\r\n", "\n"), new.removeprefix("\ufeff").replace("\r\n", "\n")


def judge_lines(effect: File, how: str, lines: Lines) -> Iterator[Finding]:
    """Say what the lines that are new, or gone, grant."""
    before, after = texts(effect)
    old, new = list(lines.entries(before)), list(lines.entries(after))
    come, gone = new_in(old, new), new_in(new, old)
    powers = [power for line in come if (power := lines.gains(line))]
    powers += [power for line in gone if (power := lines.losses(line))]
    if not come and lines.ordered is not None and not _within(new, old):
        powers.append(lines.ordered)
    for what, to_whom, why in dict.fromkeys(powers):
        yield granted(what, to_whom, effect.change.path, how, why)
    if not powers:
        yield Inert(effect.change.path, how, _told(effect, come, gone))


def new_in(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Give what occurs more often in `new`, in its order."""
    left = Counter(old)
    found = []
    for line in new:
        if left[line]:
            left[line] -= 1
        else:
            found.append(line)
    return found


def hashed(text: str, marks: str = "#") -> list[str]:
    """Give the lines that are no comment: nothing, or nothing but white space, before the mark."""
    return [line for line in map(str.strip, continued(text, marks)) if line and line[0] not in marks]


def continued(text: str, marks: str = "#") -> list[str]:
    """Give lines with those put together that a backslash continues.

    A comment that ends in a backslash ends there for some programs and goes on for others: the line after it counts as one of its own.
    """
    found: list[str] = []
    open_line = False
    for line in text.split("\n"):
        comment = line.lstrip()[:1] in tuple(marks) if line.strip() else False
        if open_line:
            found[-1] += line.removesuffix("\\")
        else:
            found.append(line.removesuffix("\\"))
        open_line = line.endswith("\\") and not (comment and not open_line)
    return found


def script(text: str) -> list[str]:
    """Give the lines of a script that do something. Where a text goes on over lines, what looks like a comment may be none: all count."""
    return [line.strip() for line in text.split("\n") if line.strip()] if _goes_on(text) else hashed(text)


def _goes_on(text: str) -> bool:
    for line in text.split("\n"):
        if not line.lstrip().startswith("#"):
            plain = re.sub(r"\\.|'[^']*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`", "", line)
            if re.search(r"<<|['\"`]", plain):
                return True
    return False


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("it is no UTF-8 text") from error


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    rest = iter(whole)
    return all(line in rest for line in part)


def _told(effect: File, come: Sequence[str], gone: Sequence[str]) -> str:
    if effect.change.op == "deleted":
        return "it is taken away, and nobody gains by that"
    if not come and not gone:
        return "only comments, blank lines or layout differ"
    if not come:
        return "it only takes away"
    return "nothing in what is new gives anybody a power"
