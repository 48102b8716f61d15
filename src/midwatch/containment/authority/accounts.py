"""Accounts: who may become whom, and log in: sudoers, doas, passwd, shadow, group, subuid, nsswitch, PAM, polkit.

In:   a file effect. Out: findings.
May import: facts, text, places. Must not know: whether such accounts exist on any machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from midwatch.containment.authority.facts import ANYBODY, Effect, File, Finding, Power, listed
from midwatch.containment.authority.places import family, last, like, within
from midwatch.containment.authority.text import Lines, hashed, judge_lines

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "accounts"
_FAMILY: Final = like("sudoers")
_NAMES: Final = listed("group polkit.rules access.conf limits.conf login.defs")


def concerns(effect: Effect) -> bool:
    """Say whether this is about accounts."""
    if not isinstance(effect, File):
        return False
    path = effect.change.path
    return family(path) == _FAMILY or (last(path) in _NAMES and within(path, "etc", "security"))


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if isinstance(effect, File):
        path = effect.change.path
        name = "sudoers" if within(path, "sudoers.d") else "pam" if within(path, "pam.d") else last(path)
        yield from judge_lines(effect, NAME, _FORMATS.get(name, _OTHER))


# ------------------------------------------------------------------------------------------------------------- sudoers


def _sudoers(text: str) -> list[str]:
    found = []
    for line in hashed(text, marks=""):
        # `#include` and `#1000` are no comments there; an escaped `#`, or one within quotes, begins none.
        if re.match(r"#\s*(?:include|includedir)\b|#\s*-?\d", line):
            found.append(line)
            continue
        plain = re.sub(r"(?<!\\)#(?!-?\d).*", "", line) if '"' not in line else line if not line.startswith("#") else ""
        if plain.strip():
            found.append(" ".join(plain.split()))
    # Whether a backslash at its end continues a comment differs between versions: what follows one counts by itself, too.
    lines = text.split("\n")
    after = [line.strip() for above, line in pairwise(lines) if above.endswith("\\") and "#" in above]
    return found + [" ".join(line.split()) for line in after if line and not line.startswith("#")]


def _sudo(line: str) -> Power | None:
    if line.startswith(("#", "@")):
        return "become another account by rules in a file that it names", ANYBODY, "it includes another file of rules"
    if line.startswith("Defaults"):
        return "another manner of becoming another account", ANYBODY, "it changes a default"
    alias = re.match(r"(User|Runas|Host|Cmnd|Cmd)_Alias\s+(\w+)", line)
    if alias:
        return (
            "become another account, wherever a rule names it",
            f"whoever the alias {alias[2]} means",
            "it sets an alias",
        )
    who = line.split(maxsplit=1)[0].split("=", maxsplit=1)[0]
    how = "run commands as another account"
    if re.search(r"\bNOPASSWD\b", line):
        how += " without a password"
    return how, who, "it is a new rule"


def _sudo_gone(line: str) -> Power | None:
    if "!" in line or line.startswith("Defaults") or re.search(r"\b(?:NOEXEC|PASSWD)\b|_Alias\b", line):
        who = line.split(maxsplit=1)[0] if not line.startswith(("Defaults", "@", "#")) else ANYBODY
        return "more than the rules allowed until now", who, "a rule that held somebody back goes"
    return None


# ---------------------------------------------------------------------------------------------------------- databases


def _fields(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _passwd(line: str) -> Power | None:
    parts = line.split(":")
    if len(parts) < 7:
        return (
            ("log in or own files as an account", ANYBODY, "a line has no seven fields") if line.strip("# ") else None
        )
    user, secret, uid = parts[0], parts[1], parts[2]
    if uid.strip().lstrip("0") == "" or not uid.isdigit():
        return "be root", user, "its user id is that of root"
    if secret == "":
        return "log in without a password", user, "its password field is empty"
    return "an account, its home and its shell", user, "the account is new or another one"


def _shadow(line: str) -> Power | None:
    parts = line.split(":")
    if len(parts) > 1 and re.fullmatch(r"[!*]+", parts[1]):
        return None
    return "log in with another password", parts[0], "its password is new or another one"


def _group(line: str) -> Power | None:
    parts = line.split(":")
    members = parts[3] if len(parts) > 3 else ""
    if len(parts) > 3 and not members and parts[1] in ("x", "*", "!") and parts[2].lstrip("0") != "":
        return None
    return (
        f"the rights of the group {parts[0]}",
        members or ANYBODY,
        "the group, or who is in it, is new or another one",
    )


def _gshadow(line: str) -> Power | None:
    name, secret, *who = [*line.split(":"), "", "", ""]
    members = ",".join(part for part in who if part)
    if not members and re.fullmatch(r"[!*]+", secret):
        return None
    return f"the rights of the group {name}", members or ANYBODY, "the group, or who is in it, is new or another one"


def _subid(line: str) -> Power | None:
    return "a range of user ids of others", line.split(":", maxsplit=1)[0], "the range is new or another one"


def _pam(_line: str) -> Power | None:
    return "pass, or skip, a check at login", ANYBODY, "a rule of the login is new or another one"


def _pam_gone(_line: str) -> Power | None:
    return "log in without a check that there was", ANYBODY, "a rule of the login goes"


def _doas(line: str) -> Power | None:
    if line.startswith("deny"):
        return None
    words = [word for word in line.split() if word not in ("permit", "nopass", "persist", "keepenv")]
    return "run commands as another account", words[0] if words else ANYBODY, "it is a new rule"


def _doas_gone(line: str) -> Power | None:
    return (
        ("more than the rules allowed until now", ANYBODY, "a rule that denied goes")
        if line.startswith("deny")
        else None
    )


def _any(_line: str) -> Power | None:
    return "another way of becoming an account, or of being one", ANYBODY, "a rule about accounts is new or another one"


def _any_gone(_line: str) -> Power | None:
    return "more than the rules allowed until now", ANYBODY, "a rule about accounts goes"


_MOVED: Final[Power] = (
    "another meaning of the same rules",
    ANYBODY,
    "the last, or first, rule that fits counts, and they changed places",
)
_OTHER: Final = Lines(hashed, _any, _any_gone, _MOVED)
_FORMATS: Final[Mapping[str, Lines]] = {
    "sudoers": Lines(_sudoers, _sudo, _sudo_gone, _MOVED),
    "doas.conf": Lines(hashed, _doas, _doas_gone, _MOVED),
    "passwd": Lines(_fields, _passwd),
    "shadow": Lines(_fields, _shadow),
    "gshadow": Lines(_fields, _gshadow),
    "group": Lines(_fields, _group),
    "subuid": Lines(_fields, _subid),
    "subgid": Lines(_fields, _subid),
    "pam": Lines(hashed, _pam, _pam_gone, _MOVED),
}
