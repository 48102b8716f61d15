"""Serve: `midwatch inbox serve`: the page behind signed links and the API, on loopback unless told; tells channels meanwhile.

In:   a host and a port. Out: a server until SIGINT or SIGTERM.
May import: errors; uvicorn, the API and the wiring when it runs. Must not know: what is served.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from midwatch.errors import MissingExtra, UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, say

if TYPE_CHECKING:
    from midwatch.engine.kernel import Kernel
    from midwatch.store.port import Store

__all__ = ["hosts_of", "serve"]

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - named to warn of it
_HTTP: Final = 80
_GRACE_S: Final = 3
_LAST_WORD_S: Final = 12.0


@click.command("serve", short_help="Serve the page behind signed links, and the API.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8787, show_default=True, help="0 for any free one.")
@click.option("--public", metavar="URL", help="Address under which people reach it, as in `review.links`.")
@command_options
@click.pass_obj
def serve(settings: Settings, host: str, port: int, public: str | None) -> None:
    """Serve what waits: pages behind signed links, JSON for people with a token; messages to channels go out meanwhile."""
    from midwatch import wiring
    from midwatch.engine.delivery import link_key

    try:
        import uvicorn  # noqa: F401 - told at once, before anything is opened

        from midwatch.surfaces.api.app import Site, make_app
        from midwatch.surfaces.api.guard import Guard
        from midwatch.surfaces.api.pages import STYLE_HASH
    except ImportError as error:
        raise MissingExtra("server", "`midwatch inbox serve`") from error

    with wiring.open_store(settings.place, create=True) as store, _socket(host, port) as listener:
        port = listener.getsockname()[1]
        site = Site(store, link_key(store), wiring.clock, lambda run, token: _kernel(settings, run, token))
        app = Guard(make_app(site), hosts=hosts_of(host, port, public), style=STYLE_HASH)
        with _messenger(store):
            _until_told(app, listener, lambda: _say_where(settings, host, port, public))


def hosts_of(host: str, port: int, public: str | None) -> set[str]:
    """Name the hosts that requests may ask for: where it listens, loopback names, and the public address."""
    names = {"127.0.0.1", "localhost", "[::1]"} if host in _LOOPBACK or host in _EVERYWHERE else {_bracketed(host)}
    found = {name if port == _HTTP else f"{name}:{port}" for name in names} | {f"{name}:{port}" for name in names}
    if public is not None:
        parts = urlsplit(public)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageProblem(f"`--public {public}` must be an address such as `https://watch.example.com`")
        name, usual = _bracketed(parts.hostname), 443 if parts.scheme == "https" else _HTTP
        found |= {f"{name}:{parts.port or usual}"} | ({name} if parts.port in (None, usual) else set())
    return found


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _messenger(store: Store) -> Iterator[None]:
    """Tell channels meanwhile; a message that is being sent at the end is waited for, so that it is noted as sent."""
    from midwatch.surfaces.messenger import Messenger

    over = threading.Event()
    messenger = Messenger(store, over)
    messenger.start()
    try:
        yield
    finally:
        over.set()
        messenger.join(timeout=_LAST_WORD_S)


def _until_told(app: Any, listener: Any, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, which both end it in order: requests that run get `_GRACE_S`."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", server_header=False, lifespan="off", timeout_graceful_shutdown=_GRACE_S
    )
    server = uvicorn.Server(config)

    def stop(*_: Any) -> None:
        server.should_exit = True  # also what the server itself raises again once it has ended

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ready()
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _socket(host: str, port: int) -> Iterator[Any]:
    import socket

    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageProblem(f"cannot listen on {host}:{port}: {(error.strerror or 'unknown error').lower()}") from error
    with listener:
        yield listener


def _say_where(settings: Settings, host: str, port: int, public: str | None) -> None:
    shown = f"http://{_bracketed(host)}:{port}"
    if settings.json:
        emit({"ok": True, "url": shown})
    say(f"serving what waits at {shown}; stop with Ctrl-C")
    if host in _LOOPBACK:
        return
    say("others can reach this; put TLS in front of it, since tokens and links travel in the clear otherwise")
    if host in _EVERYWHERE and public is None:
        say("it answers to the names of this machine's own loopback only; `--public URL` names what others call it")


@contextlib.contextmanager
def _kernel(settings: Settings, run: str, token: str) -> Iterator[Kernel]:
    from midwatch import wiring
    from midwatch.surfaces.cli.cards import fleet_of
    from midwatch.surfaces.cli.common import began_in, folder

    fleet, _ = fleet_of(settings, run)
    place = folder(began_in(settings, run))
    with wiring.open(
        fleet, home=settings.place, environ=os.environ, workdir=place, token=token, channel="api"
    ) as kernel:
        yield kernel
