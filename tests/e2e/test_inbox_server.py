"""The inbox over real sockets: a server process, a webhook receiver, people with tokens, links that answer once."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from midwatch import wiring
from midwatch.engine.identity import identify
from midwatch.gates.review import Speaker
from tests.e2e.inbox_site import HTTP, LATER, SHOP, Receiver, link_of, office_of, passed, served, tried
from tests.scenario.office import Office


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook on loopback."""
    made = Receiver()
    yield made
    made.close()


@pytest.mark.req("INBOX-3")
def test_a_channel_is_told_signed_and_once(tmp_path: Path, receiver: Receiver) -> None:
    """The body is signed with its time, carries its id, and a second pass has nothing left to tell."""
    office = office_of(tmp_path)
    waiting = office.run(speaks="boss")
    assert (1, 0) == (passed(office, receiver).told, passed(office, receiver).told)
    headers, body = receiver.bodies.get(timeout=10)
    stamp, mac = (part.partition("=")[2] for part in headers["x-midwatch-signature"].split(","))
    assert hmac.new(b"s3", f"{stamp}.".encode() + body, hashlib.sha256).hexdigest() == mac
    told = json.loads(body)
    assert (waiting.gates[0], {"service": "shop", "version": "v2"}, headers["idempotency-key"]) == (
        told["gate"],
        told["arguments"],
        told["id"],
    )
    events = tried(office, waiting.run)
    assert [True] == [event.data["ok"] for event in events]
    assert "secret" not in str([event.data for event in events])
    assert receiver.bodies.empty()


@pytest.mark.req("INBOX-3")
def test_a_channel_that_fails_is_told_again_until_the_question_is_over(tmp_path: Path, receiver: Receiver) -> None:
    """A 500 is tried again later, not at once; after the answer nobody is told any more."""
    office = office_of(tmp_path)
    waiting = office.run(speaks="boss")
    receiver.answers += [500, 302, 500]
    assert 1 == passed(office, receiver).failed
    assert 0 == passed(office, receiver).failed
    assert 1 == passed(office, receiver, after_us=6_000_000).failed
    office.say(waiting.gates[0], _speaker(office, "ops"))
    assert (0, 0) == (
        passed(office, receiver, after_us=60_000_000).failed,
        passed(office, receiver, after_us=LATER).told,
    )
    assert [False, False] == [event.data["ok"] for event in tried(office, waiting.run)]


def _speaker(office: Office, name: str) -> Speaker:
    with wiring.open_store(office.home) as store:
        return identify(store, token=office.tokens[name], user="x", channel="cli")


@pytest.mark.req("INBOX-3")
def test_an_escalation_is_told_once_when_its_time_comes(tmp_path: Path, receiver: Receiver) -> None:
    """Before, nobody is told again; then the channel is, and the event says to whom it went. Another action begins anew."""
    office = office_of(tmp_path)
    text = (office.fleet / "fleet.yaml").read_text()
    (office.fleet / "fleet.yaml").write_text(
        text.replace("channels: [ops]}", "channels: [ops], escalate: {after: 5m, to: admin}}")
    )
    waiting = office.run(speaks="boss")
    assert (1, 0) == (passed(office, receiver).told, passed(office, receiver, after_us=290_000_000).escalated)
    late = passed(office, receiver, after_us=310_000_000)
    assert (1, 1, 0) == (late.escalated, late.told, passed(office, receiver, after_us=320_000_000).escalated)
    assert ["opened", "escalated"] == [json.loads(receiver.bodies.get(timeout=10)[1])["why"] for _ in range(2)]
    assert [["admin"]] == [event.data["to"] for event in office.events(waiting.run, "gate.escalated")]
    with office.opened(token=office.tokens["boss"]) as kernel:
        kernel.edit(waiting.gates[0], {"service": "shop", "version": "v3"})
    assert 1 == passed(office, receiver, after_us=330_000_000).escalated


@pytest.mark.req("INBOX-3")
def test_the_governors_process_tells_channels_by_itself(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the run was started: the process that watches it posts the question."""
    monkeypatch.setenv("HOOK", receiver.url)
    monkeypatch.setenv("HOOK_SECRET", "s3")
    office = office_of(tmp_path)
    waiting = office.run(speaks="boss")
    assert waiting.gates[0] == json.loads(receiver.bodies.get(timeout=30)[1])["gate"]


@pytest.mark.req("INBOX-4")
def test_a_link_answers_once_and_only_by_its_form(tmp_path: Path, receiver: Receiver) -> None:
    """Programs that look at it change nothing; of eight people who press at once one is recorded; then it is used."""
    office = office_of(tmp_path)
    waiting = office.run(speaks="boss")
    with served(office, receiver) as url:
        link = link_of(receiver, url)
        pages = [HTTP.get(link) for _ in range(3)]
        assert [200] * 3 == [page.status_code for page in pages]
        assert "shop: none -&gt; v2" in pages[0].text
        assert "script" not in pages[0].text
        assert "default-src 'none'" in pages[0].headers["content-security-policy"]
        assert ("no-store", "same-origin") == (pages[0].headers["cache-control"], pages[0].headers["referrer-policy"])
        assert (405, "open") == (HTTP.put(link).status_code, office.gate(waiting.gates[0])[0].status)
        with ThreadPoolExecutor(8) as pool:
            codes = list(
                pool.map(lambda _: HTTP.post(link, data={"word": "approve", "reason": "ok"}).status_code, range(8))
            )
        assert [200] == [code for code in codes if code == 200]
        assert {404, 409} >= {code for code in codes if code != 200}
        assert (404, 404) == (HTTP.get(link).status_code, HTTP.post(link, data={"word": "deny"}).status_code)
    row, _ = office.gate(waiting.gates[0])
    assert ("approved", "ops") == (row.status, row.answered_by)
    assert ["link"] == [event.data["channel"] for event in office.events(waiting.run, "gate.said")]
    assert "done" == office.run(waiting.run, speaks="boss").status


@pytest.mark.req("INBOX-4")
def test_a_link_of_an_earlier_asking_or_of_somebody_disabled_is_worth_nothing(
    tmp_path: Path, receiver: Receiver
) -> None:
    """The action was edited since: the old link shows nothing. The person lost their rights: theirs says no."""
    office = office_of(tmp_path)
    waiting = office.run(speaks="boss")
    with served(office, receiver) as url:
        old = link_of(receiver, url)
        with office.opened(token=office.tokens["boss"]) as kernel:
            kernel.edit(waiting.gates[0], {"service": "shop", "version": "v3"})
        new = link_of(receiver, url)
        assert (404, 404) == (HTTP.get(old).status_code, HTTP.post(old, data={"word": "approve"}).status_code)
        assert "v3" in HTTP.get(new).text
        with wiring.open_store(office.home) as store:
            store.write(lambda tx: tx.principals.update("ops", disabled_us=1))
        assert 403 == HTTP.post(new, data={"word": "approve"}).status_code
        assert 404 == HTTP.get(f"{new[:-1]}{'A' if new[-1] != 'A' else 'B'}").status_code
    assert "open" == office.gate(waiting.gates[0])[0].status


@pytest.mark.req("INBOX-5")
def test_the_api_holds_people_to_their_rights(tmp_path: Path, receiver: Receiver) -> None:
    """No token, an unknown one, one in the address: 401. A viewer sees and does not answer; who asked does not either."""
    office = office_of(tmp_path)
    office.person("eve", "viewer")
    waiting = office.run(speaks="boss")
    gate = waiting.gates[0]
    with served(office, receiver) as url:

        def call(name: str | None, path: str, **body: Any) -> httpx.Response:
            headers = {} if name is None else {"authorization": f"Bearer {office.tokens.get(name, name)}"}
            if not body and not path.endswith(("approve", "deny", "edit")):
                return HTTP.get(f"{url}{path}", headers=headers)
            return HTTP.post(f"{url}{path}", headers=headers, json=body)

        assert [401, 401] == [call(name, "/api/gates").status_code for name in (None, "mw_unknown")]
        assert 401 == HTTP.get(f"{url}/api/gates", params={"token": office.tokens["ops"]}).status_code
        assert [gate] == [item["gate"] for item in call("eve", "/api/gates").json()["gates"]]
        assert "shop: none -> v2" == call("eve", f"/api/gates/{gate[:6]}").json()["card"]["preview"]
        assert [403, 403] == [call(name, f"/api/gates/{gate}/approve").status_code for name in ("eve", "boss")]
        assert 404 == call("ops", "/api/gates/ffff").status_code
        assert 400 == call("ops", f"/api/gates/{gate}/approve", answer="words").status_code
        edited = call("boss", f"/api/gates/{gate}/edit", arguments={"service": "shop", "version": "v4"}, reason="newer")
        assert (200, "v4") == (edited.status_code, edited.json()["arguments"]["version"])
        assert 400 == call("boss", f"/api/gates/{gate}/edit", arguments={"service": 7}).status_code
        done = call("ops", f"/api/gates/{gate}/approve", reason="ok")
        assert (200, "approved") == (done.status_code, done.json()["status"])
        again = call("ops", f"/api/gates/{gate}/deny")
        assert (409, "GateNotUsable") == (again.status_code, again.json()["error"]["type"])
    assert ("done", ["place shop v4"]) == (office.run(waiting.run, speaks="boss").status, office.calls())


@pytest.mark.req("INBOX-5")
def test_a_home_that_knows_nobody_is_served_to_nobody(tmp_path: Path, receiver: Receiver) -> None:
    """Without people there is no token to ask for, so the API answers nobody."""
    office = Office(tmp_path, [[SHOP]])
    office.run()
    with served(office, receiver) as url:
        for headers in ({}, {"authorization": "Bearer mw_x"}):
            refused = HTTP.get(f"{url}/api/gates", headers=headers)
            assert (401, False) == (refused.status_code, refused.json()["ok"])
        assert 200 == HTTP.get(f"{url}/healthz").status_code


@pytest.mark.req("INBOX-6")
def test_other_sites_other_names_and_large_bodies_are_refused(tmp_path: Path, receiver: Receiver) -> None:
    """DNS rebinding, a form of another site, a megabyte: nothing of it reaches a gate; the public name does."""
    office = office_of(tmp_path)
    waiting = office.run(speaks="boss")
    with served(office, receiver, "--public", "https://watch.example.com") as url:
        link = link_of(receiver, url)
        word = {"word": "approve"}
        assert 421 == HTTP.get(link, headers={"host": "evil.example"}).status_code
        assert 200 == HTTP.get(link, headers={"host": "watch.example.com"}).status_code
        for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            assert 403 == HTTP.post(link, data=word, headers=headers).status_code
        assert 413 == HTTP.post(link, data={"word": "approve", "reason": "x" * 1_000_000}).status_code
        assert 415 == HTTP.post(link, json=word).status_code

        def chunks() -> Iterator[bytes]:
            for _ in range(64):
                yield b"x" * 16_384

        form = {"content-type": "application/x-www-form-urlencoded"}
        with contextlib.suppress(httpx.HTTPError):
            assert HTTP.post(link, content=chunks(), headers=form).status_code in (404, 413)
        assert "open" == office.gate(waiting.gates[0])[0].status
        assert 200 == HTTP.post(link, data=word, headers={"origin": url}).status_code
