"""App: gates over HTTP: a page behind each signed link, JSON for whoever has a token.

In:   an open store, the home's link key, a way to a run's kernel (for edits). Out: an ASGI application.
May import: starlette, the engine. Must not know: sockets, the command line.

    GET  /l/TOKEN                        the card and a form; changes nothing, so that programs which look at links answer nothing
    POST /l/TOKEN                        word=approve|deny, reason, answer, choice; uses the link up
    GET  /api/gates[?run=&status=]       what waits
    GET  /api/gates/ID                   one card in full; short ids when unique
    POST /api/gates/ID/approve|deny|edit {reason, answer, choice, break_glass} or {arguments, reason}
    GET  /healthz

Tokens of people come in the `Authorization` header only: nothing is kept in a browser that another site could ride on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from midwatch.engine import answering
from midwatch.engine.identity import identify
from midwatch.engine.kernel import Kernel
from midwatch.errors import Ambiguous, Denied, GateNotUsable, MidwatchError, NotFound, StoreError, UsageProblem
from midwatch.gates.links import BadLink, open_token
from midwatch.gates.review import Speaker
from midwatch.records.gate import GATE_STATUSES, GateRow, Link
from midwatch.store.port import Store
from midwatch.surfaces.api.pages import card_page, done_page
from midwatch.surfaces.gate_facts import entry

__all__ = ["Site", "make_app"]

_STATUS: Final[tuple[tuple[type[MidwatchError], int], ...]] = (
    (Denied, 403),
    (NotFound, 404),
    (GateNotUsable, 409),
    (Ambiguous, 409),
    (UsageProblem, 400),
    (StoreError, 503),
)
_NOTHING: Final = "This link is not known here, was used, or is too old."
_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Site:
    """What the application serves from.

    Attributes:
        key: of links. clock: microseconds UTC.
        kernel: opens the kernel of a run's own fleet under a token; for edits.
    """

    store: Store
    key: bytes
    clock: Callable[[], int]
    kernel: Callable[[str, str], AbstractContextManager[Kernel]]


def make_app(site: Site) -> Starlette:
    """Make the application; `guard.Guard` belongs around it."""
    pages, api = _Pages(site), _Api(site)
    return Starlette(
        routes=[
            Route("/healthz", _health, methods=["GET"]),
            Route("/l/{token}", pages.show, methods=["GET"]),
            Route("/l/{token}", pages.answer, methods=["POST"]),
            Route("/api/gates", _json(api, api.list), methods=["GET"]),
            Route("/api/gates/{gate}", _json(api, api.show), methods=["GET"]),
            Route("/api/gates/{gate}/approve", _json(api, api.approve), methods=["POST"]),
            Route("/api/gates/{gate}/deny", _json(api, api.deny), methods=["POST"]),
            Route("/api/gates/{gate}/edit", _json(api, api.edit), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refused, Exception: _refused},
    )


async def _health(_: Request) -> Response:
    return JSONResponse({"ok": True})


class _UnknownError(Exception):
    """Nobody, or nobody that this home knows, speaks."""


async def _refused(_: Request, error: Exception) -> Response:
    """Answer what no route answers in the shape of everything else."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = {404: "there is nothing at this address", 405: "this address is asked in another way"}
    return _error(
        status, "Refused" if status < 500 else "Failed", message.get(status, "this failed here; its log says how")
    )


class _Pages:
    """What stands behind signed links."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def show(self, request: Request) -> Response:
        """Show the card; nothing changes."""
        return await run_in_threadpool(self._show, request.path_params["token"])

    def _show(self, token: str) -> Response:
        found = self._open(token)
        if found is None:
            return HTMLResponse(done_page("Nothing to answer here", _NOTHING), status_code=404)
        link, gate = found
        until = datetime.fromtimestamp(gate.expires_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        facts = entry(self._site.store, gate, full=True)
        return HTMLResponse(card_page(facts, principal=link.principal, until=until))

    async def answer(self, request: Request) -> Response:
        """Use the link up with one word."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
            return HTMLResponse(done_page("Not understood", "This form was sent in another way."), status_code=415)
        try:
            form = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
        except (ValueError, ClientDisconnect):
            return HTMLResponse(done_page("Not understood", "This form is too large."), status_code=413)
        fields = {name: values[0] for name, values in form.items()}
        return await run_in_threadpool(self._answer, request.path_params["token"], fields)

    def _answer(self, token: str, fields: Mapping[str, str]) -> Response:
        found = self._open(token)
        word = fields.get("word")
        if found is None or word not in ("approve", "deny"):
            return HTMLResponse(done_page("Nothing to answer here", _NOTHING), status_code=404)
        link, gate = found
        value = None
        if gate.kind == "question" and word == "approve":
            value = {"answer": fields.get("answer", ""), "choice": fields.get("choice") or None}
        try:
            row = answering.answer_link(
                self._site.store,
                link.id,
                approve=word == "approve",
                reason=fields.get("reason", "")[:1000],
                at_us=self._site.clock(),
                value=value,
            )
        except MidwatchError as error:
            return HTMLResponse(done_page("Not recorded", str(error)), status_code=_code(error))
        said = "More people must speak before it happens." if row.status == "open" else f"The answer is: {row.status}."
        return HTMLResponse(done_page("Recorded", said))

    def _open(self, token: str) -> tuple[Link, GateRow] | None:
        """Give link and gate while the link still holds; every way not to looks the same."""
        store, now = self._site.store, self._site.clock()
        try:
            link = open_token(self._site.key, token, lambda name: store.read(lambda tx: tx.notices.find_link(name)))
        except BadLink:
            return None
        gate = store.read(lambda tx: tx.gates.get(link.gate))
        alive = gate is not None and gate.nonce == link.nonce and gate.status == "open" and now <= gate.expires_us
        return (link, gate) if alive and gate is not None and link.used_us is None and now <= link.expires_us else None


class _Api:
    """JSON for people and programs with a token."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def list(self, _: Speaker, request: Request, __: Any) -> dict[str, Any]:
        """What waits, oldest first."""
        run, status = request.query_params.get("run"), request.query_params.get("status", "open")
        store = self._site.store
        if status != "all" and status not in GATE_STATUSES:
            raise UsageProblem(f"`status` is one of {', '.join(GATE_STATUSES)}, all")
        statuses = () if status == "all" else (status,)
        full = None if run is None else store.read(lambda tx: tx.runs.find(run)).id
        rows = store.read(lambda tx: tx.gates.list(run=full, statuses=statuses, limit=_LIMIT))
        return {"gates": [entry(store, row) for row in rows]}

    def show(self, _: Speaker, request: Request, __: Any) -> dict[str, Any]:
        """One card in full."""
        return entry(self._site.store, self._gate(request), full=True)

    def approve(self, speaker: Speaker, request: Request, body: Any) -> dict[str, Any]:
        """Say yes, or answer a question."""
        return self._say(speaker, request, body, approve=True)

    def deny(self, speaker: Speaker, request: Request, body: Any) -> dict[str, Any]:
        """Say no."""
        return self._say(speaker, request, body, approve=False)

    def edit(self, speaker: Speaker, request: Request, body: Any) -> dict[str, Any]:
        """Put other arguments in their place; asks anew."""
        gate = self._gate(request)
        if not isinstance(body.get("arguments"), dict):
            raise UsageProblem('send `{"arguments": {…}, "reason": "…"}`, with every argument')
        with self._site.kernel(gate.run, _token(request) or "") as kernel:
            row = kernel.edit(gate.id, body["arguments"], speaker=speaker, reason=_words(body, "reason"))
        return entry(self._site.store, row, full=True)

    def _say(self, speaker: Speaker, request: Request, body: Any, *, approve: bool) -> dict[str, Any]:
        gate = self._gate(request)
        value = None
        if approve and ("answer" in body or "choice" in body):
            value = {"answer": _words(body, "answer"), "choice": _words(body, "choice") or None}
        row = answering.answer(
            self._site.store,
            gate.id,
            approve=approve,
            speaker=speaker,
            reason=_words(body, "reason"),
            at_us=self._site.clock(),
            value=value,
            break_glass=body.get("break_glass") is True,
        )
        return {"gate": row.id, "run": row.run, "status": row.status, "by": speaker.name}

    def _gate(self, request: Request) -> GateRow:
        name = request.path_params["gate"]
        return self._site.store.read(lambda tx: tx.gates.find(name))

    def speaker(self, request: Request) -> Speaker:
        """Say who speaks; a home that knows nobody is served to nobody."""
        store = self._site.store
        if not store.read(lambda tx: tx.principals.list()):
            raise _UnknownError("this home knows nobody by token; `midwatch principals add` makes somebody")
        token = _token(request)
        if token is None:
            raise _UnknownError("send a person's token as `Authorization: Bearer TOKEN`")
        try:
            return identify(store, token=token, user="", channel="api")
        except Denied as denied:
            raise _UnknownError(str(denied)) from denied


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.casefold() == "bearer" and token.strip() else None


def _words(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name) or ""
    if not isinstance(value, str):
        raise UsageProblem(f"`{name}` must be text")
    return value


def _json(
    api: _Api, work: Callable[[Speaker, Request, Any], dict[str, Any]]
) -> Callable[[Request], Awaitable[Response]]:
    """Serve one call: who speaks before what they send is read; one object in, one out, errors shaped as those of `--json`."""

    async def serve(request: Request) -> Response:
        try:
            speaker = await run_in_threadpool(api.speaker, request)
            raw = await request.body() if request.method == "POST" else b""
            body = orjson.loads(raw) if raw else {}
            if not isinstance(body, dict):
                raise UsageProblem("the body must be one JSON object")
            return JSONResponse({"ok": True, **await run_in_threadpool(work, speaker, request, body)})
        except ClientDisconnect:
            return _error(413, "Refused", "the body is too large")
        except ValueError:
            return _error(400, "UsageProblem", "the body is not JSON")
        except _UnknownError as error:
            return _error(401, "Denied", str(error))
        except MidwatchError as error:
            return _error(_code(error), type(error).__name__, str(error), error)

    return serve


def _code(error: MidwatchError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _error(status: int, kind: str, message: str, error: MidwatchError | None = None) -> Response:
    problems = error.problems if isinstance(error, UsageProblem) else ()
    told = [{"where": item.where, "message": item.message, "code": item.code} for item in problems]
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    body = {"ok": False, "error": {"type": kind, "message": message, "problems": told}}
    return JSONResponse(body, status_code=status, headers=headers)
