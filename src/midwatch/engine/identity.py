"""Identity: who speaks, proved by a token where the home knows its people.

In:   a store, a token or the login name. Out: a `Speaker`.
May import: gates, records, store (port), errors. Must not know: commands, HTTP.
Why a home without principals asks for none: one person on one machine who can write the home's file could write anything into
it. As soon as one principal exists, nobody speaks without a token; SECURITY.md says what that does not stop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from midwatch.errors import Denied
from midwatch.gates.review import LOCAL, Speaker
from midwatch.records.principal import Principal, hash_token
from midwatch.store.port import Store, Tx

__all__ = ["TOKEN_VARIABLE", "identify", "local", "named", "present", "require", "speaker_of"]

TOKEN_VARIABLE: Final = "MIDWATCH_TOKEN"  # noqa: S105 - the name of a variable


def local(user: str, channel: str) -> Speaker:
    """Name whoever works on the machine."""
    return Speaker(f"{LOCAL}{user}", None, channel)


def identify(store: Store, *, token: str | None, user: str, channel: str) -> Speaker:
    """Say who speaks.

    Args:
        token: as the person gave it, or None. user: login name, used only where the home knows nobody.

    Raises:
        Denied: a token is needed and missing, unknown, or of somebody who was disabled.
    """
    return store.read(lambda tx: speaker_of(tx, token=token, user=user, channel=channel))


def speaker_of(tx: Tx, *, token: str | None, user: str, channel: str) -> Speaker:
    """Do as `identify` within a transaction."""
    if not tx.principals.list():
        if token:
            raise Denied(
                "a token was given and this home knows nobody by token; `midwatch principals add` makes the first"
            )
        return local(user, channel)
    if not token:
        raise Denied(f"this home knows its people by token; set {TOKEN_VARIABLE}, or give `--token-file`")
    found = tx.principals.by_token(hash_token(token))
    if found is None or found.disabled_us is not None:
        raise Denied("the token is not known here, or was taken back; ask an admin of this home")
    return Speaker(found.name, found, channel)


def named(tx: Tx, name: str, channel: str) -> Speaker:
    """Give the speaker behind a link: the principal must exist and be enabled. Raises `Denied` otherwise."""
    found: Principal | None = tx.principals.get(name)
    if found is None or found.disabled_us is not None:
        raise Denied("the person that this link was made for may not speak any more")
    return Speaker(found.name, found, channel)


def present(tx: Tx, speaker: Speaker) -> Speaker:
    """Give the speaker as the home knows them now: between proving who one is and speaking, rights and tokens are taken back.

    Raises:
        Denied: they were disabled or got another token since, or the home has come to know its people by token.
    """
    if speaker.principal is None:
        if tx.principals.list():
            raise Denied(
                f"this home knows its people by token by now, and `{speaker.name}` gave none; set {TOKEN_VARIABLE}"
            )
        return speaker
    found = tx.principals.get(speaker.name)
    if found is None or found.disabled_us is not None or found.token_hash != speaker.principal.token_hash:
        raise Denied(
            f"the rights of `{speaker.name}` were taken back, or the token was replaced; ask an admin of this home"
        )
    return replace(speaker, principal=found)


def require(speaker: Speaker, role: str, what: str) -> None:
    """Raise `Denied` unless they may speak in this role."""
    if not speaker.has(role):
        raise Denied(f"`{speaker.name}` may not {what}; it takes the role `{role}`")
