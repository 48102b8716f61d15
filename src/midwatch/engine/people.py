"""People: who may speak in a home: made, changed, taken back; each change recorded, never a token.

In:   a store, who orders it, names and roles. Out: the changed row; a token, once.
May import: gates, records, store (port), errors. Must not know: how a token is shown.
Why the last admin stays: a home that knows people and has no admin could never be changed again.
Why who orders it is read again in the transaction: of two who make the first person at once, only one may do so without a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from midwatch.engine.identity import present, require
from midwatch.errors import NotFound, Problem, UsageProblem
from midwatch.gates.review import Speaker
from midwatch.records.event import EventDraft
from midwatch.records.principal import NAME_PATTERN, Principal, hash_token, new_token, valid_name
from midwatch.store.port import Store, Tx

__all__ = ["add", "change", "disable", "enable", "rotate"]

_ADMIN: Final = "admin"


def add(
    store: Store, name: str, *, roles: Sequence[str], may: Sequence[str], speaker: Speaker, at_us: int
) -> tuple[Principal, str]:
    """Add a principal; gives the row and its token, which is kept nowhere.

    Raises:
        UsageProblem: everything that is wrong with the names, or the name is taken. Denied: it takes an admin, save for
            the first one, who must be an admin and may be added by whoever works on the machine.
    """
    _checked(name, roles, may)
    token = new_token()

    def work(tx: Tx) -> Principal:
        first = not tx.principals.list()
        if first and _ADMIN not in roles:
            raise UsageProblem("the first person of a home must be an admin; add `--role admin`")
        if not first:
            require(present(tx, speaker), _ADMIN, "add people")
        row = Principal(name, ",".join(roles), ",".join(may), hash_token(token), at_us, speaker.name)
        tx.principals.add(row)
        _tell(tx, row, "added", speaker, at_us)
        return row

    return store.write(work, durable=True), token


def change(
    store: Store, name: str, *, roles: Sequence[str], may: Sequence[str], speaker: Speaker, at_us: int
) -> Principal:
    """Give other roles or another reach; what is empty stays. Raises as `add`; NotFound: nobody has that name."""
    _checked(name, roles or ("viewer",), may or ("*",))
    if not roles and not may:
        raise UsageProblem("say what changes, with `--role` or `--may`")

    def changes(row: Principal) -> dict[str, object]:
        return {"roles": ",".join(roles) or row.roles, "may": ",".join(may) or row.may}

    return _change(store, name, changes, "changed", speaker, at_us)


def disable(store: Store, name: str, *, speaker: Speaker, at_us: int) -> Principal:
    """Take every right from somebody, at once. Raises as `change`."""
    return _change(store, name, lambda row: {"disabled_us": row.disabled_us or at_us}, "disabled", speaker, at_us)


def enable(store: Store, name: str, *, speaker: Speaker, at_us: int) -> Principal:
    """Give somebody their rights back, under the token they had. Raises as `change`."""
    return _change(store, name, lambda _: {"disabled_us": None}, "enabled", speaker, at_us)


def rotate(store: Store, name: str, *, speaker: Speaker, at_us: int) -> tuple[Principal, str]:
    """Give somebody a new token; the old one is worthless at once. They may do it themselves. Raises as `change`."""
    token = new_token()
    own = speaker.name == name
    row = _change(store, name, lambda _: {"token_hash": hash_token(token)}, "rotated", speaker, at_us, own=own)
    return row, token


def _change(
    store: Store,
    name: str,
    changes: Callable[[Principal], dict[str, object]],
    word: str,
    speaker: Speaker,
    at_us: int,
    *,
    own: bool = False,
) -> Principal:
    def work(tx: Tx) -> Principal:
        now = present(tx, speaker)
        if not own:
            require(now, _ADMIN, "change people")
        row = tx.principals.get(name)
        if row is None:
            raise NotFound(f"nobody is named `{name}` in this home; `midwatch principals ls` lists them")
        tx.principals.update(name, **changes(row))
        if not any(item.disabled_us is None and _ADMIN in item.role_set for item in tx.principals.list()):
            raise UsageProblem(f"`{name}` is the last admin of this home; make another one first")
        changed = tx.principals.get(name) or row
        _tell(tx, changed, word, speaker, at_us)
        return changed

    return store.write(work, durable=True)


def _tell(tx: Tx, row: Principal, word: str, speaker: Speaker, at_us: int) -> None:
    data = {"name": row.name, "roles": row.roles, "may": row.may, "word": word, "by": speaker.name}
    tx.ledger.append(EventDraft("principal.changed", None, at_us, data))
    tx.authority.raise_epoch()  # who may say yes is authority, too: what was judged before is judged again


def _checked(name: str, roles: Sequence[str], may: Sequence[str]) -> None:
    problems = []
    if not valid_name(name) or name.startswith("local"):
        problems.append(f"the name `{name}` must match `{NAME_PATTERN}` and not begin with `local`")
    problems += [f"the role `{role}` must match `{NAME_PATTERN}`" for role in roles if not valid_name(role)]
    if not roles:
        problems.append("say at least one role, with `--role`")
    problems += [f"the reach `{glob}` must be a tool's name or glob" for glob in may if not glob or "," in glob]
    if problems:
        raise UsageProblem(tuple(Problem("", text, "bad-principal") for text in problems))
