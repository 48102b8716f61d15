r"""Words: what in a plain text is about deploying, production, databases, billing or deleting.

In:   a folded reading (`gates.canonical`) and how strictly to read it. Out: the families it speaks of.
May import: gates.commands, gates.tongues. Must not know: disguises, tools, arguments.
Why tokens first: nearly every text holds none of the words; that is found out by one split and one set operation, and the patterns
below run only for the tokens that call for them.

What counts, by `Manner`:
    prose   content that somebody acts on: the five words anywhere in a word with their inflections (`deleteUser`, `redeployed`), save
            the near ones (`reproduction`, `deleterious`, `Billings`), and the obvious ones of six other languages
            (`gates.tongues`); `prod`, `db`, `refund`, `invoice`, `purge`, `wipe`, `erase`,
            `destroy`, database engines (`postgres`) as whole words; SQL that changes something; `drop` and `truncate` beside what
            they drop, `charge` and `bill` beside whom; commands with their arguments (`rm -rf`, `kubectl apply`)
    act     target, selector, credential, control: prose, and more segments of identifiers, hosts and paths (`rds`, `/payments`,
            `/charges`), a verb that is the whole value (`drop`, `remove`, `truncate`)
    command act, and programs by name alone in a command's place, those named like words too (`truncate`, `unlink`)
    tool    act, for a tool's own name, and the verbs and nouns that name a tool (`queue.drop`, `run_sql`, `charge_card`)
    letters what a letter game gave (leetspeak, words taken apart): whole long words only, for the rest is chance
Not read as a word: hashes, UUIDs, colours, addresses of hardware, runs of encoded data; `dB` after a number or among sound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, Literal

from midwatch.gates.commands import in_commands
from midwatch.gates.tongues import foreign

__all__ = ["WORDS", "Manner", "families", "keyword"]

WORDS: Final = ("deploy", "production", "database", "billing", "delete")
Manner = Literal["prose", "act", "command", "tool", "letters"]

_CORE: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("delet", "delete", re.compile(r"delet(?:e(?!ri)|ing|ion|ar\b|ad[oa]\b)")),
    ("deploy", "deploy", re.compile(r"deploy")),
    ("database", "database", re.compile(r"database")),
    (
        "production",
        "production",
        re.compile(
            r"(?:(?<![a-z])(?:non|post|pre|is|in|to|on|for|my|the|our|app|web|api|env|live|use|run|push)?|_)production"
        ),
    ),
    (
        "billing",
        "billing",
        re.compile(r"(?<![a-z])(?:re|auto|pre|e|my|user|app|the|our|is)?billing(?!s\b|sley|ham|ton|e\b)"),
    ),
)
_LETTERS: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (needle, word, re.compile(rf"(?<![a-z])(?:{pattern})(?![a-z])"))
    for needle, word, pattern in (
        ("delet", "delete", r"(?:un)?delet(?:e|ed|es|er|ing|ion|ions)(?:[a-z]{0,12})?"),
        ("deploy", "deploy", r"(?:re|un)?deploy(?:s|ed|er|ing|ment|ments)?"),
        ("database", "database", r"databases?"),
        ("production", "production", r"(?:pre|non)?production"),
        ("billing", "billing", r"billing"),
        ("prod", "production", r"prod"),
        ("trunc", "delete", r"truncate"),
        ("purg", "delete", r"purge[ds]?|purging"),
        ("wip", "delete", r"wipe[ds]?|wiping"),
        ("destroy", "delete", r"destroy(?:s|ed|ing)?"),
        ("eras", "delete", r"erase[ds]?|erasing"),
        ("drop", "delete", r"drop(?:table|database|db|schema)s?"),
        ("rmtree", "delete", r"rmtree"),
        ("rmrf", "delete", r"rmrf|sudorm(?:rf)?"),
        ("refund", "billing", r"refund(?:s|ed|ing)?"),
        ("invoice", "billing", r"invoice[ds]?"),
        ("psql", "database", r"psql"),
        ("postgres", "database", r"postgres(?:ql)?"),
        ("mysql", "database", r"mysql"),
        ("kubectl", "deploy", r"kubectl(?:apply|delete)"),
        ("terraform", "deploy", r"terraform(?:apply|destroy)"),
    )
)
# The five words written with blanks in them: `pro duction`, `d ele te`. Quote marks are no blanks: French has `de l'été`.
_GAPPED: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (word, word, re.compile(r"(?<![a-z])" + r"[\s\x01]{0,3}".join(word) + rf"(?:{ends})?(?![a-z])"))
    for word, ends in (
        ("deploy", "s|ed|er|ing|ments?"),
        ("production", ""),
        ("database", "s"),
        ("billing", ""),
        ("delete", "[sdr]"),
    )
)
# The same with other marks among the blanks: `d e-l e-t e`. One gap alone is read elsewhere (`gates.letters`).
_MARKED: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (word, re.compile(r"(?<![a-z])" + r"[^a-z0-9]{0,4}".join(word) + r"(?![a-z])")) for word in WORDS
)
_NOT_LETTER = re.compile(r"[^a-z]+")

_TOKEN = re.compile(r"[a-z0-9]+")
_NOISE = re.compile(
    r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"
    r"|(?<![0-9a-z])(?:[0-9a-f]{2}[:-]){3,7}[0-9a-f]{2}(?![0-9a-z])|(?<![0-9a-z:])[0-9a-f]{1,4}(?:::?[0-9a-f]{1,4}){2,7}(?![0-9a-z:])"
    r"|(?<![0-9a-z])(?:[0-9a-f]{2,4} ){3,}[0-9a-f]{2,4}(?![0-9a-z])|#[0-9a-f]{3}(?:[0-9a-f]{3})?\b|\b0x[0-9a-f]+\b"
    r"|[a-z0-9+/=_]{60,}"
)
_SWITCH = re.compile(r"[a-z][0-9]|[0-9][a-z]")

_SOUND = frozenset(
    {"decibel", "decibels", "audio", "loudness", "lufs", "ffmpeg", "snr", "spl", "dbfs", "dba", "dbm", "hz", "khz"}
)
_DB = re.compile(r"(?<![a-z0-9])(?<!\bim_)(?<!\btm_)dbs?\d{0,2}(?![a-z0-9])")
_LEVEL = re.compile(
    r"(?:\d[\s\x01]?|(?:gain|volume|level|snr|noise|threshold|peak|rms|loss|attenuation)[_ ]\(?(?:in )?)$"
)
_PRD = re.compile(
    r"[-_=]prd\d?(?![a-z0-9])|(?<![a-z0-9])prd\d?[-_]|//prd\d?\.|@prd\d?\.|\.prd\d?(?:\.|$)"
    r"|(?:^|[/\\])prd\d?(?:[/\\][\w.-]+)?\.(?:ya?ml|json|toml|env|ini|cfg|conf|properties|tfvars|tfstate|tf|hcl|xml|sh|py|sql)(?![a-z0-9])"
)

_CHARGE = re.compile(
    r"(?<![a-z])(?<!in[-_ ])(?<!re)(?:charge[ds]?|charging)(?: of)?[\s\x01_]+(?:the[\s\x01_]+|all[\s\x01_]+|every[\s\x01_]+|each[\s\x01_]+|"
    r"a[\s\x01_]+|our[\s\x01_]+|their[\s\x01_]+|his[\s\x01_]+|her[\s\x01_]+|saved[\s\x01_]+)*"
    r"(?:card|customer|client|account|user|tenant|subscriber|credit|\$|€|£|usd|eur|\d+[.,]\d\d)"
)
_CHARGES = re.compile(
    r"(?:^|(?<!in)(?<!of)(?<!service)[/_.:-])charges?(?:$|[/_.:?-])|(?:create|capture|get|list|post)charges?"
)
_BILL = re.compile(
    r"(?<![a-z])bill(?:s|ed)?[\s\x01_-]+(?:the[\s\x01_]+|all[\s\x01_]+|every[\s\x01_]+|each[\s\x01_]+|our[\s\x01_]+)*"
    r"(?:customer|client|account|user|tenant|subscriber|card|company|companies)s?"
)
_LIVE = re.compile(
    r"(?:env|environment|stage|tier|mode)[\"']?[\s\x01]?[=:][\s\x01]?[\"']?live(?![a-z0-9])|--env[ =]live\b"
)
_LIVE_KEY = re.compile(r"\b[srp]k_live_")

_DROP = re.compile(
    r"(?<![a-z])drop[\W_]{0,3}(?:if[\W_]exists[\W_])?(?:the[\W_]|all[\W_])?"
    r"(?:table|database|schema|collection|keyspace|tablespace|materialized|partition|db|index|view|column)(?:s|es)?(?![a-z])"
)
_DROP_NAMED = re.compile(
    r"(?<![a-z])drop(?:s|ped|ping)?[\s\x01]+(?:the|all|our|their|every|that|those|this|both|old)[\s\x01]+(?:(?!coffee|dinner|lunch|picnic|kitchen|pool|card|side)"
    r"[\w.\"`'-]{1,40}[\s\x01]+){1,3}(?:tables?|databases?|schemas?|collections?|keyspaces?|db|dbs|index(?:es)?|partitions?|columns?)(?![a-z])"
)
_DROP_MORE = re.compile(
    r"(?<![a-z])drop[\W_]{0,3}(?:if[\W_]exists[\W_])?(?:user|role|all|sequence|function|procedure|trigger|constraint|database)s?(?![a-z])"
)
_TRUNCATE = re.compile(
    r"(?<![a-z])truncat(?:e|es|ed|ing)[\W_]{1,3}(?:the[\W_]|all[\W_])?(?:table|only|cascade|db|schema|log)s?(?![a-z])"
)
_SQL_CHANGE = re.compile(
    r"(?<![a-z])(?:insert[\s\x01]+into[\s\x01]+[\w.\"`]+[\s\x01]*(?:\(|values|select)|update[\s\x01]+[\w.\"`]+[\s\x01]+set[\s\x01]+[\w.\"`]+[\s\x01]*=|"
    r"alter[\s\x01]+(?:table|user|role|system)\b|create[\s\x01]+(?:table|index|unique|role)\b|grant[\s\x01]+\w+[\s\x01]+on[\s\x01])"
)
_URL = re.compile(
    r"(?:postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|mssql|oracle|cockroachdb|cassandra)(?:\+\w+)?://|jdbc:\w+:"
)

_ABSENT = re.compile(r"(?<![a-z])(?:state|ensure)[\"']?[\s\x01]{0,4}(?:=>|[:=])[\s\x01]{0,4}[\"']?absent(?![a-z])")
_OPERATION = re.compile(
    r"(?<![a-z])(?:op|operation|action|cmd|command|method|verb|mode)[\"']?[\s\x01]?[=:][\s\x01]?[\"']?(?:remove|drop|truncate|unlink)(?![a-z])"
)

# To deploy in plain words: a version rolls out or goes live; dough is rolled out and a stream goes live too.
_ROLL = re.compile(r"(?<![a-z])(?:roll(?:s|ed|ing)?[\s\x01-]{1,2}out|rollouts?)(?![a-z])")
_GO_LIVE = re.compile(
    r"(?<![a-z])(?:(?:go|goes|going|went|gone)[\s\x01-]{1,2}(?:it[\s\x01]|them[\s\x01])?live(?![a-z])|"
    r"(?:take|taking|push|pushing|put|putting|bring|set)[\s\x01](?:[\w.'-]{1,30}[\s\x01]){1,4}(?<!who\s)(?<!that\s)(?<!they\s)(?<!you\s)(?<!we\s)(?<!to\s)"
    r"live(?=[\s\x01]*(?:$|[.,;:!?\n)]|(?:tonight|now|today|tomorrow|immediately|at|on|by)\b)))"
)
_ELSEWHERE = re.compile(
    r"(?<![a-z])(?:dough|pastry|carpet|rug|mats?|streams?|streaming|broadcast|podcast|webinar|radio|tv|concert|on air|show|yoga|stage|"
    r"band|music|barrels?|bins?|turf|interview|instagram|youtube|twitch|beds?|couch|sofa|drawer|awning|oats)(?![a-z])"
)
Test = Callable[[str, str, frozenset[str]], bool]


def _always(_: str, __: str, ___: frozenset[str]) -> bool:
    return True


def _active(_: str, manner: str, __: frozenset[str]) -> bool:
    return manner != "prose"


def _found(*patterns: re.Pattern[str], active: bool = False) -> Test:
    def test(text: str, manner: str, _: frozenset[str]) -> bool:
        return (not active or manner != "prose") and any(pattern.search(text) for pattern in patterns)

    return test


def _db(text: str, _: str, tokens: frozenset[str]) -> bool:
    sound = bool(tokens & _SOUND)
    for found in _DB.finditer(text):
        before = text[max(0, found.start() - 16) : found.start()]
        if _LEVEL.search(before):
            continue
        around = (before[-1:] or " ") + (text[found.end() : found.end() + 1] or " ")
        if sound and not set(around) & set("-_/:=@"):
            continue
        return True
    return False


def _deployed(pattern: re.Pattern[str]) -> Test:
    def test(text: str, _: str, __: frozenset[str]) -> bool:
        return any(
            not _ELSEWHERE.search(text[max(0, found.start() - 60) : found.end() + 60])
            for found in pattern.finditer(text)
        )

    return test


def _prod(text: str, _: str, __: frozenset[str]) -> bool:
    return bool(re.search(r"(?<![a-z0-9])prods?\d{0,3}(?![a-z0-9])(?!\.? by\b|\.? ?(?:nr|no)\.)", text))


def _whole(text: str, manner: str, _: frozenset[str]) -> bool:
    return manner != "prose" and bool(
        re.fullmatch(r"[\W_]*(?:drop|remove|truncate|del|destroy|erase|unlink)[\W_]*", text)
    )


_VOCABULARY: dict[str, tuple[tuple[str, Test], ...]] = {
    **{
        f"{stem}{n}": (("production", _prod),) for stem in ("prod", "prods") for n in ("", *range(10), "01", "02", "03")
    },
    "proddb": (("production", _always), ("database", _always)),
    "preprod": (("production", _always),),
    **{f"prd{n}": (("production", _found(_PRD)),) for n in ("", *range(10))},
    "live": (("production", _found(_LIVE)), ("billing", _found(_LIVE_KEY)), ("deploy", _deployed(_GO_LIVE))),
    **dict.fromkeys(("roll", "rolls", "rolled", "rolling", "rollout", "rollouts"), (("deploy", _deployed(_ROLL)),)),
    **{f"db{n}": (("database", _db),) for n in ("", "s", *range(10), "01", "02", "03")},
    "rds": (("database", _active),),
    "jdbc": (("database", _found(_URL)),),
    **dict.fromkeys(
        ("proddatabase", "maindb", "userdb", "usersdb", "appdb", "dbname", "dbhost", "dbpass"), (("database", _always),)
    ),
    **dict.fromkeys(("dropdb", "flushdb", "dropall"), (("database", _always), ("delete", _always))),
    **dict.fromkeys(
        ("flushall", "rmtree", "rmdirsync", "rmsync", "unlinksync", "rimraf", "removedirs"), (("delete", _always),)
    ),
    **dict.fromkeys(
        (
            "postgres",
            "postgresql",
            "mysql",
            "mariadb",
            "mongodb",
            "dynamodb",
            "cockroachdb",
            "mssql",
        ),
        (("database", _always),),
    ),
    **dict.fromkeys(
        ("mongo", "pgpassword", "pghost", "pguser", "psql", "mysqldump", "mongosh", "sqlplus"), (("database", _active),)
    ),
    **dict.fromkeys(("purge", "purges", "purged", "purging", "expunge", "expunged"), (("delete", _always),)),
    **dict.fromkeys(("wipe", "wipes", "wiped", "wiping", "wipefs", "wipeout"), (("delete", _always),)),
    **dict.fromkeys(("erase", "erases", "erased", "erasing", "erasure"), (("delete", _always),)),
    **dict.fromkeys(("nuke", "nukes", "nuked", "nuking", "obliterate", "obliterated"), (("delete", _always),)),
    "absent": (("delete", _found(_ABSENT)),),
    **dict.fromkeys(("destroy", "destroys", "destroyed", "destroying"), (("delete", _always),)),
    **dict.fromkeys(
        ("truncate", "truncates", "truncating"), (("delete", _found(_TRUNCATE, _OPERATION)), ("delete", _whole))
    ),
    **dict.fromkeys(("remove", "unlink", "del"), (("delete", _whole), ("delete", _found(_OPERATION)))),
    **dict.fromkeys(("update", "insert", "alter", "create", "grant"), (("database", _found(_SQL_CHANGE)),)),
    **dict.fromkeys(
        ("refund", "refunds", "refunded", "refunding", "chargeback", "chargebacks"), (("billing", _always),)
    ),
    **dict.fromkeys(("invoice", "invoices", "invoiced", "invoicing"), (("billing", _always),)),
    **dict.fromkeys(
        ("payment", "payments", "payout", "payouts", "paymentintent", "paymentintents"), (("billing", _active),)
    ),
    **dict.fromkeys(
        ("charge", "charges", "charged", "charging"),
        (("billing", _found(_CHARGE)), ("billing", _found(_CHARGES, active=True))),
    ),
    **dict.fromkeys(("bill", "bills", "billed"), (("billing", _found(_BILL)),)),
    **dict.fromkeys(("rebill", "rebills", "rebilled"), (("billing", _always),)),
    "stripe": (
        ("billing", _found(re.compile(r"stripe\.com|\bstripe[\s\x01]+[a-z_]+[\s\x01]|stripe\.[a-z]+\."), active=True)),
    ),
}


_TOOL: dict[str, str] = {
    **dict.fromkeys(("rm", "rmdir", "del", "truncate", "unlink", "trash", "terminate", "uninstall"), "delete"),
    **dict.fromkeys(("sql", "psql", "migrate"), "database"),
    **dict.fromkeys(("charge", "charges", "stripe", "paypal", "bill"), "billing"),
    **dict.fromkeys(("rollout", "release", "kubectl", "helm", "terraform"), "deploy"),
}
_TOOL_DROP = re.compile(r"(?<![a-z])drop(?![a-z])(?![\W_]?(?:down|shadow|zone|target|in|off|box|cap)(?![a-z]))")
_TOOL_REMOVE = re.compile(
    r"(?<![a-z])remove(?:[\W_]?(?:user|account|file|dir|directory|folder|record|row|bucket|volume|instance|object|document|key|member|all|"
    r"data|item|table|customer|backup|cluster|node|resource)s?)?$"
)


def families(text: str, manner: Manner, *, gaps: bool = True) -> Iterator[str]:
    """Name the families that a folded reading speaks of, some perhaps twice.

    Args:
        text: a reading.
        manner: how strictly to read it.
        gaps: whether blanks may part one of the five words. Not where quotes were taken away: `de l'été`.
    """
    if manner == "letters":
        yield from _of(_LETTERS, text)
        return
    yield from _of(_CORE, text)
    if gaps:
        run = _NOT_LETTER.sub("", text)
        if any(word in run and word not in text for word in WORDS):
            yield from _of(_GAPPED, text)
            yield from _marked(text)
    tokens = frozenset(_TOKEN.findall(text))
    if "drop" in text and _dropped(text, manner, tokens):
        yield "delete"
    if not tokens.isdisjoint(_VOCABULARY):
        yield from _vocabulary(_NOISE.sub(_unless_words, text), manner)
    if manner == "tool":
        yield from (_TOOL[token] for token in tokens & _TOOL.keys())
        if _TOOL_DROP.search(text) or _TOOL_REMOVE.search(text):
            yield "delete"
    if manner == "prose":
        yield from foreign(text, tokens)
    yield from in_commands(text, tokens, command=manner == "command")


def _marked(text: str) -> Iterator[str]:
    for word, pattern in _MARKED:
        for found in pattern.finditer(text):
            gaps = [gap for gap in re.split(r"[a-z]", found[0]) if gap]
            # Apostrophes and line ends stand among ordinary words: `de l'été`.
            if len(gaps) > 1 and "".join(gaps).strip(" \x01\t\r\n'\""):
                yield word


def _dropped(text: str, manner: Manner, tokens: frozenset[str]) -> bool:
    if _DROP.search(text) or _DROP_NAMED.search(text) or _OPERATION.search(text):
        return True
    return manner != "prose" and bool(_DROP_MORE.search(text) or _whole(text, manner, tokens))


def _vocabulary(text: str, manner: Manner) -> Iterator[str]:
    tokens = frozenset(_TOKEN.findall(text))
    for token in tokens & _VOCABULARY.keys():
        for word, test in _VOCABULARY[token]:
            if test(text, manner, tokens):
                yield word


def keyword(text: str, word: str) -> bool:
    """Whether a user's own keyword stands in a folded text: the whole word, or the word and an inflection.

    The rule: no letter or digit before it; after it nothing, or `s`, `es`, `'s`, `d`, `ed`, `r`, `er`, `ers`, `ing`, `ion`, `ions`,
    `al`, `ment`, `ments`; then no letter. Blanks in a keyword stand for any blanks, hyphens or underscores. A final `e` may
    fall before the inflection (`lease`: `leasing`).
    """
    parts = [re.escape(part) for part in re.split(r"[\s_-]+", word) if part]
    if not parts:
        return False
    stem = r"[\s\x01_-]{1,3}".join(parts)
    stem = f"{stem[:-1]}e?" if stem.endswith("e") and len(stem) > 3 else stem
    return bool(re.search(rf"(?<![a-z0-9]){stem}(?:e?s|'s|e?d|e?rs?|ing|ions?|al|ments?)?(?![^\W\d_])", text))


def _of(table: tuple[tuple[str, str, re.Pattern[str]], ...], text: str) -> Iterator[str]:
    gapped = table is _GAPPED
    for needle, word, pattern in table:
        if (gapped or needle in text) and pattern.search(text):
            yield word


def _unless_words(match: re.Match[str]) -> str:
    # In encoded data one character in six is a digit, among letters; in a path of words digits are few and stand together.
    run = match[0]
    return " " if len(run) < 60 or len(_SWITCH.findall(run)) > len(run) / 12 else run
