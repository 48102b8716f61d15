"""One envelope for all: every builtin tool, and tools that do what none should, are held to one schema."""

import hashlib
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import jsonschema_rs
import pytest

from midwatch.records.envelope import ENVELOPE_SCHEMA, Envelope
from midwatch.sandbox.process import ProcessSandbox
from midwatch.tools.arguments import Checked, check
from midwatch.tools.builtin.gates import REQUEST_HUMAN
from midwatch.tools.builtin.reader import READER
from midwatch.tools.envelope import page, seal
from midwatch.tools.perform import PerformContext, Performed, perform
from midwatch.tools.registry import BUILTIN_GROUPS, Registry

HERE = Path(__file__).parent
NOW_US = 1_790_000_000_000_000
SCHEMA = jsonschema_rs.validator_for(ENVELOPE_SCHEMA)
SECRET = "hunter2-do-not-show"
ORDER = '{"order": {"lines": [{"sku": "ab", "count": 2}]}}'

BUILTIN = Registry.load([f"builtin.{group}" for group in BUILTIN_GROUPS], HERE)
NASTY = Registry.load(["python:tools_nasty.py"], HERE)


@dataclass
class Caller:
    """Calls tools as the engine does, with a folder for blobs and a clock that stands."""

    workdir: Path
    blobs: dict[str, bytes] = field(default_factory=dict)
    performed: Performed | None = None

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def call(self, registry: Registry, name: str, raw: str = "{}") -> Envelope:
        return anyio.run(self._call, registry, name, raw)

    async def _call(self, registry: Registry, name: str, raw: str) -> Envelope:
        tool = registry.get(name)
        checked = check(tool, raw)
        if isinstance(checked, Envelope):
            return self.held(checked)
        if checked.cursor is not None:
            return self.held(
                page(
                    tool,
                    checked.cursor,
                    get_blob=self.blobs.get,
                    may_read=self.blobs.__contains__,
                    effect_id="0" * 16,
                    ms=0,
                    fields=checked.fields,
                )
            )
        context = PerformContext("k" * 16, "f" * 32, "agent", lambda: NOW_US, self.workdir, anyio.CapacityLimiter(2))
        with anyio.fail_after(30):
            self.performed = await perform(tool, checked, context=context, sandbox=ProcessSandbox())
        return self.held(
            seal(tool, checked, self.performed, effect_id="0" * 16, put_blob=self.put, ms=3), tool.contract.max_bytes
        )

    def held(self, envelope: Envelope, max_bytes: int = 8192) -> Envelope:
        """Hold an envelope to the schema, to its budget, and to being what it says when read back."""
        body = envelope.to_json()
        assert [] == [str(error) for error in SCHEMA.iter_errors(body)]
        assert envelope == Envelope.from_json(json.loads(json.dumps(body, allow_nan=False)))
        assert max_bytes >= len(json.dumps(body.get("data"), ensure_ascii=False, separators=(",", ":")).encode())
        return envelope


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    """A working directory with a text file and a repository of one commit."""
    (tmp_path / "note.txt").write_text("a note\n", encoding="utf-8")
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "note.txt"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    return Caller(tmp_path)


GOOD = {
    "blocks.write": '{"text": "```py src/app.py\\nx = 1\\n```"}',
    "files.read": '{"path": "note.txt"}',
    "files.list": "{}",
    "files.write": '{"path": "a/b.txt", "content": "new"}',
    "files.delete": '{"path": "note.txt"}',
    "files.state": '{"path": "note.txt"}',
    "files.compare": '{"path": "note.txt", "content": "another note"}',
    "git.log": "{}",
    "git.churn": "{}",
    "host.packages": '{"since_hours": 24}',
    "host.disks": "",
    "host.memory": "{}",
    "host.processes": '{"top": 3, "by": "cpu"}',
    "shell.run": '{"command": ["echo", "hello"]}',
}


@pytest.mark.req("TOOLS-5", "TOOLS-15")
@pytest.mark.parametrize("name", [name for name in BUILTIN.names() if name not in (REQUEST_HUMAN, READER)])
def test_every_builtin_tool_answers_with_an_envelope(caller: Caller, name: str) -> None:
    """Each builtin tool works on this machine, and its answer fits the schema and its budget."""
    answer = caller.call(BUILTIN, name, GOOD[name])
    assert (True, name) == (answer.ok, answer.meta["tool"])


@pytest.mark.req("TOOLS-5", "TOOLS-9")
@pytest.mark.parametrize("name", BUILTIN.names())
@pytest.mark.parametrize("raw", ['{"nope": 1}', "[]", "no", "{", '{"a": 1, "a": 2}', "null", '"text"', '{"cursor": 7}'])
def test_every_builtin_tool_refuses_wrong_arguments(caller: Caller, name: str, raw: str) -> None:
    """Wrong arguments are refused in the envelope, before anything runs."""
    answer = caller.call(BUILTIN, name, raw)
    assert (False, "invalid_arguments") == (answer.ok, answer.error.code if answer.error else None)
    assert caller.performed is None


CODES = {
    "raises": "internal",
    "raises_in_broker": "internal",
    "fails": "rate_limited",
    "speaks_for_the_kernel": "internal",
    "too_large": "contract",
    "not_a_number": "contract",
    "not_a_number_in_broker": "contract",
    "half_a_character": "contract",
    "wrong_type": "contract",
    "never_ends": "timeout",
    "never_ends_in_broker": "timeout",
    "leaves": "crashed",
    "exits": "crashed",
    "is_killed": "crashed",
    "takes_all_memory": "crashed",
    "forges": "contract",
    "large": None,
    "large_list": None,
    "prints": None,
    "is_async": None,
    "is_async_in_broker": None,
    "tells_context": None,
}


@pytest.mark.req("TOOLS-5", "TOOLS-6", "SANDBOX-1")
@pytest.mark.parametrize("name", NASTY.names())
def test_every_nasty_tool_answers_with_an_envelope(caller: Caller, name: str) -> None:
    """Whatever a tool does, the answer has its closed code, fits the schema, and shows no secret."""
    short = name.partition(".")[2]
    answer = caller.call(NASTY, name, ORDER if "async" in short else "{}")
    assert CODES[short] == (answer.error.code if answer.error else None)
    assert SECRET not in json.dumps(answer.to_json())


@pytest.mark.req("TOOLS-6")
@pytest.mark.parametrize("name", ["raises", "raises_in_broker", "speaks_for_the_kernel", "wrong_type"])
def test_what_was_hidden_is_in_the_trace(caller: Caller, name: str) -> None:
    """The text that no model sees stands in the detail, so that a person can find the fault."""
    caller.call(NASTY, f"tools_nasty.{name}")
    assert caller.performed is not None
    assert SECRET in (caller.performed.detail or "")


@pytest.mark.req("TOOLS-5")
def test_a_failure_keeps_its_authors_words(caller: Caller) -> None:
    """`ToolFailure` reaches the agent with message, hint and a wait in whole seconds, rounded up."""
    error = caller.call(NASTY, "tools_nasty.fails").error
    assert error is not None
    assert ("slow down", True, 2, "wait") == (error.message, error.retryable, error.retry_after, error.hint)


@pytest.mark.req("SANDBOX-4")
def test_prints_do_not_mix_with_the_answer(caller: Caller) -> None:
    """What a tool prints goes to the trace; its answer is what it returned."""
    assert 7 == caller.call(NASTY, "tools_nasty.prints").data
    assert caller.performed is not None
    assert "forged" in (caller.performed.detail or "")


@pytest.mark.req("TOOLS-1")
@pytest.mark.parametrize("name", ["is_async", "is_async_in_broker"])
def test_nested_models_arrive_as_models(caller: Caller, name: str) -> None:
    """The function gets the very types that it declares, in the sandbox and in the broker."""
    assert json.loads(ORDER)["order"] == caller.call(NASTY, f"tools_nasty.{name}", ORDER).data


@pytest.mark.req("TOOLS-5")
def test_a_tool_gets_its_context(caller: Caller) -> None:
    """A `ToolContext` parameter is filled in by the kernel and is no argument."""
    answer = caller.call(NASTY, "tools_nasty.tells_context")
    assert ["k" * 16, "f" * 32, "agent", "True"] == answer.data


@pytest.mark.req("TOOLS-7", "TOOLS-8")
def test_pages_add_up_to_the_whole(caller: Caller) -> None:
    """Reading on by cursors gives each item once, in order, and executes nothing again."""
    answer = caller.call(NASTY, "tools_nasty.large_list")
    first, seen = caller.performed, list(answer.data)
    while answer.next_cursor is not None:
        answer = caller.call(NASTY, "tools_nasty.large_list", json.dumps({"cursor": answer.next_cursor}))
        seen += answer.data
    assert [f"line {number}" for number in range(5_000)] == seen
    assert first is caller.performed


@pytest.mark.req("TOOLS-7")
def test_a_long_text_is_paged(caller: Caller) -> None:
    """A text of 5 MB shows its beginning, its size, and where to read on; the whole is kept by reference."""
    answer = caller.call(NASTY, "tools_nasty.large")
    assert (True, {"path": "", "from": 0, "to": 8190, "of": 5_000_000}) == (answer.truncated, answer.meta["shown"])
    assert 5_000_002 == len(caller.blobs[answer.refs[1].removeprefix("b:")])
    rest = caller.call(NASTY, "tools_nasty.large", json.dumps({"cursor": answer.next_cursor}))
    assert (True, 8190, 16_380) == (rest.ok, rest.meta["shown"]["from"], rest.meta["shown"]["to"])


@pytest.mark.req("TOOLS-7")
def test_fields_show_only_what_was_asked(caller: Caller) -> None:
    """`fields` projects the result; the whole body is kept by reference."""
    raw = '{"fields": ["entries.name", "count"]}'
    answer = caller.call(BUILTIN, "files.list", raw)
    assert {"count": 2, "entries": [{"name": ".git"}, {"name": "note.txt"}]} == answer.data
    whole = json.loads(caller.blobs[answer.refs[1].removeprefix("b:")])
    assert {"kind", "name", "size"} == set(whole["entries"][0])


@pytest.mark.req("TOOLS-5")
def test_an_envelope_of_a_checked_call_is_for_that_tool() -> None:
    """Checked arguments are canonical: the same meaning gives the same bytes and digest, spaces and order aside."""
    tool = BUILTIN.get("files.write")
    one = check(tool, '{"path": "a", "content": "b"}')
    other = check(tool, '{ "content":"b","path":"a"}')
    assert isinstance(one, Checked)
    assert isinstance(other, Checked)
    assert (one.canonical, one.args_digest) == (other.canonical, other.args_digest)
    assert hashlib.sha256(b'{"content":"b","path":"a"}').hexdigest() == one.args_digest


def test_the_suite_names_every_nasty_tool() -> None:
    """A new nasty tool must say what code it expects."""
    assert sorted(CODES) == sorted(name.partition(".")[2] for name in NASTY.names())
