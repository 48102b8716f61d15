"""Containers: what an image, or what runs in one, gets of the machine and of whoever builds it.

In:   a file effect. Out: findings.
May import: facts, text, tree, places. Must not know: engines.
Source: Dockerfile reference; Compose Specification, services; Development Containers Specification.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from midwatch.containment.authority.facts import Effect, File, Finding, Power, Unreadable
from midwatch.containment.authority.places import CONTAINERS, family, last, like, parts
from midwatch.containment.authority.text import Lines, hashed, judge_lines
from midwatch.containment.authority.tree import Rules, json_tree, judge_tree, yaml_tree, yes

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "containers"
_DEVCONTAINER: Final = like(".devcontainer/x")
_WHO: Final = "what runs in the container"


def _power(what: str, why: str, who: str = _WHO) -> Power:
    return what, who, why


_S: Final = r"(?:services\.[^.]+|x-[^.]+)\."
_COMPOSE: Final = Rules(
    (
        (_S + r"privileged", _power("be root of the machine", "it sets PLACE")),
        (
            _S
            + r"(?:cap_add|security_opt|device_cgroup_rules|sysctls|cgroup(?:_parent)?|userns_mode|user|group_add)(?:[.\[].*)?",
            _power("have rights that a container is not given", "it sets PLACE"),
        ),
        (
            _S + r"(?:volumes|tmpfs|volumes_from|devices|configs)(?:[.\[].*)?",
            _power("reach files or devices of the machine", "it sets PLACE"),
        ),
        (
            _S + r"(?:network_mode|networks|ports|expose|links|external_links|extra_hosts|dns.*)(?:[.\[].*)?",
            _power("reach, or be reached by, other networks", "it sets PLACE"),
        ),
        (_S + r"(?:pid|ipc|uts)", _power("see and touch processes of the machine", "it sets PLACE")),
        (
            _S + r"(?:environment|env_file|secrets|credential_spec)(?:[.\[].*)?",
            _power("have secrets and switches", "it sets PLACE"),
        ),
        (
            _S
            + r"(?:image|build|command|entrypoint|extends|healthcheck|post_start|pre_stop|provider|develop)(?:[.\[].*)?",
            _power("be run there", "it sets PLACE", "whoever controls that image or command"),
        ),
        (r"(?:include|extends)(?:[.\[].*)?", _power("be part of it", "it sets PLACE", "whoever controls that file")),
    ),
    (
        r"(?:version|name)",
        _S + r"(?:labels|annotations|container_name|hostname|depends_on|profiles|stop_grace_period|"
        r"stop_signal|logging|restart|init|tty|stdin_open)(?:[.\[].*)?",
        _S + r"(?:mem_limit|cpus|cpu_.*|mem_.*|memswap_limit|pids_limit|deploy\.resources\.limits\..*)",
    ),
    _power("run in another way", "it sets PLACE"),
    (
        (
            _S + r"(?:read_only|cap_drop|security_opt|user|userns_mode|internal)(?:[.\[].*)?",
            _power("have rights that were taken from it", "PLACE is no longer set"),
        ),
        (r"networks\..*internal", _power("reach other networks", "PLACE is no longer set")),
    ),
    lambda place, value: (
        (bool(re.search(r"\.privileged$", place)) and not yes(value))
        or (bool(re.search(r"\.(?:cap_drop(?:\[\])?|read_only)$", place)) and yes(value))
        or (
            bool(re.search(r"\.security_opt\[\]$", place))
            and re.fullmatch(r"no-new-privileges(?:[:=]true)?", value.strip('"')) is not None
        )
    ),
)
_DEV: Final = Rules(
    (
        (
            r"(?:privileged|capadd|securityopt|runargs|mounts|workspacemount)(?:[.\[].*)?",
            _power("reach the machine", "it sets PLACE"),
        ),
        (
            r".*command(?:[.\[].*)?",
            _power("be run with the rights of whoever opens the folder", "it sets PLACE", "the command that it names"),
        ),
    ),
    (r"(?:name|customizations\..*\.settings\.editor\..*|shutdownaction)",),
    _power("be run, or run in another way, when the folder is opened", "it sets PLACE", "what it names"),
)


def concerns(effect: Effect) -> bool:
    """Say whether this is about containers."""
    return (
        isinstance(effect, File)
        and family(effect.change.path) in (CONTAINERS, _DEVCONTAINER)
        and (family(effect.change.path) == CONTAINERS or ".devcontainer" in parts(effect.change.path))
    )


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants."""
    if not isinstance(effect, File):
        return
    name = last(effect.change.path)
    if "devcontainer" in name or (".devcontainer" in parts(effect.change.path)[:-1] and name.endswith(".json")):
        yield from judge_tree(effect, NAME, json_tree, _DEV)
    elif name.endswith((".yml", ".yaml")):
        yield from judge_tree(effect, NAME, yaml_tree, _COMPOSE)
    elif name.startswith(("dockerfile", "containerfile")) or name.endswith((".dockerfile", ".containerfile")):
        yield from judge_lines(effect, NAME, Lines(_instructions, _instruction, _instruction_gone, _MOVED))
    elif name.startswith(".dockerignore"):
        yield from judge_lines(effect, NAME, Lines(hashed, _let_in, _let_in_gone))
    elif effect.change.op != "deleted" and effect.change.kind != "folder":
        raise Unreadable("it shapes what runs in a container")


def _instructions(text: str) -> list[str]:
    """Give each instruction as one line. A directive at the top may change what continues a line; a heredoc takes comments for text."""
    head = re.match(r"(?:#[^\n]*\n)*", text)
    directives = re.findall(r"#\s*(syntax|escape|check)\s*=\s*(\S+)", head[0] if head else "", re.IGNORECASE)
    found = [f"# {name.casefold()}={value}" for name, value in directives]
    if re.search(r"<<-?['\"]?\w|escape\s*=", text):
        return found + [line.strip() for line in text.split("\n") if line.strip()]
    return found + _joined(text)


def _joined(text: str) -> list[str]:
    """Join continued lines; comments between them are left out, as the builder does."""
    found: list[str] = []
    open_line = False
    for line in text.split("\n"):
        plain = line.strip()
        if not plain or plain.startswith("#"):
            continue
        text_of = plain.removesuffix("\\").strip()
        if open_line:
            found[-1] += f" {text_of}"
        else:
            found.append(text_of)
        open_line = plain.endswith("\\")
    return found


def _instruction(line: str) -> Power | None:
    word = line.split(maxsplit=1)[0].upper()
    if line.startswith("#"):
        return _power("read the rest in another way", "it has a directive", "whoever controls the builder's syntax")
    if word in ("LABEL", "MAINTAINER", "EXPOSE", "STOPSIGNAL"):
        return None
    if word == "USER":
        name = line.split()[1] if len(line.split()) > 1 else "root"
        return _power("be root in the container", "it sets USER") if re.match(r"(?:root|0)\b|\$", name) else None
    if word == "FROM":
        return _power("be all that the image is made of", "it names another image", "whoever controls that image")
    if word in ("RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK", "SHELL", "ONBUILD"):
        return _power("be run, with the rights of whoever builds or runs it", f"it has a new {word}")
    return _power("be part of the image, or shape what runs in it", f"it has a new {word}")


def _instruction_gone(line: str) -> Power | None:
    return _power("be root in the container", "USER is no longer set") if line.upper().startswith("USER ") else None


def _let_in(line: str) -> Power | None:
    return (
        _power("be part of images", "a file is no longer left out", "files of the folder")
        if line.startswith("!")
        else None
    )


def _let_in_gone(line: str) -> Power | None:
    return (
        None
        if line.startswith("!")
        else _power("be part of images", "a file is no longer left out", "files of the folder")
    )


_MOVED: Final[Power] = _power("be built in another order", "instructions changed places")
