"""Agents: what instructs an agent, equips it, or says what it may do; and the fleet's own files.

In:   a file effect. Out: findings.
May import: facts, text, tree, places. Must not know: what any model makes of a text.
Why every sentence of an instruction file counts: whoever reads it next obeys it, and no detector of phrases could say which sentence is
harmless (CONTAINMENT.md 24, research on instruction files). Only layout, and what is taken away, is inert; a rule that forbade something
and goes is not.
Source: Model Context Protocol (server lists in `mcpServers`), settings files of the usual coding agents, `docs/reference/fleet-file.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from midwatch.containment.authority.facts import Effect, File, Finding, Power, Unreadable, granted, listed
from midwatch.containment.authority.places import AGENTS, CI, FLEET, family, last, parts, within
from midwatch.containment.authority.text import Lines, judge_lines
from midwatch.containment.authority.tree import Rules, Tree, json_tree, judge_tree, toml_tree, yaml_tree, yes

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "agents"
_WHO: Final = "the agents that read it"
_PROSE: Final = (".md", ".mdc", ".txt", ".markdown", ".rst")
_OWN: Final = listed("fleet.yaml fleet.yml fleet.json midwatch.yaml midwatch.toml")
_PROMPTS: Final = frozenset({"prompts", "system_prompts"})


def _power(what: str, why: str, who: str = _WHO) -> Power:
    return what, who, why


_SETTINGS: Final = Rules(
    (
        (
            r".*(?:mcp_?servers|servers|mcp|context_servers)(?:[.\[].*)?",
            _power("use tools of another server, which learns what they tell it", "it sets PLACE"),
        ),
        (
            (
                r".*(?:permissions|allow|allowed\w*|autoapprov\w*|auto_?approv\w*|approval\w*|"
                r"sandbox\w*|trust\w*|dangerous\w*|yolo|bypass\w*|deny|ask"
                r"|defaultmode|additionaldirectories|whitelist|exclude\w*)(?:[.\[].*)?"
            ),
            _power("act without being asked", "it sets PLACE"),
        ),
        (
            r".*(?:hooks?|statusline|apikeyhelper|\w*command|lint-cmd|test-cmd|notify)(?:[.\[].*)?",
            _power("be run by the agent's program", "it sets PLACE", "the program that it names"),
        ),
        (
            r".*(?:env|api_?base|base_?url|proxy|apikey|api_key)(?:[.\[].*)?",
            _power("see what the agent tells its model, or choose its switches", "it sets PLACE", "whoever it names"),
        ),
        (
            r".*(?:instructions|prompt|system\w*|read|rules|context\w*|memory|persona)(?:[.\[].*)?",
            _power("be told something by it, in every session", "it sets PLACE"),
        ),
    ),
    (
        (
            r".*(?:theme|fontsize|vimmode|spinner\w*|terminal_?bell|dark-mode|light-mode|"
            r"color\w*|telemetry|cleanupperioddays)"
        ),
        r"(?:\$schema|version)",
    ),
    _power("act in another way, in every session", "it sets PLACE"),
    (
        (
            r".*(?:deny|ask|disallowed\w*|blocked\w*|disable\w*|sandbox\w*|allowmanaged\w*|\w*ignore\w*|permissions)(?:[.\[].*)?",
            _power("do what was refused until now", "PLACE is no longer set"),
        ),
    ),
    lambda place, value: (
        re.search(r"(?:^|\.)(?:deny|disallowed\w*|blocked\w*)\[\]$", place, re.IGNORECASE) is not None
        or (
            re.search(r"(?:^|\.)(?:autoapprove|auto_approve|trust|bypass\w*|yolo)$", place, re.IGNORECASE) is not None
            and not yes(value)
        )
    ),
)

_FLEET: Final = Rules(
    (
        (
            r"(?:grants|policies|sources|mandates)(?:[.\[].*)?",
            _power("cause more than they were granted", "it sets PLACE", "agents of the fleet"),
        ),
        (
            r"(?:gates|review|environment)(?:[.\[].*)?",
            _power("act where a person was asked", "it sets PLACE", "agents of the fleet"),
        ),
        (
            r"(?:budgets|.*\.limits|governor|limits)(?:[.\[].*)?",
            _power("spend more, or go on for longer", "it sets PLACE", "agents of the fleet"),
        ),
        (
            r"(?:sandbox|.*\.sandbox|detectors)(?:[.\[].*)?",
            _power("reach more from where its tools act", "it sets PLACE", "agents of the fleet"),
        ),
        (r"(?:tools|.*\.tools)(?:[.\[].*)?", _power("use other tools", "it sets PLACE", "agents of the fleet")),
        (
            r"(?:agents\..*\.prompt\w*|.*\.command(?:[.\[].*)?)",
            _power("be told something by it, in every run", "it sets PLACE", "agents of the fleet"),
        ),
        (
            r"(?:routes|presets|models)(?:[.\[].*)?",
            _power("see what agents tell their models", "it sets PLACE", "whoever the route names"),
        ),
        (
            r"(?:schedules?|triggers?)(?:[.\[].*)?",
            _power("be run by a timer or by an event", "it sets PLACE", "agents of the fleet"),
        ),
        (
            r"(?:principals|people|channels)(?:[.\[].*)?",
            _power("answer for people", "it sets PLACE", "whoever it names"),
        ),
    ),
    (r"(?:midwatch|description|title)",),
    _power("act in another way", "it sets PLACE", "agents of the fleet"),
    (
        (
            (
                r"(?!agents\.[^.]+\.(?:tools|prompt)).*(?:gates|review|limits|budgets|policies|"
                r"sandbox|where|governor|deny|except|require\w*)(?:[.\[].*)?"
            ),
            _power("do what was held back until now", "PLACE is no longer set", "agents of the fleet"),
        ),
    ),
)


def concerns(effect: Effect) -> bool:
    """Say whether this is about agents or the fleet."""
    if not isinstance(effect, File):
        return False
    path, found = effect.change.path, family(effect.change.path)
    name = last(path)
    if found == CI:  # inside of `.github`: what agents read there
        return name == "copilot-instructions.md" or name.endswith(
            (".instructions.md", ".prompt.md", ".agent.md", ".chatmode.md")
        )
    return found in (AGENTS, FLEET) or ".midwatch" in parts(path) or _by_place(path)


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if not isinstance(effect, File):
        return
    path, name = effect.change.path, last(effect.change.path)
    if name in _OWN:
        yield from judge_tree(effect, "midwatch", _reader(name), _FLEET)
    elif ".midwatch" in parts(path) or name == "midwatch.db":
        yield from _home(effect)
    elif name.endswith((".json", ".jsonc", ".code-workspace")):
        yield from judge_tree(effect, NAME, json_tree, _SETTINGS)
    elif name.endswith((".yml", ".yaml", ".roomodes")):
        yield from judge_tree(effect, NAME, yaml_tree, _SETTINGS)
    elif name.endswith(".toml"):
        yield from judge_tree(effect, NAME, toml_tree, _SETTINGS)
    elif name.endswith((*_PROSE, "rules", "ignore", "hints")) or "." not in name.lstrip("."):
        hides = name.endswith("ignore")
        yield from judge_lines(
            effect, NAME, Lines(_sentences, _hiding if hides else _told, _untold if not hides else _unhidden)
        )
    elif effect.change.op != "deleted" and effect.change.kind != "folder":
        raise Unreadable("it lies where an agent's program takes its settings from")


def _by_place(path: str) -> bool:
    """Say whether it is a prompt or a policy that a fleet beside it names."""
    name = last(path)
    return (
        (within(path, *_PROMPTS) and name.endswith(_PROSE))
        or (within(path, "policies", "grants") and name.endswith((".cel", ".rego", ".cedar")))
        or name == "midwatch.db"
    )


def _home(effect: File) -> Iterator[Finding]:
    texts_of = "the kernel's own home: what happened, who may answer, what was granted"
    if effect.change.kind == "folder":
        return
    yield granted("change what the kernel knows", _WHO, effect.change.path, "midwatch", texts_of)


def _reader(name: str) -> Callable[[str], Tree]:
    return json_tree if name.endswith(".json") else toml_tree if name.endswith(".toml") else yaml_tree


def _sentences(text: str) -> list[str]:
    """Give the words of each line; how they are laid out says nothing."""
    return [plain for line in text.split("\n") if (plain := " ".join(line.split()).lstrip("#>-*+ ").rstrip("# "))]


def _told(_line: str) -> Power | None:
    return _power("be told something by it, in every session", "it says more, or something else")


def _untold(line: str) -> Power | None:
    if re.search(
        (
            r"(?i)\b(?:not?|never|don'?t|must|only|without|ask|confirm|approv\w*|forbid\w*|"
            r"unless|except|refuse|secret|before|always|deny|limit\w*|require\w*|allowed)\b"
        ),
        line,
    ):
        return _power("do what it was told not to", "a sentence that may have held it back goes")
    return None


def _hiding(line: str) -> Power | None:
    return None if not line.startswith("!") else _power("read what was kept from it", "a file is no longer left out")


def _unhidden(line: str) -> Power | None:
    return _power("read what was kept from it", "a file is no longer left out") if not line.startswith("!") else None
