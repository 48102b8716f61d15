"""The outside world of a killed run: an HTTP server in a process of its own that remembers every call, and may dedupe by key.

In:   `python -m tests.crash.target LOG`; `POST /CASE/keyed` or `/CASE/plain`, the key in the header `idempotency-key`.
Out:  one line of JSON on stdout once it listens, `{"url": ...}`; one line in LOG per call, written before the answer:
      `{"case", "place", "key", "body", "first"}`. `first` is False where `keyed` had seen the key before, and did nothing again.
Ends when its standard input is closed, so that it never outlives whoever started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Target(ThreadingHTTPServer):
    """Remembers calls."""

    daemon_threads = True

    def __init__(self, log: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.lock = threading.Lock()
        self.seen: set[tuple[str, str]] = set()

    def take(self, case: str, place: str, key: str | None, body: str) -> bool:
        """Note a call; say whether it was carried out."""
        with self.lock:
            known = (case, key or "") in self.seen
            first = not (place == "keyed" and known)
            self.seen.add((case, key or ""))
            line = {"case": case, "place": place, "key": key, "body": body, "first": first}
            os.write(self.log, json.dumps(line).encode() + b"\n")
        return first


class Handler(BaseHTTPRequestHandler):
    """One call."""

    server: Target

    def do_POST(self) -> None:
        """Take the call and answer with what became of it."""
        case, _, place = self.path.strip("/").partition("/")
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        first = self.server.take(case, place, self.headers.get("idempotency-key"), body)
        data = json.dumps({"done": body, "first": first}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing; the log is the file."""


def main() -> None:
    """Serve until standard input is closed."""
    server = Target(sys.argv[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
