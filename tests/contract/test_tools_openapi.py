"""Operations of an OpenAPI document are tools, and a service gets no further than its document. A real HTTPS service on loopback."""

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from midwatch.errors import InvalidTool
from midwatch.tools.registry import Registry
from tests.contract.tools_caller import Caller, fleet_at
from tests.contract.tools_servers.rest import Service, document, serve

TOKEN = "made-up-token-0123456789"


@dataclass
class Ground:
    """A service and a fleet that may ask it."""

    folder: Path
    port: int
    kind: type[Service]

    def registry(self, more: str = "private: true", text: str | None = None) -> Registry:
        body = json.dumps(document(f"https://localhost:{self.port}")) if text is None else text
        (self.folder / "api.yaml").write_text(body, encoding="utf-8")
        block = (
            "openapi:\n  pets:\n    document: api.yaml\n    timeout: 4s\n"
            '    headers: {Authorization: "Bearer ${secret:PETS}"}\n    effects: {byName: pure}\n    ' + more + "\n"
        )
        return Registry.of_fleet(fleet_at(self.folder, block), {"PETS": TOKEN})

    def caller(self) -> Caller:
        return Caller(self.registry(), self.folder)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for `localhost`, which is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture
def ground(tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    """Give a running service whose authority is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "cert.pem"))

    class Own(Service):
        asked: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []
        wait = threading.Event()

    kind = Own
    server = serve(authority, kind)
    yield Ground(tmp_path, server.server_address[1], kind)
    kind.wait.set()
    server.shutdown()
    server.server_close()


@pytest.mark.req("IMPORT-9")
def test_operations_are_tools_with_closed_schemas_and_the_effect_of_their_method(ground: Ground) -> None:
    """GET reads the open world, whatever the fleet says to the good; all else destroys unless it is declared."""
    registry = ground.registry()
    effects = {
        name: registry.get(f"pets.{name}").contract.effect
        for name in ("list_pets", "by_name", "add_pet", "delete_pets_id")
    }
    assert {
        "list_pets": "read",
        "by_name": "read",
        "add_pet": "destructive",
        "delete_pets_id": "destructive",
    } == effects
    listed = registry.get("pets.list_pets").contract
    assert {"limit", "fields_"} == set(listed.input_schema["properties"])
    assert listed.open_world
    assert {"upload", "remote", "lost"} == {
        note.message.split("`")[1] for note in registry.notes if note.code == "tool-left-out"
    }


@pytest.mark.req("IMPORT-9")
def test_every_answer_is_an_envelope(ground: Ground) -> None:
    """Lists, bodies, nothing, errors, giants, prose, silence and a cut."""
    caller = ground.caller()
    pet = {"id": 1, "name": "Rex", "tag": None}
    assert {"status": 200, "body": [pet]} == caller.call("pets.list_pets", {"limit": 3, "fields_": ["a", "b"]}).data
    assert ("GET", "/pets?fields=a&fields=b&limit=3") == ground.kind.asked[-1][:2]
    assert f"Bearer {TOKEN}" == ground.kind.asked[-1][2]["authorization"]
    assert {"status": 200, "body": {**pet, "extra": "yes"}} == caller.call("pets.add_pet", {"body": pet}).data
    assert pet == json.loads(ground.kind.asked[-1][3])
    assert "k" * 16 == ground.kind.asked[-1][2]["idempotency-key"]
    assert {"status": 204, "body": None} == caller.call("pets.delete_pets_id", {"id": 1}).data
    assert "not_found" == caller.fails("pets.get_pet", {"id": 2})
    assert caller.call("pets.giant").truncated
    codes = {name: caller.fails(f"pets.{name}") for name in ("unfit", "broken", "away", "hang", "cut")}
    assert {"unfit": "contract", "broken": "upstream", "away": "upstream", "hang": "timeout", "cut": "timeout"} == codes
    assert caller.performed is not None
    assert caller.performed.unclear


@pytest.mark.req("IMPORT-10")
def test_no_secret_comes_back_and_no_argument_leads_elsewhere(ground: Ground) -> None:
    """The credential is added by the broker; an answer that repeats it is cut; a path argument stays one part of the path."""
    caller = ground.caller()
    assert "upstream" == caller.fails("pets.echo")
    assert TOKEN not in json.dumps(caller.call("pets.echo").to_json())
    for name in ("..", ".", "../pets", "a/../../pets", "%2e%2e", "\r\nX: y"):
        assert caller.fails("pets.by_name", {"name": name}) in ("invalid_arguments", "denied", "upstream"), name
    assert not any(path.startswith("/pets") for _, path, _, _ in ground.kind.asked)


@pytest.mark.req("IMPORT-10")
def test_a_private_address_an_untrusted_certificate_and_plain_http_are_refused(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent in any of these cases."""
    public = Caller(ground.registry("private: false"), ground.folder)
    assert "denied" == public.fails("pets.list_pets")
    trusting = ground.caller()
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "unavailable" == trusting.fails("pets.list_pets")
    plain = json.dumps(document("http://localhost:1"))
    with pytest.raises(InvalidTool, match="https"):
        ground.registry("private: false", plain)
    assert [] == ground.kind.asked


@pytest.mark.req("IMPORT-10")
def test_a_document_is_fetched_without_the_credential(ground: Ground) -> None:
    """Whoever describes a service is not the service."""
    block = (
        f"openapi:\n  pets: {{document: 'https://localhost:{ground.port}/openapi.json', private: true, "
        'headers: {Authorization: "Bearer ${secret:PETS}"}}\n'
    )
    registry = Registry.of_fleet(fleet_at(ground.folder, block), {"PETS": TOKEN})
    assert "pets.list_pets" in registry.names()
    assert "authorization" not in ground.kind.asked[0][2]


@pytest.mark.req("IMPORT-11")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "openapi: 2.0",
        "{not json",
        "openapi: 3.1.0\na: &a [1]\nb: *a\n",
        "{" * 5000,
        "openapi: 3.0.0\nservers: [{url: /rel}]\n",
    ],
)
def test_what_is_no_document_is_a_problem_of_the_fleet(ground: Ground, text: str) -> None:
    """It is told with its reason; nothing hangs."""
    with pytest.raises(InvalidTool) as told:
        ground.registry(text=text)
    assert "no-document" == told.value.problems[0].code


@pytest.mark.req("IMPORT-11")
def test_a_document_that_unfolds_without_end_costs_its_own_tools(ground: Ground) -> None:
    """A schema of schemas of itself is left out; one that contains itself once is taken."""
    found = document(f"https://localhost:{ground.port}")
    every = {f"p{n}": {"$ref": "#/components/schemas/Bomb"} for n in range(50)}
    found["components"]["schemas"] |= {
        "Bomb": {"type": "object", "properties": every},
        "Tree": {
            "type": "object",
            "properties": {"below": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
        },
    }
    for name in ("Bomb", "Tree"):
        given = {"200": {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}}
        found["paths"][f"/{name}"] = {"get": {"operationId": name.lower(), "responses": given}}
    names = ground.registry(text=json.dumps(found)).names()
    assert "pets.tree" in names
    assert "pets.bomb" not in names
