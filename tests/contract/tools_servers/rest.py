"""A service over HTTPS (or HTTP) on loopback, with everything that can go wrong in an answer."""

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from tests.contract.tools_caller import SECRET

PET = {
    "type": "object",
    "required": ["id", "name"],
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string", "maxLength": 50},
        "tag": {"type": "string", "nullable": True},
    },
}


def _odd(answer: Callable[[Any], dict[str, Any]], pet: Any) -> dict[str, Any]:
    """Give the paths at which something goes wrong."""
    return {
        "/away": {"get": {"operationId": "away", **answer(pet)}},
        "/giant": {"get": {"operationId": "giant", "responses": {"200": {"content": {"text/plain": {}}}}}},
        "/echo": {
            "get": {"operationId": "echo", **answer({"type": "object", "additionalProperties": {"type": "string"}})}
        },
        "/unfit": {"get": {"operationId": "unfit", **answer(pet)}},
        "/broken": {"get": {"operationId": "broken", **answer(pet)}},
        "/hang": {"get": {"operationId": "hang", **answer(pet)}},
        "/cut": {"post": {"operationId": "cut", **answer(pet)}},
        "/upload": {
            "post": {
                "operationId": "upload",
                "requestBody": {"content": {"multipart/form-data": {}}},
                **answer(pet),
            }
        },
        "/remote": {"get": {"operationId": "remote", **answer({"$ref": "http://169.254.169.254/x"})}},
        "/lost": {"get": {"operationId": "lost", **answer({"$ref": "#/components/schemas/None"})}},
    }


def document(server: str) -> dict[str, Any]:
    """Give the OpenAPI document of the service."""

    def answer(schema: Any) -> dict[str, Any]:
        return {"responses": {"200": {"description": "ok", "content": {"application/json": {"schema": schema}}}}}

    pet, one = (
        {"$ref": "#/components/schemas/Pet"},
        {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
    )
    return {
        "openapi": "3.0.3",
        "info": {"title": "pets", "version": "1"},
        "servers": [{"url": server}],
        "components": {
            "schemas": {"Pet": PET, "Both": {"allOf": [pet, {"properties": {"extra": {"type": "string"}}}]}}
        },
        "paths": {
            "/pets": {
                "get": {
                    "operationId": "listPets",
                    "description": "List the pets.",
                    "parameters": [
                        {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
                        {"name": "fields", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                        {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                    ],
                    **answer({"type": "array", "items": pet}),
                },
                "post": {
                    "operationId": "addPet",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": pet}}},
                    **answer({"$ref": "#/components/schemas/Both"}),
                },
            },
            "/pets/{id}": {
                "parameters": [one],
                "get": {"operationId": "getPet", **answer(pet)},
                "delete": {"responses": {"204": {}}},
            },
            "/names/{name}": {
                "get": {
                    "operationId": "byName",
                    "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
                    **answer(pet),
                }
            },
            **_odd(answer, pet),
        },
    }


class Service(BaseHTTPRequestHandler):
    """Answers, and notes what it was asked."""

    asked: ClassVar[list[tuple[str, str, dict[str, str], bytes]]]
    wait: ClassVar[threading.Event]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _say(self, status: int, value: Any, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        kind = "text/plain" if isinstance(value, bytes) else "application/json"
        for name, text in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.asked.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}, body))
        pet = {"id": 1, "name": "Rex", "tag": None, "unknown": "left out"}
        if path == "/pets":
            self._say(200, [pet] if self.command == "GET" else {**pet, "extra": "yes"})
        elif path == "/openapi.json":
            self._say(200, document("https://" + self.headers["Host"]))
        elif path == "/pets/1":
            self._say(200, pet) if self.command == "GET" else self._say(204, b"")
        elif path == "/away":
            self._say(302, {}, Location="https://example.com/")
        elif path == "/giant":
            self._say(200, b"x" * 5_000_000)
        elif path == "/echo":
            self._say(200, dict(self.headers.items()))
        elif path == "/unfit":
            self._say(200, {"id": "one"})
        elif path == "/broken":
            self._say(200, b"{not json", **{"Content-Type": "application/json"})
        elif path == "/hang":
            self.wait.wait(30)
        elif path == "/cut":
            self.close_connection = True
        else:
            self._say(404 if path.startswith("/pets") else 500, {"error": f"the password is {SECRET}"})

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815  as the library calls them


def serve(folder: Path | None, kind: type[Service]) -> ThreadingHTTPServer:
    """Start a service on a free port; with `folder`, over TLS with the certificate that lies there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    if folder is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
