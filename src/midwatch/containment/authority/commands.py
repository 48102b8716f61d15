"""Commands: programs that would run outside of a sandbox.

In:   a command effect: a list of words. Out: findings.
May import: facts. Must not know: shells, gates' reading of commands.
A command is inert only if the program is known to read and its words are known not to make it write or run: all else counts as granting
(CONTAINMENT.md 25), and is named where it is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from midwatch.containment.authority.facts import (
    ANYBODY,
    UNKNOWN,
    Command,
    Effect,
    Finding,
    Inert,
    Power,
    granted,
    listed,
    resource_of,
)

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "commands"
_READS: Final = listed(
    """
    ls pwd whoami id date uname hostname uptime df du free ps stat file wc head tail cat nl tac sha256sum sha1sum
    md5sum cksum true false echo printf basename dirname realpath readlink nproc arch locale cal seq diff cmp comm
    cut tr uniq fold expand column strings od hexdump lsblk lscpu vmstat who groups getent test [
    """
)
_KEYS: Final = re.compile(
    r"(?i)(?:.*[/=]|)(?:proc/[^/]*/(?:task/[^/]*/)?(?:environ|mem|fd/.*|cmdline)|etc/(?:g?shadow-?|sudoers(?:\.d/.*)?|krb5\.keytab)"
    r"|\.ssh/(?!known_hosts\Z|config\Z|.*\.pub\Z).*|id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?|\.aws/.*|[._]netrc|\.pgpass|\.my\.cnf|\.git-credentials"
    r"|\.docker/config\.json|\.kube/config|\.npmrc|\.pypirc|\.env(?:\.[\w.-]+)?|(?:var/)?run/secrets/.*|[^/]*\.(?:pem|key|p12|pfx|jks|kdbx|keytab))\Z"
)
"""Where credentials lie. Whoever reads one there has it."""
_SUB: Final = {
    "git": (
        (
            "log status show diff rev-parse ls-files blame shortlog describe cat-file "
            "rev-list ls-tree merge-base name-rev count-objects"
        ),
        (
            r"-c|--config-env.*|--exec-path.*|--output.*|-o|--ext-diff|--textconv|-O.*|"
            r"--open-files-in-pager.*|--upload-pack.*|-C|--git-dir.*|--work-tree.*"
        ),
    ),
    "docker": ("ps images inspect logs version info top stats", r"-H|--host.*|--config.*|-c|--context.*"),
    "kubectl": (
        "get describe logs version top explain api-resources",
        r"--kubeconfig.*|--as.*|--token.*|-s|--server.*|--context.*|--raw.*",
    ),
    "systemctl": (
        "status list-units list-timers is-active is-enabled show",
        r"-H.*|--host.*|-M.*|--machine.*|--root.*",
    ),
    "npm": ("ls view outdated", r"--prefix.*|--registry.*|--script-shell.*|--userconfig.*|--globalconfig.*"),
    "pip": ("list show freeze", r"--index-url.*|-i|--python.*|--log.*"),
}
_GRANTS: Final[tuple[tuple[str, str, str, str], ...]] = (
    (r"(?:sudo|su|doas|pkexec|runuser|setpriv|run0)", r".*", "run as another account", "the command"),
    (
        (
            r"(?:visudo|useradd|usermod|adduser|userdel|groupadd|groupmod|gpasswd|passwd|"
            r"chpasswd|newgrp|vipw|vigr|chsh|chfn|dscl|net)"
        ),
        r".*",
        "an account, or more of one",
        "the account that it names",
    ),
    (
        r"(?:chmod|chown|chgrp|setfacl|setcap|chattr|chacl|install|umask|setfattr|chcon|icacls)",
        r".*",
        "reach, change or run a file",
        "whoever the mode or list names",
    ),
    (r"(?:crontab|at|batch|systemd-run|anacron)", r".*", "be run by a timer", "the command"),
    (
        r"(?:systemctl|service|rc-update|update-rc\.d|launchctl|loginctl|chkconfig)",
        r".*",
        "be started with the machine",
        "the service",
    ),
    (
        r"(?:ssh-copy-id|ssh-keygen|ssh-add|gpg|openssl|keytool|update-ca-certificates|certutil|trust)",
        r".*",
        "be trusted, or act with a key",
        "the holder of the key",
    ),
    (r"(?:ssh|scp|sftp|rsync|nc|ncat|socat|telnet)", r".*", "reach another machine", "the machine that it names"),
    (
        r"(?:iptables|ip6tables|nft|ufw|firewall-cmd|ip|route|resolvectl|nmcli|ifconfig|tc|hostnamectl)",
        r".*",
        "reach, or be reached by, other networks",
        ANYBODY,
    ),
    (
        r"git",
        (
            r"(?:config|remote|push|hook|submodule|worktree|clone|init|filter-\w+|credential\S*|"
            r"bundle|am|apply|update-ref|symbolic-ref|maintenance)\b.*"
        ),
        "run, or take another's word, in the repository",
        "whoever works in it",
    ),
    (
        r"(?:gh|glab|hub|tea)",
        (
            r".*(?:api|secret|ssh-key|gpg-key|auth|repo|ruleset|extension|alias|workflow|"
            r"run|codespace|variable|release|merge|deploy-key).*"
        ),
        "rights in the project",
        "whoever is named",
    ),
    (r"(?:kubectl|oc|k|helm)", r".*", "rights in the cluster", "whoever is named"),
    (
        r"(?:aws|gcloud|az|doctl|heroku|vercel|flyctl|fly|terraform|tofu|pulumi|ansible\S*|vault|op)",
        r".*",
        "rights in the cloud",
        "whoever is named",
    ),
    (
        r"(?:docker|podman|nerdctl|buildah|ctr|runc|lxc|lxd|virsh)",
        r".*",
        "be root of the machine",
        "what runs in the container",
    ),
    (r"(?:psql|mysql|mariadb|sqlite3|sqlcmd|mongo\S*|redis-cli)", r".*", "what the statements give", UNKNOWN),
    (
        (
            r"(?:pip|pip3|pipx|uv|npm|npx|pnpm|yarn|bun|bunx|cargo|go|gem|apt|apt-get|"
            r"dpkg|dnf|yum|rpm|apk|pacman|brew|snap|flatpak|conda|make|ninja|mvn|gradle|"
            r"tox|nox|pytest|setup\.py)"
        ),
        r".*",
        "run code of others with this account's rights",
        "who wrote it",
    ),
    (
        (
            r"(?:sh|bash|dash|zsh|ksh|fish|csh|tcsh|python\S*|perl|ruby|node|deno|lua|"
            r"php|awk|gawk|mawk|sed|xargs|env|nice|nohup|timeout|setsid|stdbuf|time|"
            r"watch|find|parallel|busybox|tee|dd|cp|mv|ln|eval|exec|source|command|script|"
            r"expect|vim?|ed|nano|emacs)"
        ),
        r".*",
        "run, or write, what its words say",
        UNKNOWN,
    ),
    (r"(?:curl|wget|http|https|xh|aria2c)", r".*", "what the request gives", UNKNOWN),
    (r"(?:midwatch)", r".*", "change what the kernel allows", "agents of the fleet"),
)


def concerns(effect: Effect) -> bool:
    """Say whether this is a command."""
    return isinstance(effect, Command)


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the command grants."""
    if not isinstance(effect, Command) or not effect.argv:
        return
    where = resource_of(effect)
    keys = _reads_keys(effect.argv)
    if not keys and _inert(effect.argv):
        yield Inert(where, NAME, "the program is known to read, and its words do not make it do more")
        return
    known = _power(effect.argv)
    if keys:
        yield granted(
            "use the credentials that it reads",
            "whoever is given its output",
            where,
            NAME,
            "such files hold credentials",
        )
    if known is not None:
        yield granted(known[0], known[1], where, NAME, known[2])


def _reads_keys(argv: Sequence[str]) -> bool:
    """Say whether a program is led to where credentials lie; `ps e` shows what other programs were started with."""
    if argv[0].rpartition("/")[2] == "ps" and any(re.fullmatch(r"[a-zA-Z]*[eE][a-zA-Z]*", word) for word in argv[1:]):
        return True
    return any(_KEYS.fullmatch(word) for word in argv[1:])


def _inert(argv: Sequence[str]) -> bool:
    name, words = argv[0], argv[1:]
    if "/" in name and not re.fullmatch(r"/(?:usr/)?bin/[\w.\[-]+", name):
        return False  # another program of that name
    name = name.rpartition("/")[2]
    if any("\0" in word or "\n" in word for word in argv):
        return False
    if name in _SUB:
        known, odd = _SUB[name]
        return bool(words) and words[0] in known.split() and not any(re.fullmatch(odd, word) for word in words)
    if name not in _READS:
        return False
    if name == "date" and any(re.match(r"-\w*s|--set", word) or re.fullmatch(r"\d{8,}.*", word) for word in words):
        return False
    if name == "hostname" and words and not words[0].startswith("-"):
        return False
    if name in ("hostname", "file", "uniq") and any(
        re.match(r"-\w*[FCm]|--(?:file|compile|magic)", word) for word in words
    ):
        return False
    return not (name == "uniq" and sum(not word.startswith("-") for word in words) > 1)


def _power(argv: Sequence[str]) -> Power | None:
    name = argv[0].rpartition("/")[2].casefold().removesuffix(".exe")
    rest = " ".join(argv[1:])
    for program, words, what, to_whom in _GRANTS:
        if re.fullmatch(program, name) and re.fullmatch(words, rest, re.DOTALL):
            return what, to_whom, "the program is known for it"
    return None
