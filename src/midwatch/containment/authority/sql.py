"""SQL: statements that give rights, or decide whose they are.

In:   a SQL effect, or a file of statements. Out: findings.
May import: facts, text, sql_words, places. Must not know: any database.
A statement that a database will run is inert only if everything in it is known to be: its kind, its functions, its tables. In a file, which
nothing runs yet, only what is known to grant counts.
Source: PostgreSQL 17 SQL commands; MySQL 8 account management; SQL Server permissions; SQLite pragmas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from midwatch.containment.authority.facts import (
    UNKNOWN,
    Effect,
    File,
    Finding,
    Inert,
    Power,
    Sql,
    Unreadable,
    granted,
    listed,
)
from midwatch.containment.authority.places import last
from midwatch.containment.authority.sql_grants import given, keys_of
from midwatch.containment.authority.sql_words import Statement, readings
from midwatch.containment.authority.text import texts

__all__ = ["NAME", "concerns", "judge"]

NAME: Final = "sql"
_HINT: Final = re.compile(r"(?i)grant|role|user|policy|security|definer|owner|auth|priv|program|login")
_DEPTH: Final = 4

_SAID: Final[Power] = ("what a statement does that nobody can say", UNKNOWN, "it is none that is known to be harmless")


def concerns(effect: Effect) -> bool:
    """Say whether this is about a database."""
    return isinstance(effect, Sql) or (
        isinstance(effect, File) and last(effect.change.path).endswith((".sql", ".psql", ".ddl", ".dml"))
    )


def judge(effect: Effect) -> Iterator[Finding]:
    """Say what the statements grant."""
    if isinstance(effect, Sql):
        powers = _powers(effect.text, strict=True)
        for power in powers:
            if power != _SAID:
                yield granted(power[0], power[1], effect.place, NAME, power[2])
        if not powers:
            yield Inert(effect.place, NAME, "its statements give nobody a right")
    elif isinstance(effect, File):
        before, after = texts(effect)
        try:
            old = _powers(before, strict=False)
        except Unreadable:
            old = []
        try:
            new = _powers(after, strict=False)
        except Unreadable:
            if _HINT.search(after):
                raise
            new = []
        for power in new:
            if power not in old or before.count(power[1]) < after.count(power[1]):
                yield granted(power[0], power[1], effect.change.path, NAME, f"{power[2]}, once it is run")


def _powers(text: str, *, strict: bool, depth: int = 0) -> list[Power]:
    """Give what all readings of the text grant; ``strict``: what is not known to be harmless counts, too."""
    if depth > _DEPTH:
        raise Unreadable("it has statements within statements too deep to be looked through")
    found: list[Power] = []
    for statements in readings(text):
        for statement in statements:
            power = given(statement) or _within(statement, depth)
            if power is None and strict and not _harmless(statement):
                power = _SAID
            if power is not None:
                found.append(power)
    return list(dict.fromkeys(found))


def _within(statement: Statement, depth: int) -> Power | None:
    """Look into bodies: whatever runs them runs these."""
    for word in statement:
        if word.kind == "body" and (found := _powers(word.text, strict=False, depth=depth + 1)):
            return found[0]
    return None


# --------------------------------------------------------------------------------------------------- what does not


_HEADS: Final = listed(
    """
    SELECT WITH VALUES TABLE EXPLAIN SHOW DESCRIBE DESC INSERT UPDATE DELETE MERGE REPLACE TRUNCATE COMMENT BEGIN
    COMMIT ROLLBACK SAVEPOINT RELEASE START END ABORT ANALYZE VACUUM REINDEX OPTIMIZE LOCK UNLOCK FETCH CLOSE COPY
    REVOKE ( CHECKPOINT CLUSTER REFRESH
    """
)
_MADE: Final = listed("TABLE INDEX SEQUENCE TYPE SCHEMA VIEW DOMAIN STATISTICS COLLATION COLUMN CONSTRAINT")
_GONE: Final = _MADE | {"ROLE", "USER", "FUNCTION", "PROCEDURE", "EXTENSION", "SERVER", "LOGIN", "GROUP", "OWNED"}
_SETS: Final = listed(
    """
    STATEMENT_TIMEOUT LOCK_TIMEOUT TIME TIMEZONE NAMES CLIENT_ENCODING DATESTYLE APPLICATION_NAME WORK_MEM
    TRANSACTION
    """
)
_PRAGMAS: Final = listed(
    """
    TABLE_INFO FOREIGN_KEYS JOURNAL_MODE SYNCHRONOUS INDEX_LIST INDEX_INFO USER_VERSION INTEGRITY_CHECK BUSY_TIMEOUT
    CACHE_SIZE
    """
)
_CALLS: Final = listed(
    """
    COUNT SUM AVG MIN MAX COALESCE NULLIF LOWER UPPER TRIM LTRIM RTRIM LENGTH CHAR_LENGTH SUBSTR SUBSTRING REPLACE
    CONCAT CONCAT_WS ROUND FLOOR CEIL CEILING ABS MOD POWER SQRT GREATEST LEAST NOW DATE TIME DATETIME STRFTIME
    JULIANDAY DATE_TRUNC DATE_PART EXTRACT TO_CHAR TO_DATE TO_TIMESTAMP AGE CAST CONVERT IFNULL ISNULL IIF IF
    ROW_NUMBER RANK DENSE_RANK LAG LEAD NTILE FIRST_VALUE LAST_VALUE OVER PARTITION STRING_AGG ARRAY_AGG
    GROUP_CONCAT JSON_AGG JSONB_AGG JSON_BUILD_OBJECT JSONB_BUILD_OBJECT JSON_EXTRACT UNNEST GENERATE_SERIES
    POSITION STRPOS INSTR LEFT RIGHT LPAD RPAD SPLIT_PART REGEXP_REPLACE REGEXP_MATCHES MD5 RANDOM GEN_RANDOM_UUID
    UUID CURRENT_TIMESTAMP CURRENT_DATE YEAR MONTH DAY HOUR MINUTE DATEDIFF DATE_ADD DATE_SUB DATEADD GETDATE FORMAT
    TOTAL PRINTF TYPEOF TO_TSVECTOR TO_TSQUERY PLAINTO_TSQUERY TS_RANK VALUES IN AND OR NOT EXISTS ANY ALL SOME
    ARRAY ROW FILTER WITHIN USING KEY UNIQUE PRIMARY FOREIGN CHECK REFERENCES AS ON BY WHEN THEN ELSE CASE WHERE
    HAVING SELECT FROM JOIN UNION INTERSECT EXCEPT LATERAL DEFAULT RETURNING LIMIT SET VARCHAR CHAR CHARACTER
    NVARCHAR NCHAR DECIMAL NUMERIC INT INTEGER BIGINT SMALLINT TINYINT FLOAT DOUBLE REAL BIT BINARY VARBINARY
    TIMESTAMP TIMESTAMPTZ INTERVAL TEXT BLOB ENUM GEOMETRY VECTOR INCLUDE WITH SETS CUBE ROLLUP GROUPING EXPLAIN
    MATERIALIZED CONFLICT BTREE GIN GIST HASH BRIN
    """
)
_NAMES: Final = frozenset({"INTO", "WITH", "RECURSIVE", "COPY"})
_MADE_NAMES: Final = _NAMES | {
    "TABLE",
    "REFERENCES",
    "ON",
    "EXISTS",
    "INDEX",
    "TYPE",
    "DOMAIN",
    "KEY",
    "CONSTRAINT",
    "USING",
    "COLUMN",
}
"""Words behind which a name with `(` is no call: of tables, and, where something is made, of what is made."""

_BESIDE: Final = listed("OR REPLACE TEMP TEMPORARY UNLOGGED UNIQUE GLOBAL LOCAL MATERIALIZED IF NOT EXISTS")


def _harmless(statement: Statement) -> bool:
    keys = keys_of(statement)
    head = keys[0]
    if any(word.kind == "body" for word in statement) or ("@" in keys and head == "SET"):
        return False
    if head in ("CREATE", "ALTER", "DROP"):
        rest = [key for key in keys[1:7] if key not in _BESIDE]
        known = bool(rest) and rest[0] in (_GONE if head == "DROP" else _MADE)
        return known and (head == "DROP" or _calls(keys, statement))
    if head == "SET":
        rest = [key for key in keys[1:4] if key not in ("LOCAL", "SESSION")]
        return bool(rest) and rest[0] in _SETS
    if head == "PRAGMA":
        return len(keys) > 1 and keys[1] in _PRAGMAS
    if head == "ALTER" or head not in _HEADS:
        return head == "USE" and len(keys) == 2
    return _calls(keys, statement)


def _calls(keys: Sequence[str], statement: Statement) -> bool:
    """Say whether every function is known to be harmless."""
    names = _MADE_NAMES if keys[0] in ("CREATE", "ALTER") else _NAMES
    for at in range(1, len(keys)):
        if keys[at] != "(" or statement[at - 1].kind not in ("word", "name"):
            continue
        first = at - 1
        while first > 1 and keys[first - 1] == "." and statement[first - 2].kind in ("word", "name"):
            first -= 2
        before = keys[first - 1] if first else ""
        plain = first == at - 1 and keys[first] in _CALLS
        if not plain and before not in names and not (before == "," and _common(keys, at)):
            return False
    return True


def _common(keys: Sequence[str], at: int) -> bool:
    """Say whether a name in a list, with `(` behind it, is a common table expression or a column, not a call."""
    close, depth = at, 0
    while close < len(keys):
        depth += (keys[close] == "(") - (keys[close] == ")")
        if depth == 0:
            break
        close += 1
    return keys[0] == "WITH" and keys[close + 1 : close + 2] == ["AS"]
