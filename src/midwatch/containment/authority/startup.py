"""Startup: what is run without anybody asking: timers, services, logins, shells, sessions, the loader.

In:   a file effect. Out: findings.
May import: facts, text, places. Must not know: which machine would run it.
Every entry that is new runs. What is removed runs no longer; only settings that hold something back count when they go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from midwatch.containment.authority.facts import ANYBODY, Effect, File, Finding, Power, listed
from midwatch.containment.authority.places import ENTERING, EVERY_PYTHON, family, last, like, parts, within
from midwatch.containment.authority.text import Lines, hashed, judge_lines, script

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "startup"
_TIMER: Final = like("crontab")
_SHELL: Final = like(".bashrc")
_MACHINE: Final = like("x.service")
_LOADER: Final = like("ld.so.preload")
_LOGIN: Final = like("rc.d/x")
_FAMILIES: Final = frozenset({_TIMER, _SHELL, _MACHINE, _LOADER, _LOGIN, ENTERING, like("cron.d/x"), like(".mise/x")})
_NAMES: Final = listed("profile environment rc.local bashrc at.allow cron.allow at.deny cron.deny .xsession")
_FOLDERS: Final = listed("cron.d crontabs at atjobs atspool")


def concerns(effect: Effect) -> bool:
    """Say whether this is about what starts by itself."""
    if not isinstance(effect, File):
        return False
    path = effect.change.path
    found = family(path)
    if found == EVERY_PYTHON or last(path).endswith((".nix", ".so", ".dll", ".dylib", ".pyd", ".node")):
        return False
    return (
        found in _FAMILIES
        or (last(path) in _NAMES and within(path, "etc"))
        or ("spool" in parts(path) and within(path, *_FOLDERS))
    )


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if not isinstance(effect, File):
        return
    path, name = effect.change.path, last(effect.change.path)
    if name.endswith((".allow", ".deny")):
        yield from judge_lines(effect, NAME, _listed(denies=name.endswith(".deny")))
    elif family(path) == _TIMER or within(path, *_FOLDERS):
        yield from judge_lines(effect, NAME, Lines(hashed, _timer))
    elif name.endswith((".service", ".timer", ".socket", ".desktop", ".path", ".mount")) or within(
        path, "systemd", "autostart"
    ):
        yield from judge_lines(effect, NAME, Lines(_unit, _unit_gains, _unit_gone))
    elif family(path) == _LOADER:
        yield from judge_lines(effect, NAME, Lines(hashed, _loaded))
    else:
        who = (
            "whoever enters the folder"
            if family(path) in (ENTERING, like(".mise/x"))
            else "whoever logs in or opens a shell"
        )
        yield from judge_lines(effect, NAME, Lines(script, _runs(who), _shell_gone, _MOVED))


def _listed(*, denies: bool) -> Lines:
    def gains(line: str) -> Power | None:
        return None if denies else ("leave programs to a timer", line, "the list of who may names it")

    def losses(line: str) -> Power | None:
        return ("leave programs to a timer", line, "the list of who may not names it no longer") if denies else None

    return Lines(hashed, gains, losses)


def _timer(line: str) -> Power | None:
    if re.fullmatch(r"MAILTO\s*=\s*\"?\"?|(?:CRON_TZ|TZ)\s*=.*", line):
        return None
    if re.match(r"[A-Za-z_]\w*\s*=", line):
        return "shape what a timer runs", "whatever the timer starts", f"it sets {line.partition('=')[0].strip()}"
    return "be run by a timer, again and again", "the command that the line names", "it is a new line"


_SAID: Final = re.compile(
    r"(?:description|documentation|comment|name|genericname|icon|categories|keywords|version|x-\w+|.*\[\w+\])\s*=",
    re.IGNORECASE,
)
_RUN: Final = re.compile(
    r"(?:exec\w*|environment\w*|user|group|rootdirectory|workingdirectory|tryexec|on\w+|listen\w+|unit)\s*=",
    re.IGNORECASE,
)
_HELD: Final = re.compile(
    r"(?:hidden|nodisplay|private\w*|protect\w*|restrict\w*|nonewprivileges|"
    r"capability\w*|system\w*|readonly\w*|inaccessible\w*|user|condition\w*|"
    r"assert\w*|lock\w*|memorydeny\w*|ipaddress\w*|dynamicuser)\s*=",
    re.IGNORECASE,
)


def _unit(text: str) -> list[str]:
    section, found = "", []
    for line in hashed(text, "#;"):
        if line.startswith("["):
            section = line.strip("[] ").casefold()
        else:
            key, equals, value = line.partition("=")
            found.append(f"{key.strip()}{equals}{value.strip()} [{section}]")
    return found


def _unit_gains(line: str) -> Power | None:
    if _SAID.match(line):
        return None
    what = "be started by itself" if _RUN.match(line) else "start in another way, or with other rights"
    return what, "the program that it names", f"it sets {line.partition('=')[0]}"


def _unit_gone(line: str) -> Power | None:
    return (
        (
            "more than the setting allowed until now",
            "the program that it starts",
            f"{line.partition('=')[0]} is no longer set",
        )
        if _HELD.match(line)
        else None
    )


def _loaded(_line: str) -> Power | None:
    return "be part of every program, or of the machine's start", "the file that the line names", "it is a new line"


def _runs(who: str) -> Callable[[str], Power | None]:
    def gains(line: str) -> Power | None:
        sets = re.match(r"(?:export\s+|set\s+-x\s+)?([A-Za-z_]\w*)\s*[= ]", line)
        word = (
            f"it sets {sets[1]}" if sets and "=" in line.split(" ", maxsplit=1)[0] + line[:40] else "it is a new line"
        )
        return f"be run with the rights of {who}", "the lines that it holds", word

    return gains


def _shell_gone(line: str) -> Power | None:
    if re.match(
        r"(?:umask|readonly|ulimit|set\s+-|unset|unalias|trap|exit|return|if|fi|else|elif|then|case|esac|\[|test|false)\b",
        line,
    ) or re.search(r"&&|\|\|", line):
        return "more than the shell allowed until now", ANYBODY, "a line that held something back goes"
    return None


_MOVED: Final[Power] = ("another order of what is run", ANYBODY, "lines changed places")
