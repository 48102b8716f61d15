"""Attacks on the inbox: whatever a stranger sends, no gate moves, no link is used up, and nothing is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from midwatch import wiring
from midwatch.engine.delivery import link_key
from midwatch.gates.links import new_link, token_of
from midwatch.records.gate import GateRow, Link
from midwatch.store.port import Store
from midwatch.surfaces.api.app import Site, make_app
from midwatch.surfaces.api.guard import Guard
from midwatch.surfaces.api.pages import STYLE_HASH
from midwatch.surfaces.cli.serve import hosts_of
from tests.e2e.inbox_site import office_of
from tests.scenario.office import Office

pytestmark = pytest.mark.req("INBOX-6")

BASE = "http://127.0.0.1:8787"
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Target:
    """What is attacked."""

    office: Office
    store: Store
    app: Any
    gate: str
    link: Link
    path: str

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send one request past the guard, in this process."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
                return await client.request(method, path, **more)

        return asyncio.run(send())

    def token(self, name: str) -> dict[str, str]:
        """Give the header of one person."""
        return {"authorization": f"Bearer {self.office.tokens[name]}"}

    def state(self) -> tuple[GateRow | None, Link | None, int]:
        """Give all that an attack might have changed."""
        return self.store.read(
            lambda tx: (tx.gates.get(self.gate), tx.notices.find_link(self.link.id), tx.ledger.head()[0])
        )


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One waiting gate behind the whole application."""
    root: Path = tmp_path_factory.mktemp("inbox")
    office = office_of(root)
    office.person("eve", "viewer")
    gate = office.run(speaks="boss").gates[0]
    with wiring.open_store(office.home) as store:
        row = store.read(lambda tx: tx.gates.get(gate))
        assert row is not None
        link = new_link(row, principal="ops")
        store.write(lambda tx: tx.notices.link(link), durable=True)
        key = link_key(store)
        site = Site(store, key, wiring.clock, lambda _, token: office.opened(token=token))
        app = Guard(make_app(site), hosts=hosts_of("127.0.0.1", 8787, "https://watch.example.com"), style=STYLE_HASH)
        yield Target(office, store, app, gate, link, f"/l/{token_of(key, link)}")


@pytest.fixture(autouse=True)
def nothing_moved(target: Target) -> Iterator[None]:
    """Whatever a test does: the gate waits as before, the link is unused, and the ledger says that nobody spoke."""

    def spoken() -> list[str]:
        kinds = ("gate.said", "gate.answered", "gate.edited")
        return [event.kind for event in target.store.read(lambda tx: tx.ledger.read(kinds=kinds, limit=100))]

    before = target.state()[:2]
    yield
    assert before == target.state()[:2]
    assert [] == spoken()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:8788",
        "127.0.0.1:8787.evil.example",
        "127.0.0.1:8787@evil.example",
        "watch.example.com.evil.example",
        "evil-watch.example.com",
        "watch.example.com:8787",
        "0.0.0.0:8787",
        "",
    ],
)
def test_another_name_for_this_machine_is_refused(target: Target, host: str) -> None:
    """A page whose name was made to lead here (DNS rebinding) sends its own name: nothing is read for it."""
    for path in (target.path, "/api/gates", "/healthz"):
        answer = target.call("GET", path, headers={"host": host, **target.token("ops")})
        assert (421, False) == (answer.status_code, target.gate in answer.text)


def test_its_own_names_are_known() -> None:
    """Loopback by each of its names, with and without the usual port, and the public one; never a bare one on another port."""
    assert {"127.0.0.1:8787", "localhost:8787", "[::1]:8787"} == hosts_of("::1", 8787, None)
    assert hosts_of("127.0.0.1", 8787, None) == hosts_of("0.0.0.0", 8787, None) == hosts_of("::", 8787, None)  # noqa: S104
    assert {"127.0.0.1", "127.0.0.1:80"} <= hosts_of("localhost", 80, None)
    assert {"10.1.2.3:8787"} == hosts_of("10.1.2.3", 8787, None)
    assert {"w.example", "w.example:443"} <= hosts_of("127.0.0.1", 8787, "https://w.example/inbox")
    assert "w.example" not in hosts_of("127.0.0.1", 8787, "https://w.example:8443")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1:8787.evil.example"},
        {"origin": "http://evil.example/://127.0.0.1:8787"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://127.0.0.1:8787", "sec-fetch-site": "cross-site"},
    ],
)
def test_a_form_of_another_site_is_refused(target: Target, headers: dict[str, str]) -> None:
    """Another site, another port of this machine, a sandboxed frame: none may press the button, with a token or without."""
    assert 403 == target.call("POST", target.path, content="word=approve", headers={**FORM, **headers}).status_code
    path = f"/api/gates/{target.gate}/approve"
    assert 403 == target.call("POST", path, json={}, headers={**target.token("ops"), **headers}).status_code


def test_looking_is_not_answering(target: Target) -> None:
    """Scanners, previews, preflights and tricks with the method: each is a look, or refused."""
    asked = f"{target.path}?word=approve"
    trick = {"x-http-method-override": "POST", "x-method-override": "POST"}
    assert [200] * 5 == [target.call("GET", asked, headers=trick).status_code for _ in range(5)]
    assert 200 == target.call("HEAD", target.path).status_code
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        answer = target.call(method, asked)
        assert (405, None) == (answer.status_code, answer.headers.get("access-control-allow-origin"))
    assert 405 == target.call("GET", f"/api/gates/{target.gate}/approve", headers=target.token("ops")).status_code


def test_every_wrong_link_is_answered_alike(target: Target) -> None:
    """Forged, cut, unknown, of another home: the same bytes, for a look and for a word."""
    token = target.path.removeprefix("/l/")
    left, _, right = token.partition(".")
    other = token_of(b"x" * 32, target.link)
    unknown = token_of(link_key(target.store), Link("f" * 32, target.gate, "n", "ops", 2**60))
    flipped = f"{left}.{right[:-2]}{'A' if right[-2] != 'A' else 'B'}{right[-1]}"
    said = set()
    for wrong in (
        other,
        unknown,
        flipped,
        left,
        f"{left}.",
        token[:-1],
        f"{token}A",
        token.swapcase(),
        "x",
        "%00",
        "é",
    ):
        for answer in (
            target.call("GET", f"/l/{wrong}"),
            target.call("POST", f"/l/{wrong}", content="word=approve", headers=FORM),
        ):
            said.add((answer.status_code, answer.content))
    assert 1 == len(said)
    assert 404 == said.pop()[0]


@pytest.mark.parametrize("word", ["", "Approve", "yes", "approve ", "deny\x00", "1"])
def test_only_the_two_words_are_words(target: Target, word: str) -> None:
    """Anything else leaves link and gate as they are."""
    answer = target.call("POST", target.path, data={"word": word, "reason": "x"})
    assert answer.status_code == 404


def test_a_token_counts_in_its_header_only(target: Target) -> None:
    """In a cookie, the query, the body or under another scheme it is nobody's."""
    token = target.office.tokens["ops"]
    path = f"/api/gates/{target.gate}/approve"
    tries: list[dict[str, Any]] = [
        {"headers": {"cookie": f"token={token}; authorization=Bearer {token}"}},
        {"params": {"token": token, "access_token": token}},
        {"json": {"token": token}},
        {"headers": {"authorization": f"Basic {token}"}},
        {"headers": {"authorization": token}},
        {"headers": {"authorization": "Bearer "}},
        {"headers": {"authorization": f"Bearer {token[:-1]}"}},
        {"headers": {"x-forwarded-user": "ops", "x-midwatch-token": token}},
        {"content": "approve", "headers": {"content-type": "text/plain"}},
    ]
    for more in tries:
        answer = target.call("POST", path, **more)
        assert (401, "Bearer", False) == (
            answer.status_code,
            answer.headers["www-authenticate"],
            target.gate in answer.text,
        )


def test_whoever_was_disabled_is_nobody(target: Target) -> None:
    """Their token reads nothing any more, from the next request on."""
    assert 200 == target.call("GET", "/api/gates", headers=target.token("eve")).status_code
    target.store.write(lambda tx: tx.principals.update("eve", disabled_us=1))
    assert 401 == target.call("GET", "/api/gates", headers=target.token("eve")).status_code
    target.store.write(lambda tx: tx.principals.update("eve", disabled_us=None))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"reason": "\\ud800"}',
        b"\xff\xfe",
        b"null",
        b"[]",
        b"NaN",
        b'{"reason": NaN}',
        b'{"reason": 1e999}',
        b'{"reason": ["x"]}',
        b'{"reason": {"a": 1}}',
        b'{"answer": 7}',
        b'{"choice": "x"}',
    ],
)
def test_bodies_that_are_none_get_the_stable_shape(target: Target, body: bytes) -> None:
    """Too deep, not UTF-8, not JSON, another type: 400 with type and message, never a trace."""
    for word in ("approve", "edit"):
        answer = target.call("POST", f"/api/gates/{target.gate}/{word}", content=body, headers=target.token("ops"))
        assert (400, False, {"type", "message", "problems"}) == (
            answer.status_code,
            answer.json()["ok"],
            set(answer.json()["error"]),
        )


@pytest.mark.parametrize("depth", [30, 200, 900])
def test_an_edit_as_deep_as_json_allows_is_refused(target: Target, depth: int) -> None:
    """Arguments that nest until a walk over them would break are an error of the caller's."""
    nested = '{"service": ' + "[" * depth + "]" * depth + "}"
    body = f'{{"arguments": {nested}}}'
    answer = target.call("POST", f"/api/gates/{target.gate}/edit", content=body, headers=target.token("ops"))
    assert (400, False) == (answer.status_code, answer.json()["ok"])


@pytest.mark.parametrize(
    "path",
    ["/", "/l/", "/l", "/l/a/b", "/api", "/api/gates/", "/api/gates/..%2f..", "/docs", "/openapi.json", "/static/../x"],
)
def test_there_is_nothing_else(target: Target, path: str) -> None:
    """Every other address: the stable shape, no listing, no redirect away."""
    answer = target.call("GET", path, headers=target.token("ops"))
    assert answer.status_code in (307, 404)
    if answer.status_code == 307:
        assert answer.headers["location"].startswith(BASE)
    else:
        assert not answer.json()["ok"]


def test_every_answer_carries_the_headers(target: Target) -> None:
    """Page, API, error and refusal alike: no script, no frame, no cache, no sniffing, no address to others."""
    foreign = {"host": "evil.example"}
    answers = [
        target.call("GET", target.path),
        target.call("GET", "/l/x"),
        target.call("GET", "/api/gates"),
        target.call("GET", "/nothing"),
        target.call("GET", "/", headers=foreign),
        target.call("GET", "/healthz"),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert all(part in policy for part in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'self'"))
        assert "unsafe" not in policy
        assert ("nosniff", "no-store", "same-origin", "DENY") == tuple(
            answer.headers[name]
            for name in ("x-content-type-options", "cache-control", "referrer-policy", "x-frame-options")
        )
        assert "set-cookie" not in answer.headers


def test_a_megabyte_is_refused_before_it_is_read(target: Target) -> None:
    """By what it says of itself, and by what comes when it says nothing."""

    async def chunks() -> Any:
        for _ in range(64):
            yield b"reason=" + b"x" * 16_384

    said = target.call("POST", target.path, content=b"x" * 1_000_000, headers=FORM)
    unsaid = target.call("POST", target.path, content=chunks(), headers=FORM)
    assert (413, 413) == (said.status_code, unsaid.status_code)
    api = target.call("POST", f"/api/gates/{target.gate}/deny", content=chunks(), headers=target.token("ops"))
    assert 413 == api.status_code


def test_status_is_one_of_those_that_there_are(target: Target) -> None:
    """A status that is none is an error, not an empty list that looks like nothing waits."""
    answer = target.call("GET", "/api/gates", params={"status": "opne"}, headers=target.token("ops"))
    assert (400, "UsageProblem") == (answer.status_code, answer.json()["error"]["type"])
    assert 1 == len(target.call("GET", "/api/gates?status=all", headers=target.token("ops")).json()["gates"])
