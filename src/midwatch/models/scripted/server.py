"""Server: the scripted provider on a loopback socket.

In:   HTTP/1.1 requests: `POST /v1/chat/completions`, `GET /v1/models`, `GET /bill`, `POST` and `DELETE
/control/faults`.
Out:  answers, whole or streamed; faults, played on the wire; a bill line for every dispatched request.
May import: siblings, orjson, the standard library. Must not know: the kernel, where a scenario came from.
Why threads and `http.server`: one blocking thread a connection makes each fault a few plain lines (hold, cut, dawdle),
needs nothing beyond the base install, and dozens of clients at once are all it has to serve.
What counts as dispatched: a request that keeps the protocol, is authorised, and for which a rule has an answer.
Refusals (400, 401,
404, and 500 for a scenario that cannot answer) cost nothing, as with a real provider.
"""

from __future__ import annotations

import hashlib
import select
import socket
import socketserver
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import orjson

from midwatch.models.scripted.answer import Counts, compose, find_rule, reported
from midwatch.models.scripted.ask import Ask, Refused, read_ask
from midwatch.models.scripted.bill import Bill, Charge
from midwatch.models.scripted.faults import Fault, Faults, Reply, parse_fault
from midwatch.models.scripted.scenario import Rule, Scenario
from midwatch.models.scripted.wire import Event, Head, completion, events

__all__ = ["Server"]

_LARGEST_BODY: Final = 64 * 2**20
_IDLE_S: Final = 600
CLOSE_S: Final = 5.0


class _BillUnwritten(Exception):
    """The bill could not be written: the answer must not be completed."""


class _ClientLeft(Exception):
    """The client closed its connection before the answer was complete."""


@dataclass(slots=True)
class _Exchange:
    """One dispatched request while it is answered. `billed` guards the promise of one line a request."""

    ask: Ask
    rule: Rule
    fault: Fault | None
    reply: Reply
    counts: Counts
    head: Head
    charge: Charge
    billed: bool = False

    @property
    def kind(self) -> str | None:
        """The kind of the fault that is played."""
        return None if self.fault is None else self.fault.kind

    @property
    def outcome(self) -> str:
        """How it ends when nothing else happens."""
        return "finished" if self.fault is None else "fault"

    def completion_for(self, generated: int) -> int:
        """Completion tokens when only so many bytes of the reply were generated: their share, rounded up."""
        size = self.reply.size
        return self.counts.completion if generated >= size else -(-self.counts.completion * generated // size)


class Server(ThreadingHTTPServer):
    """The listening socket and what all connections share."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(
        self, scenario: Scenario, bill: Bill, *, clock: Callable[[], int], port: int, keep_requests: bool
    ) -> None:
        self.scenario, self.bill, self.clock = scenario, bill, clock
        self.faults, self.stopping = Faults(), threading.Event()
        self.requests: list[dict[str, Any]] = []
        self._keep = keep_requests
        self._state = threading.Condition()
        self._open: set[socket.socket] = set()
        self._active = 0
        self._seen: Counter[str] = Counter()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        """Bind without the look-up of the host's name, which may ask the network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is the client's business; anything else is reported."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def opened(self, connection: socket.socket) -> None:
        """Remember a connection, so that `stop` can close it."""
        with self._state:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._state:
            self._open.discard(connection)

    def begin(self, body: bytes, parsed: Any) -> str:
        """Note a request. Its seed is the same for the same body asked as often, in whatever order threads run."""
        digest = hashlib.sha256(body).hexdigest()
        with self._state:
            self._seen[digest] += 1
            if self._keep and isinstance(parsed, dict):
                self.requests.append(parsed)
            return f"{digest}/{self._seen[digest]}"

    def working(self, change: int) -> None:
        """Count the requests that are being answered, so that `stop` can wait for their bills."""
        with self._state:
            self._active += change
            self._state.notify_all()

    def stop(self) -> None:
        """Stop listening, close every connection, wait a bounded time for open requests to be billed."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._state:
            for connection in self._open:
                _shut(connection)
            self._state.wait_for(lambda: self._active == 0, CLOSE_S)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def finish(self) -> None:
        self.server.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the bill is the log."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of the HTTP layer in the shape of all others."""
        self.close_connection = True
        self._send_refused(Refused(int(code), message or "the request is not HTTP that is served here"))

    def do_GET(self) -> None:
        """Serve what can be read."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """Serve chat completions and the control endpoint."""
        self._guarded(self._post)

    def do_DELETE(self) -> None:
        """Serve the control endpoint."""
        self._guarded(self._delete)

    def _guarded(self, serve: Callable[[bytes], None]) -> None:
        self.server.working(1)
        try:
            body = self._read_body()
            self._authorise()
            serve(body)
        except Refused as refused:
            self._send_refused(refused)
        except _BillUnwritten as failure:
            self.close_connection = True
            self._send_refused(Refused(500, str(failure), code="bill_unwritten", kind="server_error"))
        except _ClientLeft:
            self.close_connection = True
        finally:
            self.server.working(-1)

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            self.close_connection = True
            raise Refused(411, "send the body with a content-length")
        length = self.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _LARGEST_BODY:
            self.close_connection = True
            raise Refused(413, f"the body must have at most {_LARGEST_BODY:,} bytes")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            raise _ClientLeft
        return body

    def _authorise(self) -> None:
        key = self.server.scenario.api_key
        if key is not None and self.headers.get("authorization") != f"Bearer {key}":
            raise Refused(401, "incorrect API key provided", code="invalid_api_key", kind="authentication_error")

    def _get(self, _: bytes) -> None:
        if self.path == "/v1/models":
            scenario = self.server.scenario
            ids = scenario.models if scenario.models is not None else tuple(scenario.prices)
            rows = [{"id": one, "object": "model", "created": 0, "owned_by": "scenario"} for one in ids]
            self._send(200, {"object": "list", "data": rows})
        elif self.path == "/bill":
            self._send(200, self.server.bill.report())
        else:
            raise Refused(404, f"`{self.path}` is not served here; see `/v1/models` and `/bill`", code="unknown_url")

    def _delete(self, _: bytes) -> None:
        if self.path != "/control/faults":
            raise Refused(404, f"`{self.path}` is not served here", code="unknown_url")
        self.server.faults.clear()
        self._send(200, {"ok": True})

    def _post(self, body: bytes) -> None:
        if self.path not in ("/v1/chat/completions", "/control/faults"):
            raise Refused(404, f"`{self.path}` is not served here", code="unknown_url")
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "send JSON, with `content-type: application/json`")
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError as failure:
            raise Refused(400, f"could not parse the JSON body of your request: {failure}") from failure
        if self.path == "/control/faults":
            self._inject(parsed)
        else:
            self._chat(body, parsed)

    def _inject(self, parsed: Any) -> None:
        body = parsed if isinstance(parsed, dict) else {}
        agent, problems = body.get("agent"), list[str]()
        fault = parse_fault(body.get("fault"), lambda _, message: problems.append(message))
        problems += [f"`{key}` is not known here" for key in sorted(body.keys() - {"agent", "fault"})]
        if agent is not None and not isinstance(agent, str):
            problems.append("`agent` must be a name")
        if problems or fault is None:
            raise Refused(400, "; ".join(problems))
        self.server.faults.inject(fault, agent)
        self._send(200, {"ok": True})

    # ------------------------------------------------------------------------------------------ chat completions

    def _chat(self, body: bytes, parsed: Any) -> None:
        exchange = self._dispatch(body, parsed)
        fault = exchange.fault
        if fault is not None and fault.kind == "status":
            self._bill(replace(exchange.charge, prompt_tokens=0, cached_tokens=0, completion_tokens=0), exchange)
            headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
            kind = "rate_limit_error" if fault.status == 429 else "server_error"
            raise Refused(
                fault.status, f"fault of the scenario: status {fault.status}", code="fault", kind=kind, headers=headers
            )
        if fault is not None and fault.kind == "timeout":
            left = self._wait(fault.seconds)
            self._bill(replace(exchange.charge, outcome="client_left" if left else "fault"), exchange)
            raise _ClientLeft
        if exchange.ask.stream:
            self._stream(exchange)
        else:
            self._whole(exchange)

    def _dispatch(self, body: bytes, parsed: Any) -> _Exchange:
        """Everything that can be refused, and then the request as a dispatched one."""
        server = self.server
        seed = server.begin(body, parsed)
        ask = read_ask(parsed, self.headers.get("x-midwatch-agent"))
        models = server.scenario.models
        if models is not None and ask.model not in models:
            message = f"the model `{ask.model}` does not exist; this scenario has {', '.join(models)}"
            raise Refused(404, message, code="model_not_found", param="model")
        rule = find_rule(server.scenario, ask)
        fault = server.faults.due(ask.agent, rule.number, rule.fault)
        reply, counts = compose(rule, ask, fault, seed)
        at_us = server.clock()
        request_id = "req_" + hashlib.sha256(f"{seed}/{at_us}".encode()).hexdigest()[:24]
        charge = Charge(
            at_us=at_us,
            agent=ask.agent,
            model=ask.model,
            prompt_tokens=counts.prompt,
            cached_tokens=counts.cached,
            completion_tokens=counts.completion,
            outcome="finished" if fault is None else "fault",
            request_id=request_id,
            idempotency_key=self.headers.get("idempotency-key"),
            rule=rule.name,
            fault=None if fault is None else fault.kind,
        )
        completion_id = "chatcmpl-" + hashlib.sha256(seed.encode()).hexdigest()[:24]
        head = Head(completion_id, at_us // 1_000_000, ask.model)
        return _Exchange(ask, rule, fault, reply, counts, head, charge)

    def _whole(self, exchange: _Exchange) -> None:
        """Answer with one object. Billed in full whatever becomes of the connection: all of it was generated."""
        if exchange.fault is not None and exchange.kind == "slow":
            self._wait(exchange.fault.delay_ms / 1000)
        usage = None if exchange.kind == "no_usage" else reported(exchange.counts, exchange.fault)
        data = orjson.dumps(completion(exchange.head, exchange.reply, usage))
        outcome = "client_left" if self._left() else "cut" if exchange.kind == "cut_stream" else exchange.outcome
        self._bill(replace(exchange.charge, outcome=outcome), exchange)
        if exchange.kind == "cut_stream":
            self._write(self._headers(200, {"content-length": str(len(data))}, exchange) + data[: len(data) // 2])
            _shut(self.connection)
            raise _ClientLeft
        self._write(self._headers(200, {"content-length": str(len(data))}, exchange) + data)

    def _stream(self, exchange: _Exchange) -> None:
        """Answer with events. The bill is written before the event that ends the answer, or the cut."""
        withheld = exchange.kind == "no_usage" or not exchange.ask.include_usage
        usage = None if withheld else reported(exchange.counts, exchange.fault)
        stream = events(exchange.head, exchange.reply, usage, self.server.scenario.stream_chars)
        cut = exchange.kind == "cut_stream"
        if cut and exchange.fault is not None:
            stream = stream[: exchange.fault.after_chunks]
        generated = 0
        try:
            headers = {"content-type": "text/event-stream", "cache-control": "no-cache", "transfer-encoding": "chunked"}
            self._write(self._headers(200, headers, exchange))
            for event in stream:
                self._pace(exchange)
                if event.last and not exchange.billed:
                    self._settle(exchange, event.generated, "cut" if cut else exchange.outcome)
                self._send_event(event)
                generated = event.generated
            if not exchange.billed:
                self._settle(exchange, generated, "cut" if cut else exchange.outcome)
            if cut:
                _shut(self.connection)
                raise _ClientLeft
            self._write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        except _ClientLeft:
            if not exchange.billed:
                self._settle(exchange, generated, "client_left")
            raise
        except _BillUnwritten as failure:  # the head is out: all that is left is not to complete the answer
            _shut(self.connection)
            raise _ClientLeft from failure

    def _settle(self, exchange: _Exchange, generated: int, outcome: str) -> None:
        tokens = exchange.completion_for(generated)
        self._bill(replace(exchange.charge, completion_tokens=tokens, outcome=outcome), exchange)

    def _bill(self, charge: Charge, exchange: _Exchange) -> None:
        exchange.billed = True
        try:
            self.server.bill.add(charge)
        except OSError as failure:
            raise _BillUnwritten(f"the bill cannot be written: {failure}; the request was not completed") from failure

    def _pace(self, exchange: _Exchange) -> None:
        """Wait as a `slow` fault says, and look whether the client is still there."""
        delay = exchange.fault.delay_ms / 1000 if exchange.fault is not None and exchange.kind == "slow" else 0
        if self._wait(delay) if delay else self._left():
            raise _ClientLeft

    # --------------------------------------------------------------------------------------------- the connection

    def _left(self) -> bool:
        return self._wait(0)

    def _wait(self, seconds: float) -> bool:
        """Wait so long, or until the client has closed the connection; True when it has."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        try:
            if self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                return True
        except ConnectionError:
            return True
        # The next request is already here, so the end of this connection cannot be seen; only the server's own can.
        return bool(seconds) and self.server.stopping.wait(seconds)

    def _send_event(self, event: Event) -> None:
        self._write(_chunk(b"data: " + orjson.dumps(event.body) + b"\n\n"))

    def _send(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        data = orjson.dumps(body)
        self._write(self._headers(status, {"content-length": str(len(data)), **(headers or {})}) + data)

    def _send_refused(self, refused: Refused) -> None:
        try:
            self._send(refused.status, {"error": refused.body}, refused.headers)
        except _ClientLeft:
            self.close_connection = True

    def _headers(self, status: int, headers: Mapping[str, str], exchange: _Exchange | None = None) -> bytes:
        phrase = self.responses.get(status, ("Error",))[0]
        lines = {"content-type": "application/json", **headers}
        if exchange is not None:
            lines["x-request-id"] = exchange.charge.request_id
        if self.close_connection:
            lines["connection"] = "close"
        rows = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"HTTP/1.1 {status} {phrase}\r\n{rows}\r\n".encode("latin-1")

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError as failure:
            raise _ClientLeft from failure


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _shut(connection: socket.socket) -> None:
    """Close both directions now, whoever else still holds the socket."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was closed already, which is what was wanted
