"""A principal: a person, or a program that speaks for one, with a token and roles.

Roles contain each other: an admin may do what an approver may, an approver what an operator may, an operator what a viewer may.
A role of a fleet's own (`finance`, `dba`) stands beside them: only who has it, or an admin, answers what asks for it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal, get_args

__all__ = ["NAME_PATTERN", "RANKS", "Principal", "Rank", "hash_token", "new_token", "valid_name"]

Rank = Literal["viewer", "operator", "approver", "admin"]
RANKS: Final[tuple[Rank, ...]] = get_args(Rank)
NAME_PATTERN: Final = r"^[a-z][a-z0-9_.@-]{0,63}$"
_PREFIX: Final = "mw_"


def new_token() -> str:
    """Make a token with 256 random bits; shown once, stored only as its hash."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Hash a token for storage. SHA-256 without salt or stretching is enough for 256 random bits (RFC 6819, 5.1.4.1.3)."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def valid_name(name: str) -> bool:
    """Say whether `name` may name a principal or a role."""
    return re.fullmatch(NAME_PATTERN, name) is not None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who may speak.

    Attributes:
        name: unique in the home.
        roles: comma-separated; `RANKS` and a fleet's own words.
        may: comma-separated globs of tools that this principal may approve (its reach); `*` for all.
        token_hash: `hash_token` of its token.
        disabled_us: since when it may do nothing, or None.
    """

    name: str
    roles: str
    may: str
    token_hash: str
    created_us: int
    created_by: str
    disabled_us: int | None = None

    @property
    def role_set(self) -> frozenset[str]:
        """Give every role that it has, those contained in a higher rank included."""
        own = {role for role in self.roles.split(",") if role}
        highest = max((RANKS.index(role) for role in RANKS if role in own), default=-1)
        return frozenset(own | set(RANKS[: highest + 1]))

    def has(self, role: str) -> bool:
        """Say whether it may speak in this role; an admin may speak in every one."""
        return self.disabled_us is None and (role in self.role_set or "admin" in self.role_set)

    def reaches(self, tool: str) -> bool:
        """Say whether its reach covers an action of this tool."""
        return any(fnmatchcase(tool, glob) for glob in self.may.split(",") if glob)
