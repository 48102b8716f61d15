"""Kubernetes: roles and who has them, service accounts, admission, and workloads that reach the node.

In:   a file effect: any YAML or JSON that declares such objects, whatever its name. Out: findings.
May import: facts, text, tree, places. Must not know: clusters.
Source: Kubernetes API reference: rbac.authorization.k8s.io/v1, Pod Security Standards (what `restricted` forbids).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from midwatch.containment.authority.facts import ANYBODY, Effect, File, Finding, Inert, Unreadable, granted, listed
from midwatch.containment.authority.places import last
from midwatch.containment.authority.text import texts
from midwatch.containment.authority.tree import Tree, differ, json_tree, yaml_tree, yes

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "kubernetes"
_HINT: Final = re.compile(
    rb"(?i)role|serviceaccount|webhook|clusterrole|networkpolic|privileged|hostpath|hostnetwork|hostpid|hostipc|automount|secret"
    rb"|certificatesigning|podsecurity|apiservice|\\x|\\u|!!|\\\n"
)
_KINDS: Final = frozenset({"role", "clusterrole"})
_ROLES: Final = frozenset({"rolebinding", "clusterrolebinding"})
_WHOLE: Final = listed(
    """
    mutatingwebhookconfiguration validatingwebhookconfiguration apiservice certificatesigningrequest networkpolicy
    validatingadmissionpolicy validatingadmissionpolicybinding podsecuritypolicy customresourcedefinition
    """
)
_POD: Final = re.compile(
    r".*\.(?:privileged|hostnetwork|hostpid|hostipc|hostpath(?:\..*)?|allowprivilegeescalation|"
    r"runasuser|runasnonroot|capabilities\.add(?:\[\])?"
    r"|serviceaccount(?:name)?|automountserviceaccounttoken|procmount|secretname|secretkeyref\..*|secretref\..*|hostport|seccompprofile.*)",
    re.IGNORECASE,
)
_HELD: Final = re.compile(
    r".*\.(?:runasnonroot|readonlyrootfilesystem|capabilities\.drop(?:\[\])?|"
    r"allowprivilegeescalation|automountserviceaccounttoken|seccompprofile.*)",
    re.IGNORECASE,
)


def concerns(effect: Effect) -> bool:
    """Say whether this could declare such objects; cheap, and rather too often."""
    if not isinstance(effect, File) or not last(effect.change.path).endswith((".yml", ".yaml", ".json")):
        return False
    both = (effect.before or b"") + (effect.after or b"")
    return (b"kind" in both or b"\\" in both) and _HINT.search(both) is not None


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the change grants; nothing where it declares no such object."""
    if not isinstance(effect, File):
        return
    load = json_tree if last(effect.change.path).endswith(".json") else yaml_tree
    before, after = texts(effect)
    try:
        new = _objects(load(after)) if after.strip() else {}
    except Unreadable:
        if re.search(r"(?i)\bapiVersion\b.*\bkind\b|\bkind\b.*\bapiVersion\b|\\[xu]", after, re.DOTALL):
            raise
        return  # it is nothing that a cluster could take
    try:
        old = _objects(load(before)) if before.strip() else {}
    except Unreadable:
        old = {}
    told = False
    for name in {**old, **new}:
        for finding in _object(effect, name, old.get(name), new.get(name)):
            told = True
            yield finding
    if not told and (new or old):
        yield Inert(effect.change.path, NAME, "its objects give nobody a right in the cluster")


def _objects(tree: Tree) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    todo = tree if isinstance(tree, list) else [tree]
    for item in list(todo):
        inner = item.get("items") if isinstance(item, Mapping) and str(item.get("kind", "")).endswith("List") else None
        todo = [*todo, *inner] if isinstance(inner, list) else todo
    for item in todo:
        if isinstance(item, Mapping) and "kind" in item and "apiVersion" in item:
            meta = item.get("metadata")
            meta = meta if isinstance(meta, Mapping) else {}
            name = f"{item['kind']}/{meta.get('namespace', '')}/{meta.get('name', '')}".casefold()
            found[name if name not in found else f"{name}#{len(found)}"] = item
    return found


def _object(effect: File, name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterator[Finding]:
    kind, path = name.partition("/")[0], effect.change.path
    come, gone = differ(_meant(old), _meant(new))
    if kind in _ROLES and come:
        what = "the rights of a role in the whole cluster" if kind.startswith("cluster") else "the rights of a role"
        yield granted(f"{what}: {_ref(new)}", _subjects(new), path, NAME, f"a {kind} is new or another one")
    elif kind in _KINDS and come:
        yield granted(
            "more rights for whoever has the role", _name(new), path, NAME, f"a {kind} has rules that are new or others"
        )
    elif kind in _WHOLE and (come or gone):
        yield granted(
            "another rule of what the cluster lets pass", ANYBODY, path, NAME, f"a {kind} is new, another one, or goes"
        )
    elif kind not in _KINDS | _ROLES:
        powers = [place for place, value in come if _POD.fullmatch(place) and (yes(value) or _off(place))]
        powers += [place for place, _ in gone if _HELD.fullmatch(place) and place not in {at for at, _ in come}]
        if kind in ("serviceaccount", "secret") and come:
            powers.append(kind)
        if powers:
            why = f"it sets, or no longer sets, {min(powers)}"
            yield granted(
                "reach the node, the cluster's secrets, or act as another account",
                f"{kind} {_name(new)}",
                path,
                NAME,
                why,
            )


def _off(place: str) -> bool:
    return place.casefold().endswith(("runasnonroot", "runasuser"))


def _meant(item: Mapping[str, Any] | None) -> Mapping[str, Any]:
    rest = dict(item or {})
    meta = rest.get("metadata")
    if isinstance(meta, Mapping):
        kept = {key: value for key, value in meta.items() if key not in ("annotations", "labels")}
        for part in (meta.get("annotations"), meta.get("labels")):
            if isinstance(part, Mapping):
                kept |= {
                    key: value for key, value in part.items() if re.search(r"role-arn|iam|security|privileged", key)
                }
        rest["metadata"] = kept
    return rest


def _ref(item: Mapping[str, Any] | None) -> str:
    ref = (item or {}).get("roleRef")
    return str(ref.get("name", "?")) if isinstance(ref, Mapping) else "?"


def _name(item: Mapping[str, Any] | None) -> str:
    meta = (item or {}).get("metadata")
    return str(meta.get("name", "?")) if isinstance(meta, Mapping) else "?"


def _subjects(item: Mapping[str, Any] | None) -> str:
    subjects = (item or {}).get("subjects")
    names = (
        [str(one.get("name", "?")) for one in subjects if isinstance(one, Mapping)]
        if isinstance(subjects, list)
        else []
    )
    return ", ".join(names) or ANYBODY
