"""Registries and credentials: where packages come from, which secrets and switches programs take from a file.

In:   a file effect. Out: findings: names of settings, never their values.
May import: facts, text, places, tree. Must not know: whether a credential is valid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from midwatch.containment.authority.facts import ANYBODY, Effect, File, Finding, Power, Unreadable, listed
from midwatch.containment.authority.places import family, last, like, within
from midwatch.containment.authority.text import Lines, hashed, judge_lines
from midwatch.containment.authority.tree import Rules, json_tree, judge_tree, toml_tree, yaml_tree

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "registries"
_ENV: Final = like(".env")
_OBEYS: Final = like(".npmrc")
_KEYS: Final = like("x.pem")
_KEEPS: Final = like(".aws/x")
_RUNS: Final = like(".yarn/x")
_FAMILIES: Final = frozenset({_ENV, _OBEYS, _KEYS, _KEEPS, _RUNS})
_CREDENTIALS: Final = listed(
    """
    credentials credentials.json service-account.json .htpasswd .pgpass .git-credentials secrets.yaml secrets.yml
    .vault-token
    """
)


def concerns(effect: Effect) -> bool:
    """Say whether this is about registries or credentials."""
    return isinstance(effect, File) and (
        family(effect.change.path) in _FAMILIES or last(effect.change.path) in _CREDENTIALS
    )


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if not isinstance(effect, File):
        return
    path, name = effect.change.path, last(effect.change.path)
    if family(path) == _ENV:
        yield from judge_lines(effect, NAME, Lines(_variables, _variable))
    elif name in {".curlrc", ".wgetrc"}:
        yield from judge_lines(
            effect, NAME, Lines(hashed, lambda line: (_ANOTHER, ANYBODY, f"it sets {_key(line)}"), _unset)
        )
    elif (
        name.endswith((".netrc", "_netrc", ".pgpass", ".git-credentials", ".htpasswd", ".vault-token"))
        or name == "credentials"
    ):
        yield from judge_lines(
            effect,
            NAME,
            Lines(
                hashed,
                lambda _: (
                    "act with a credential",
                    "programs that read the file",
                    "a credential is new or another one",
                ),
            ),
        )
    elif name.endswith(".json"):
        yield from judge_tree(effect, NAME, json_tree, _KEPT)
    elif name.endswith((".yml", ".yaml")) or (name == "config" and within(path, ".kube")):
        yield from judge_tree(effect, NAME, yaml_tree, _KEPT)
    elif name.endswith(".toml"):
        yield from judge_tree(effect, NAME, toml_tree, _KEPT)
    elif name in (
        ".npmrc",
        ".yarnrc",
        ".pnpmrc",
        "pip.conf",
        "pip.ini",
        ".pypirc",
        ".condarc",
        ".gemrc",
        ".pydistutils.cfg",
        "sources.list",
        "config",
    ):
        yield from judge_lines(effect, NAME, Lines(_settings, _setting, _unset))
    elif effect.change.op != "deleted" and effect.change.kind != "folder":
        raise Unreadable("it lies where keys, or settings of a package manager, are kept")


_ANOTHER: Final = "reach another place, or with other rights"
_SWITCH: Final = re.compile(
    r"(?i)(?:LD_|DYLD_|PYTHON|NODE_OPTIONS|PATH$|.*PROXY|GIT_|BASH_ENV|ENV$|"
    r"PERL|RUBY|JAVA_TOOL|SSH_|EDITOR|PAGER|BROWSER|SSL_|REQUESTS_CA|CURL_CA"
    r"|.*(?:DEBUG|UNSAFE|INSECURE|SKIP|DISABLE|ALLOW|ADMIN|ROOT|TRUST|VERIFY|AUTH).*)"
)
_SECRET: Final = re.compile(r"(?i).*(?:KEY|TOKEN|SECRET|PASS|PWD|CREDENTIAL|CERT|PRIVATE|SESSION|COOKIE|DSN)")
_PLACE: Final = re.compile(
    r"(?i).*(?:URL|URI|HOST|ENDPOINT|ADDR|SERVER|DOMAIN|ORIGIN|REGISTRY|INDEX|BASE|PORT|DATABASE)"
)


def _variables(text: str) -> list[str]:
    """Give assignments. A value within open quotes goes on over lines: then every line counts."""
    rest = re.sub(
        r"\\.|'[^'\n]*'|\"(?:[^\"\\\n]|\\.)*\"",
        "",
        "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#")),
    )
    if re.search(r"['\"`]", rest):
        return [line.strip() for line in text.split("\n") if line.strip()]
    return [re.sub(r"^export\s+", "", line) for line in hashed(text)]


def _variable(line: str) -> Power | None:
    name = line.partition("=")[0].strip()
    if re.search(r"\$\(|`|\$\{", line) or "=" not in line or not re.fullmatch(r"[\w.-]+", name):
        return (
            "be run, or be put together, when the file is read",
            "programs that read the file",
            "a line is no plain setting",
        )
    if _SECRET.match(name):
        return "act with another credential", "programs that read the file", f"it sets {name}"
    if _PLACE.match(name):
        return "be connected to in place of another", "the place that it names", f"it sets {name}"
    if _SWITCH.match(name):
        return "run with another switch of trust", "programs that read the file", f"it sets {name}"
    return "shape what programs do", "programs that read the file", f"it sets {name}"


def _settings(text: str) -> list[str]:
    section, found = "", []
    for line in hashed(text, "#;"):
        if line.startswith("["):
            section = line.strip("[] ").casefold()
        else:
            found.append(f"[{section}] {line}")
    return found


_TOLD: Final = re.compile(
    r"\[[^]]*\] (?:save-exact|progress|loglevel|color|fund|update-notifier|timeout|"
    r"retries|fetch-retries|quiet|disable-pip-version-check|no-color|init-\w+|message)\b"
)
_HELD: Final = re.compile(
    r"ignore-scripts|strict-ssl|require-hashes|audit|engine-strict|only-binary|"
    r"signed-by|verify|check|cafile|isolated|no-?index|user|before|min",
    re.IGNORECASE,
)


def _key(line: str) -> str:
    plain = line.partition("] ")[2] if line.startswith("[") else line
    key = re.split(r"[=:\s]", plain.lstrip("-"), maxsplit=1)[0]
    return "a registry's credential" if plain.startswith("//") else key[:60]


def _setting(line: str) -> Power | None:
    if _TOLD.match(line):
        return None
    key = _key(line)
    plain = line.partition("] ")[2]
    if _SECRET.match(key) or plain.startswith("//") or "_auth" in plain.casefold():
        return "act with another credential", "the package manager", f"it sets {key}"
    if re.search(
        r"(?i)registry|index|repositor|proxy|find-links|trusted-host|url|channel|source|^deb|mirror|host|profile|role",
        plain,
    ):
        return "give the packages that are installed, or be connected to", _host(line), f"it sets {key}"
    return "install, or run, in another way", ANYBODY, f"it sets {key}"


def _host(line: str) -> str:
    found = re.search(r"://(?:[^/@\s]*@)?([\w.-]+)", line)
    return found[1] if found else "the place that it names"


def _unset(line: str) -> Power | None:
    return ("install, or connect, unchecked", ANYBODY, f"{_key(line)} is no longer set") if _HELD.search(line) else None


_KEPT: Final = Rules(
    (
        (
            r".*(?:token|secret|password|key|auth|credential|cert|user)\w*(?:[.\[].*)?",
            ("act with another credential", "programs that read the file", "it sets PLACE"),
        ),
    ),
    (r"\$schema|version|description",),
    ("reach another place, or run in another way", ANYBODY, "it sets PLACE"),
)
