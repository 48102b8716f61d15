"""Real clients through bridge and broker, with nothing but the usual variables; and TLS as the broker speaks it."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from midwatch.config.specs import EgressRule
from midwatch.sandbox.bridge import DUMMY_KEY, proxy_environment
from midwatch.sandbox.egress import ApiRequest, ApiResponse, EgressLimits
from tests.attack.egress_site import HOST, KEY, KEYED, WAIT_S, Host, Site, chunks, rule, told, url

PROGRAMS = {
    "urllib": "import urllib.request as r, sys; print(r.urlopen(r.Request(sys.argv[1], data=b'x=1')).read().decode())",
    "httpx": "import httpx, sys; print(httpx.post(sys.argv[1], content=b'x=1').text)",
    "requests": "import requests, sys; print(requests.post(sys.argv[1], data=b'x=1').text)",
}


def commands() -> dict[str, list[str]]:
    """Give the clients that this machine has."""
    found = {name: [sys.executable, "-c", code] for name, code in PROGRAMS.items()}
    curl = shutil.which("curl")
    if curl:
        found["curl"] = [curl, "-sS", "--data", "x=1"]
    return found


def environment(port: int) -> dict[str, str]:
    """Give what a program inside is started with."""
    return {"PATH": os.environ["PATH"], **proxy_environment(port)}


@pytest.mark.req("EGRESS-15")
@pytest.mark.parametrize("client", sorted(commands()))
def test_ordinary_clients_just_work(tmp_path: Path, client: str) -> None:
    """A client that knows proxies by its environment reaches what is allowed, with the rule's credential, and nothing else."""
    with Host() as host, Site(tmp_path, (rule(host, headers=KEYED),), {"KEY": KEY}) as site:
        run: Any = {"capture_output": True, "text": True, "timeout": WAIT_S * 2, "env": environment(site.port)}
        good = subprocess.run([*commands()[client], url(host, "/v1/items")], check=True, **run)
        assert "hello /v1/items" == good.stdout.strip()
        assert [("POST", b"x=1", [f"Bearer {KEY}"])] == [
            (one.method, one.body, one.get("x-service")) for one in host.seen
        ]
        evil = subprocess.run([*commands()[client], "https://evil.net/x"], check=False, **run)
        assert "403" in evil.stderr
        assert [("POST", "sent"), ("CONNECT", "refused")] == [(one.method, one.outcome) for one in site.requests()]


@pytest.mark.req("EGRESS-15")
def test_streams_uploads_and_odd_clients_are_served(tmp_path: Path) -> None:
    """HEAD, no content, a large upload that waits to be asked for, HTTP/1.0, and requests sent at once all end right."""
    with Host() as host, Site(tmp_path, (rule(host),)) as site:
        assert (200, b"") == site.ask(url(host), "HEAD")[::2]
        host.answer = lambda seen: (204, [], b"")
        assert (204, b"") == site.ask(url(host), "DELETE")[::2]
        host.answer = lambda seen: (200, [], b"%d" % len(seen.body))
        waiting = (
            b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\nExpect: 100-continue\r\n\r\n"
            % url(host).encode()
        )
        answer = site.raw(waiting + b"a" * 300_000)
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 200"))
        assert answer.endswith(b"300000")
        old = site.raw(b"GET %b HTTP/1.0\r\n\r\n" % url(host).encode())
        assert (b"HTTP/1.1 200", b"0") == (old[:12], old[-1:])
        first = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % url(host, "/1").encode()
        two = site.raw(first + b"GET /midwatch/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert 2 == two.count(b"HTTP/1.1 200")
        assert two.endswith(b'{"status":"ok"}')
        host.answer = lambda seen: (
            200,
            [("Transfer-Encoding", "chunked")],
            b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n",
        )
        assert b"abcde" == site.ask(url(host))[2]


def _event(text: str) -> bytes:
    chunk = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    data = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [chunk]}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


@pytest.mark.req("EGRESS-16")
def test_the_openai_sdk_reaches_the_brokers_own_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`OPENAI_BASE_URL` leads to the hook, whole and streamed: each chunk arrives before the next is made."""
    asked: list[ApiRequest] = []
    taken = asyncio.Event()

    async def events() -> AsyncIterator[bytes]:
        yield _event("one")
        await asyncio.wait_for(taken.wait(), WAIT_S)  # the client says that it has the first before there is a second
        yield _event("two")
        yield b"data: [DONE]\n\n"

    async def api(request: ApiRequest) -> ApiResponse:
        asked.append(request)
        if json.loads(request.body).get("stream"):
            return ApiResponse(200, (("content-type", "text/event-stream"),), events())
        choice = {"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return ApiResponse(200, (("content-type", "application/json"),), json.dumps(body).encode())

    with Site(tmp_path, api=api) as site:
        for name, value in proxy_environment(site.port).items():
            monkeypatch.setenv(name, value)
        with openai.OpenAI(max_retries=0, timeout=WAIT_S) as client:
            whole = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
            assert "whole" == whole.choices[0].message.content
            texts = []
            with client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}], stream=True
            ) as parts:
                for part in parts:
                    texts.append(part.choices[0].delta.content)
                    site.loop.call_soon_threadsafe(taken.set)
        assert ["one", "two"] == texts
        assert [("POST", "/v1/chat/completions", site.path)] * 2 == [
            (one.method, one.path, one.socket) for one in asked
        ]
        assert ("authorization", f"Bearer {DUMMY_KEY}") in {(name.lower(), value) for name, value in asked[0].headers}
        assert () == site.requests()


@pytest.mark.req("EGRESS-16")
def test_a_hook_that_fails_is_an_error_without_its_text(tmp_path: Path) -> None:
    """An exception of the hook is answered in words of the broker's own; in the middle of a stream the connection is cut."""

    async def begins() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError(KEY)

    async def api(request: ApiRequest) -> ApiResponse:
        if request.path == "/stream":
            return ApiResponse(200, (), begins())
        raise ValueError(KEY)

    with Site(tmp_path, api=api) as site:
        status, _, body = site.ask("/v1/x")
        assert (502, "the broker could not answer (ValueError)") == (status, told(body))
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            site.ask("/stream")
        assert 200 == site.ask("/midwatch/health")[0]


@pytest.mark.req("EGRESS-16")
def test_without_a_hook_only_health_is_answered(tmp_path: Path) -> None:
    """A sandbox without rules and without a hook can learn that the broker lives, and nothing else."""
    with Site(tmp_path) as site:
        assert (200, b'{"status":"ok"}') == site.ask("/midwatch/health")[::2]
        assert 404 == site.ask("/v1/models")[0]
        assert 404 == site.ask("/midwatch/health", "POST", b"")[0]
        assert 403 == site.ask("http://api.partner.net/")[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the tests' host alone, made here and trusted by nobody else."""
    path = tmp_path_factory.mktemp("tls") / "host.pem"
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run(
        [*made, "-keyout", str(path), "-out", str(path) + ".crt"], check=True, capture_output=True, timeout=60
    )
    with path.open("a") as file:
        file.write(Path(str(path) + ".crt").read_text())
    return path


@pytest.mark.req("EGRESS-5")
def test_the_broker_speaks_tls_by_name_to_the_checked_address(tmp_path: Path, certificate: Path) -> None:
    """A client asks `http://`; the broker proves the host's name, and sends nothing to one that cannot prove it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    names: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: names.append(name)
    with Host() as host:
        host.server.socket = server.wrap_socket(host.server.socket, server_side=True, do_handshake_on_connect=False)
        rules = tuple(
            EgressRule(name, port=host.port, private=True, headers=KEYED) for name in (HOST, "other.partner.net")
        )
        trust = ssl.create_default_context(cafile=str(certificate))
        with Site(tmp_path, rules, {"KEY": KEY}, more={"tls": trust}) as site:
            assert (200, b"hello /a") == site.ask(url(host))[::2]
            assert (200, b"hello /a") == site.ask(url(host).replace("http:", "https:"))[::2]
            status, _, body = site.ask(f"http://other.partner.net:{host.port}/")
            assert (502, "the host cannot be reached, or its certificate is not its own") == (status, told(body))
        with Site(tmp_path, rules, {"KEY": KEY}) as site:  # which trusts only what everybody trusts
            assert 502 == site.ask(url(host))[0]
        assert [HOST, HOST, "other.partner.net", HOST] == names
        assert 2 == len(host.seen)


@pytest.mark.req("EGRESS-15")
def test_a_tunnel_is_end_to_end(tmp_path: Path, certificate: Path) -> None:
    """A client that asks for `https://` itself speaks TLS with the host, through an open rule alone."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    with Host() as host:
        host.server.socket = server.wrap_socket(host.server.socket, server_side=True, do_handshake_on_connect=False)
        trust = ssl.create_default_context(cafile=str(certificate))
        with Site(
            tmp_path, (EgressRule(HOST, port=host.port, private=True),), limits=EgressLimits(silence_us=5_000_000)
        ) as site:
            with httpx.Client(proxy=f"http://127.0.0.1:{site.port}", verify=trust, trust_env=False) as client:
                assert "hello /t" == client.get(url(host, "/t").replace("http:", "https:")).text
                with pytest.raises(httpx.ProxyError, match="403"):
                    client.get("https://evil.net/")
            assert [("CONNECT", "sent"), ("CONNECT", "refused")] == [
                (one.method, one.outcome) for one in site.requests()
            ]


@pytest.mark.req("EGRESS-4")
def test_a_tunnel_leads_only_to_the_host_that_its_tls_greets(tmp_path: Path) -> None:
    """Another name, no name, no TLS, or a greeting that never ends: the host behind an allowed name is told nothing."""
    good = _greeting(HOST)
    cases = [
        _greeting("evil.net"),
        _greeting(None),
        b"GET / HTTP/1.1\r\nHost: evil.net\r\n\r\n",
        good[:-30],
        good.replace(HOST.encode(), b"api.partner.ne\x00"),
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00" + good,
        b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + b"a" * 40_000,
    ]
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(WAIT_S)
        rules = (EgressRule(HOST, port=plain.getsockname()[1], private=True),)
        with Site(tmp_path, rules, limits=EgressLimits(head_us=300_000)) as site:
            start = b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (HOST.encode(), rules[0].port or 0)
            for case in cases:
                assert site.raw(start + case, half_close=False).endswith(b"established\r\n\r\n")
                end, _ = plain.accept()
                with end:
                    assert b"" == b"".join(chunks(end))
            outcomes = [one.outcome for one in site.requests()]
            assert ["refused", "refused", "refused", "failed", "refused", "refused", "refused"] == outcomes
            with socket.create_connection(("127.0.0.1", site.port), timeout=WAIT_S) as client:
                client.sendall(start + good[:100])
                assert client.recv(100).endswith(b"established\r\n\r\n")
                client.sendall(good[100:])
                end, _ = plain.accept()
                with end:
                    assert good == end.recv(len(good), socket.MSG_WAITALL)


def _greeting(name: str | None) -> bytes:
    out, context = ssl.MemoryBIO(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()
