"""Delivery over whole runs and real sockets: senders that die, hang, race or lack what they need; the watch that tells again."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.engine import control
from midwatch.surfaces.posting import post
from tests.e2e.inbox_site import GATES, HTTP, Receiver, office_of, passed, served, tried

CLAIM_US = 30_000_000


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook on loopback."""
    made = Receiver()
    yield made
    made.close()


def empty(receiver: Receiver) -> bool:
    """Say that nothing came."""
    with pytest.raises(queue.Empty):
        receiver.bodies.get(timeout=0.01)
    return True


@pytest.mark.req("INBOX-8")
def test_the_watch_stays_until_a_channel_has_taken_it(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run is live and the channel failed twice: the process that watched tells it a third time, later than it would end alone."""
    monkeypatch.setenv("HOOK", receiver.url)
    monkeypatch.setenv("HOOK_SECRET", "s3")
    receiver.answers += [500, 503]
    office = office_of(tmp_path)
    waiting = office.run(speaks="boss")
    told = [json.loads(receiver.bodies.get(timeout=40)[1]) for _ in range(3)]
    assert [f"{waiting.gates[0]}:{_nonce(told)}:ops:opened"] == sorted({item["id"] for item in told})
    assert 3 == len({item["link"] for item in told})


def _nonce(told: list[dict[str, str]]) -> str:
    return told[0]["id"].split(":")[1]


@pytest.mark.req("INBOX-8")
def test_a_sender_that_is_killed_is_followed_by_another(tmp_path: Path, receiver: Receiver) -> None:
    """SIGKILL between the post and its note: nobody sends while it may live, then it is sent once more under the same id."""
    office = office_of(tmp_path)
    office.run(speaks="boss")
    receiver.go.clear()
    argv = [sys.executable, "-m", "midwatch", "inbox", "deliver", "--home", str(office.home)]
    env = {**os.environ, "HOOK": receiver.url, "HOOK_SECRET": "s3"}
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = json.loads(receiver.bodies.get(timeout=30)[1])
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)
    receiver.go.set()
    assert 0 == passed(office, receiver).told
    assert 1 == passed(office, receiver, after_us=CLAIM_US + 1_000_000).told
    assert first["id"] == json.loads(receiver.bodies.get(timeout=10)[1])["id"]
    assert (0, True) == (passed(office, receiver, after_us=CLAIM_US + 60_000_000).told, empty(receiver))


@pytest.mark.req("INBOX-8")
def test_of_senders_at_one_time_one_sends(tmp_path: Path, receiver: Receiver) -> None:
    """Four passes at once over three questions: each question is told once."""
    office = office_of(tmp_path, proposals=3)
    waiting = office.run(speaks="boss")
    with ThreadPoolExecutor(4) as pool:
        told = sum(result.told for result in pool.map(lambda _: passed(office, receiver), range(4)))
    bodies = [json.loads(receiver.bodies.get(timeout=10)[1]) for _ in range(3)]
    assert (3, sorted(waiting.gates), True) == (told, sorted(body["gate"] for body in bodies), empty(receiver))


@pytest.mark.req("INBOX-8")
def test_a_channel_that_does_not_answer_takes_one_time_out_a_pass(tmp_path: Path, receiver: Receiver) -> None:
    """Three questions, one try: the other two wait as long as the first, and are told when it answers again."""
    office = office_of(tmp_path, proposals=3)
    waiting = office.run(speaks="boss")
    tries: list[str] = []

    def silent(url: str, body: bytes, headers: Mapping[str, str]) -> int:
        tries.append(headers["idempotency-key"])
        raise TimeoutError(url)

    first = passed(office, receiver, by=silent)
    assert (0, 1, 1, True) == (first.told, first.failed, len(tries), first.owed)
    assert (0, 1) == (passed(office, receiver, by=silent).failed, len(tries))
    assert 3 == passed(office, receiver, after_us=6_000_000).told
    said = [event.data["error"] for event in tried(office, waiting.run)]
    assert 1 == said.count("nothing answered")


@pytest.mark.req("INBOX-8")
def test_who_lacks_a_variable_leaves_it_to_others(tmp_path: Path, receiver: Receiver) -> None:
    """The process that knows the home without the address says so once and takes nothing from the one that has it."""
    office = office_of(tmp_path)
    waiting = office.run(speaks="boss")
    for environ in ({}, {"HOOK": receiver.url}, {}):
        found = passed(office, receiver, environ=environ)
        assert (0, 1, True) == (found.told, found.failed, found.owed)
    assert (1, False) == ((last := passed(office, receiver)).told, last.owed)
    said = [(event.data["ok"], event.data["error"]) for event in office.events(waiting.run, "gate.told")]
    assert [(False, "the variable `HOOK` is not set where this runs"), (True, None)] == said
    assert receiver.url not in str(said)


@pytest.mark.req("INBOX-3")
def test_what_is_late_or_of_a_cancelled_run_is_told_to_nobody(tmp_path: Path, receiver: Receiver) -> None:
    """A run that was cancelled asks nobody any more; a question past its time is closed by the pass itself."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    cancelled = office_of(tmp_path / "a", gates=GATES[:-1] + ", escalate: {after: 1s, to: admin}}")
    run = cancelled.run(speaks="boss").run
    with wiring.open_store(cancelled.home) as store:
        control.cancel(store, run, by="boss", reason="no need", at_us=wiring.clock())
    found = passed(cancelled, receiver, after_us=2_000_000)
    assert (0, 0, 0, True) == (found.told, found.failed, found.escalated, empty(receiver))
    late = office_of(tmp_path / "b")
    waiting = late.run(speaks="boss")
    over = passed(late, receiver, after_us=3_600_000_000)
    assert (0, 0, False, True) == (over.told, over.failed, over.owed, empty(receiver))
    assert "expired" == late.gate(waiting.gates[0])[0].status
    assert 1 == len(late.events(waiting.run, "gate.expired"))


@pytest.mark.req("INBOX-3")
def test_one_pass_by_hand_says_what_it_did(tmp_path: Path, receiver: Receiver) -> None:
    """`inbox deliver --json`: what was told; 1 while something was not taken."""
    office = office_of(tmp_path)
    office.run(speaks="boss")
    argv = [sys.executable, "-m", "midwatch", "inbox", "deliver", "--json", "--home", str(office.home)]
    env = {**os.environ, "HOOK_SECRET": "s3"}
    lacking = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (1, False) == (lacking.returncode, json.loads(lacking.stdout)["ok"])
    done = subprocess.run(
        argv, env={**env, "HOOK": receiver.url}, capture_output=True, text=True, timeout=60, check=False
    )
    expected = {"ok": True, "told": 1, "failed": 0, "escalated": 0, "owed": False}
    assert (0, expected) == (done.returncode, json.loads(done.stdout))


def dripping(stop: threading.Event) -> str:
    """A server that never ends its answer's head; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            peer.sendall(b"HTTP/1.1 200 OK\r\nx: ")
            while not stop.wait(0.05):
                peer.sendall(b"x")

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.mark.req("INBOX-8")
def test_a_channel_that_drips_or_never_ends_holds_nobody_up() -> None:
    """The time-out is over the whole exchange, not over each byte; an address that is none fails the same way."""
    stop = threading.Event()
    begun = time.monotonic()
    try:
        with pytest.raises(OSError, match=r"^$|Timeout"):
            post(dripping(stop), b"{}", {}, within_s=0.5)
    finally:
        stop.set()
    assert time.monotonic() - begun < 5
    for url in ("", "file:///etc/passwd", "http://", "http://127.0.0.1:99999/", "http://[::1"):
        with pytest.raises(OSError, match=r"\w+"):
            post(url, b"{}", {})


@pytest.mark.req("INBOX-8")
def test_the_server_stops_in_order_whatever_is_going_on(tmp_path: Path, receiver: Receiver) -> None:
    """A request that never ends and a channel that has not answered: SIGTERM still ends it with 0, and the message is noted."""
    office = office_of(tmp_path)
    waiting = office.run(speaks="boss")
    receiver.go.clear()
    with served(office, receiver) as url:
        assert 200 == HTTP.get(f"{url}/healthz").status_code
        receiver.bodies.get(timeout=20)
        host, port = url.removeprefix("http://").split(":")
        slow = socket.create_connection((host, int(port)), timeout=10)
        slow.sendall(f"POST /l/x HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: 10\r\n\r\nwo".encode())
        threading.Timer(1.0, receiver.go.set).start()
    slow.close()
    assert [True] == [event.data["ok"] for event in tried(office, waiting.run)]
