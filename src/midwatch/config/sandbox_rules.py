"""Sandbox rules: what in one `sandbox:` fits together, and what would undo it.

In:   the draft, one block and its place, the environment. Out: problems.
May import: `draft`, `sandbox_model`, `sandbox_mounts`, `yaml_source`; errors. Must not know: backends, what this machine can hold.
Whatever is accepted here is accepted by the broker, too (`sandbox.egress_rules`); a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from midwatch.config.draft import Draft
from midwatch.config.sandbox_model import EgressFile, SandboxFile
from midwatch.config.sandbox_mounts import check_mounts
from midwatch.config.yaml_source import Place
from midwatch.errors import Problem

__all__ = ["PROCESS_LIMITS", "SECRET", "check_sandbox"]

SECRET: Final = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]{0,127})\}")
"""How a header names a secret."""

PROCESS_LIMITS: Final = ("memory", "cpu", "processes", "open_files", "file_size")
"""Bounds that a process without a sandbox can be given."""

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")
_LOCAL: Final = frozenset(
    (
        *(
            "localhost",
            "localdomain",
            "localdomain6",
            "local",
            "internal",
            "intranet",
            "private",
            "lan",
            "home",
            "corp",
        ),
        *("arpa", "svc", "onion", "test", "invalid", "example"),
    )
)
"""Last labels of names that lead to this machine or its own network."""
_FRAMING: Final = frozenset(
    (
        *("host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection"),
        *("te", "trailer", "upgrade", "expect"),
    )
)
_CARRIERS: Final = (
    "authorization",
    "cookie",
    "api-key",
    "apikey",
    "token",
    "secret",
    "password",
    "credential",
    "signature",
)
"""Words in the name of a header that carries a credential."""
_CREDENTIAL: Final = re.compile(
    r"-----BEGIN |eyJ[\w-]{8,}\.[\w-]{4,}\.|\bsk-[\w-]{16,}|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bgl[a-z]{2,5}-[\w-]{16,}"
    r"|\bxox[a-z]-[\w-]{10,}|\bxapp-[\w-]{10,}|\b[rsp]k_(?:live|test)_\w{16,}|\bA[KS]IA[A-Z0-9]{16}|\bAIza[\w-]{30,}|\bhf_\w{20,}"
    r"|\bnpm_\w{20,}|\bpypi-[\w-]{20,}|\bSG\.[\w-]{16,}|://[^\s/@:]{0,100}:[^\s/@]{1,300}@|(?i:\b(?:bearer|basic)\s+[\w+/.=~-]{8,})",
    re.ASCII,
)
"""Forms that nothing but a credential has; `containment.credentials` knows more of them."""
_SECRET_NAME: Final = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PWD|CREDENTIALS?|AUTH)$")
_STANDINS: Final = frozenset(("", "none", "unused", "placeholder", "sandbox", "broker"))
"""What clients that insist on a key may be given, since the broker adds the real one."""
_OF_LOADER: Final = re.compile(
    r"LD_.*|DYLD_.*|GLIBC_TUNABLES|GCONV_PATH|MALLOC_.*|PYTHON.*|BASH_ENV|ENV|SHELLOPTS|BASHOPTS|PS4|IFS|NODE_OPTIONS"
    r"|PERL5OPT|PERL5LIB|RUBYOPT|RUBYLIB|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS"
)
_HARMLESS: Final = frozenset(
    (
        "PYTHONUNBUFFERED",
        "PYTHONHASHSEED",
        "PYTHONIOENCODING",
        "PYTHONUTF8",
        "PYTHONWARNINGS",
        "PYTHONDONTWRITEBYTECODE",
    )
)
_OWN: Final = re.compile(r"PATH|HOME|USER|LOGNAME|(?i:https?_proxy|all_proxy|no_proxy|ftp_proxy)|MIDWATCH_.*")


def check_sandbox(
    draft: Draft, place: Place, sandbox: SandboxFile | None, *, base: Path, environ: Mapping[str, str]
) -> Iterator[Problem]:
    """Check one `sandbox:`."""
    if sandbox is None:
        return
    yield from _shape(draft, place, sandbox)
    yield from check_mounts(draft, (*place, "mounts"), sandbox.mounts, base=base, environ=environ)
    for index, rule in enumerate(sandbox.egress):
        yield from _rule(draft, (*place, "egress", index), rule, sandbox.secrets)
    yield from _secrets(draft, place, sandbox, environ)
    yield from _env(draft, (*place, "env"), sandbox)


def _shape(draft: Draft, place: Place, sandbox: SandboxFile) -> Iterator[Problem]:
    """Refuse keys that the chosen backend cannot hold."""
    backend = sandbox.backend or "bubblewrap"
    if backend == "process":
        if sandbox.because is None:
            message = "`process` does not isolate; say why in words, with `because`, or choose another backend"
            yield draft.problem((*place, "backend"), message, "unexplained-sandbox")
        for key in ("mounts", "egress", "secrets", "env", "commit"):
            if key in sandbox.model_fields_set and getattr(sandbox, key):
                message = f"`process` isolates nothing, so it cannot hold `{key}`; take it away, or choose `bubblewrap`"
                yield draft.problem((*place, key), message, "sandbox-shape")
        for key in sorted(sandbox.limits.model_fields_set if sandbox.limits is not None else ()):
            if key not in PROCESS_LIMITS and getattr(sandbox.limits, key) is not None:
                message = f"`process` cannot hold the limit `{key}`; take it away, or choose `bubblewrap`"
                yield draft.problem((*place, "limits", key), message, "sandbox-shape")
    if backend != "docker":
        for key in ("image", "runtime"):
            if getattr(sandbox, key) is not None:
                message = f"`{key}` is for `backend: docker`, and this is `{backend}`; take it away, or choose `docker`"
                yield draft.problem((*place, key), message, "sandbox-shape")


def _rule(draft: Draft, place: Place, rule: EgressFile, secrets: tuple[str, ...]) -> Iterator[Problem]:
    wrong = _host(rule)
    if wrong is not None:
        yield draft.problem((*place, "host"), f"the host `{rule.host}` {wrong}", "bad-host")
    for index, glob in enumerate(rule.paths):
        if not glob.startswith(("/", "*")) or not glob.isprintable():
            message = f"`{glob}` matches no path; a path begins with `/`, such as `/repos/*`"
            yield draft.problem((*place, "paths", index), message, "bad-form")
        elif any(part in (".", "..") for part in glob.split("/")):
            message = f"`{glob}` holds a `.` or `..` part, which is never sent; write the path that is meant"
            yield draft.problem((*place, "paths", index), message, "bad-form")
    for header, value in rule.headers.items():
        for message, code in _header(rule, header, value, secrets):
            yield draft.problem((*place, "headers", header), message, code)


def _host(rule: EgressFile) -> str | None:
    """Say what is wrong with a rule's host; None when nothing is."""
    wild = rule.host.startswith("*.")
    name = rule.host.removeprefix("*.")
    if "/" in name or "@" in name:
        return "is more than a name; write the name alone, and the rest as `port`, `tls` and `paths`"
    if ":" in name or _NUMBER.fullmatch(name.rpartition(".")[2]) or name.startswith("["):
        return "is no name; write a name without port: addresses are refused, since nobody can tell whose they are"
    if "*" in name or "?" in name:
        return "holds a wildcard; only `*.` before a name is one"
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "is no host name; write it in small letters, other alphabets as `xn--…`, without a dot at its end"
    local = len(labels) == 1 or labels[-1] in _LOCAL
    if wild and local:
        return "would be a whole domain of the internet or of this network; name the hosts"
    if local and not rule.private:
        return "is a name of this machine or its network; say `private: true` if that is meant"
    return None


def _header(rule: EgressFile, header: str, value: str, secrets: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Give (message, code) for what is wrong with a header. Its value is never quoted."""
    if header.lower() in _FRAMING:
        yield f"the header `{header}` is the broker's own; take it away", "bad-header"
    if not (value.isascii() and value.isprintable()):
        yield f"the header `{header}` holds characters that no header can; write it in ASCII", "bad-header"
    named = SECRET.findall(value)
    rest = SECRET.sub("", value)
    for name in dict.fromkeys(named):
        if name not in secrets:
            yield f"the header `{header}` names the secret `{name}`; add it to `secrets`", "unknown-secret"
    if "${" in rest:
        yield (
            f"the header `{header}`: a secret is written `${{secret:NAME}}`; nothing else is replaced",
            "misplaced-variable",
        )
    carries = any(word in header.lower().replace("_", "-") for word in _CARRIERS)
    if _CREDENTIAL.search(rest) or (carries and not named):
        help_ = "write `${secret:NAME}`, and NAME into `secrets`"
        yield f"the header `{header}` would hold a credential in plain; {help_}", "literal-credential"
    if named and not rule.tls and not rule.private:
        yield f"the header `{header}` would send a secret unencrypted; take `tls: false` away", "plain-secret"


def _secrets(draft: Draft, place: Place, sandbox: SandboxFile, environ: Mapping[str, str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, name in enumerate(sandbox.secrets):
        at: Place = (*place, "secrets", index)
        if name in seen:
            yield draft.problem(at, f"`{name}` stands twice in this list; remove one of them", "duplicate-entry")
        seen.add(name)
        value = environ.get(name, "")
        if sandbox.backend == "process":
            continue  # refused already
        if not value:
            message = f"the sandbox needs the environment variable `{name}`; set it, or take it out of `secrets`"
            yield draft.problem(at, message, "missing-variable")
        elif not (value.isascii() and value.isprintable()):
            message = (
                f"the environment variable `{name}` holds characters that no header can, such as a new line; correct it"
            )
            yield draft.problem(at, message, "bad-secret")


def _env(draft: Draft, place: Place, sandbox: SandboxFile) -> Iterator[Problem]:
    for name, value in sandbox.env.items():
        if _OF_LOADER.fullmatch(name) and name not in _HARMLESS:
            message = f"`{name}` would change what every program inside loads; take it away"
            yield draft.problem((*place, name), message, "reserved-variable")
        elif _OWN.fullmatch(name):
            message = f"`{name}` is set by the sandbox itself; take it away"
            yield draft.problem((*place, name), message, "reserved-variable")
        elif name in sandbox.secrets:
            message = f"`{name}` is one of `secrets`, which never enter a sandbox; take it out of `env`, or rename it"
            yield draft.problem((*place, name), message, "reserved-variable")
        elif _CREDENTIAL.search(value) or (_SECRET_NAME.search(name.upper()) and value.lower() not in _STANDINS):
            message = (
                f"`{name}` looks like a credential, and whatever is in `env` can be read inside; let the broker add it, with "
                "`secrets` and `egress.headers`, and write `unused` here where a client insists on a value"
            )
            yield draft.problem((*place, name), message, "literal-credential")
