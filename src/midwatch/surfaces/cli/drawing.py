"""Drawing: styled text in columns, trees and a block that is drawn anew, on a terminal of any width.

In:   pieces of text that `plain` has made harmless, and their styles. Out: lines, with colour where the stream takes it.
May import: the standard library, `common`'s `plain`. Must not know: runs, tables' meaning, where lines go to.
Why not a library: those at hand bring megabytes of what no command shows; nothing but this is needed, and nothing in it reads markup.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TextIO

from midwatch.surfaces.cli.common import plain

__all__ = ["Branch", "Line", "columns", "line", "live", "output", "styled"]

_CODES: Final = {
    "": "",
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
_WIDE: Final = 200
"""Least width where no terminal is: a pipe gets wide lines, so that little is folded."""

_NARROWEST: Final = 6
_SPACE: Final = "  "
_EVERY_S: Final = 0.125

Line = tuple[tuple[str, str], ...]
"""Pieces of one line: text and style."""


def line(*parts: str | tuple[str, str]) -> Line:
    """Make one line; a piece is text, or text with the name of a style."""
    pairs = (part if isinstance(part, tuple) else (part, "") for part in parts)
    return tuple((plain(text).replace("\n", " ").replace("\t", " "), style) for text, style in pairs)


def styled(pieces: Line, *, colour: bool) -> str:
    """Give a line as it goes to the stream."""
    return "".join(
        f"\x1b[{_CODES[style]}m{text}\x1b[0m" if colour and style and text else text for text, style in pieces
    ).rstrip()


def columns(rows: Sequence[Sequence[Sequence[Line]]], *, right: Sequence[bool], width: int) -> list[list[Line]]:
    """Lay cells, each of several lines, out in columns that are as wide as their widest cell; gives the lines of each row.

    What does not fit is folded within its cell.

    Args:
        right: by column, whether it is set flush right. width: of the whole.
    """
    wide = [max((_width(part) for row in rows for part in row[at]), default=0) for at in range(len(right))]
    room = max(width - len(_SPACE) * (len(wide) - 1), len(wide))
    while sum(wide) > room and max(wide) > _NARROWEST:
        wide[wide.index(max(wide))] -= 1
    laid: list[list[Line]] = []
    for row in rows:
        cells = [
            [part for whole in cell for part in _folded(whole, size)] for cell, size in zip(row, wide, strict=True)
        ]
        laid.append([_across(cells, at, wide, right) for at in range(max(map(len, cells), default=0))])
    return laid


def _across(cells: Sequence[Sequence[Line]], at: int, wide: Sequence[int], right: Sequence[bool]) -> Line:
    """Put the lines of neighbouring cells side by side."""
    pieces: list[tuple[str, str]] = []
    for cell, size, flush in zip(cells, wide, right, strict=True):
        part = cell[at] if at < len(cell) else ()
        blank = (" " * (size - _width(part)), "")
        pieces += [*([(_SPACE, "")] if pieces else []), *((blank, *part) if flush else (*part, blank))]
    return tuple(pieces)


@dataclass(slots=True)
class Branch:
    """One line of a tree, and what hangs below it."""

    text: Line
    below: list[Branch] = field(default_factory=list)

    def add(self, text: Line) -> Branch:
        """Hang a line below this one; gives it."""
        branch = Branch(text)
        self.below.append(branch)
        return branch

    def lines(self, width: int) -> list[Line]:
        """Draw the tree."""
        drawn = _folded(self.text, width)
        for item in self.below:
            last = item is self.below[-1]
            head, rest = ("└── ", "    ") if last else ("├── ", "│   ")
            inner = item.lines(max(width - len(head), 2 * _NARROWEST))
            drawn += [((head if at == 0 else rest, ""), *pieces) for at, pieces in enumerate(inner)]
        return drawn


def output(stream: TextIO) -> tuple[int, bool]:
    """Give the width of a stream as it is now, and whether it takes colour."""
    size = shutil.get_terminal_size().columns
    if not stream.isatty():
        return max(_WIDE, size), False
    return size, not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def live(draw: Callable[[], Sequence[Line]]) -> Iterator[None]:
    """Draw lines on the terminal of stderr a few times a second while the block runs; the last picture stays.

    What others write to stderr meanwhile appears above the picture.
    """
    screen = _Screen(sys.stderr, draw)
    thread = threading.Thread(target=screen.run, name="midwatch-picture", daemon=True)
    before, sys.stderr = sys.stderr, screen
    thread.start()
    try:
        yield
    finally:
        sys.stderr = before
        screen.stop()
        thread.join()


class _Screen:
    """A terminal with a picture at its end."""

    def __init__(self, stream: TextIO, draw: Callable[[], Sequence[Line]]) -> None:
        self._stream, self._draw = stream, draw
        self._lock, self._done = threading.RLock(), threading.Event()
        self._drawn, self._begun = 0, ""

    def run(self) -> None:
        """Draw until stopped, and once more at the end."""
        while not self._done.wait(_EVERY_S):
            self._again()
        self._again()

    def stop(self) -> None:
        """Draw no more; what was begun above the picture is ended."""
        if self._begun:
            self.write("\n")
        self._done.set()

    def write(self, text: str) -> int:
        """Put whole lines above the picture."""
        with self._lock:
            whole, mark, self._begun = (self._begun + text).rpartition("\n")
            if mark:
                self._stream.write(self._cleared() + whole + mark)
                self._drawn = 0
                self._again()
        return len(text)

    def flush(self) -> None:
        """As of a stream."""
        self._stream.flush()

    def isatty(self) -> bool:
        """As of a stream."""
        return self._stream.isatty()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def _cleared(self) -> str:
        return f"\x1b[{self._drawn}A\r\x1b[J" if self._drawn else ""

    def _again(self) -> None:
        with self._lock:
            size = shutil.get_terminal_size()
            _, colour = output(self._stream)
            lines = [_cut(item, size.columns - 1) for item in self._draw()][: max(size.lines - 1, 1)]
            drawn = "".join(f"{styled(item, colour=colour)}\n" for item in lines)
            self._stream.write(self._cleared() + drawn)
            self._drawn = len(lines)
            self._stream.flush()


def _width(pieces: Line) -> int:
    return sum(_wide(char) for text, _ in pieces for char in text)


def _wide(char: str) -> int:
    """Give how many places of a terminal a letter takes."""
    if char.isascii():
        return 1
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def _cut(pieces: Line, width: int) -> Line:
    """Cut a line that is too long, and show that it was."""
    return pieces if _width(pieces) <= width else (*_folded(pieces, max(width - 1, 1), words=False)[0], ("…", ""))


def _folded(pieces: Line, width: int, *, words: bool = True) -> list[Line]:
    """Break a line at blanks, else anywhere, so that each part fits."""
    letters = [(char, style) for text, style in pieces for char in text]
    lines: list[Line] = []
    while letters:
        used, end, blank = 0, 0, 0
        while end < len(letters) and (end == 0 or used + _wide(letters[end][0]) <= width):
            used += _wide(letters[end][0])
            end += 1
            if end < len(letters) and letters[end][0] == " ":
                blank = end
        if end < len(letters) and words and blank:
            end = blank
        lines.append(_joined(letters[:end]))
        letters = letters[end:]
        while lines and letters and letters[0][0] == " ":
            letters = letters[1:]
    return lines or [()]


def _joined(letters: Sequence[tuple[str, str]]) -> Line:
    pieces: list[tuple[str, str]] = []
    for char, style in letters:
        if pieces and pieces[-1][1] == style:
            pieces[-1] = (pieces[-1][0] + char, style)
        else:
            pieces.append((char, style))
    return tuple(pieces)
