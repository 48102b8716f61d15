"""`midwatch inbox serve` as a process: where it listens, what it warns of, how it stops; the thread that tells channels beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.engine import delivery
from midwatch.errors import StoreError
from midwatch.surfaces import messenger
from midwatch.surfaces.messenger import Messenger
from tests.e2e.inbox_site import HTTP

pytestmark = pytest.mark.req("INBOX-9")


def served(home: Path, *extra: str) -> subprocess.Popen[str]:
    """Start the server on a free port."""
    argv = [sys.executable, "-m", "midwatch", "inbox", "serve", "--port", "0", "--json", "--home", str(home), *extra]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("host", "number", "warned"),
    [("::1", signal.SIGINT, False), ("0.0.0.0", signal.SIGTERM, True)],  # noqa: S104
)
def test_it_says_where_it_listens_and_stops_in_order(
    tmp_path: Path, host: str, number: signal.Signals, *, warned: bool
) -> None:
    """Loopback of either kind without a warning; every address with one that names TLS and `--public`; 0 at the signal."""
    process = served(tmp_path, "--host", host)
    try:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["url"].rpartition(":")[2]
        name = "[::1]" if host == "::1" else "127.0.0.1"
        assert 200 == HTTP.get(f"http://{name}:{port}/healthz").status_code
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait(timeout=10)
    assert (0, warned, warned) == (process.returncode, "TLS" in said, "--public" in said)
    assert "stop with Ctrl-C" in said
    assert "Traceback" not in said


def test_without_its_extra_it_names_it(tmp_path: Path) -> None:
    """No server library: 2, and the command that installs it; nothing is made in the home."""
    code = "import sys; sys.modules['uvicorn'] = None; from midwatch.surfaces.cli import main; main()"
    argv = [sys.executable, "-c", code, "inbox", "serve", "--home", str(tmp_path / "home")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (2, True) == (done.returncode, "pip install 'midwatch[server]'" in done.stderr)
    assert not (tmp_path / "home").exists()


def test_a_taken_port_and_a_public_address_that_is_none_are_told(tmp_path: Path) -> None:
    """2 and one line each."""
    for extra, word in ((("--public", "watch.example.com"), "must be an address"), (("--host", "256.0.0.1"), "listen")):
        process = served(tmp_path, *extra)
        told, _ = process.communicate(timeout=60)
        assert (2, True) == (process.returncode, word in json.loads(told)["error"]["message"])


def test_the_thread_that_tells_channels_outlives_a_pass_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that is locked, then anything else: said once each, not owed meanwhile, and the next pass is made."""
    outcomes: list[Any] = [StoreError("busy"), StoreError("busy"), ZeroDivisionError(), delivery.Passed(1, 0, 0, True)]
    made = threading.Event()
    seen: list[bool] = []

    def passing(*_: Any, **__: Any) -> delivery.Passed:
        seen.append(thread.busy)
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        if not outcomes:
            outcomes.append(outcome)
            made.set()
        return delivery.Passed(1, 0, 0, True)

    monkeypatch.setattr(delivery, "deliver", passing)
    monkeypatch.setattr(messenger, "_REST_S", 0.01)
    over = threading.Event()
    with wiring.open_store(tmp_path, create=True) as store:
        thread = Messenger(store, over, period_s=0.01)
        thread.start()
        assert made.wait(20)
        over.set()
        thread.join(20)
    assert [True, False, False, False] == seen[:4]
    assert ["channels: busy", "channels: ZeroDivisionError"] == capsys.readouterr().err.splitlines()
