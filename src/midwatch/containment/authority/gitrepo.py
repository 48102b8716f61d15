"""Git: what makes git run something, take another's word, or hide something from a review.

In:   a file effect. Out: findings.
May import: facts, text, places, the watch-list. Must not know: repositories.
Source: git-config(1), githooks(5), gitattributes(5), gitmodules(5), CODEOWNERS of GitHub and GitLab.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from midwatch.containment.authority.facts import ANYBODY, Effect, File, Finding, Power, Unreadable
from midwatch.containment.authority.places import family, last, like, parts, within
from midwatch.containment.authority.text import Lines, hashed, judge_lines, script

__all__ = ["NAME", "concerns", "config_entries", "judge"]

NAME: Final = "git"
_HOOKS: Final = frozenset({like(".git/hooks/x"), like(".husky/x")})
_CONFIG: Final = frozenset({like(".git/config"), like(".gitconfig")})
_REVIEW: Final = like("CODEOWNERS")
_COMMITS: Final = like("lefthook.yml")
_FAMILIES: Final = _HOOKS | _CONFIG | {
    _REVIEW, _COMMITS, like(".gitattributes"), like(".git/commondir"), like(".git/rebase-merge/x"), like("HEAD"), like(".git"),
}  # fmt: skip
_HOOK_NAMES: Final = re.compile(
    r"(?:pre|post|prepare|commit|update|reference|push|proc|fsmonitor|sendemail|applypatch)[a-z0-9-]*"
)


def concerns(effect: Effect) -> bool:
    """Say whether this is about git."""
    if not isinstance(effect, File):
        return False
    path = effect.change.path
    return (
        family(path) in _FAMILIES
        or (within(path, ".github", ".gitlab") and last(path) == "codeowners")
        or (parts(path)[-2:] == ("git", "config"))
    )


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if not isinstance(effect, File):
        return
    path, name = effect.change.path, last(effect.change.path)
    found = family(path)
    if found in _HOOKS:
        yield from judge_lines(effect, NAME, Lines(_hook_lines, _hook(name)))
    elif found in _CONFIG or parts(path)[-2:] == ("git", "config"):
        yield from judge_lines(effect, NAME, Lines(config_entries, _setting, _setting_gone))
    elif name == "codeowners":
        yield from judge_lines(effect, NAME, Lines(hashed, _owner, _owner_gone, _LAST))
    elif name in (".gitignore", ".git-blame-ignore-revs", ".mailmap", "exclude"):
        yield from judge_lines(effect, NAME, Lines(hashed, _hidden))
    elif name in (".gitattributes", "attributes"):
        yield from judge_lines(effect, NAME, Lines(hashed, _attribute))
    elif found == _COMMITS:
        yield from judge_lines(effect, NAME, Lines(script, _before_commits))
    elif effect.change.op != "deleted":
        raise Unreadable("it decides where git takes history, contents or settings from")


def config_entries(text: str) -> list[str]:
    """Give each setting as `section.sub.key=value`.

    Raises:
        Unreadable: a line is none that git reads.
    """
    section, found = "", []
    lines = re.sub(r"\\\n", "", text).split("\n")
    for whole in lines:
        line = whole.strip()
        while head := re.match(r'\[\s*([\w.-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]\s*', line):
            sub = f".{head[2]}" if head[2] is not None else ""
            section = f"{head[1].casefold()}{sub}"
            line = line[head.end() :]
        if not line or line[0] in "#;":
            continue
        key = re.match(r"([A-Za-z][\w-]*)\s*(?:=\s*(.*))?$", line)
        if key is None or not section:
            raise Unreadable("it has a line that git does not read")
        value = "true" if key[2] is None else key[2] if '"' in key[2] else re.split(r"\s*[#;]", key[2])[0]
        found.append(f"{section}.{key[1].casefold()}={value}")
    return found


_HARMLESS: Final = re.compile(
    r"(?:user\.(?:name|email)|color\..*|branch\..*\.(?:description|rebase)|advice\..*|core\.(?:filemode|bare|logallrefupdates|ignorecase"
    r"|precomposeunicode|autocrlf|eol|abbrev|quotepath|whitespace|repositoryformatversion|compression)|init\.defaultbranch"
    r"|pull\.(?:rebase|ff)|push\.(?:default|autosetupremote)|rebase\.(?:autosquash|autostash)|merge\.(?:ff|conflictstyle)|rerere\..*"
    r"|log\..*|status\..*|diff\.(?:renames|algorithm|colormoved)|column\..*|gc\..*|pack\..*|tag\.sort|format\.pretty|help\.autocorrect"
    r"|commit\.verbose|extensions\.objectformat)="
)
_RUNS: Final = re.compile(
    r"core\.(?:hookspath|fsmonitor|sshcommand|editor|pager|askpass|gitproxy|"
    r"attributesfile|alternaterefscommand)|filter\..*|diff\..*\.(?:command|textconv)"
    r"|diff\.external|merge\..*\.driver|mergetool\..*|difftool\..*|pager\..*|"
    r"sequence\.editor|gpg\..*program|gpg\.ssh\..*|credential\..*helper"
    r"|credential\.helper|browser\..*|man\..*|web\..*|uploadpack\..*hook|receive\..*|remote\..*\.(?:uploadpack|receivepack|vcs)"
    r"|submodule\..*\.update|sendemail\..*|trailer\..*|interactive\.difffilter|include.*|includeif.*|instaweb\..*|init\.templatedir|ssh\..*"
)


def _setting(entry: str) -> Power | None:
    key, _, value = entry.partition("=")
    if _HARMLESS.match(f"{key}="):
        return None
    if key.startswith("alias."):
        if not value.lstrip('"').startswith("!") and not re.search(r"-c\b|--exec|--upload-pack|--config", value):
            return None
        return "be run in place of a git command", "the program that it names", "an alias runs a program"
    return _elsewhere(key, value)


def _elsewhere(key: str, value: str) -> Power:
    if key.startswith("credential.") and not key.endswith(("usehttppath", "username")):
        return "get the credentials that git would send", "the helper that it names", f"it sets {_key(key)}"
    if _RUNS.fullmatch(key):
        return (
            "be run by git, with the rights of whoever works there",
            "the program that it names",
            f"it sets {_key(key)}",
        )
    if key.startswith("url.") and key.endswith(("insteadof", "pushinsteadof")):
        return "be reached in place of another repository", _host(key.split(".", 1)[1]), "it replaces addresses"
    if key.startswith(("remote.", "submodule.")) and key.endswith(("url", "pushurl")):
        return "give, or be given, the repository's contents", _host(value), "a remote is new or another one"
    if key.startswith(("http.", "https.")):
        return "see, or change, what git transfers", _host(value), f"it sets {_key(key)}"
    return "another manner of what git does", ANYBODY, f"it sets {_key(key)}"


def _setting_gone(entry: str) -> Power | None:
    key = entry.partition("=")[0]
    if re.match(
        r"(?:transfer|fetch|receive)\.(?:fsckobjects|deny)|protocol\.|safe\.|commit\.gpgsign|tag\.gpgsign|http\.sslverify|core\.protect",
        key,
    ):
        return "what git refused until now", ANYBODY, f"{_key(key)} is no longer set"
    return None


def _key(key: str) -> str:
    return key if len(key) <= 40 and key.count(".") < 3 else f"{key.split('.', maxsplit=1)[0]}…{key.rsplit('.', 1)[-1]}"


def _host(text: str) -> str:
    found = re.search(r"(?:://|@)(?:[^/@\s]*@)?([\w.-]+)", text)
    return found[1] if found else "the place that it names"


def _hook_lines(text: str) -> list[str]:
    first = text.split("\n", 1)[0]
    return [*([first] if first.startswith("#!") else []), *script(text)]


def _hook(name: str) -> Callable[[str], Power | None]:
    def gains(_line: str) -> Power | None:
        if name.endswith((".sample", ".md", ".txt")) and not _HOOK_NAMES.fullmatch(name):
            return None
        return (
            "be run by git, with the rights of whoever works in the repository",
            "the program in it",
            "the hook is new or another one",
        )

    return gains


def _before_commits(_line: str) -> Power | None:
    return (
        "be run before each commit, with the rights of whoever commits",
        "the program that it names",
        "what runs there is new or another one",
    )


def _owner(line: str) -> Power | None:
    names = [word for word in line.split() if "@" in word]
    return "approve changes of these files", ", ".join(names) or ANYBODY, "the owners are new or others"


def _owner_gone(_line: str) -> Power | None:
    return "approve changes that needed the owners' yes", ANYBODY, "a rule about owners goes"


def _hidden(_line: str) -> Power | None:
    return "keep files, or who wrote them, from being seen in a review", ANYBODY, "more is hidden"


def _attribute(line: str) -> Power | None:
    words = [word.split("=")[0].lstrip("-!") for word in line.split()[1:]]
    if words and set(words) <= {
        "text",
        "eol",
        "binary",
        "crlf",
        "working-tree-encoding",
        "linguist-language",
        "linguist-detectable",
        "linguist-documentation",
    }:
        return None
    if {"filter", "diff", "merge"} & set(words):
        return (
            "be run by git for these files",
            "the program that git's settings name",
            "it names a filter, diff or merge",
        )
    return "be hidden, or left out, where others look", ANYBODY, "an attribute is new"


_LAST: Final[Power] = (
    "another owner of the same files",
    ANYBODY,
    "the last rule that fits counts, and they changed places",
)
