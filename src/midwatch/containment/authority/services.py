"""Services: requests that give somebody a right.

In:   an HTTP effect. Out: findings.
May import: facts, the table, tree. Must not know: credentials, whether the service would take it.
A request that only reads is inert, unless the service acts on reads; one that is known to give something is said so; of all others nothing
is said, and they count as granting (CONTAINMENT.md 25). A host is compared in its one spelling, a path decoded, without dots and doubled
slashes: a spelling that a server could read in two ways is unreadable.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from midwatch.containment.authority.facts import (
    MOST,
    UNKNOWN,
    Effect,
    Finding,
    Http,
    Inert,
    Unreadable,
    granted,
    listed,
    resource_of,
)
from midwatch.containment.authority.services_table import ACTIONS, GRANTS, GRAPHQL, INERT, READS, Row
from midwatch.containment.authority.tree import Tree, json_tree

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "services"
_OVERRIDES: Final = listed("x-http-method-override x-method-override x-http-method x-original-url x-rewrite-url")
_AWS: Final = re.compile(r"(?:.+\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)")
_ABOUT_RIGHTS: Final = listed(
    """
    iam sts sso organizations ram cognito-idp cognito-identity kms secretsmanager access-analyzer identitystore
    sso-admin
    """
)
_RIGHTS: Final = re.compile(
    r"(?i)polic|permission|acl|role|access|key|grant|principal|trust|ingress|"
    r"egress|public|share|attribute|credential|user|login|webhook|subscri|resourcerecord|"
    r"function|layer|authoriz"
)
_QUERY: Final = listed("acl policy publicaccessblock cors website notification ownershipcontrols replication")
_QUERIES: Final = listed(
    "addparents transferownership role roles acl permission permissions scope scopes visibility _method"
)
"""Settings in an address that make something else of a request that is known."""
_WORDS: Final = re.compile(
    r"(?:permissions?|roles?|members?(?:hips?)?|collaborat\w+|invit\w+|web_?-?hooks?|"
    r"hooks?|(?:deploy|api|ssh|access|gpg)?[-_]?keys|tokens?|grants?|acls?|polic(?:y|"
    r"ies)|iam|oauth2?|shar(?:e|es|ing)"
    r"|service-?_?accounts?|admins?|owners?|secrets?|credentials?|runners?|protections?|"
    r"allow_?-?lists?|white_?-?lists?|users?|accounts?|sessions?|apps|installations|"
    r"integrations|schedules?|crons?|jobs|plugins?|extensions?|environments?|"
    r"variables)"
)


def concerns(effect: Effect) -> bool:
    """Say whether this is a request."""
    return isinstance(effect, Http)


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the request grants."""
    if not isinstance(effect, Http):
        return
    request, where = effect.request, resource_of(effect)
    if any(name.casefold() in _OVERRIDES for name, _ in request.headers):
        raise Unreadable("a header may make another request of it")
    method, host = request.method.upper(), _host(request.host)
    path, query = _path(request.url, request.path)
    if request.method == "CONNECT":
        raise Unreadable("it is a tunnel, into which nobody can look")
    if _AWS.fullmatch(host):
        yield from _aws(effect, method, host, path, query)
        return
    if path.endswith(("/graphql", "/graphql/v1")):
        yield from _graphql(effect, method, where)
        return
    yield from _listed(effect, method, host, path, query) or _unlisted(method, where, path)


def _listed(effect: Http, method: str, host: str, path: str, query: str) -> list[Finding]:
    """Say what the tables say; nothing where they do not know the request."""
    where = resource_of(effect)
    for row in GRANTS:
        if _fits(row, method, host, path):
            return [granted(row[3], row[4], where, NAME, f"{method} to that address is known for it")]
    if not any(_fits(row, method, host, path) for row in INERT):
        return []
    if {key.casefold() for key, _ in parse_qsl(query, keep_blank_values=True)} & _QUERIES:
        raise Unreadable("its query may give somebody a right")
    why = next(row[3] for row in INERT if _fits(row, method, host, path))
    return list(_plain(effect, where, why))


def _unlisted(method: str, where: str, path: str) -> list[Finding]:
    """Judge by method and by the words of the path alone."""
    if method in READS:
        return [Inert(where, NAME, "it only reads")]
    named = next((part for part in path.split("/") if _WORDS.fullmatch(part)), None)
    if named is None:
        return []
    return [granted("rights, or what acts with them", UNKNOWN, where, NAME, f"its path names {named}")]


def _plain(effect: Http, where: str, why: str) -> Iterator[Finding]:
    """Say that a request is inert, unless its body names rights."""
    keys = [
        key
        for key in _keys(_body(effect))
        if re.fullmatch(
            r"(?:.*_)?(?:permissions?|roles?|acl|webhook\w*|public|visibility|collaborators?|maintainer_can_modify)",
            key,
        )
    ]
    if keys and not set(keys) <= {"maintainer_can_modify"}:
        yield granted("rights that the request names", UNKNOWN, where, NAME, f"its body sets {keys[0]}")
    else:
        yield Inert(where, NAME, why)


def _host(host: str) -> str:
    plain = unicodedata.normalize("NFKC", host).casefold().rstrip(".")
    if not re.fullmatch(r"[a-z0-9._-]+|\[?[0-9a-f:.]+\]?", plain):
        raise Unreadable("its host has a name that could be read in two ways")
    return plain


def _path(url: str | None, path: str) -> tuple[str, str]:
    parts = urlsplit(url or path)
    text = parts.path or path or "/"
    plain = unicodedata.normalize("NFKC", unquote(text, errors="strict")).casefold()
    if re.search(r"%[0-9a-f]{2}|[\\\x00-\x1f;]|\.\.|//|/\./", plain):
        raise Unreadable("its path could be read in two ways")
    return plain.rstrip("/") or "/", parts.query


@lru_cache(maxsize=1024)
def _pattern(path: str) -> re.Pattern[str]:
    text = path.replace(".", r"\.").replace("(?:", "\0(").replace("{*}", "\0*").replace("{}", "\0.")
    text = text.replace("/\0*/", "/(?:.*/)?")
    text = re.sub(r"/\x00\*$", r"(?:/.*)?", text).replace("\0*", ".*").replace("\0.", "[^/]+").replace("\0(", "(?:")
    return re.compile(text)


def _fits(row: Row, method: str, host: str, path: str) -> bool:
    hosts, methods, pattern, *_ = row
    return (
        (methods == "any" or method in methods.split())
        and any(fnmatchcase(host, glob) for glob in hosts)
        and (_pattern(pattern).fullmatch(path.removeprefix("/api/v3") if "github" in host else path) is not None)
    )


# ---------------------------------------------------------------------------------------------------------------- bodies


def _body(effect: Http) -> Tree:
    if effect.unread or len(effect.body or b"") > MOST:
        raise Unreadable(effect.unread or "its body is too large to be looked through")
    if not effect.body or effect.body.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        return json_tree(effect.body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Unreadable("its body is no UTF-8 text") from error


def _keys(value: Tree) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key.casefold()
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)


def _graphql(effect: Http, method: str, where: str) -> Iterator[Finding]:
    body = _body(effect)
    items = body if isinstance(body, list) else [body]
    texts = [item.get("query") for item in items if isinstance(item, dict)]
    if method == "GET" or len(texts) != len(items) or not all(isinstance(text, str) and text for text in texts):
        raise Unreadable("it is a query that is not in its body")
    whole = re.sub(r'"""(?:[^"]|"(?!""))*"""|"(?:[^"\\\n]|\\.)*"|#[^\n]*', " ", "\n".join(str(text) for text in texts))
    if not re.search(r"\b(?:mutation|subscription)\b", whole):
        yield Inert(where, NAME, "it is a query, which only reads")
        return
    called = re.findall(
        r"(?:^|[{}\s,:])([A-Za-z_]\w*)\s*[({]",
        re.sub(r"\b(?:mutation|subscription|query|fragment)\b\s*\w*", " ", whole),
    )
    named = next((name for name in called if re.fullmatch(GRAPHQL, name, re.IGNORECASE)), None)
    if named is not None:
        yield granted("rights, or what acts with them", UNKNOWN, where, NAME, f"it calls {named}")
    elif {name.casefold() for name in called} <= _SAYS and {name.casefold() for name in called} & _COMMENTS:
        yield Inert(where, NAME, "it says something")


_COMMENTS: Final = frozenset({"addcomment", "createissue", "addreaction", "createnote"})
_SAYS: Final = _COMMENTS | {"input", "issue", "commentedge", "node", "note", "reaction", "subject"}


def _aws(effect: Http, method: str, host: str, path: str, query: str) -> Iterator[Finding]:
    where, service = resource_of(effect), _service(host)
    settings = {key.casefold() for key, _ in parse_qsl(query, keep_blank_values=True)}
    action = _action(effect, query)
    if action is None and service == "s3":
        if settings & _QUERY and method not in READS:
            yield granted(
                "reach what the bucket holds",
                "whoever the policy or list names",
                where,
                NAME,
                f"it sets {min(settings & _QUERY)}",
            )
        elif any(name.casefold().startswith(("x-amz-acl", "x-amz-grant")) for name, _ in effect.request.headers):
            yield granted("reach the object", "whoever the list names", where, NAME, "a header sets its access list")
        elif re.search(r"x-amz-(?:acl|grant)", query.casefold()):
            raise Unreadable("its query sets an access list")
        else:
            yield Inert(where, NAME, "it reads or writes an object, and its access stays")
        return
    if action is None:
        if method in READS and not re.search(_RIGHTS, path):
            yield Inert(where, NAME, "it only reads")
            return
        if re.search(_RIGHTS, path):
            yield granted("rights in the cloud", UNKNOWN, where, NAME, "its path names them")
    elif re.fullmatch(ACTIONS, action) and (service in _ABOUT_RIGHTS or _RIGHTS.search(action)):
        yield granted(
            f"rights in the cloud ({action})", "the principal that it names", where, NAME, "the action is known for it"
        )
    elif re.match(
        r"(?:Get|List|Describe|Head|Query|Scan|Batch(?:Get)|Search|Lookup|Simulate|"
        r"PutMetricData|PutLogEvents|SendMessage|ReceiveMessage|Publish\b|PutItem|"
        r"UpdateItem|DeleteItem)",
        action,
    ):
        yield Inert(where, NAME, "the action reads, or writes data")


def _service(host: str) -> str:
    if re.search(r"(?:^|\.)s3[.-]", host):
        return "s3"
    return host.split(".", maxsplit=1)[0]


def _action(effect: Http, query: str) -> str | None:
    found = {value for name, value in effect.request.headers if name.casefold() == "x-amz-target"}
    found = {value.rpartition(".")[2] for value in found}
    found |= {value for key, value in parse_qsl(query) if key == "Action"}
    body = effect.body or b""
    if effect.unread:
        raise Unreadable(effect.unread)
    if b"Action=" in body:
        found |= {value for key, value in parse_qsl(body.decode("utf-8", "replace")) if key == "Action"}
    if len(found) > 1 or any(not re.fullmatch(r"[A-Za-z]\w{0,99}", action) for action in found):
        raise Unreadable("it names more than one action")
    return next(iter(found), None)
