"""The floor: calls about deploying, production, databases, billing or deleting wait for a person, however the word is written.

In:   a tool's name, its arguments, the role of each argument, the fleet's own keywords.
Out:  hits: which word, in which argument, and which disguise was undone; never the value.
May import: gates.canonical, gates.words, records. Must not know: rules, who answers, containment.
Why a floor and not a boundary: words can always be avoided. The boundary is effect class, role and label; this catches what a
tired reader would have caught, and what somebody hides from one.

What is read, and how strictly (`gates.words`, `Manner`):
    the tool's name, keys of objects            as identifiers (`db.drop_table`, `purgeUsers`); a key whose value is false or null
                                                says that it will not happen, and is not read
    command                                     as commands; a list of words also as one command line
    target, selector, credential, control       as identifiers, paths, hosts and values
    content that somebody acts on (interprets)  as prose: a sentence, a script, a statement
    content that nobody acts on, quantities     not at all: a report may speak of databases
    a role that nobody knows                    as a command: what is unknown counts as the worst

What could not be read whole is a hit of the word `UNREADABLE`: a disguise deeper or larger than the caps of `gates.canonical` in
any argument, and a text longer than its window in all but content. Content beyond the window is read at its two ends.

A fleet's own keywords match on the same readings, by the rule of `words.keyword`.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from midwatch.gates.canonical import Readings, readings
from midwatch.gates.letters import GAMES, fold
from midwatch.gates.words import WORDS, Manner, families, keyword

__all__ = ["TOOL", "UNREADABLE", "WORDS", "Hit", "Roles", "read"]

TOOL: Final = "(tool)"
UNREADABLE: Final = "unreadable"
NESTING = 32  # levels of lists and objects; deeper is unreadable
TEXTS = 4096  # texts of one call; more is unreadable

Roles = Callable[[str], tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Hit:
    """One reason to ask.

    Attributes:
        word: one of `WORDS`, a keyword of the fleet's own, or `UNREADABLE`.
        argument: dotted name of the argument, a list's items under the list's; `TOOL` for the tool's name.
        reading: the layers undone, such as `plain`, `shell`, `base64+shell`.
    """

    word: str
    argument: str
    reading: str


@dataclass(frozen=True, slots=True)
class _Text:
    argument: str
    manner: Manner
    text: str | None  # none where nesting is too deep to be read


def read(tool_name: str, arguments: Mapping[str, Any], roles: Roles, extra: Sequence[str] = ()) -> tuple[Hit, ...]:
    """Find what in a call is about the five words.

    Args:
        tool_name: as the agent calls it.
        arguments: parsed JSON.
        roles: dotted name -> (role, whether somebody acts on the content).
        extra: the fleet's own keywords.

    Returns:
        one hit for each word and argument, by the plainest reading that shows it; empty when nothing is found.
    """
    hits: dict[tuple[str, str], Hit] = {}
    own = tuple((word, fold(word).strip()) for word in extra)
    pieces = itertools.chain([_Text(TOOL, "tool", tool_name)], _texts(arguments, "", roles, 0))
    for count, piece in enumerate(pieces):
        if count > TEXTS:
            hits.setdefault((UNREADABLE, piece.argument), Hit(UNREADABLE, piece.argument, "plain"))
            break
        for found in _hits(piece, own):
            hits.setdefault((found.word, found.argument), found)
    return tuple(hits.values())


def _texts(value: Any, path: str, roles: Roles, depth: int) -> Iterator[_Text]:
    if depth > NESTING:
        yield _Text(path, "act", None)
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = f"{path}.{key}" if path else str(key)
            if inner is not False and inner is not None and _manner(roles, name):
                yield _Text(name, "act", str(key))
            yield from _texts(inner, name, roles, depth + 1)
    elif isinstance(value, list | tuple):
        words = [item for item in value if isinstance(item, str)]
        if len(words) > 1 and _manner(roles, path) == "command":
            yield _Text(path, "command", shlex.join(words[:256]))
        for item in value:
            yield from _texts(item, path, roles, depth + 1)
    elif isinstance(value, str):
        manner = _manner(roles, path)
        if manner:
            yield _Text(path, manner, value)


def _manner(roles: Roles, name: str) -> Manner | None:
    role, interprets = roles(name)
    if role == "quantity" or (role == "content" and not interprets):
        return None
    if role == "content":
        return "prose"
    return "act" if role in {"target", "selector", "credential", "control"} else "command"


def _hits(piece: _Text, own: Sequence[tuple[str, str]]) -> Iterator[Hit]:
    if piece.text is None:
        yield Hit(UNREADABLE, piece.argument, "plain")
        return
    found = readings(piece.text)
    wanted = set(WORDS) | {word for word, _ in own}
    for reading in found.all:
        game = bool(reading.layers) and reading.layers[-1] in GAMES
        for word in families(reading.text, "letters" if game else piece.manner, gaps="shell" not in reading.layers):
            if word in wanted:
                wanted.discard(word)
                yield Hit(word, piece.argument, reading.name)
        for word, folded in own:
            if word in wanted and keyword(reading.text, folded):
                wanted.discard(word)
                yield Hit(word, piece.argument, reading.name)
    if _unread(found, piece.manner):
        yield Hit(UNREADABLE, piece.argument, "plain")


def _unread(found: Readings, manner: Manner) -> bool:
    return found.truncated or (found.windowed and manner != "prose")
