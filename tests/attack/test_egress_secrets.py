"""Attacks on the broker's secrets, and with credentials that were never issued through it."""

import base64
import contextlib
import gzip
import itertools
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.config.specs import EgressRule
from midwatch.errors import SandboxError
from midwatch.sandbox.bridge import DUMMY_KEY
from midwatch.sandbox.egress import Broker
from midwatch.sandbox.egress_secrets import Echoed, Refused, Vault, cleared, query_refusal
from midwatch.sandbox.profile import SandboxProfile
from tests.attack.egress_site import HOST, KEY, KEYED, NOW_US, Host, Site, rule, told, url

OWN = [
    {"Authorization": "Bearer stolen"},
    {"authorization": "Basic eDp5"},
    {"Cookie": "session=1"},
    {"X-Api-Key": "stolen"},
    {"X_Api_Key": "stolen"},
    {"Api-Key": "stolen"},
    {"X-Auth-Token": "stolen"},
    {"Private-Token": "stolen"},
    {"X-Amz-Security-Token": "stolen"},
    {"X-Goog-Api-Key": "stolen"},
    {"X-Vault-Token": "stolen"},
    {"Ocp-Apim-Subscription-Key": "stolen"},
    {"DD-API-KEY": "stolen"},
    {"X-Shopify-Access-Token": "stolen"},
    {"X-Anything": "ghp_0123456789012345678901234567890123456789"},
    {"X-Anything": "Bearer sk-proj-0123456789abcdefghij"},
    {"X-HTTP-Method-Override": "DELETE"},
    {"X-Original-URL": "/admin"},
    {"X-Rewrite-URL": "/admin"},
]
QUERIES = [
    *(
        "api_key=stolen",
        "API_KEY=stolen",
        "access_token=stolen",
        "token=stolen",
        "a=1&password=x",
        "a=1;client_secret=x",
    ),
    *("x-amz-signature=x", "X-Amz-Credential=x", "sig=x", "api%5Fkey=x", "ap%69key=x", "auth=x", "jsessionid=x"),
    *("q=AIzaSyA0123456789012345678901234567890123", "q=ghp_0123456789012345678901234567890123456789"),
]


@pytest.mark.req("EGRESS-9")
def test_credentials_of_the_sandbox_are_refused(tmp_path: Path) -> None:
    """A credential that was not issued through the broker leaves neither in a header, nor a query, nor before an `@`."""
    with Host() as host, Site(tmp_path, (rule(host),)) as site:
        for headers in OWN:
            assert 403 == site.ask(url(host), headers=headers)[0], headers
        for query in QUERIES:
            assert 403 == site.ask(url(host, "/a?" + query))[0], query
        assert 403 == site.ask(url(host).replace("http://", "http://user:stolen@"))[0]
        assert 403 == site.ask(url(host, "/hook/ghp_0123456789012345678901234567890123456789"))[0]
        assert [] == host.seen
        text = repr(site.requests())
        assert "stolen" not in text
        assert "ghp_" not in text


@pytest.mark.req("EGRESS-9")
def test_ordinary_headers_and_queries_pass(tmp_path: Path) -> None:
    """What only looks like a credential by a word in its name is sent."""
    headers = {
        "User-Agent": "x",
        "Idempotency-Key": "1",
        "Accept": "*/*",
        "X-Continuation-Token": "7",
        "X-Request-Id": "8",
        "OpenAI-Organization": "o",
    }
    with Host() as host, Site(tmp_path, (rule(host),)) as site:
        assert 200 == site.ask(url(host, "/a?page_token=7&next_token=8&key=name&q=token&tokens=5"), headers=headers)[0]
        assert set(headers) <= {name for name, _ in host.seen[0].headers}


@pytest.mark.req("EGRESS-9")
def test_the_rules_own_credential_replaces_whatever_a_client_sends(tmp_path: Path) -> None:
    """A client's dummy or stolen key gives way to the rule's; where no rule adds one, the dummy is dropped."""
    keyed = rule(host := Host(), headers={"Authorization": "Bearer ${secret:KEY}"}, paths=("/keyed",))
    with host, Site(tmp_path, (keyed, rule(host)), {"KEY": KEY}) as site:
        for value in (f"Bearer {DUMMY_KEY}", "Bearer stolen"):
            assert 200 == site.ask(url(host, "/keyed"), headers={"Authorization": value})[0]
        assert 200 == site.ask(url(host, "/open"), headers={"Authorization": f"Bearer {DUMMY_KEY}"})[0]
        assert [[f"Bearer {KEY}"], [f"Bearer {KEY}"], []] == [seen.get("authorization") for seen in host.seen]


def _forms() -> dict[str, Callable[[], tuple[list[tuple[str, str]], bytes]]]:
    key = KEY.encode()
    chunked = [("Transfer-Encoding", "chunked")]
    return {
        "body": lambda: ([], b"you sent " + key),
        "deep": lambda: ([], b"x" * 300_000 + key + b"y" * 10),
        "header": lambda: ([("X-Echo", f"Bearer {KEY}")], b""),
        "location": lambda: ([("Location", f"http://evil.net/?{KEY}")], b""),
        "name": lambda: ([("X-" + key.hex(), "1")], b""),
        "chunks": lambda: (chunked, b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in b"a" + key) + b"0\r\n\r\n"),
        "base64": lambda: ([], base64.b64encode(b"Authorization: Bearer " + key + b"\r\n")),
        "base64 by one": lambda: ([], base64.b64encode(b"x" + key)),
        "base64 by two": lambda: ([], base64.urlsafe_b64encode(b"xy" + key + b"z")),
        "json": lambda: ([], json.dumps({"auth": KEY}).encode()),
        "percent": lambda: (
            [],
            b"k="
            + httpx.QueryParams({"k": KEY})
            .get("k", "")
            .replace("/", "%2F")
            .replace("+", "%2B")
            .replace("=", "%3D")
            .replace("&", "%26")
            .encode(),
        ),
        "hex": lambda: ([], key.hex().encode()),
        "backwards": lambda: ([], key[::-1]),
        "gzip": lambda: ([("Content-Encoding", "gzip")], gzip.compress(key)),
    }


@pytest.mark.req("EGRESS-10")
@pytest.mark.parametrize("form", sorted(_forms()))
def test_a_secret_that_a_host_sends_back_never_comes_in(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that holds the secret is an error or is cut before it; no record, log, text or `repr` holds it."""
    headers, body = _forms()[form]()
    host = Host(lambda seen: (200, headers, body))
    caplog.set_level(logging.DEBUG)
    with host, Site(tmp_path, (rule(host, headers=KEYED),), {"KEY": KEY}) as site:
        answer = site.raw(
            b"GET %b HTTP/1.1\r\nHost: x\r\nRange: bytes=0-4\r\nAccept-Encoding: gzip\r\n\r\n" % url(host).encode()
        )
        (seen,) = host.seen
        assert ([f"Bearer {KEY}"], [], ["identity"]) == (
            seen.get("x-service"),
            seen.get("range"),
            seen.get("accept-encoding"),
        )
        for written in (
            KEY.encode(),
            KEY.encode().hex().encode(),
            base64.b64encode(KEY.encode())[:-4],
            KEY.encode()[::-1],
            gzip.compress(KEY.encode()),
        ):
            assert written not in answer
        (record,) = site.requests()
        assert "failed" == record.outcome
        for text in (
            repr(record),
            repr(site.attached),
            repr(vars(site.attached)),
            repr(vars(site.broker)),
            caplog.text,
        ):
            assert KEY not in text


@pytest.mark.req("EGRESS-10")
def test_an_answer_without_the_secret_passes_whole_and_at_once(tmp_path: Path) -> None:
    """Beginnings of the secret are held back only until they turn out to be something else, and no byte is lost."""
    body = (KEY[:-1] + "!").encode() * 50 + KEY[:9].encode()
    host = Host(lambda seen: (200, [], body))
    with host, Site(tmp_path, (rule(host, headers=KEYED),), {"KEY": KEY}) as site:
        assert (200, body) == (answer := site.ask(url(host)))[::2]
        assert str(len(body)) == answer[1]["content-length"]


@pytest.mark.req("EGRESS-10")
def test_a_failure_says_nothing_of_the_request(tmp_path: Path) -> None:
    """A host that cannot be reached or talks nonsense is reported in words of the broker's own."""
    with Host() as host:
        keyed = rule(host, headers=KEYED)
        dead = EgressRule("dead.partner.net", port=1, tls=False, private=True, headers=KEYED)
        with Site(tmp_path, (keyed, dead), {"KEY": KEY}) as site:
            status, _, body = site.ask("http://dead.partner.net:1/")
            assert (502, "the host cannot be reached, or its certificate is not its own") == (status, told(body))
            host.answer = lambda seen: (200, [("Content-Length", "5"), ("Content-Length", f"6{KEY}")], b"x")
            status, _, body = site.ask(url(host))
            assert 502 == status
            assert KEY not in told(body) + repr(site.requests())


@pytest.mark.req("EGRESS-6")
@pytest.mark.parametrize(
    "secrets", [{}, {"KEY": ""}, {"KEY": "short"}, {"KEY": "long-enough\r\nX-Evil: 1"}, {"OTHER": KEY}]
)
def test_a_secret_that_is_not_there_or_cannot_be_guarded_starts_no_sandbox(
    tmp_path: Path, secrets: dict[str, str]
) -> None:
    """A rule whose secret is missing, too short to be recognised, or no header value is refused at once, without its value."""
    profile = SandboxProfile(tmp_path, egress=(EgressRule(HOST, headers=KEYED),), secrets=secrets)
    with pytest.raises(SandboxError, match="KEY") as raised:
        Broker(lambda: NOW_US).attach(tmp_path / "b", profile, None)
    assert not [value for value in secrets.values() if value and value in str(raised.value)]


@pytest.mark.req("EGRESS-11")
def test_cookies_never_come_in(tmp_path: Path) -> None:
    """A host cannot hand the sandbox a credential that a client's jar would bring back."""
    host = Host(lambda seen: (200, [("Set-Cookie", "session=1"), ("X-Kept", "1"), ("Alt-Svc", 'h3=":443"')], b""))
    with host, Site(tmp_path, (rule(host),)) as site:
        headers = site.ask(url(host))[1]
        assert {"x-kept", "content-length"} == set(headers)
        assert 200 == site.ask(url(host))[0]
        assert [] == [value for seen in host.seen for value in seen.get("cookie")]


@pytest.mark.req("EGRESS-9")
def test_a_secret_of_the_broker_is_not_sent_by_the_sandbox_itself(tmp_path: Path) -> None:
    """Wherever the sandbox got it from, a request that holds a secret in its address, a header or its body is refused."""
    with (
        Host() as host,
        Site(tmp_path, (rule(host, headers=KEYED), rule(host, name="b.partner.net")), {"KEY": KEY}) as site,
    ):
        other = url(host).replace(HOST, "b.partner.net")
        hidden = base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")
        assert 403 == site.ask(other + "/" + KEY.encode().hex())[0]
        assert 403 == site.ask(f"{other}?q={hidden}")[0]
        assert 403 == site.ask(other, headers={"X-Note": f"it is {KEY}"})[0]
        assert 403 == site.ask(other, "POST", json.dumps({"note": KEY}).encode())[0]
        assert [] == host.seen
        assert KEY not in repr(site.requests())


@pytest.mark.req("EGRESS-10")
def test_what_a_basic_secret_wraps_is_a_secret_too(tmp_path: Path) -> None:
    """A host that decodes `user:password` and sends the password back is cut as well."""
    secret = base64.b64encode(b"robot:open-sesame").decode()
    host = Host(lambda seen: (200, [], b"welcome robot, your password is open-sesame"))
    with (
        host,
        Site(tmp_path, (rule(host, headers={"Authorization": "Basic ${secret:PAIR}"}),), {"PAIR": secret}) as site,
    ):
        status, _, body = site.ask(url(host))
        assert (502, False) == (status, b"open-sesame" in body)
        assert [f"Basic {secret}"] == host.seen[0].get("authorization")


@pytest.mark.req("EGRESS-8")
def test_no_header_or_query_makes_the_checks_slow() -> None:
    """The checks of what a sandbox sends take time in proportion to its length, whatever it is made of."""
    for piece in (
        "-eyJaaaaaaaa",
        "a-",
        "x-amz-",
        "api-key-",
        "&token",
        "sk-",
        "%2e",
        "-----BEGIN ",
        "gh",
        "\u00e9",
        ".",
        "_",
        "session",
    ):
        text = piece * (32_000 // len(piece))
        began = time.process_time()
        with contextlib.suppress(Refused):
            cleared([(text, text), ("x", text)], ())
        query_refusal(text)
        assert time.process_time() - began < 1, piece


@pytest.mark.req("EGRESS-10")
@given(
    text=st.lists(st.sampled_from(["a", "aab", "aabaaba", "aabaabaa", "c"]), max_size=12).map("".join),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_a_scan_finds_a_secret_however_a_stream_is_cut(text: str, cuts: list[int]) -> None:
    """Bytes pass unchanged and none is lost, or the scan ends before the secret's last byte: the cuts make no difference."""
    secret, data = "aabaabaa", text.encode()
    scan, passed = Vault({"KEY": secret}).scan(), b""
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    try:
        for start, end in itertools.pairwise(ends):
            passed += scan.feed(data[start:end])
        passed += scan.end()
    except Echoed:
        assert secret in text or secret[::-1] in text
        assert secret.encode() not in passed
    else:
        assert secret not in text
        assert data == passed
