"""The site that inbox tests share: an office that tells a webhook, the webhook, the server as a process of its own."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from midwatch import wiring
from midwatch.engine import delivery
from midwatch.records.event import Event
from midwatch.surfaces.posting import post
from tests.scenario.office import Office

__all__ = ["GATES", "HTTP", "LATER", "SHOP", "Receiver", "link_of", "office_of", "passed", "served", "tried"]

SHOP = ("ops.place", {"service": "shop", "version": "v2"})
GATES = "- {when: {effect: destructive}, ask: operator, channels: [ops]}"
LATER = 10**10
HTTP = httpx.Client(timeout=60)
"""Patient: a machine under load may take long to open a kernel."""


class Receiver:
    """A webhook that keeps what it is sent and answers as it is told, while `go` is set."""

    def __init__(self) -> None:
        self.bodies: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.answers: list[int] = []
        self.go = threading.Event()
        self.go.set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.bodies.put(({name.lower(): value for name, value in self.headers.items()}, body))
                outer.go.wait(30)
                self.send_response(outer.answers.pop(0) if outer.answers else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?secret=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self.go.set()
        self.server.shutdown()
        self.server.server_close()


def office_of(root: Path, *, proposals: int = 1, gates: str = GATES) -> Office:
    """An office that tells the receiver, with links that speak for `ops`; its worker proposes so many actions at once."""
    channels = "channels: {ops: {url_env: HOOK, principal: ops, secret_env: HOOK_SECRET}}"
    calls = [SHOP, *(("ops.place", {"service": f"shop{number}", "version": "v2"}) for number in range(1, proposals))]
    office = Office(root, [calls], gates=gates, extra=f"{channels}\nreview: {{links: 'http://127.0.0.1:9'}}")
    office.person("boss", "admin")
    office.person("ops", "operator")
    return office


def passed(
    office: Office,
    receiver: Receiver,
    *,
    after_us: int = 0,
    environ: dict[str, str] | None = None,
    by: delivery.Post = post,
) -> delivery.Passed:
    """One pass of delivery, some time from now."""
    known = {"HOOK": receiver.url, "HOOK_SECRET": "s3"} if environ is None else environ
    with wiring.open_store(office.home) as store:
        return delivery.deliver(store, environ=known, clock=lambda: wiring.clock() + after_us, post=by)


@contextlib.contextmanager
def served(office: Office, receiver: Receiver, *extra: str) -> Iterator[str]:
    """The server in a process of its own; gives its address."""
    argv = [
        sys.executable,
        "-m",
        "midwatch",
        "inbox",
        "serve",
        "--port",
        "0",
        "--json",
        "--home",
        str(office.home),
        *extra,
    ]
    env = {**os.environ, "HOOK": receiver.url, "HOOK_SECRET": "s3"}
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True)
    try:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["url"])
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=20)
        if process.stdout is not None:
            process.stdout.close()
    assert 0 == status


def link_of(receiver: Receiver, url: str) -> str:
    """Take the link of the next message, at the server's own address."""
    body = json.loads(receiver.bodies.get(timeout=20)[1])
    return f"{url}/l/{body['link'].rpartition('/')[2]}"


def tried(office: Office, run: str) -> list[Event]:
    """Give the tries; not what the watch says of itself, which was started without the variables."""
    events = office.events(run, "gate.told")
    return [event for event in events if not str(event.data["error"]).startswith("the variable")]
