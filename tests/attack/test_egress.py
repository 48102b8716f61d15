"""Attacks on the way out of a sandbox: each guard of the broker, in the test in which it would be bypassed."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from midwatch.config.specs import EgressRule
from midwatch.errors import SandboxError
from midwatch.sandbox.bridge import DUMMY_KEY, proxy_environment
from midwatch.sandbox.effects import Request
from midwatch.sandbox.egress import Broker, EgressLimits
from midwatch.sandbox.profile import SandboxProfile
from tests.attack.egress_site import HOST, KEY, KEYED, NOW_US, WAIT_S, Host, Seen, Site, chunks, rule, url


@pytest.mark.req("EGRESS-5")
@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["169.254.169.254"],
        ["10.0.0.1"],
        ["x"],
        ["0.0.0.0"],  # noqa: S104
    ],
)
def test_a_name_that_leads_inwards_is_not_connected_to(tmp_path: Path, answers: list[str]) -> None:
    """One forbidden address among those of a name refuses the name; the host is never reached."""
    with Host() as host, Site(tmp_path, (rule(host, private=False),), names={HOST: answers}) as site:
        assert 403 == site.ask(url(host))[0]
        assert (
            b"HTTP/1.1 403" == site.raw(b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (HOST.encode(), host.port))[:12]
        )
        assert [] == host.seen
        assert ["refused", "refused"] == [one.outcome for one in site.requests()]


@pytest.mark.req("EGRESS-5")
def test_a_name_is_resolved_once_and_only_its_checked_address_is_used(tmp_path: Path) -> None:
    """A resolver that answers differently the second time is not asked a second time."""
    with Host() as host, Host() as other, Site(tmp_path, (rule(host),)) as site:
        answers = iter([["127.0.0.1"], ["127.0.0.2"], ["169.254.169.254"]])
        count: list[str] = []

        async def rebinding(name: str, port: int) -> list[str]:
            count.append(name)
            return next(answers)

        site.broker.resolve = rebinding
        assert 200 == site.ask(url(host))[0]
        assert ([HOST], 1, 0) == (count, len(host.seen), len(other.seen))
        assert [f"{HOST}:{host.port}"] == host.seen[0].get("host")


@pytest.mark.req("EGRESS-5")
def test_another_address_is_tried_only_where_none_was_connected_to(tmp_path: Path) -> None:
    """A checked address where nothing listens gives way to the next; one that answers badly does not."""
    names = {HOST: ["127.0.0.9", "::1", "127.0.0.1"]}
    with Host() as host, Site(tmp_path, (rule(host),), names=names) as site:
        assert (200, b"hello /a") == site.ask(url(host), "POST", b"x")[::2]
        assert 1 == len(host.seen)
        site.names = {HOST: ["127.0.0.9"]}
        assert 502 == site.ask(url(host))[0]
        site.names = {HOST: []}
        assert 502 == site.ask(url(host))[0]


@pytest.mark.req("EGRESS-5")
def test_a_redirect_is_passed_on_and_meets_the_rules_again(tmp_path: Path) -> None:
    """The broker follows nothing; a client that follows is refused as if it had asked at once."""
    with Host() as inner, Host() as host, Site(tmp_path, (rule(host, headers=KEYED),), {"KEY": KEY}) as site:
        host.answer = lambda seen: (302, [("Location", f"http://127.0.0.1:{inner.port}/admin")], b"")
        with httpx.Client(proxy=f"http://127.0.0.1:{site.port}", follow_redirects=True, trust_env=False) as client:
            assert 403 == client.get(url(host)).status_code
        assert (1, 0) == (len(host.seen), len(inner.seen))
        assert [("sent", 302), ("refused", None)] == [(one.outcome, one.status) for one in site.requests()]


GOOD = b"POST http://api.partner.net/a HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = [
    GOOD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET http://evil.net/ HTTP/1.1\r\n\r\n",
    GOOD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    GOOD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    GOOD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    GOOD + b"Content-Length: 5, 5\r\n\r\nabcde",
    GOOD + b"Content-Length: +5\r\n\r\nabcde",
    GOOD + b"Content-Length: 0x5\r\n\r\nabcde",
    GOOD + b"Content-Length: -1\r\n\r\n",
    GOOD + b"Content-Length : 5\r\n\r\nabcde",
    GOOD + b" Content-Length: 5\r\n\r\nabcde",
    GOOD + b"X: a\r\n folded\r\n\r\n",
    GOOD + b"X: a\r\n\tContent-Length: 5\r\n\r\nabcde",
    GOOD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    GOOD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    GOOD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    GOOD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    GOOD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    GOOD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    GOOD + b"Transfer-Encoding: chunked\r\n\r\n5\nabcde\r\n0\r\n\r\n",
    GOOD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n",
    GOOD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcdeXX0\r\n\r\n",
    GOOD.replace(b"1.1\r\n", b"1.0\r\n") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    GOOD.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n",
    GOOD + b"X: a\nY: b\r\n\r\n",
    GOOD + b"X: a\rY: b\r\n\r\n",
    GOOD + b"X: a\x00b\r\n\r\n",
    GOOD + b"X\x00: b\r\n\r\n",
    GOOD + b"X: \x1b[2J\r\n\r\n",
    GOOD + b"Host: evil.net\r\n\r\n",
    GOOD + b": empty\r\n\r\n",
    GOOD + b"no colon\r\n\r\n",
    b"POST http://api.partner.net/a HTTP/1.1\r\n\r\n",
    b"POST  http://api.partner.net/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST http://api.partner.net/a\tHTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST http://api.partner.net/a HTTP/2.0\r\nHost: x\r\n\r\n",
    b"POST http://api.partner.net/a HTTP/0.9\r\nHost: x\r\n\r\n",
    b"POST http://api.partner.net/a b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST http://api.partner.net/a\r\n\r\n",
    b"\r\nPOST http://api.partner.net/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"CONNECT api.partner.net:80 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    b"CONNECT http://api.partner.net/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT api.partner.net HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT user:pw@api.partner.net:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT [::1]:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET ftp://api.partner.net/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http:/api.partner.net/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http:api.partner.net/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET api.partner.net/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://evil.net#@api.partner.net/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://api.partner.net:80:80/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://api.partner.net:/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://api.partner.net\\@evil.net/a HTTP/1.1\r\nHost: x\r\n\r\n",
]


@pytest.mark.req("EGRESS-7")
def test_a_request_that_two_readers_could_cut_differently_is_refused(tmp_path: Path) -> None:
    """Every known way to hide a request in another ends with one error, a record, and nothing sent."""
    with Host() as host, Site(tmp_path, (rule(host),)) as site:
        for data in SMUGGLED:
            answer = site.raw(data.replace(b"partner.net/", b"partner.net:%d/" % host.port))
            assert answer.startswith(b"HTTP/1.1 4"), (data, answer)
            assert 1 == answer.count(b"HTTP/1.1 "), (data, answer)
        assert [] == host.seen
        assert ["refused"] * len(SMUGGLED) == [one.outcome for one in site.requests()]


@pytest.mark.req("EGRESS-7")
def test_what_is_sent_on_is_written_anew(tmp_path: Path) -> None:
    """Chunks, connection headers and claims about the client stay with the broker; the host reads one framed request."""
    sent = b"".join(
        [
            b"Transfer-Encoding: chunked\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\nUpgrade: websocket\r\n",
            b"X-Forwarded-For: 10.0.0.1\r\nForwarded: for=me\r\nVia: 1.1 me\r\nProxy-Authorization: Basic eDp5\r\n",
            b"X-Kept: yes\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: z\r\n\r\n",
        ]
    )
    with Host() as host, Site(tmp_path, (rule(host),)) as site:
        answer = site.raw(b"POST %b HTTP/1.1\r\nHost: evil.net\r\n" % url(host).encode() + sent)
        assert b"HTTP/1.1 200" == answer[:12]
        (seen,) = host.seen
        assert b"abcde" == seen.body
        assert {"Host": f"{HOST}:{host.port}", "X-Kept": "yes", "Content-Length": "5"} == dict(seen.headers)


@pytest.mark.req("EGRESS-8")
def test_slow_and_silent_clients_lose_their_connection(tmp_path: Path) -> None:
    """A head or body that does not come, and a connection that says nothing, end within their bounds."""
    limits = EgressLimits(head_us=150_000, idle_us=150_000, body_us=150_000)
    with Host() as host, Site(tmp_path, (rule(host),), limits=limits) as site:
        address = url(host).encode()
        assert b"" == site.raw(b"", half_close=False)
        assert b"HTTP/1.1 408" == site.raw(b"POST %b HTTP/1.1\r\nHost: x\r\nX-" % address, half_close=False)[:12]
        slow = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc" % address
        assert b"HTTP/1.1 408" == site.raw(slow, half_close=False)[:12]
        assert [] == host.seen
        assert 200 == site.ask(url(host))[0]


@pytest.mark.req("EGRESS-8")
def test_sizes_are_bounded(tmp_path: Path) -> None:
    """Heads, headers, bodies and what all of them hold together are refused beyond their bounds; long answers are cut."""
    limits = EgressLimits(head=2048, headers=10, body=1000, answer=5000, buffered=1500)
    with Host() as host, Site(tmp_path, (rule(host),), limits=limits) as site:
        start = b"POST %b HTTP/1.1\r\nHost: x\r\n" % url(host).encode()
        assert b"431" == site.raw(start + b"X: %b\r\n\r\n" % (b"a" * 3000))[9:12]
        assert b"431" == site.raw(start + b"X: %b" % (b"a" * 100_000))[9:12]
        assert b"431" == site.raw(start + b"X: a\r\n" * 10 + b"\r\n")[9:12]
        assert b"413" == site.raw(start + b"Content-Length: 1001\r\n\r\n")[9:12]
        assert b"413" == site.raw(start + b"Content-Length: 999999999999999\r\n\r\n")[9:12]
        assert (
            b"413"
            == site.raw(
                start
                + b"Transfer-Encoding: chunked\r\n\r\n"
                + b"1f4\r\n"
                + b"a" * 500
                + b"\r\n"
                + b"1f5\r\n"
                + b"a" * 501
                + b"\r\n0\r\n\r\n"
            )[9:12]
        )
        assert [] == host.seen
        host.answer = lambda seen: (200, [], b"a" * 100_000)
        answer = site.raw(start + b"Content-Length: 0\r\n\r\n")
        assert len(answer) < 100_000
        last = site.requests()[-1]
        assert ("failed", "the answer is longer than 5000 bytes") == (last.outcome, last.reason)


@pytest.mark.req("EGRESS-8")
def test_connections_and_attempts_are_bounded(tmp_path: Path) -> None:
    """Beyond its bound a connection is told so; beyond theirs attempts are refused, and one record counts them."""
    limits = EgressLimits(connections=2, records=3)
    with Host() as host, Site(tmp_path, (rule(host),), limits=limits) as site:
        with contextlib.ExitStack() as held:
            for _ in range(2):
                client = held.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=WAIT_S))
                client.sendall(b"GET /midwatch/health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"HTTP/1.1 200" == client.recv(12)
            assert 503 == site.ask(url(host))[0]
        assert [] == list(site.requests())
        statuses: list[int] = []
        while len(statuses) < 5:
            status = site.ask(url(host))[0]
            if status != 503:  # the connections above are still on their way out
                statuses.append(status)
        assert [200, 200, 200, 429, 429] == statuses
        *_, last = site.requests()
        assert (3, "*", "2 more attempts were refused: 3 is the bound between two calls") == (
            len(host.seen),
            last.host,
            last.reason,
        )
        assert 200 == site.ask(url(host))[0]


@pytest.mark.req("EGRESS-11")
def test_a_request_is_sent_once_and_by_no_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that hangs up is not asked again; proxies of the broker's own environment are not used."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Host() as host, Site(tmp_path, (rule(host),)) as site:

        def hang_up(seen: Seen) -> Any:
            raise ConnectionAbortedError

        assert 200 == site.ask(url(host))[0]
        host.answer = hang_up
        assert 502 == site.ask(url(host), "POST", b"x")[0]
        assert 502 == site.ask(url(host))[0]
        assert 3 == len(host.seen)
        assert ["sent", "failed", "failed"] == [one.outcome for one in site.requests()]


@pytest.mark.req("EGRESS-12")
def test_a_staged_request_is_not_sent_until_it_is_committed(tmp_path: Path) -> None:
    """A changing request is kept whole, without credentials; on commit it is sent with the rule's, under a key that stays the same."""
    staged = rule(host := Host(), headers=KEYED, stage=True)
    with host, Site(tmp_path, (staged,), {"KEY": KEY}) as site:
        assert 200 == site.ask(url(host))[0]
        sent = {
            "Content-Type": "application/json",
            "X-Service": "Bearer stolen",
            "Authorization": f"Bearer {DUMMY_KEY}",
        }
        status, _, body = site.ask(url(host, "/orders?dry=0"), "POST", b'{"n": 1}', sent)
        assert (202, True) == (status, json.loads(body)["staged"])
        assert 1 == len(host.seen)
        _, record = site.requests()
        assert ("staged", url(host, "/orders?dry=0"), "/orders") == (record.outcome, record.url, record.path)
        assert [("Content-Type", "application/json")] == [pair for pair in record.headers if pair[0] == "Content-Type"]
        assert KEY not in repr(record)
        assert "stolen" not in repr(record)
        bodies = site.attached.bodies()
        assert {record.body: b'{"n": 1}'} == bodies
        kept = Request.from_json(json.loads(json.dumps(record.to_json())))
        results = [site.run(site.broker.send_staged(kept, b'{"n": 1}', (staged,), {"KEY": KEY})) for _ in range(2)]
        assert [("sent", 200)] * 2 == [(one.outcome, one.status) for one in results]
        _, first, second = host.seen
        assert ("POST", "/orders?dry=0", b'{"n": 1}', [f"Bearer {KEY}"], []) == (
            *(first.method, first.path, first.body),
            *(first.get("x-service"), first.get("authorization")),
        )
        assert 1 == len(first.get("idempotency-key"))
        assert first.get("idempotency-key") == second.get("idempotency-key")


@pytest.mark.req("EGRESS-12")
def test_a_commit_checks_everything_again(tmp_path: Path) -> None:
    """Another body, a rule that is gone, a name that leads inwards, or a record that cannot be made: nothing is sent."""
    staged = rule(host := Host(), stage=True)
    with host, Site(tmp_path, (staged,)) as site:
        for _ in range(2):
            site.ask(url(host, "/x"), "DELETE")
        record, twin = site.requests()
        assert record.at_us != twin.at_us

        def commit(request: Request, body: bytes, *rules: EgressRule) -> str:
            return site.run(site.broker.send_staged(request, body, rules, {})).outcome

        assert "refused" == commit(record, b"other", staged)
        assert "refused" == commit(record, b"")
        assert "refused" == commit(record, b"", rule(host, methods=("GET",)))
        assert "refused" == commit(record, b"", rule(host, private=False))
        assert "refused" == commit(Request.from_json({**record.to_json(), "outcome": "sent"}), b"", staged)

        async def broken(path: Path | None, request: Request) -> None:
            raise OSError("disk full")

        site.broker.record = broken
        assert "refused" == commit(record, b"", staged)
        assert [] == host.seen


@pytest.mark.req("EGRESS-13")
def test_what_cannot_be_recorded_is_not_sent(tmp_path: Path) -> None:
    """A recorder that fails keeps every request in: plain, staged, tunnel."""
    told_of: list[Request] = []

    async def broken(path: Path | None, request: Request) -> None:
        told_of.append(request)
        raise OSError(KEY)

    with Host() as host:
        rules = (rule(host), rule(host, name="staged.partner.net", stage=True))
        with Site(tmp_path, rules, more={"record": broken}) as site:
            assert 403 == site.ask(url(host))[0]
            assert 403 == site.ask(f"http://staged.partner.net:{host.port}/", "POST", b"x")[0]
            assert b"403" == site.raw(b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (HOST.encode(), host.port))[9:12]
            assert ["failed", "staged", "failed"] == [one.outcome for one in told_of]
            assert [] == host.seen
            records = site.requests()
            assert ["refused"] * 3 == [one.outcome for one in records]
            assert ({}, False) == (site.attached.bodies(), KEY in repr(records))


@pytest.mark.req("EGRESS-14")
def test_only_the_sandboxs_own_user_reaches_its_socket(tmp_path: Path) -> None:
    """Another sandbox's user is kept off by the socket's owner and mode, and by the broker where those would let it through."""
    mine, other = (61_001, 61_001), 61_002
    if os.getuid() != 0:
        with pytest.raises(SandboxError), Site(tmp_path, owner=mine):
            pass
        return
    code = (
        "import os,socket,sys; u=int(sys.argv[2]); os.setgroups([]); os.setgid(u); os.setuid(u)\n"
        "s=socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1]); s.sendall(b'GET /midwatch/health HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(s.recv(12))\n"
        "except OSError as e: print(type(e).__name__)"
    )
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder), owner=mine) as site:
        Path(folder).chmod(0o755)
        said = [
            subprocess.run(
                [sys.executable, "-I", "-c", code, str(site.path), str(user)],
                capture_output=True,
                text=True,
                timeout=WAIT_S,
                check=True,
            ).stdout.strip()
            for user in (mine[0], other)
        ]
        assert ["b'HTTP/1.1 200'", "PermissionError"] == said
        assert b"" == site.raw(b"GET /midwatch/health HTTP/1.1\r\nHost: x\r\n\r\n")  # this process is not the owner
        assert (0o600, mine) == (site.path.stat().st_mode & 0o777, (site.path.stat().st_uid, site.path.stat().st_gid))


@pytest.mark.req("EGRESS-4")
def test_a_tunnel_carries_bytes_both_ways_and_is_counted(tmp_path: Path) -> None:
    """An open host gets a tunnel that half-closes; a host with a credential gets none."""
    with (
        Host() as host,
        Site(tmp_path, (rule(host), rule(host, name="keyed.partner.net", headers=KEYED)), {"KEY": KEY}) as site,
    ):
        inner = b"GET /inner HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n"
        early = b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (HOST.encode(), host.port)
        answer = site.raw(early + inner)
        assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"hello /inner")
        assert b"403" == site.raw(early.replace(b"api.", b"keyed."))[9:12]
        sent, refused = site.requests()
        assert ("CONNECT", "sent", len(inner), HOST) == (sent.method, sent.outcome, sent.sent, sent.host)
        assert sent.received == len(answer) - len(b"HTTP/1.1 200 Connection established\r\n\r\n")
        assert ("refused", "keyed.partner.net") == (refused.outcome, refused.host)


@pytest.mark.req("EGRESS-8")
def test_a_tunnel_is_bounded(tmp_path: Path) -> None:
    """Bytes and silence of a tunnel end at their bounds."""
    limits = EgressLimits(tunnel=1000, silence_us=200_000)
    with Host(lambda seen: (200, [], b"a" * 50_000)) as host, Site(tmp_path, (rule(host),), limits=limits) as site:
        start = b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (HOST.encode(), host.port)
        assert len(site.raw(start + b"GET / HTTP/1.1\r\nHost: y\r\n\r\n")) < 2000
        assert site.raw(start, half_close=False).endswith(b"established\r\n\r\n")
        assert ["refused", "failed"] == [one.outcome for one in site.requests()]


@pytest.mark.req("EGRESS-13")
def test_settling_cuts_what_is_still_under_way(tmp_path: Path) -> None:
    """What has no answer when a call ends is cut and recorded with that call; the sandbox's next request works."""
    begun, ended = threading.Event(), threading.Event()

    def hang(seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        begun.set()
        ended.wait(WAIT_S)
        return 200, [], b""

    with Host(hang) as host, Site(tmp_path, (rule(host),)) as site:
        with socket.create_connection(("127.0.0.1", site.port), timeout=WAIT_S) as client:
            client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % url(host).encode())
            assert begun.wait(WAIT_S)
            site.run(site.attached.settle(within_us=1000))
            (record,) = site.requests()
            assert ("failed", "cut before its end") == (record.outcome, record.reason)
            assert b"" == b"".join(chunks(client))
        ended.set()
        assert 200 == site.ask(url(host))[0]


@pytest.mark.req("EGRESS-8")
def test_exchanges_under_way_are_bounded(tmp_path: Path) -> None:
    """However many clients ask at once, a host sees no more than the bound at a time, and all are answered."""
    now, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(2)

    def counting(seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(WAIT_S)
        with lock:
            now -= 1
        return 200, [], b""

    with Host(counting) as host, Site(tmp_path, (rule(host),), limits=EgressLimits(exchanges=2)) as site:
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(site.ask(url(host))[0])) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert ([200] * 6, 2) == (statuses, most)


@pytest.mark.req("EGRESS-14")
def test_a_path_that_cannot_be_listened_at_is_refused(tmp_path: Path) -> None:
    """A path that is too long, or taken by something that is no socket, is a `SandboxError` that names it."""
    taken = tmp_path / "taken"
    taken.write_text("x")
    broker = Broker(lambda: NOW_US)

    async def attach(path: Path) -> None:
        async with broker.attach(path, SandboxProfile(tmp_path), None):
            pass

    for path in (taken, tmp_path / ("x" * 120)):
        with pytest.raises(SandboxError, match="cannot listen"):
            asyncio.run(attach(path))
    assert "x" == taken.read_text()
    assert proxy_environment(1)["NO_PROXY"]
