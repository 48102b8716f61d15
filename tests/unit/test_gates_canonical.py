"""Canonical readings: every layer of disguise is undone, the plain text stays, and no text costs more than its bound."""

from __future__ import annotations

import base64
import gzip
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.gates.canonical import COUNT, DEPTH, LIMIT, WINDOW, Reading, readings
from midwatch.gates.encodings import decode
from midwatch.gates.letters import clean, fold
from midwatch.gates.shellwords import shell

MEGA = 1_000_000
SECONDS = 20.0  # of one text on a busy machine; measured 2.2 at worst on an idle one


def b64(text: str | bytes, times: int = 1) -> str:
    """Encode in base64, several times over."""
    raw = text.encode() if isinstance(text, str) else text
    for _ in range(times):
        raw = base64.b64encode(raw)
    return raw.decode()


LAYERS = [
    ("plain", "Hello World", "hello world"),
    ("case", "HeLLo", "hello"),
    ("fullwidth", "ｈｅｌｌｏ", "hello"),
    ("mathematical", "𝓱𝓮𝓵𝓵𝓸", "hello"),
    ("circled", "ⓗⓔⓛⓛⓞ", "hello"),
    ("boxed", "🅷🅴🅻🅻🅾", "hello"),
    ("cyrillic", "һеӏӏо", "hello"),
    ("greek capitals", "ΗΕΙΡ", "heip"),
    ("small capitals", "ʜᴇʟʟᴏ", "hello"),
    ("accents", "hȩ́llö", "hello"),
    ("struck through", "h̶e̶l̶l̶o̶", "hello"),
    ("zero width", "he\u200bl\u2060lo", "hello"),
    ("soft hyphen", "hel\u00adlo", "hello"),
    ("tag characters", "".join(chr(0xE0000 + ord(char)) for char in "hello"), "hello"),
    ("backspace", "hex\bllo", "hello"),
    ("colour codes", "he\x1b[31mllo", "hello"),
    ("right to left", "\u202eolleh", "hello"),
    ("no-break hyphen", "a\u2011b", "a-b"),
    ("camel case", "sayHelloTwice", "say_hello_twice"),
    ("leet", "w0rld5", "worlds"),
    ("leet, one for i or l", "b1ll1ard", "billiard"),
    ("capital i for l", "heIlo", "hello"),
    ("spaced", "h e l l o", "hello"),
    ("spaced, dots", "h.e.l.l.o", "hello"),
    ("spaced, wide", "h - e - l - l - o", "hello"),
    ("spaced, pictures", "h🔥e🔥l🔥l🔥o", "hello"),
    ("spaced leet", "w 0 r l d 5", "worlds"),
    ("split", "hel-lo", "hello"),
    ("split by several signs", "hel()lo", "hello"),
    ("split at a line", "hel-\nlo", "hello"),
    ("split in a chain", "say-hel-lo-now", "hello"),
    ("quotes", "h'el'\"lo\" x", "hello x"),
    ("backslashes", r"h\e\l\lo x", "hello x"),
    ("ansi-c quotes", r"$'\x68\145llo' x", "hello x"),
    ("line continuation", "hel\\\nlo x", "hello x"),
    ("ifs", "hello${IFS}x$IFS", "hello x"),
    ("empty variable", "hel${nothing}lo $@x", "hello x"),
    ("assignment", "a=hel; b=lo; $a$b x", "a=hel\nb=lo\nhello x"),
    ("append", "a=hel; a+=lo; $a x", "a=hel\na+=lo\nhello x"),
    ("substring", "a=xhellox; ${a:1:5}", "a=xhellox\nhello"),
    ("replacement", "a=hexxo; ${a//x/l}", "a=hexxo\nhello"),
    ("default", "${a:-hello}", "hello"),
    ("lower case", "a=HELLO; ${a,,}", "a=hello\nhello"),
    ("trimmed", "a=hello_; ${a%_}", "a=hello_\nhello"),
    ("array", "a=(hel lo); ${a[0]}${a[1]} x", "hello x"),
    ("positional", "set -- hel lo; $1$2", "set -- hel lo\nhello"),
    ("braces", "{hello,x,y}", "hello x y"),
    ("braces inside", "h{ell,}o", "hello ho"),
    ("substitution", "$(echo hello) x", "echo hello\nhello x"),
    ("printf", "$(printf %s%s hel lo) x", "printf %s%s hel lo\nhello x"),
    ("backticks", "`echo hello` x", "echo hello\nhello x"),
    ("url", "%68ello", "hello"),
    ("url, three times", "%252568ello", "hello"),
    ("url, unicode", "%u0068ello", "hello"),
    ("html", "&#104;e&#x6c;lo", "hello"),
    ("quoted-printable", "=68=65=6C=6C=6F", "hello"),
    ("json escape", r"\u0068ello", "hello"),
    ("braced escape", r"\u{68}ello", "hello"),
    ("hex escape", r"\x68ello", "hello"),
    ("octal escape", r"\150ello", "hello"),
    ("named escape", r"\N{LATIN SMALL LETTER H}ello", "hello"),
    ("base64", b64("hello there"), "hello there\nhello there\n"),
    ("base64, short", b64("hello"), "hello"),
    ("base64, unpadded", b64("hello").rstrip("="), "hello"),
    ("base64, url-safe", base64.urlsafe_b64encode("hello ÿþ?".encode()).decode(), "hello yþ?\nhello yþ?\n"),
    ("base64, two lines", "aGVsbG8gdGhl\ncmUgZnJpZW5k", "hello there friend\nhello there friend\n"),
    ("base64, four deep", b64("hello there", 4), "hello there\nhello there\n"),
    ("base64, utf-16", b64("hello".encode("utf-16le")), "hello"),
    ("base64, compressed", b64(gzip.compress(b"hello there", mtime=0)), "hello there\nhello there\n"),
    ("base32", base64.b32encode(b"hello").decode(), "hello"),
    ("hex", "68656c6c6f", "hello"),
    ("hex, apart", "68 65 6c 6c 6f", "hello"),
    ("binary", "01101000 01100101 01101100 01101100 01101111", "hello"),
    ("decimals", "104,101,108,108,111", "hello"),
    ("char()", "CHAR(104,101,108,108,111)", "'hello'"),
    ("chr() added", "chr(104)+chr(101)+chr(108)", "'hel'"),
    ("concatenation", "'hel' + 'lo'", "'hello'"),
    ("sql concatenation", "'hel'||'lo'", "'hello'"),
    ("joined list", "''.join(['hel','lo'])", "''.join(['hello'])"),
    ("comment inside", "hel/**/lo", "hello\nhel lo"),
    ("comment that is run", "/*!50000hello*/ x", "hello x\nhello x"),
    ("tags", "<b>hel</b>lo", "hello"),
    ("caret", "hel^lo", "hello"),
    ("rot13", "echo uryyb | tr a-z n-za-m", "rpub hello | ge n-m a-mn-z"),
    ("reversed", "echo olleh | rev", "echo  hello| rev"),
    ("base64 of url of html", b64("%26%23104%3Bello there"), "hello there\nhello there\n"),
    ("quoted base64", "echo aGVs'bG8g'dGhlcmU= x", "echo hello there\nhello there\n x"),
    ("punycode", "xn--hllo-bpa", "hello"),
]


@pytest.mark.parametrize(("text", "expected"), [pytest.param(text, out, id=name) for name, text, out in LAYERS])
@pytest.mark.req("GATES-1")
def test_each_layer_is_undone(text: str, expected: str) -> None:
    """What a target would see is one of the readings, or a line of one where a layer gives several words."""
    texts = readings(text).texts
    assert expected in {*texts, *(line.rstrip() for said in texts for line in said.split("\n"))}


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("bash -c 'hello x'", "hello x"),
        ("sh -c \"sh -c 'hello x'\"", "hello x"),
        ("eval hel'lo' x", "hello x"),
        ("echo 'hello x' | sh", "hello x"),
        ("bash <<< 'hello x'", "hello x"),
        ("bash <(echo hello x)", "hello x"),
        ("ssh host 'hello x'", "hello x"),
        ("find . -exec sh -c 'hello x' \\;", "hello x"),
        ("alias y='hello x'", "hello x"),
        ("alias y=hello; y x", "hello x"),
        ("f() { hello x; }; f", "{ hello x"),
        ("trap 'hello x' EXIT", "hello x"),
        ("git config alias.y '!hello x'", "hello x"),
        ("echo 'hello x' >> ~/.bashrc", "hello x"),
        ("for y in hello; do $y x; done", "do hello x"),
        ("bash -c 'cd /y\nhello x'", "hello x"),
    ],
)
def test_what_a_command_runs_is_read_as_a_command(text: str, script: str) -> None:
    """A nested program begins a line of its own."""
    assert script in shell(text)[0].split("\n")


def test_a_quoted_sentence_is_no_command() -> None:
    """A message stays one word, so that its first word is not taken for a program."""
    assert shell("git commit -m 'hello x'") == ("git commit -m hello\x01x", True)


@given(st.text())
def test_any_text_is_read_and_its_plain_reading_comes_first(text: str) -> None:
    """No text raises, and the plain reading is always there."""
    found = readings(text)
    assert found.all[0] == Reading(fold(clean(text.replace("\x01", ""))))


@given(st.text(alphabet="$(){}`'\"\\ \n;|&<>=aX/*%#u0641:-!+,.\u202e\u0435\x01\x02", max_size=300))
def test_no_mixture_of_signs_raises(text: str) -> None:
    """The signs that mean something may stand in any order."""
    found = readings(text)
    assert len(found.all) <= 8 * COUNT


@given(st.binary(max_size=200))
def test_no_bytes_raise(raw: bytes) -> None:
    """Lone surrogates and encodings of anything are texts too."""
    for text in (raw.decode("utf-8", "surrogateescape"), b64(raw), raw.hex(), raw.decode("latin-1")):
        assert readings(text).all


@given(st.text(max_size=200))
def test_nothing_is_found_twice(text: str) -> None:
    """No two readings have the same text."""
    texts = readings(text).texts
    assert len(texts) == len(set(texts))


@pytest.mark.alone
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(piece * (MEGA // len(piece)), id=name)
        for name, piece in {
            "backslashes": "\\",
            "braces": "{a,b}",
            "open braces": "{a,",
            "substitutions": "$(",
            "parameters": "${x:-",
            "quotes": "'\"",
            "distinct quotes": "'a'b\n",
            "backticks": "`",
            "comments": "/*",
            "tags": "<a",
            "assignments": "x=$x$x;",
            "literals": "a='b'+c;",
            "concatenations": "'+'",
            "url": "%2564",
            "html": "&amp;",
            "decimals": "100,",
            "hex": "64",
            "leet": "d3",
            "hyphens": "a-",
            "letters apart": "d e l e t ",
            "commands": "rm ",
            "options": "git push ",
            "accents": "е\u0301",
            "ligatures": "ﷺ",
            "slashes": "/",
            "globs": "/r?",
            "capitals": "aB",
            "backspaces": "a\b",
        }.items()
    ],
)
def test_a_megabyte_of_anything_ends(text: str) -> None:
    """Work is bounded by the text's window, not by what the text asks for; and it is said that the middle was not read."""
    began = time.perf_counter()
    found = readings(text)
    assert found.windowed
    assert time.perf_counter() - began < SECONDS


def test_nesting_beyond_the_depth_is_said() -> None:
    """What would still change at the last level was not read whole."""
    assert not readings(b64("hello there", DEPTH)).truncated
    assert readings(b64("hello there", DEPTH + 2)).truncated


def test_the_window_is_both_ends() -> None:
    """A very long text is read at its beginning and its end."""
    found = readings("a" * WINDOW + "b" * 10 + "c" * WINDOW)
    assert found.windowed
    assert found.texts[0] == "a" * WINDOW + "\n" + "c" * WINDOW
    assert not readings("a" * 2 * WINDOW).windowed


def test_a_reading_that_grows_too_long_is_cut_and_said() -> None:
    """A layer that multiplies its text does not multiply the work."""
    found = readings("ﷺ" * WINDOW)
    assert found.truncated
    assert max(map(len, found.texts[1:]), default=0) <= 2 * LIMIT


def test_a_compressed_bomb_is_unpacked_in_part() -> None:
    """A run that unpacks to megabytes gives its first 64 KiB."""
    said, names = decode(b64(gzip.compress(b"hello " * MEGA, mtime=0)))
    assert names == ("base64",)
    assert len(said) < 3 * 65_536


@pytest.mark.parametrize(
    "text",
    [
        "3f9adb12e0c4d8f1a9b0c3e5d7f90b1a2c4e6f80",
        "550e8400-e29b-41d4-a716-446655440000",
        "internationalization",
        "src/midwatch/gates/canonical.py",
        "C:\\Users\\x\\notes.txt",
        "REFRESH RELEASE_NOTES",
        "100 200 300 400",
    ],
)
def test_what_is_not_encoded_is_not_decoded(text: str) -> None:
    """Hashes, paths and long words decode to nothing that could be read."""
    assert decode(text) == (text, ())


def test_layers_are_named_outermost_first() -> None:
    """A reading says which layers were undone for it."""
    names = {reading.text: reading.name for reading in readings(b64("h'ello' there x")).all}
    assert names["hello there x\nhello there x"] == "base64+shell"
