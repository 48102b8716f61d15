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

What several arguments say together (`gates.siblings`): texts of one object or list pasted together, commands among them spread over
several arguments, names that one text uses and another argument gives a value, numbers that count letters. Such a hit names what was
done first (`joined`, `beside`, `filled`), and counts only where no argument says the word by itself.

A fleet's own keywords match on the same readings, by the rule of `words.keyword`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from midwatch.gates.canonical import Reading, Readings, readings
from midwatch.gates.letters import GAMES, clean, fold
from midwatch.gates.siblings import columns, filled, joined, numbered
from midwatch.gates.words import WORDS, Manner, families, keyword

__all__ = ["TOOL", "UNREADABLE", "WORDS", "Hit", "Roles", "read"]

TOOL: Final = "(tool)"
UNREADABLE: Final = "unreadable"
NESTING = 32  # levels of lists and objects; deeper is unreadable
TEXTS = 4096  # texts of one call; more is unreadable
_ENDS: Final[tuple[Manner, ...]] = ("prose", "letters")  # long ones are read at their two ends
# Bill of customer care; `data: base64`.
_NEIGHBOURS = frozenset({("beside", "billing"), ("keyed", "database")})
_WORDS, _SHORT, _AT_ONCE = 32, 48, 32
_MARKED = re.compile(r"['\"`\\$(){}<>%&;|=\x08\x1b\u202e]")  # marks that may change how the next text is read
TOGETHER = 65_536  # characters that several arguments say together; more is unreadable in all but content

_STRICTER: Final[tuple[Manner, ...]] = ("prose", "act", "command")

Roles = Callable[[str], tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Hit:
    """One reason to ask.

    Attributes:
        word: one of `WORDS`, a keyword of the fleet's own, or `UNREADABLE`.
        argument: dotted name of the argument, a list's items under the list's; `TOOL` for the tool's name; `left+right` for what two
            say together.
        reading: the layers undone, such as `plain`, `shell`, `base64+shell`, `joined`.
    """

    word: str
    argument: str
    reading: str


@dataclass(frozen=True, slots=True)
class _Text:
    argument: str
    manner: Manner
    text: str | None  # none where nesting is too deep to be read
    how: str = ""  # what put several arguments together, nothing where it is one
    name: str = ""  # the last part of the argument's name, where the text is its whole value


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
    alone: list[_Text] = [_Text(TOOL, "tool", tool_name)]
    together: list[_Text] = []
    for piece in _texts(arguments, "", roles, 0):
        if len(alone) > TEXTS:
            hits[UNREADABLE, piece.argument] = Hit(UNREADABLE, piece.argument, "plain")
            break
        (together if piece.how else alone).append(piece)
    for piece in alone:
        for found in _hits(piece, own):
            hits.setdefault((found.word, found.argument), found)
    said = {word for word, _ in hits}
    for found in _of_several([*together, *_filled(alone)], own, said):
        hits.setdefault((found.word, found.argument), found)
    return tuple(hits.values())


def _of_several(pieces: Sequence[_Text], own: Sequence[tuple[str, str]], said: Collection[str]) -> Iterator[Hit]:
    """Read what several arguments say together; hits that no argument has by itself."""
    spent = 0
    plain: dict[tuple[Manner, bool], list[_Text]] = {}
    each: list[_Text] = []
    for piece in pieces:
        text = piece.text or ""
        spent += len(text)
        if spent > TOGETHER:
            if piece.manner not in _ENDS:
                yield Hit(UNREADABLE, piece.argument, piece.how)
                break
            continue
        (each if _MARKED.search(text) else plain.setdefault((piece.manner, piece.how == "keyed"), [])).append(piece)
    # Texts of words only cannot hide one another: those are read in one go, and one by one where that finds something.
    for texts in plain.values():
        for start in range(0, len(texts), _AT_ONCE):
            some = texts[start : start + _AT_ONCE]
            lines = "\n".join(dict.fromkeys(piece.text or "" for piece in some))
            if any(hit.word not in said for hit in _hits(replace(some[0], text=lines), own)):
                each.extend(some)
    for piece in each:
        for found in _hits(piece, own):
            if found.word not in said and (piece.how, found.word) not in _NEIGHBOURS:
                yield found


def _filled(pieces: Sequence[_Text]) -> Iterator[_Text]:
    named = [(piece.name, piece.text or "") for piece in pieces]
    for place, text in filled(named):
        yield _Text(pieces[place].argument, pieces[place].manner, text, "filled")


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
        yield from _of_object(value, path, roles)
    elif isinstance(value, list | tuple):
        words = [item for item in value if isinstance(item, str)]
        manner = _manner(roles, path)
        if len(words) > 1 and manner == "command":
            yield _Text(path, manner, shlex.join(words[:256]))
        if manner and len(value) > 3 and (said := numbered(value)):
            yield _Text(path, manner, said)
        for item in value:
            yield from _texts(item, path, roles, depth + 1)
        yield from _together([(path, word) for word in words[:256]], roles)
        for key, texts in columns(value):
            yield from _together([(f"{path}.{key}", text) for text in texts], roles)
    elif isinstance(value, str):
        manner = _manner(roles, path)
        if manner:
            yield _Text(path, manner, value, name=path.rpartition(".")[2])


def _of_object(value: Mapping[Any, Any], path: str, roles: Roles) -> Iterator[_Text]:
    """What the values of an object say together: its texts, lists of words among them, and equal keys of its own objects."""
    said: list[tuple[str, str]] = []
    keyed: list[str] = []
    for key, inner in value.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(inner, str):
            said.append((name, inner))
            if 0 < len(inner) <= _SHORT and len(str(key)) <= _SHORT and _manner(roles, name):
                keyed.append(f"{key}{inner}")
        elif (
            isinstance(inner, list | tuple) and 0 < len(inner) <= _WORDS and all(isinstance(one, str) for one in inner)
        ):
            said.append((name, " ".join(inner)))
    yield from _together(said, roles)
    if path and keyed:
        yield _Text(path, "letters", "\n".join(keyed[:TEXTS]), "keyed")
    for key, texts in columns(tuple(value.values())):
        yield from _together([(f"{path}.{key}" if path else key, text) for text in texts], roles)


def _together(named: Sequence[tuple[str, str]], roles: Roles) -> Iterator[_Text]:
    """What the texts of one object or list say together, read as the least strict of them is."""
    heard = [(name, manner, text) for name, text in named if text and (manner := _manner(roles, name))]
    if len(heard) < 2:
        return
    names = list(dict.fromkeys(name for name, _, _ in heard))
    argument = "+".join(names if len(names) < 4 else [names[0], names[-1]])
    least = min((manner for _, manner, _ in heard), key=_STRICTER.index)
    for how, text in joined([text for _, _, text in heard]):
        yield _Text(argument, least, text, how)


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
    # A key with its value is a word or none: nothing is undone for it.
    found = (
        readings(piece.text)
        if piece.how != "keyed"
        else Readings((Reading(fold(clean(piece.text))),), truncated=False, windowed=False)
    )
    wanted = set(WORDS) | {word for word, _ in own}
    for reading in found.all:
        game = bool(reading.layers) and reading.layers[-1] in GAMES
        for word in families(reading.text, "letters" if game else piece.manner, gaps="shell" not in reading.layers):
            if word in wanted:
                wanted.discard(word)
                yield Hit(word, piece.argument, _name(piece, reading))
        for word, folded in own:
            if word in wanted and keyword(reading.text, folded):
                wanted.discard(word)
                yield Hit(word, piece.argument, _name(piece, reading))
    if _unread(found, piece.manner):
        yield Hit(UNREADABLE, piece.argument, "plain")


def _name(piece: _Text, reading: Reading) -> str:
    return "+".join(filter(None, (piece.how, *reading.layers))) or reading.name


def _unread(found: Readings, manner: Manner) -> bool:
    return found.truncated or (found.windowed and manner not in _ENDS)
