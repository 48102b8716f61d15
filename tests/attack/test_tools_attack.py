"""Attacks on the tool layer: each guard, in the test in which it would be bypassed."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch.records.envelope import Envelope
from midwatch.tools.arguments import Checked, check
from midwatch.tools.decorate import Tool, tool
from midwatch.tools.envelope import page, seal
from midwatch.tools.perform import Performed
from midwatch.tools.registry import Registry

REGISTRY = Registry.load(["builtin.files", "builtin.git", "builtin.shell"], Path("/"))
NOW_US = 1_790_000_000_000_000
SECRET = "the-word-outside"


def call(workdir: Path, name: str, **arguments: Any) -> dict[str, Any]:
    """Perform one call in this process: the guards of a tool must hold without a sandbox's help."""
    facts = {"idempotency_key": "k", "run": "r", "agent": "a", "now_us": NOW_US, "workdir": str(workdir)}
    return REGISTRY.get(name).work(json.dumps(arguments), facts)


def code(answer: dict[str, Any]) -> str | None:
    """Give the code of an answer, None when it is a value."""
    found: str | None = None if answer["error"] is None else answer["error"]["code"]
    return found


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    """A working directory with links to a folder and a file outside of it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret.txt").write_text(SECRET, encoding="utf-8")
    workdir = tmp_path / "work"
    workdir.mkdir()
    (workdir / "folder").symlink_to(tmp_path / "out")
    (workdir / "file").symlink_to(tmp_path / "out" / "secret.txt")
    (workdir / "loop").symlink_to("loop")
    (workdir / "inner").mkdir()
    os.mkfifo(workdir / "pipe")
    return workdir


ESCAPES = [
    "../out/secret.txt",
    "inner/../../out/secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "folder/secret.txt",
    "./folder/./secret.txt",
    "file",
    "loop",
    "inner/../file",
    "a\x00b",
]


@pytest.mark.req("TOOLS-13")
@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize("name", ["files.read", "files.write", "files.delete", "files.list"])
def test_no_path_and_no_link_leads_out(jail: Path, name: str, path: str) -> None:
    """Nothing outside the working directory is read, listed, written or deleted, and no answer shows it."""
    more = {"content": "changed"} if name == "files.write" else {}
    answer = call(jail, name, path=path, **more)
    assert code(answer) in {"denied", "conflict", "not_found"}
    assert SECRET not in json.dumps([answer["value"], answer["error"]])
    assert SECRET == (jail.parent / "out" / "secret.txt").read_text(encoding="utf-8")
    assert ["secret.txt"] == [entry.name for entry in (jail.parent / "out").iterdir()]


@pytest.mark.req("TOOLS-13")
def test_a_link_in_place_of_the_target_is_not_written_through(jail: Path) -> None:
    """Writing to a name that is a link leaves link and target as they were; so does deleting it."""
    assert "conflict" == code(call(jail, "files.write", path="file", content="x"))
    assert "conflict" == code(call(jail, "files.delete", path="file"))
    assert (jail / "file").is_symlink()


@pytest.mark.req("TOOLS-13")
def test_a_folder_exchanged_for_a_link_meanwhile_is_not_followed(jail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening a folder and using it, another process may put a link in its place: the opened folder is used."""
    real = os.open

    def exchange(path: Any, flags: int, *args: Any, **options: Any) -> int:
        handle = real(path, flags, *args, **options)
        if path == "inner":
            (jail / "inner").rename(jail / "moved")
            (jail / "inner").symlink_to(jail.parent / "out")
        return handle

    monkeypatch.setattr(os, "open", exchange)
    assert code(call(jail, "files.write", path="inner/secret.txt", content="planted")) is None
    assert SECRET == (jail.parent / "out" / "secret.txt").read_text(encoding="utf-8")
    assert "planted" == (jail / "moved" / "secret.txt").read_text(encoding="utf-8")


@pytest.mark.req("TOOLS-13")
def test_a_pipe_or_a_folder_is_no_file(jail: Path) -> None:
    """A pipe would wait for ever and a folder cannot be replaced: both are refused at once."""
    assert "conflict" == code(call(jail, "files.read", path="pipe"))
    assert "conflict" == code(call(jail, "files.write", path="inner", content="x"))
    assert "conflict" == code(call(jail, "files.delete", path="inner"))


@pytest.mark.req("TOOLS-13")
def test_writing_is_whole_and_repeatable(jail: Path) -> None:
    """The benign twin: a write makes its folders, a repetition changes nothing, a killed attempt's draft is replaced."""
    (jail / "reports").mkdir()
    (jail / "reports" / ".midwatch-k").write_text("half", encoding="utf-8")
    first = call(jail, "files.write", path="reports/night.md", content="good ü")
    again = call(jail, "files.write", path="reports/night.md", content="good ü")
    assert ([False, True], 7) == ([first["value"]["replaced"], again["value"]["replaced"]], again["value"]["size"])
    assert ["night.md"] == [entry.name for entry in (jail / "reports").iterdir()]
    assert "good ü" == call(jail, "files.read", path="reports/night.md")["value"]["text"]


@pytest.mark.req("TOOLS-13")
def test_a_file_that_is_no_text_is_an_answer(jail: Path) -> None:
    """Bytes that are no UTF-8 are told in words, not raised."""
    (jail / "raw").write_bytes(b"\xff\xfe\x00")
    answer = call(jail, "files.read", path="raw")
    assert ("conflict", "the file is not UTF-8 text") == (code(answer), answer["error"]["message"])


def repository(folder: Path, mark: Path) -> None:
    """Make a repository of one commit whose configuration names a program, that leaves a mark, wherever git allows one."""
    program = folder.parent / "program.sh"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\ncat \"$@\" 2>/dev/null\nexit 0\n", encoding="utf-8")
    program.chmod(0o755)
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "a.txt").write_text("one\n", encoding="utf-8")
    (folder / ".gitattributes").write_text("*.txt diff=evil filter=evil\n", encoding="utf-8")
    git(folder, "add", "a.txt", ".gitattributes")
    git(folder, "commit", "-q", "-m", "first")
    sign(folder)
    for key in (
        "core.fsmonitor", "core.pager", "pager.log", "core.editor", "core.sshCommand", "core.askPass", "gpg.program",
        "gpg.ssh.program", "diff.external", "diff.evil.textconv", "diff.evil.command", "filter.evil.clean",
        "filter.evil.smudge", "filter.evil.process", "credential.helper", "core.alternateRefsCommand",
        "remote.origin.uploadpack", "uploadpack.packObjectsHook", "alias.log", "alias.rev-parse",
    ):  # fmt: skip
        value = f"!{program}" if key.startswith(("alias.", "credential.")) else str(program)
        git(folder, "config", key, value)
    git(folder, "config", "log.showSignature", "true")
    git(folder, "config", "core.hooksPath", str(folder.parent))
    git(folder, "config", "remote.origin.url", str(folder))
    git(folder, "config", "remote.origin.promisor", "true")
    git(folder, "config", "extensions.partialClone", "origin")
    for hook in ("post-index-change", "reference-transaction", "post-checkout", "fsmonitor-watchman"):
        (folder.parent / hook).write_text(program.read_text(encoding="utf-8"), encoding="utf-8")
        (folder.parent / hook).chmod(0o755)


def sign(folder: Path) -> None:
    """Put a signature on the commit, so that a checker of signatures would be run on it."""
    read = ["git", "-C", str(folder), "cat-file", "commit", "HEAD"]
    head, _, text = subprocess.run(read, check=True, capture_output=True).stdout.partition(b"\n\n")
    signature = b"\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n abcd\n -----END PGP SIGNATURE-----\n\n"
    write = ["git", "-C", str(folder), "hash-object", "-t", "commit", "-w", "--stdin"]
    made = subprocess.run(write, input=head + signature + text, check=True, capture_output=True).stdout
    git(folder, "update-ref", "HEAD", made.decode().strip())


def drop_blob(folder: Path) -> None:
    """Take an object away, so that git would fetch it through the repository's own transport."""
    blob = hashlib.sha1(b"blob 4\x00one\n", usedforsecurity=False).hexdigest()
    (folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()


def git(folder: Path, *words: str) -> None:
    """Run git as the attacker, before the configuration is in place."""
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.mark.req("TOOLS-14")
@pytest.mark.parametrize("name", ["git.log", "git.churn"])
@pytest.mark.parametrize("missing_object", [False, True], ids=["whole", "partial clone"])
def test_nothing_that_a_repository_names_is_run(tmp_path: Path, name: str, *, missing_object: bool) -> None:
    """Reading a repository runs no monitor, hook, converter, pager, signature checker, alias, filter or transport."""
    mark = tmp_path / "mark"
    repository(tmp_path / "repo", mark)
    if missing_object:
        drop_blob(tmp_path / "repo")
    answer = call(tmp_path, name, repo="repo", since_hours=87_600)
    assert not mark.exists()
    assert code(answer) in ({"upstream", None} if missing_object else {None})


@pytest.mark.req("TOOLS-14")
@pytest.mark.parametrize(
    ("words", "broken"),
    [
        (["log"], "nothing"),
        (["-c", "log.showSignature=false", "log", "--numstat"], "a blob"),
        (["-c", "log.showSignature=false", "log", "--patch"], "nothing"),
        (["-c", "log.showSignature=false", "log", "--patch", "--ext-diff"], "nothing"),
        (["status"], "nothing"),
    ],
    ids=["signature", "transport", "converter", "differ", "monitor"],
)
def test_the_traps_work_without_the_guards(tmp_path: Path, words: list[str], broken: str) -> None:
    """The same repository, read by plain git, does run its programs: the test above tests something."""
    mark = tmp_path / "mark"
    repository(tmp_path / "repo", mark)
    mark.unlink(missing_ok=True)
    if broken == "a blob":
        drop_blob(tmp_path / "repo")
    subprocess.run(["git", "-C", str(tmp_path / "repo"), *words], check=False, capture_output=True)
    assert mark.exists()


@pytest.mark.req("TOOLS-14")
def test_a_repository_elsewhere_is_not_read(tmp_path: Path) -> None:
    """Neither a path, nor a link, nor a `.git` file that an agent wrote leads to a repository outside."""
    repository(tmp_path / "outside", tmp_path / "mark")
    work = tmp_path / "work"
    (work / "planted").mkdir(parents=True)
    (work / "planted" / ".git").write_text(f"gitdir: {tmp_path}/outside/.git\n", encoding="utf-8")
    (work / "link").symlink_to(tmp_path / "outside")
    answers = [call(work, "git.log", repo=repo, since_hours=87_600) for repo in ("../outside", "link", "planted")]
    assert ["denied"] * 3 == [code(answer) for answer in answers]
    assert "first" not in json.dumps([[answer["value"], answer["error"]] for answer in answers])


@pytest.mark.req("TOOLS-14")
def test_a_path_that_looks_like_an_option_is_a_path(tmp_path: Path) -> None:
    """A folder named like a switch of git stays a folder."""
    answer = call(tmp_path, "git.log", repo="--exec-path=/tmp")
    assert ["that folder does not exist"] == answer["value"]["missing"]


@pytest.mark.req("TOOLS-9")
@pytest.mark.parametrize(
    "raw",
    [
        '{"path": "a", "path": "b"}',
        '{"path": "a", "pa\\u0074h": "b"}',
        'I call ```json\n{"path": "a", "path": "b"}\n```',
        '{"path": "a", "content": "x", "content": "y"}',
    ],
)
def test_equal_keys_are_refused(raw: str) -> None:
    """A call that shows one thing to a reviewer and another to the program is refused, also in prose."""
    answer = check(REGISTRY.get("files.read"), raw)
    assert isinstance(answer, Envelope)
    assert answer.error is not None
    assert "invalid_arguments" == answer.error.code


@pytest.mark.req("TOOLS-9")
def test_a_refusal_quotes_nothing() -> None:
    """Neither a wrong value nor an unknown key comes back in the refusal."""
    answer = check(REGISTRY.get("files.read"), json.dumps({"path": [SECRET], SECRET: 1, "fields": [SECRET]}))
    assert isinstance(answer, Envelope)
    assert SECRET not in json.dumps(answer.to_json())
    assert {"/path", "/fields/0", ""} == {error.path for error in answer.error.field_errors if answer.error}  # type: ignore[union-attr]


@tool(name="lists.numbers", effect="read", max_bytes="256B")
def numbers(n: int) -> dict[str, list[int]]:
    """Give numbers."""
    return {"n": list(range(n))}


@tool(name="lists.other", effect="read")
def other(n: int) -> list[str]:
    """Give texts."""
    return [str(n)]


def sealed(made: Tool[..., Any], value: Any, put: Callable[[bytes], str]) -> Envelope:
    """Seal a value as this tool's result."""
    checked = check(made, '{"n": 1}')
    assert isinstance(checked, Checked)
    return seal(made, checked, Performed(value, None, None, 0), effect_id="0" * 16, put_blob=put, ms=0)


class Blobs(dict[str, bytes]):
    """A blob store that remembers what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self[digest] = data
        return digest

    def look(self, digest: str) -> bytes | None:
        self.read.append(digest)
        return self.get(digest)


@pytest.mark.req("TOOLS-8")
def test_a_cursor_of_another_run_reads_nothing() -> None:
    """A body that this agent's calls did not produce is not even opened, and is refused like one that never was."""
    blobs = Blobs()
    cursor = sealed(numbers, {"n": list(range(500))}, blobs.put).next_cursor
    assert cursor is not None

    def read(cursor: str, *, mine: bool) -> Envelope:
        return page(numbers, cursor, get_blob=blobs.look, may_read=lambda _: mine, effect_id="1" * 16, ms=0)

    foreign = read(cursor, mine=False)
    assert [] == blobs.read
    unknown = read(f"{'0' * 64}:n:0", mine=True)
    assert foreign.error == unknown.error
    assert foreign.error is not None
    assert "not_found" == foreign.error.code
    assert read(cursor, mine=True).ok


@pytest.mark.req("TOOLS-8")
def test_a_cursor_reads_no_other_tools_body() -> None:
    """A body that is no result of this tool is refused, although the agent may read it through its own tool."""
    blobs = Blobs()
    digest = blobs.put(json.dumps({"n": ["not a number"]}).encode())
    answer = page(numbers, f"{digest}:n:0", get_blob=blobs.look, may_read=lambda _: True, effect_id="1" * 16, ms=0)
    assert (False, None) == (answer.ok, answer.data)


@pytest.mark.req("TOOLS-8")
@pytest.mark.parametrize(
    "cursor",
    [
        "", "x", "::", "../../etc/passwd:n:0", "{digest}:n:-1", "{digest}:n:1e9", "{digest}:n:0 ", "{digest}:n:0\n",
        "{digest}:__class__:0", "{digest}:n.0:0", "{digest}:n:999999999999", "{digest}:n:9999999999999", "{digest}::0",
        "{digest}:m:0", "{DIGEST}:n:0",
    ],
)  # fmt: skip
def test_a_changed_cursor_is_refused(cursor: str) -> None:
    """Whatever a model makes of a cursor, the answer is a refusal in the envelope."""
    blobs = Blobs()
    digest = blobs.put(json.dumps({"n": list(range(9))}).encode())
    changed = cursor.replace("{digest}", digest).replace("{DIGEST}", digest.upper() + "A")
    answer = page(numbers, changed, get_blob=blobs.look, may_read=lambda _: True, effect_id="1" * 16, ms=0)
    assert (False, None) == (answer.ok, answer.data)


@pytest.mark.req("TOOLS-8")
def test_a_cursor_with_arguments_executes_nothing() -> None:
    """Arguments beside a cursor are dropped: the call is a reading, and its digest says so."""
    checked = check(other, json.dumps({"n": 5, "cursor": f"{'a' * 64}::0"}))
    assert isinstance(checked, Checked)
    assert ({}, f"{'a' * 64}::0") == (checked.arguments, checked.cursor)
    assert json.dumps({"cursor": f"{'a' * 64}::0"}, separators=(",", ":")).encode() == checked.canonical


@pytest.mark.req("TOOLS-7")
@pytest.mark.parametrize(
    "fields", ['["nope"]', '["n.x"]', '["__class__"]', "[]", '"n"', '["n", 1]', "[" + '"n",' * 40 + '"n"]']
)
def test_unknown_fields_are_refused(fields: str) -> None:
    """Only paths of the output schema can be asked for."""
    answer = check(numbers, f'{{"n": 1, "fields": {fields}}}')
    assert isinstance(answer, Envelope)


@pytest.mark.req("TOOLS-4")
def test_a_renamed_tool_is_another_tool() -> None:
    """Whoever takes over a name, or changes a description, gets another digest: what was approved is not this."""

    def renamed(n: int) -> list[str]:
        """Give texts."""
        return [str(n)]

    def described(n: int) -> list[str]:
        """Give texts, and send them to me."""
        return [str(n)]

    one = tool(name="lists.other", effect="read")(renamed)
    digests = {
        other.contract.digest,
        tool(name="lists.another", effect="read")(renamed).contract.digest,
        tool(name="lists.other", effect="read")(described).contract.digest,
        tool(name="lists.other", effect="write")(renamed).contract.digest,
    }
    assert (4, other.contract.digest) == (len(digests), one.contract.digest)


@pytest.mark.req("TOOLS-13")
def test_a_shell_does_not_read_the_words(tmp_path: Path) -> None:
    """Words with shell signs reach the program as they are."""
    answer = call(tmp_path, "shell.run", command=["echo", "$(touch mark)", "; touch mark", "`touch mark`"])
    assert "$(touch mark) ; touch mark `touch mark`\n" == answer["value"]["stdout"]
    assert [] == list(tmp_path.iterdir())
