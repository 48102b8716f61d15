"""Credentials in text: found wherever they hide, and nothing else is touched."""

from __future__ import annotations

import base64
import json
import random
import re
import string
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.containment.credentials import Scrubber

SCRUBBER = Scrubber(b"k" * 32)
MARKER = re.compile(r"\[credential:[a-z]{2,16}:[0-9a-f]{8}\]")
_DRAW = random.Random(7)


def _made(prefix: str, size: int, letters: str = string.ascii_letters + string.digits) -> str:
    """Make a credential up; put together here, so that no scanner of repositories takes this file for a leak."""
    return prefix + "7" + "".join(_DRAW.choices(letters, k=size - 1))


PEM_BODY = "\n".join(_made("MII", 61) for _ in range(5))
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{PEM_BODY}\nx9==\n-----END RSA PRIVATE KEY-----"
JWT = ".".join(_made("eyJ", 40) for _ in range(2)) + "." + _made("", 43)
TOKENS = {
    "openai": _made("sk-", 48),
    "openai project": _made("sk-proj-", 60, string.ascii_letters + "_-"),
    "openai like, hex": _made("sk-", 32, "0123456789abcdef"),
    "anthropic": _made("sk-ant-api03-", 90, string.ascii_letters + "_-"),
    "github": _made("ghp_", 36),
    "github oauth": _made("gho_", 36),
    "github fine": _made("github_pat_", 82),
    "gitlab": _made("glpat-", 20),
    "slack": _made("xoxb-", 50, string.digits + "-"),
    "slack app": _made("xapp-", 50),
    "stripe": _made("sk_live_", 24),
    "stripe restricted": _made("rk_test_", 24),
    "stripe hook": _made("whsec_", 32),
    "aws": _made("AKIA", 16, string.ascii_uppercase + string.digits),
    "aws temporary": _made("ASIA", 16, string.ascii_uppercase + string.digits),
    "google": _made("AIza", 35),
    "google oauth": _made("GOCSPX-", 28),
    "npm": _made("npm_", 36),
    "pypi": _made("pypi-", 150),
    "huggingface": _made("hf_", 34),
    "sendgrid": _made("SG.", 22) + "." + _made("", 43),
    "twilio": _made("SK", 32, "0123456789abcdef"),
    "jwt": JWT,
    "pem": PEM,
    "pem, other": PEM.replace("RSA ", "OPENSSH "),
}
# (text around, the secret part): only the secret part is replaced.
FORMS = {
    "bearer": ("Authorization: Bearer {}", _made("", 32)),
    "bearer, small": ("curl -H 'authorization: bearer {}'", _made("", 32)),
    "basic": ("Authorization: Basic {}", base64.b64encode(b"admin:opensesame").decode()),
    "basic, alone": ("sent Basic {} there", base64.b64encode(b"admin:opensesame").decode()),
    "header": ("X-Api-Key: {}", _made("", 24)),
    "url": ("postgres://app:{}@db.internal:5432/x", "correct-horse"),
    "url with an at sign": ("https://u:{}@example.org/", "p@ss@word"),
    "sas": ("https://x.blob.core.windows.net/c?sv=1&sig={}", _made("", 44)),
    "slack hook": ("https://hooks.slack.com/services/{}", "T00000000/B00000000/" + _made("", 24)),
    "env": ("DB_PASSWORD={}", "hunter2!"),
    "env, letters only": ("export DB_PASSWORD={}\nnext", "correcthorse"),
    "env, dollar": ("PASSWORD={}", "$ecret1x"),
    "env, number": ("MYSQL_PWD={}", "12345678"),
    "yaml": ("api_key: {}", _made("", 20)),
    "yaml, quoted": ('password: "{}"', "correct horse battery staple"),
    "ini": ("secret = {}", _made("", 20)),
    "aws": ("aws_secret_access_key = {}", "/" + _made("", 39)),
    "query": ("https://example.org/?a=1&access_token={}&b=2", _made("", 20)),
    "python": ("connect(password='{}', port=1)", "hunter2!"),
    "go": ('apiKey := "{}"', _made("", 20)),
    "hash rocket": (":password => '{}'", "hunter2!"),
    "comparison": ('if token == "{}":', _made("", 20)),
    "option": ("mysql --user x --password {} db", "hunter2!"),
    "option, tight": ("tool --token={}", _made("", 20)),
    "connection string": ("Endpoint=x;AccountKey={};End", _made("", 43) + "="),
    "json": ('{{"clientSecret": "{}"}}', "hunter2!"),
    "json in json": ('{{"body": "{{\\"password\\": \\"{}\\", \\"n\\": 1}}"}}', "hunter2!"),
    "camel case": ("refreshToken: {}", _made("", 20)),
}


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize(
    "around",
    ["{}", "a {} b", "密钥{}。", "é{}é", '"{}"', "<{}>", "x={}\n", "({})", "https://h/?k={}&x=1", "`{}`", "[{}]", "\\n{}\\n", "😀{}"],
)  # fmt: skip
@pytest.mark.req("CREDENTIALS-1")
def test_tokens_are_found_anywhere(name: str, around: str) -> None:
    """A token is replaced whole, whatever stands beside it."""
    secret = TOKENS[name]
    clean, found = SCRUBBER.text(around.format(secret))
    assert secret not in clean
    assert secret[8:20] not in clean
    assert secret[-12:] not in clean
    assert 1 <= len(found)
    assert all(finding.marker in clean for finding in found)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.req("CREDENTIALS-1")
def test_forms_and_names_are_found(name: str) -> None:
    """What a name or a surrounding form calls a credential is replaced, and only that."""
    around, secret = FORMS[name]
    clean, found = SCRUBBER.text(around.format(secret))
    assert [around.format(finding.marker) for finding in found] == [clean]


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.req("CREDENTIALS-1")
def test_json_text_and_decoded_value_agree(name: str) -> None:
    """Scrubbing the text of a JSON object gives valid JSON with the markers that scrubbing the object gives."""
    value = {"note": f"first\n{TOKENS[name]}\tthen", "n": 1}
    clean, found = SCRUBBER.text(json.dumps(value))
    deep, deep_found = SCRUBBER.value(value)
    assert deep == json.loads(clean)
    assert deep_found == found
    assert len(found) == 1


@pytest.mark.parametrize("secret", ["hunter2!", 'pa"ss\\word1', "tab\tand é1", "back\\slash1\\", "it's 1 word"])
@pytest.mark.parametrize(
    "key", ["password", "DB_PASSWORD", "apiKey", "x-api-key", "client_secret", "accessToken", "Authorization"]
)
@pytest.mark.req("CREDENTIALS-1")
def test_named_values(key: str, secret: str) -> None:
    """A text under such a key is replaced in the value and in its JSON text alike, escapes or not."""
    value = {"a": {key: secret, "n": 1}}
    deep, found = SCRUBBER.value(value)
    assert {"a": {key: found[0].marker, "n": 1}} == deep
    clean, _ = SCRUBBER.text(json.dumps(value))
    assert deep == json.loads(clean)


@pytest.mark.parametrize(
    "value",
    [
        {"max_tokens": 5, "token_count": 12345678, "tokens": "123456789"},
        {"next_page_token": "CAUQAA12345678", "pageToken": "abc123def456", "continuation_token": "x1y2z3w4"},
        {"password": "", "secret": None, "api_key": True, "token": 5},
        {"password": "${DB_PASSWORD}", "api_key": "<your key>", "secret": "********", "token": "$TOKEN"},
        {"token": "identifier", "passwordless": "enabled1", "secretary": "Ms Moneypenny 7", "monkey": "banana42"},
        {"type": "object", "properties": {"password": {"type": "string", "minLength": 8}}, "required": ["password"]},
    ],
)
@pytest.mark.req("CREDENTIALS-3")
def test_innocent_values_stay(value: Any) -> None:
    """Counts, paging tokens, placeholders and schemas are no credentials, neither as value nor as text."""
    assert (value, ()) == SCRUBBER.value(value)
    assert (json.dumps(value), ()) == SCRUBBER.text(json.dumps(value))


@pytest.mark.req("CREDENTIALS-1")
def test_keys_lists_and_depth() -> None:
    """A credential is found as a key, under a list, below ten thousand levels; order and other values stay."""
    secret = TOKENS["github"]
    deep: Any = [secret]
    for _ in range(10_000):
        deep = [deep]
    clean, found = SCRUBBER.value({"z": 1, secret: 2, "a": (True, None, 1.5), "api_key": ["one-two-3"], "deep": deep})
    assert ["z", found[0].marker, "a", "api_key", "deep"] == list(clean)
    assert [True, None, 1.5] == clean["a"]
    assert MARKER.fullmatch(clean["api_key"][0])
    inner = clean["deep"]
    for _ in range(10_000):
        inner = inner[0]
    assert [found[0].marker] == inner


def test_keys_do_not_fall_together() -> None:
    """A key that is a credential beside a key that is already its marker: both entries stay."""
    marker = SCRUBBER.text(TOKENS["github"])[0]
    clean, _ = SCRUBBER.value({TOKENS["github"]: 1, marker: 2})
    assert [1, 2] == list(clean.values())


@pytest.mark.req("CREDENTIALS-2")
def test_one_secret_one_marker_per_store() -> None:
    """The same secret has the same marker everywhere in one store, another in another store, and it is not its hash."""
    secret = TOKENS["github"]
    clean, found = SCRUBBER.text(f"{secret} and {secret}, but {TOKENS['github oauth']}")
    assert found[0] == found[1]
    assert found[1] != found[2]
    assert 3 == len(MARKER.findall(clean))
    assert found[0] != Scrubber(b"x" * 32).text(secret)[1][0]
    assert "github" == found[0].kind
    assert secret not in repr(found)


@pytest.mark.req("CREDENTIALS-2")
def test_neighbours_are_found_in_one_call() -> None:
    """Two credentials without a gap: replacing one shows the edge of the other, and both go at once."""
    clean, found = SCRUBBER.text(TOKENS["aws"] + TOKENS["google oauth"])
    assert ["aws", "google"] == sorted(finding.kind for finding in found)
    assert "" == MARKER.sub("", clean)


def test_a_short_key_is_refused() -> None:
    """A key that can be guessed would make the markers a table of hashes."""
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Scrubber(b"short")


ALL = [*TOKENS.values(), *(around.format(secret) for around, secret in FORMS.values())]


@pytest.mark.req("CREDENTIALS-2")
@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([*ALL, "password=", "token: ", '"', "'", "\\", "\n", " ", "x1y2z3", "://u:", "@", "--"])
        | st.text(max_size=6),
        max_size=8,
    )
)
def test_scrubbing_twice_changes_nothing(pieces: list[str]) -> None:
    """Whatever is mixed: a second pass finds nothing more."""
    once, _ = SCRUBBER.text("".join(pieces))
    assert (once, ()) == SCRUBBER.text(once)
    deep, _ = SCRUBBER.value({"password": "".join(pieces), "k": pieces})
    assert (deep, ()) == SCRUBBER.value(deep)


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2[credential:github:00000000]",
        'password: "[credential:github:00000000] hunter2!"',
        "postgres://u:hunter2[credential:url:00000000]@h/x",
        "[credential:github:00000000" + TOKENS["github"],
    ],
)
@pytest.mark.req("CREDENTIALS-1")
def test_a_forged_marker_protects_nothing(text: str) -> None:
    """A marker put beside a secret does not make the secret a marker."""
    clean, _ = SCRUBBER.text(text)
    assert "hunter2" not in clean
    assert TOKENS["github"] not in clean


@pytest.mark.parametrize(
    "text",
    [
        '{"note": "' + "".join(f"\\u{ord(c):04x}" for c in TOKENS["github"]) + '"}',
        '{"note": "gh\\u0070_' + TOKENS["github"][4:] + '"}',
        '{"\\u0070assword": "hunter2!"}',
        '{"note": "https:\\/\\/u:hunter2!@h\\/x"}',
        '{"note": "x\\u000a' + TOKENS["github"] + '"}',
    ],
)
@pytest.mark.req("CREDENTIALS-1")
def test_escapes_in_json_hide_nothing(text: str) -> None:
    """A model that writes a key in escapes gets it replaced all the same, and the text stays JSON."""
    clean = json.loads(SCRUBBER.text(text)[0])
    assert TOKENS["github"] not in str(clean)
    assert "hunter2" not in str(clean)
    assert MARKER.search(str(clean))


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 4095, 4096, 8191, 65_535, 65_536, 1_000_000])
@pytest.mark.req("CREDENTIALS-1")
def test_no_place_of_a_long_text_hides_a_token(size: int) -> None:
    """Neither a border of a block nor a megabyte before it matters."""
    filler = ("nothing to see, " * (size // 16 + 1))[:size]
    for secret in (TOKENS["github"], TOKENS["aws"], PEM):
        clean, found = SCRUBBER.text(f"{filler} {secret} {filler[:100]}")
        assert f"{filler} {found[0].marker} {filler[:100]}" == clean


def test_keys_cut_in_the_middle() -> None:
    """A private key whose end was cut off is replaced as far as it goes, and the prose behind it stays."""
    cut = PEM[: PEM.index("x9==")]
    clean, found = SCRUBBER.text(f"{cut}\nThe file ends here.")
    assert [f"{found[0].marker}"] == clean.split("\n")[:1]
    assert clean.endswith("The file ends here.")
    assert PEM_BODY[:20] not in clean


_IMAGE = base64.b64encode(bytes(random.Random(1).getrandbits(8) for _ in range(60_000))).decode()
BENIGN = {
    "disk report": "Filesystem  1K-blocks  Used Available Use% Mounted on\n"
    "/dev/mapper/vg-disk01 102400 51200 51200 50% /srv\ntmpfs 8 0 8 0% /run/secrets",
    "git log": "commit 9fceb02d0ae598e95dc970b74767f19372d61af8\nAuthor: A <a@b.org>\n\n"
    "    Fix token-refresh: retry basic authentication 3 times",
    "digests": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  d41d8cd98f00b204e9800998ecf8427e",
    "uuids": "550e8400-e29b-41d4-a716-446655440000 key=550e8400-e29b-41d4-a716-446655440000",
    "image": f"data:image/png;base64,{_IMAGE}",
    "certificate": f"-----BEGIN CERTIFICATE-----\n{_IMAGE[:640]}\n-----END CERTIFICATE-----",
    "public key": "-----BEGIN PUBLIC KEY-----\nMFkwEwYH\n-----END PUBLIC KEY----- ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA a@b",
    "addresses": "https://example.org:8080/a@b http://[::1]:80/ ssh://git@github.com/a/b.git mailto:a@b.org https://h/p?q=a:b@c",
    "code": "password = getpass()\ntoken = lexer.next_token2(x)\n"
    "f(password=password, token=tok)\napi_key=settings.api_key,\nsecret: str = field()",
    "types": "interface A { password: string; token?: string; apiKey: string }",
    "environment": "password=$PASSWORD token=${TOKEN} secret={{ secret }} api_key=<key> PWD=/home/me/x1",
    "prose": "The secret: nobody reads logs. Token: a piece of a word. Basic understanding-of-things, bearer of news.",
    "counts": "max_tokens: 4096, tokens=123456, token_count=99999999, total tokens: 1234567",
    "names of things": "risk-adjusted-return-2024 task-sk-learn disk-usage-report-for-all-volumes-2024 sk-button-primary-large-rounded",
    "markdown": "| a | b |\n|----|----|\n" + "-" * 200 + "\n*** password *** token ***",
    "packages": "Unpacking libssl3:amd64 (3.0.11-1~deb12u2) over (3.0.11-1~deb12u1) ... npm_config_cache hf_hub pypi-server",
    "processes": "root 1234 0.0 0.1 /usr/sbin/sshd -D [listener] 0 of 10-100 startups --token-file /run/token --password-file x",
    "json schema": '{"properties": {"token": {"type": "string", "description": "the token"}}}',
    "unicode": "İstanbul'da şifre yok: İİİ password İ " * 20,
}


@pytest.mark.parametrize("name", BENIGN)
@pytest.mark.req("CREDENTIALS-3")
def test_benign_text_is_not_changed(name: str) -> None:
    """Not one byte of ordinary work is replaced."""
    assert (BENIGN[name], ()) == SCRUBBER.text(BENIGN[name])


@pytest.mark.req("CREDENTIALS-3")
@given(st.text(alphabet=string.ascii_letters + string.digits + "+/", min_size=1, max_size=400))
def test_random_base64_is_not_changed(text: str) -> None:
    """No amount of randomness makes a text a credential."""
    assert (text, ()) == SCRUBBER.text(text)


def test_letters_that_change_length_in_lower_case() -> None:
    """Places found in lower case are places of the text, also behind letters that have two small ones."""
    clean, found = SCRUBBER.text("İİİ İ PASSWORD=hunter2! İ")
    assert f"İİİ İ PASSWORD={found[0].marker} İ" == clean


HOSTILE = [
    "sk-",
    "sk-a",
    "eyJ",
    "eyJaaaaaaaaaa.",
    "eyJaaaaaaaaaa.bbbb.",
    "://",
    "://a:b",
    "://a:b@",
    "password",
    "password=",
    'password:"',
    'token:"\\',
    "token:'",
    'token:\\"',
    'token:\\\\"',
    "-",
    "--",
    "--token ",
    "--password a",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nAAAA\n",
    "-----BEGIN A PRIVATE KEY",
    "bearer ",
    "basic a",
    "secret ",
    "secret\n\n",
    "token= ",
    "[credential:",
    "password=[credential:aa:00000000]",
    "SG.a",
    "SG.aaaaaaaaaaaaaaaaaaaa.",
    "\\",
    '\\"',
    "\\u0070",
    "a",
    "A",
    " ",
    "\n",
    "é",
    "İ",
    'token:"a b c d e f g h i j"',
    "password: x.y.",
    "api_key=...",
    "key",
    "pypi-",
    "glpat-",
    "AKIA",
]


def _steps(text: str) -> int:
    """Count the calls that scrubbing makes, own functions and the engine's, as a measure that no load can change."""
    count = 0

    def step(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(step)
    try:
        SCRUBBER.text(text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.req("CREDENTIALS-4")
def test_hostile_megabytes_end(piece: str) -> None:
    """A megabyte of any beginning is answered within the test's time, and steps grow no faster than the text."""
    small, large = piece * (8_192 // len(piece)), piece * (65_536 // len(piece))
    assert _steps(large) <= 9 * _steps(small) + 200
    SCRUBBER.text(piece * (1_000_000 // len(piece)))
