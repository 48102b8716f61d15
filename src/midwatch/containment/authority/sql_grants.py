"""SQL grants: which statements give rights, or decide whose they are.

In:   a statement, as words. Out: the power that it gives, or None where it is not known to give any.
May import: facts, sql_words. Must not know: texts, who would run it.
Source: PostgreSQL 17 SQL commands; MySQL 8 account management; SQL Server permissions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from midwatch.containment.authority.facts import ANYBODY, UNKNOWN, Power, listed
from midwatch.containment.authority.sql_words import Statement, Word

__all__ = ["given", "keys_of"]

_RUNS: Final = listed(
    "EXEC EXECUTE CALL DO PREPARE LOAD INSTALL ATTACH BACKUP RESTORE REASSIGN SECURITY IMPORT HANDLER"
)
_SWITCHED: Final = listed(
    """
    SYSTEM DATABASE INSTANCE EXTENSION LANGUAGE FUNCTION PROCEDURE ROUTINE SERVER FOREIGN EVENT PUBLICATION
    SUBSCRIPTION
    """
)
_CODE: Final = listed(
    """
    FUNCTION PROCEDURE TRIGGER EVENT RULE EXTENSION LANGUAGE CAST OPERATOR AGGREGATE PACKAGE ASSEMBLY JOB SERVER
    FOREIGN PUBLICATION SUBSCRIPTION VIRTUAL DATABASE TRANSFORM CREDENTIAL
    """
)
_WORDS3: Final = listed("OR REPLACE TEMP TEMPORARY UNLOGGED UNIQUE GLOBAL LOCAL MATERIALIZED IF NOT EXISTS")


def given(statement: Statement) -> Power | None:
    """Give the power of a statement, or of one within it."""
    return _power(statement) or _inside(statement)


def keys_of(statement: Sequence[Word]) -> list[str]:
    """Give the words in upper case; texts and bodies are `?`."""
    return [word.text.upper() if word.kind in ("word", "name", "mark") else "?" for word in statement]


def _after(keys: Sequence[str], statement: Statement, *words: str) -> str:
    """Give the name behind one of these words."""
    for at, key in enumerate(keys[:-1]):
        if key in words and statement[at].kind == "word":
            name = statement[at + 1 : at + 4]
            found = name[2].text if len(name) == 3 and name[1].text == "." else name[0].text
            return found.lower() if found.isupper() else found
    return ANYBODY


def _power(statement: Statement) -> Power | None:
    keys = keys_of(statement)
    head = keys[0]
    if head == "\\":
        return "run a program, or read a file, where the client runs", UNKNOWN, "it has a command of the client"
    if head in ("GRANT", "REVOKE"):
        return _granting(keys, statement)
    if head in ("CREATE", "ALTER", "DROP", "RENAME", "REPLACE") and (made := _made(keys, statement)):
        return made
    if head == "SET":
        return _set_role(keys, statement)
    if head in _RUNS:
        return "be run in the database", UNKNOWN, f"it has {head}"
    return _reach(keys, statement)


def _made(keys: Sequence[str], statement: Statement) -> Power | None:
    head = keys[0]
    if keys[:2] == ["ALTER", "DEFAULT"] and "GRANT" in keys:
        return "rights on whatever is made later", _after(keys, statement, "TO"), "ALTER DEFAULT PRIVILEGES"
    if re.match(r"(?:CREATE|ALTER|RENAME) (?:OR )?(?:ROLE|USER|LOGIN|GROUP|SERVER)\b", " ".join(keys[:3])):
        return _account(keys, statement)
    if "POLICY" in keys[1:4]:
        return "see or change rows by another rule", _after(keys, statement, "TO"), f"{head} POLICY"
    if head == "ALTER":
        return _altered(keys, statement)
    return _code(keys) if head in ("CREATE", "REPLACE") else None


_ROLE: Final = re.compile(
    r"SET (?:LOCAL |SESSION |GLOBAL |PERSIST )?(?:ROLE|AUTHORIZATION|SESSION AUTHORIZATION|ROW_SECURITY|PASSWORD|DEFAULT ROLE)\b"
)


def _set_role(keys: Sequence[str], statement: Statement) -> Power | None:
    if not _ROLE.match(" ".join(keys[:4])):
        return None
    return (
        "act as another account, or past row security",
        _after(keys, statement, "ROLE", "AUTHORIZATION", "FOR"),
        "SET",
    )


def _granting(keys: Sequence[str], statement: Statement) -> Power | None:
    if keys[0] == "REVOKE":
        return (
            None
            if "FROM" in keys and "TO" not in keys
            else ("what was denied until now", _after(keys, statement, "TO"), "REVOKE … TO lifts a denial")
        )
    words = [key for key in keys[1 : keys.index("TO") if "TO" in keys else 6] if re.fullmatch(r"[A-Z_]+", key)]
    cut = words.index("ON") if "ON" in words else len(words)
    rights = ", ".join(words[:cut][:4]) or "rights"
    more = ", and give them on" if {"ADMIN", "OPTION"} & set(keys) else ""
    return f"{rights.lower()}{more}", _after(keys, statement, "TO"), "GRANT"


def _account(keys: Sequence[str], statement: Statement) -> Power:
    name = _after(keys, statement, "ROLE", "USER", "LOGIN", "GROUP", "SERVER")
    rights = [
        key.lower()
        for key in keys
        if key in ("SUPERUSER", "CREATEROLE", "CREATEDB", "BYPASSRLS", "REPLICATION", "LOGIN", "PASSWORD", "IDENTIFIED")
    ]
    return (
        f"an account, or more of one{': ' + ', '.join(dict.fromkeys(rights)) if rights else ''}",
        name,
        f"{keys[0]} {keys[1]}",
    )


def _altered(keys: Sequence[str], statement: Statement) -> Power | None:
    text = " ".join(keys)
    if "OWNER TO" in text or "AUTHORIZATION ON" in text or re.search(r"\bSET SCHEMA\b", text):
        return "own it", _after(keys, statement, "TO"), "another owner or schema"
    if "ROW LEVEL SECURITY" in text and not re.search(r"\b(?:ENABLE|(?<!NO )FORCE) ROW LEVEL", text):
        return "see and change all rows", ANYBODY, "row level security is off"
    if re.search(r"\bDISABLE (?:TRIGGER|RULE)\b", text):
        return "do what a trigger refused", ANYBODY, "a trigger is off"
    if re.search(r"\bSECURITY DEFINER\b|\bSECURITY_INVOKER\b|\bSQL SECURITY\b|\bEXECUTE AS\b", text):
        return "run it with its owner's rights", ANYBODY, "it runs as another account"
    if keys[1] in _SWITCHED:
        return "use the database in another way", ANYBODY, f"ALTER {keys[1]}"
    return None


def _code(keys: Sequence[str]) -> Power | None:
    kinds = [key for key in keys[1:8] if key in _CODE]
    if re.search(r"\b(?:SECURITY DEFINER|DEFINER =|EXECUTE AS|SQL SECURITY|SECURITY_DEFINER)(?!\w)", " ".join(keys)):
        return "be run with its owner's rights", ANYBODY, "it runs as whoever made it"
    if "AUTHORIZATION" in keys:
        return "own what is made", "the account that it names", "it is made for another owner"
    return ("be run, or be trusted, by whoever uses the database", ANYBODY, f"CREATE {kinds[0]}") if kinds else None


_TABLES: Final = re.compile(
    r"(?:PG_|MYSQL$|SYS|SQLITE_|INFORMATION_SCHEMA|AUTH)|.*(?:ROLE|PERMISSION|"
    r"PRIVILEGE|GRANT|ACL|POLIC(?:Y|IES)|MEMBER(?:SHIP)?S?$|API_?KEY|TOKEN|CREDENTIAL|SESSION"
    r"|ADMIN|OAUTH|WEBHOOK|INVIT|COLLABORATOR|SECRET|SCOPE|ENTITLE|ALLOW_?LIST|WHITE_?LIST|SCHEDULE|CRON|FEATURE_?FLAG)"
)
_PEOPLE: Final = re.compile(r"(?:.*_)?(?:USERS?|ACCOUNTS?|LOGINS?|PRINCIPALS?|OPERATORS?|EMPLOYEES?)$")
_RIGHTS: Final = re.compile(
    r".*(?:ROLE|ADMIN|SUPER|PERM|PASS|PWD|MAIL|SECRET|TOKEN|KEY|GROUP|STAFF|"
    r"ACTIVE|ENABLED|LOCKED|MFA|OTP|OWNER|SCOPE|LEVEL|TIER|PRIV|ACCESS|STATUS|HASH)"
)


def _reach(keys: Sequence[str], statement: Statement) -> Power | None:
    if keys[0] in ("COPY", "SELECT", "LOAD", "WITH", "TABLE") and (
        {"PROGRAM", "OUTFILE", "DUMPFILE", "INFILE"} & set(keys)
    ):
        return "run a program, or reach files, on the database's machine", UNKNOWN, "it names a program or a file"
    if keys[0] == "COPY" and not {"STDIN", "STDOUT"} & set(keys):
        return "reach files on the database's machine", UNKNOWN, "COPY names a file"
    written = _written(keys, statement)
    for name in written:
        if _TABLES.match(name):
            return (
                "what the table says that somebody may do",
                f"whoever {name.lower()} is about",
                "it writes to a table of rights",
            )
        if _PEOPLE.match(name) and (
            "INSERT" in keys or "MERGE" in keys or "REPLACE" in keys or any(_RIGHTS.match(key) for key in _set(keys))
        ):
            return "an account, or more of one", f"whoever {name.lower()} is about", "it writes to a table of accounts"
    return None


def _written(keys: Sequence[str], statement: Statement) -> list[str]:
    """Give the last names of the tables that a statement changes; of one that only reads, none."""
    found: list[str] = []
    for at, key in enumerate(keys):
        changes = (
            key in ("INTO", "UPDATE")
            or (key == "FROM" and at and keys[at - 1] == "DELETE")
            or key in ("TRUNCATE", "MERGE")
        )
        if not changes or statement[at].kind != "word":
            continue
        rest = [
            word
            for word in keys[at + 1 : at + 9]
            if word not in ("INTO", "TABLE", "ONLY", "IGNORE", "LOW_PRIORITY", "OR", "IF", "EXISTS")
        ]
        name = rest[:1]
        while len(rest) > 2 and rest[1] == ".":
            rest = rest[2:]
            name.append(rest[0])
        found += [word.strip('"`').upper() for word in name]
    return found


def _set(keys: Sequence[str]) -> list[str]:
    return list(keys[keys.index("SET") :]) if "SET" in keys else []


_BEGINS: Final = listed("GRANT DENY EXEC EXECUTE ALTER CREATE")


def _inside(statement: Statement) -> Power | None:
    """Look for a statement behind another: not every database wants a mark between them, and some nest them."""
    if statement[0].text == "REVOKE":
        return None
    for at, word in enumerate(statement[1:-1], 1):
        if word.kind == "word" and word.text in _BEGINS and statement[at + 1].text != "OPTION":
            found = _power(statement[at:])
            if found is not None:
                return found
    return None
