"""Guard: what every request passes before anything is read: which host it thinks it talks to, where it comes from, how large it is.

In:   an ASGI application. Out: the same, behind the checks, with headers that keep pages harmless.
May import: starlette. Must not know: what is served.
Why the host is checked: a page of somebody else's may let its name lead to this machine (DNS rebinding); it then sends its own name.
Why the referrer policy is `same-origin`, not `no-referrer`: under the latter a browser sends `Origin: null` with the page's own form,
which no check can tell from a foreign one. A page here leads nowhere else, so that the address of a link goes to nobody.
Source: Fetch Metadata (Sec-Fetch-Site), Content Security Policy Level 3.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MAX_BODY", "Guard"]

MAX_BODY: Final = 256 * 1024
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Refuses foreign hosts, foreign origins and large bodies; adds the headers.

    Args:
        hosts: names that this server answers to, with port as the client sends them.
        style: base64 SHA-256 of the page's one style sheet.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], style: str) -> None:
        self._app, self._hosts = app, frozenset(host.casefold() for host in hosts)
        self._headers = {name: value.format(style=style) for name, value in _HEADERS.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is not None:
            status, message = refused
            body = {"ok": False, "error": {"type": "Refused", "message": message, "problems": []}}
            await JSONResponse(body, status_code=status, headers=self._headers)(scope, receive, send)
            return
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY:
                return {"type": "http.disconnect"}
            return message

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, bounded, marked)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if headers.get("host", "").casefold() not in self._hosts:
            return 421, "this server does not answer to that name; `--public URL` gives it one more"
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY:
            return 413, f"a body may have {MAX_BODY:,} bytes at most"
        if scope["method"] in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].casefold() not in self._hosts:
            return 403, "this comes from another site"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "this comes from another site"
        return None
