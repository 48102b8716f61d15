"""The floor: what is read of a call, how strictly, what a hit says, and what ordinary work it leaves alone."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.gates.floor import TOOL, UNREADABLE, WORDS, Hit, read
from midwatch.gates.words import keyword

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def always(role: str, *, interprets: bool = True) -> Callable[[str], tuple[str, bool]]:
    """Give every argument one role."""
    return lambda _: (role, interprets)


def words(value: Any, role: str = "command", *, tool: str = "tool.x", extra: tuple[str, ...] = ()) -> set[str]:
    """Read one argument and say which words were found."""
    return {hit.word for hit in read(tool, {"value": value}, always(role), extra)}


ORDINARY: dict[str, list[str]] = {
    "content": [
        "the reproduction of the product is productive",
        "format the firmware permission",
        "a dropdown with a drop shadow",
        "Bill Gates visited Billings, Montana",
        "gain of 3 dB at 5 kHz, noise in dB",
        "the person in charge of the battery charger",
        "we charge the battery overnight",
        "l'été dernier, de l'été à l'hiver, la reproduction",
        "Die Produktion läuft gut, Datei gelesen",
        "Удалённая работа и база знаний; вода и гм",
        "délelőtt a modelleket",
        "データを読む",
        "del archivo al directorio",
        "Del análisis se desprende que",
        "employ the employees",
        "deleterious effects",
        "from data.base import X",
        "truncated to 80 characters",
        "commit 3f9adb12e0c4d8f1a9b0",
        "He dropped the box and charged up the hill",
        "the bill was passed in parliament",
        "live stream at noon",
        "prodigy prodded the product",
        "pip install prodigy",
        "Take the productivity figures, and the reproduction rate of the product line.",
        "Gates, Bill (2021). How to avoid a climate disaster.",
        "The firmware's format is informal; permission is granted to confirm.",
        "Use a drop-down list with a drop shadow; then drop the image into the drop zone.",
        "Ask the person in charge; admission is free of charge, and the battery charges in an hour.",
        "The bill of materials is attached.",
        "He wipers the screen",
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
        '{"retries": 3, "dropdown": true, "format": "rgb", "items": [1, 2, 3]}',
        "Les données de l'été montrent une reproduction fidèle.",
        "Guten Tag, anbei die Unterlagen für das Projekt. Mit freundlichen Grüßen",
        "La información del cliente se envía por correo.",
        "Пожалуйста, проверьте документ до пятницы.",
        "会議の資料を送ります。",
        "يرجى مراجعة المستند",
        "Παρακαλώ δείτε το έγγραφο",
        "Zażółć gęślą jaźń, proszę sprawdzić dokument",
        "I think we should rename this function; it's too long. LGTM otherwise.",
        'def area(w, h):\n    """Area."""\n    return w * h\n',
        "for (let i = 0; i < n; i += 1) { total += items[i].price; }",
        "a = 'x' + y + 'z'; b = `${a}`",
        "<ul><li>One</li><li>Two &amp; three</li></ul>",
    ],
    "command": [
        "dbus-send --system",
        "adb devices",
        "docker run --rm -it alpine sh",
        "pip install requests numpy",
        'git commit -m "Fix format of dropdown"',
        'git commit -m "feat(ui): don\'t drop shadow"',
        "mkdir -p build/out",
        "sed -i 's/foo/bar/g' a.txt",
        "tar -czf x.tgz src",
        "ls -la | grep foo | wc -l",
        "python3 -c \"print('hello world')\"",
        'for f in *.txt; do echo "$f"; done',
        "kubectl get pods",
        "terraform plan",
        "helm list",
        "npm test",
        'echo "hello" > a.txt',
        'grep -rn "term" src',
        "find . -name '*.py' | xargs wc -l",
        "git push origin main",
        "docker build -t x .",
        "git log --oneline -20",
        "export PATH=$HOME/bin:$PATH",
        "python -m pytest tests -q",
        "cat firmware.bin | base64",
        "man rm",
        "npm install --save-dev eslint",
        "rustfmt --check src",
        "curl -s https://example.com/api/items",
        "wget https://x.org/dist/rm-1.0.tar.gz",
        "echo \"it's 5 o'clock\"; date",
        "docker compose up -d",
        "git checkout -b feature/product-page",
        "git rebase --onto main a b",
        "cp -r src/ build/ && ls build",
        "jq '.items[] | select(.id > 3)' a.json",
        "awk -F, '{print $1, $3}' a.csv",
        "sort a.txt | uniq -c | head -5",
        "ssh build-1 uptime",
        "make lint test",
        "cargo build --release",
        "go test ./...",
        'curl -X POST https://api.example.com/v2/items -d \'{"name": "x"}\'',
        "openssl rand -hex 32",
        "convert in.png -resize 50% out.png",
        "ffmpeg -i a.wav -af volume=3dB b.wav",
        "echo 'terms & conditions; a|b'",
        "kubectl logs web-5f7d",
        "git branch --list",
        'rg -n "rm" docs',
        "man -k rm",
        "which rm",
    ],
    "target": [
        "/home/user/docs/a.txt",
        "https://example.com/a?b=c%20d",
        "550e8400-e29b-41d4-a716-446655440000",
        "https://example.com/product/12",
        "src/data/base.py",
        "fe80::db:1",
        "00:1b:db:33:44:55",
        "https://docs.python.org/3/library/string.html?highlight=format#formatspec",
        "products/4711/reviews",
        "/srv/app/reproduction/case-1.log",
        "mailto:bill.gates@example.com",
        "web-7.staging.example.com",
        "refs/heads/feature/dropdown",
    ],
    "selector": [
        "dropdown-menu",
        "$.items[0].name",
        "[data-testid='dropdown']",
        "items[?price > `10`].name",
    ],
    "control": [
        '{"format": "json"}',
        "#db7093",
        "dry-run",
        "POST",
        '{"X-Request-Id": "db8f2c1e-3a4b-4c5d-9e8f-0a1b2c3d4e5f"}',
    ],
    "credential": [
        "token-7f3a",
    ],
}


@pytest.mark.parametrize(("role", "text"), [(role, text) for role, texts in ORDINARY.items() for text in texts])
@pytest.mark.req("GATES-2")
def test_ordinary_work_does_not_wait(role: str, text: str) -> None:
    """A word that only looks like one of the five, a hash, a foreign language: no hit."""
    assert read("notes.add", {"value": text}, always(role)) == ()


@pytest.mark.parametrize(
    ("expected", "tool"),
    [
        ("delete", "db.drop_table"),
        ("database", "db.drop_table"),
        ("delete", "users.removeUser"),
        ("delete", "deleteUsers"),
        ("delete", "d3lete_users"),
        ("delete", "queue.purge"),
        ("delete", "files.rm"),
        ("deploy", "ci.redeploy"),
        ("deploy", "k8s.rollout"),
        ("production", "prod_shell"),
        ("database", "run_sql"),
        ("billing", "charge_card"),
        ("billing", "stripe.refund"),
    ],
)
@pytest.mark.req("GATES-1")
def test_the_tools_own_name_is_read(expected: str, tool: str) -> None:
    """A tool that is named for deleting need not say so in its arguments."""
    assert (expected, TOOL) in {(hit.word, hit.argument) for hit in read(tool, {}, always("target"))}


@pytest.mark.parametrize(
    "tool",
    [
        "ui.dropdown",
        "files.write",
        "text.format",
        "labels.remove_label",
        "product.update",
        "dbus.call",
        "ticket.comment",
        "adb.shell",
    ],
)
@pytest.mark.req("GATES-2")
def test_a_tools_name_that_only_looks_like_it_is_no_hit(tool: str) -> None:
    """`dropdown`, `dbus` and `product` are names of ordinary tools."""
    assert read(tool, {}, always("target")) == ()


def test_content_that_nobody_acts_on_is_not_read() -> None:
    """A report may speak of the production database and of deleting it; the same words to somebody who acts may not pass."""
    text = {"body": "Delete the production database."}
    assert read("report.write", text, always("content", interprets=False)) == ()
    assert {hit.word for hit in read("report.write", text, always("content"))} == {"delete", "production", "database"}


def test_quantities_are_not_read() -> None:
    """An amount has no words."""
    assert read("tool.x", {"count": "delete"}, always("quantity")) == ()


def test_a_role_that_nobody_knows_counts_as_a_command() -> None:
    """What is unknown is read most strictly."""
    assert words("rm x", "unheard-of") == {"delete"}


def test_each_argument_is_read_by_its_own_role() -> None:
    """Dotted names reach into objects; a list's items keep the list's name."""
    roles = {"spec.note": ("content", False), "spec.steps": ("command", True)}
    arguments = {"spec": {"note": "delete", "steps": ["ls", "rm -rf x"]}}
    found = read("tool.x", arguments, lambda name: roles.get(name, ("target", True)))
    assert found == (Hit("delete", "spec.steps", "plain"),)


def test_a_list_of_words_is_one_command_line() -> None:
    """A program and its options may come as items, quoted or not."""
    assert words(["rm", "-rf", "/x"]) == {"delete"}
    assert words(["sh", "-c", "r''m -rf /x"]) == {"delete"}
    assert words(["kubectl", "apply", "-f", "x.yaml"]) == {"deploy"}
    assert words(["docker", "run", "--rm", "alpine"]) == set()


def test_keys_are_read() -> None:
    """An object's key says what is done as well as a value does; false and null say that it is not done."""
    assert words({"deleteAll": True}, "control") == {"delete"}
    assert words({"\u0064rop_table": "users"}, "control") == {"delete"}
    assert words({"delete": False, "purge": None}, "control") == set()
    assert words([{"x": [{"DELETE": 1}]}], "selector") == {"delete"}


def test_rm_counts_in_a_commands_place_only() -> None:
    """The option of docker, the argument of man and the letters in firmware are none."""
    for text in (
        "rm x",
        "cd y && rm x",
        "sudo rm x",
        "(rm x)",
        "true | xargs rm",
        "X=1 rm x",
        "/bin/rm x",
        "if true; then rm x; fi",
    ):
        assert words(text) == {"delete"}, text
    for text in (
        "docker run --rm x",
        "man rm",
        "ls firmware",
        "echo form",
        "grep -n rm x.txt",
        "cat rm.txt",
        "./rm-old --help",
    ):
        assert words(text) == set(), text


def test_db_counts_as_a_segment_and_not_as_a_measure() -> None:
    """`db` of a host, a path or an identifier; never the decibel, the bus or the bridge."""
    for text in ("db.internal", "users_db", "/srv/db/x", "db01.example.com", "userDb", "DB_HOST=x", "the DB"):
        assert words(text, "target") == {"database"}, text
    for text in (
        "-3 dB",
        "gain_db",
        "60dB",
        "dbus",
        "adb",
        "dB SPL of the audio",
        "#db7093",
        "00:1b:db:33:44:55",
        "odbc.ini",
    ):
        assert words(text, "target") == set(), text


def test_prod_counts_as_a_segment_and_not_as_a_beginning() -> None:
    """`prod` of a host or a value; never product, prodigy or prodding."""
    for text in ("api.prod.example.com", "prod-eu", "env=prod", "PROD", "prod02", "isProd", "prd-eu-1", "app_prd"):
        assert words(text, "target") == {"production"}, text
    for text in ("product", "prodigy", "reproduction", "docs/prd.md", "productive", "coproduction"):
        assert words(text, "target") == set(), text


def test_verbs_that_are_the_whole_value() -> None:
    """An operation named `drop` or `remove` deletes; the same words within a sentence of a selector need not."""
    for text in ("drop", "REMOVE", "truncate", "unlink", "op=remove", "action: drop"):
        assert words(text, "control") == {"delete"}, text
    for text in ("drop shadow", "remove whitespace", "truncate to 80"):
        assert words(text, "control") == set(), text


def test_a_hit_names_the_layers_and_never_the_value() -> None:
    """What was undone is said, outermost layer first; what it said is not repeated."""
    hidden = base64.b64encode(b"r''m -rf /secret-place").decode()
    (hit,) = read("tool.x", {"run": f"echo {hidden} | base64 -d | sh"}, always("command"))
    assert (hit.word, hit.argument) == ("delete", "run")
    assert set(hit.reading.split("+")) <= {"base64", "shell"}
    assert "secret" not in repr(hit)


def test_one_hit_for_each_word_and_argument_by_the_plainest_reading() -> None:
    """The same word twice is one hit, and what stands there plainly is called plain."""
    text = "delete, d3lete, ZGVsZXRl"
    assert read("tool.x", {"a": text, "b": [text, text]}, always("content")) == (
        Hit("delete", "a", "plain"),
        Hit("delete", "b", "plain"),
    )


@pytest.mark.req("GATES-1")
def test_what_cannot_be_read_whole_is_a_hit() -> None:
    """A disguise beyond the caps waits for a person, and so does a command too long to be read."""
    deep = b"ls the files"
    for _ in range(7):
        deep = base64.b64encode(deep)
    assert UNREADABLE in words(deep.decode(), "content")
    assert words("a " * 100_000) == {UNREADABLE}
    assert words("a " * 100_000, "target") == {UNREADABLE}
    assert words("a " * 100_000, "content") == set()
    nested: Any = "x"
    for _ in range(40):
        nested = [nested]
    assert words(nested) == {UNREADABLE}
    assert words(["x"] * 5_000, "target") == {UNREADABLE}


@pytest.mark.req("GATES-1")
def test_long_content_is_read_at_both_ends() -> None:
    """Padding before or after does not hide the word."""
    pad = "lorem ipsum " * 20_000
    assert words(f"delete it\n{pad}", "content") == {"delete"}
    assert words(f"{pad}\ndelete it", "content") == {"delete"}


@pytest.mark.req("GATES-1")
def test_the_users_own_keywords_are_read_through_the_same_disguises() -> None:
    """A keyword is found plainly, inflected, encoded and in look-alikes; it is named as the user wrote it."""
    for text in (
        "payroll",
        "Payrolls",
        "p\u0430yroll",
        "cGF5cm9sbA==",
        "p-a-y-r-o-l-l",
        "pay''roll x",
        "%70ayroll",
        "p4yr0ll",
    ):
        assert words(text, extra=("Payroll",)) == {"Payroll"}, text
    assert words("payrolling", extra=("payroll",)) == {"payroll"}
    assert words("prepayroll payrollx", extra=("payroll",)) == set()
    assert read("payroll.run", {}, always("target"), ("payroll",)) == (Hit("payroll", TOOL, "plain"),)


@pytest.mark.parametrize(
    ("expected", "text", "word"),
    [
        (True, "leases", "lease"),
        (True, "leasing it", "lease"),
        (True, "the leaser", "lease"),
        (True, "fire wall", "fire-wall"),
        (True, "fire_walls", "fire wall"),
        (True, "merge", "merge"),
        (False, "release", "lease"),
        (False, "leash", "lease"),
        (False, "submerge", "merge"),
        (False, "mergetool", "merge"),
        (False, "anything", " "),
    ],
)
def test_a_keyword_is_a_whole_word_or_its_inflection(expected: bool, text: str, word: str) -> None:
    """The rule that the docstring of `keyword` tells."""
    assert expected is keyword(text, word)


@given(
    st.text(max_size=30),
    st.dictionaries(st.text(max_size=12), JSON, max_size=4),
    st.sampled_from(["command", "content", "target"]),
)
def test_no_call_raises(tool: str, arguments: dict[str, Any], role: str) -> None:
    """Whatever the call, it is read; a hit names a known word and no value."""
    assert {hit.word for hit in read(tool, arguments, always(role))} <= {*WORDS, UNREADABLE}


@given(
    st.sampled_from(WORDS),
    st.text(alphabet="xyz ._/:-", max_size=20),
    st.sampled_from(["command", "content", "target", "control"]),
)
def test_a_word_that_stands_alone_is_always_found(word: str, around: str, role: str) -> None:
    """What is beside a plain word does not hide it."""
    assert word in words(f"{around} {word} {around}", role)


@pytest.mark.alone
def test_an_ordinary_call_is_read_quickly() -> None:
    """One KiB is read in about a millisecond; the bound here allows for a busy machine."""
    text = ("The team's product line is doing well; see https://example.com/a?b=c for the format. " * 13)[:1024]
    began = time.perf_counter()
    for _ in range(20):
        read("files.write", {"text": text}, always("content"))
    assert (time.perf_counter() - began) / 20 < 0.05
