"""`midwatch principals`: whose order counts, and what is kept of a token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.engine import identity, people
from midwatch.errors import Denied
from midwatch.gates.review import Speaker
from midwatch.store.port import Store
from midwatch.surfaces.cli import main


@pytest.fixture(name="call")
def _call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call a command in one home, with a token in the environment or none."""
    monkeypatch.setenv("USER", "ann")

    def call(*arguments: str, token: str | None = None) -> Result:
        env = {"MIDWATCH_TOKEN": token}
        return CliRunner().invoke(main, ["--home", str(tmp_path / "home"), *arguments], env=env)

    return call


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    with wiring.open_store(tmp_path / "home", create=True) as store:
        yield store


def _add(store: Store, name: str, *roles: str, by: Speaker) -> tuple[Speaker, str]:
    row, token = people.add(store, name, roles=roles, may=("*",), speaker=by, at_us=1)
    return Speaker(name, row, "cli"), token


@pytest.mark.req("CLI-13")
def test_a_token_is_on_stdout_alone_and_kept_only_as_a_hash(call: Callable[..., Result], tmp_path: Path) -> None:
    """It can be piped into a file; neither the list, nor the ledger, nor the database file has it."""
    made = call("principals", "add", "boss", "--role", "admin", "--may", "ops.*", "--may", "db.*")
    token = made.stdout.strip()
    assert (0, 1, True) == (made.exit_code, len(made.stdout.splitlines()), token.startswith("mw_"))
    assert token not in made.stderr
    listed: dict[str, Any] = json.loads(call("principals", "ls", "--json").stdout)
    assert [("boss", ["admin"], ["ops.*", "db.*"])] == [
        (item["name"], item["roles"], item["may"]) for item in listed["principals"]
    ]
    assert not any(token.encode() in file.read_bytes() for file in (tmp_path / "home").rglob("*") if file.is_file())


@pytest.mark.req("CLI-13")
def test_no_command_takes_a_token_as_an_argument(call: Callable[..., Result]) -> None:
    """There is no such option, and the help says why."""
    assert 2 == call("principals", "add", "boss", "--role", "admin", "--token", "mw_x").exit_code
    told = " ".join(call("principals", "add", "--help").stdout.split())
    assert "Never an argument: others see those" in told


@pytest.mark.req("CLI-13")
def test_of_two_who_make_the_first_person_one_needs_no_token(store: Store) -> None:
    """Both were identified while the home knew nobody; the later word comes too late to be anybody's."""
    early = identity.identify(store, token=None, user="mallory", channel="cli")
    _add(store, "boss", "admin", by=early)
    with pytest.raises(Denied, match="by token"):
        _add(store, "mallory", "admin", by=early)
    with pytest.raises(Denied, match="by token"):
        people.rotate(store, "boss", speaker=early, at_us=2)
    assert ["boss"] == [row.name for row in store.read(lambda tx: tx.principals.list())]


@pytest.mark.req("CLI-13")
@pytest.mark.parametrize("lost", ["disabled", "demoted", "rotated"])
def test_an_order_counts_only_with_the_rights_of_that_moment(store: Store, lost: str) -> None:
    """Whoever lost them between proving who they are and speaking changes nobody."""
    boss, _ = _add(store, "boss", "admin", by=Speaker("local:ann"))
    other, _ = _add(store, "other", "admin", by=boss)
    if lost == "disabled":
        people.disable(store, "other", speaker=boss, at_us=2)
    elif lost == "demoted":
        people.change(store, "other", roles=("viewer",), may=(), speaker=boss, at_us=2)
    else:
        people.rotate(store, "other", speaker=boss, at_us=2)
    with pytest.raises(Denied):
        people.disable(store, "boss", speaker=other, at_us=3)
    row = store.read(lambda tx: tx.principals.get("boss"))
    assert (True, None) == (row is not None, None if row is None else row.disabled_us)


@pytest.mark.req("CLI-13")
def test_each_change_is_an_event_that_names_who_and_by_whom(call: Callable[..., Result], store: Store) -> None:
    """Name, roles, reach, word, by whom; the fields are those and no other."""
    boss = call("principals", "add", "boss", "--role", "admin").stdout.strip()
    call("principals", "add", "ops", "--role", "operator", "--role", "dba", token=boss)
    call("principals", "set", "ops", "--may", "db.*", token=boss)
    for word in ("disable", "enable", "rotate"):
        assert 0 == call("principals", word, "ops", token=boss).exit_code
    events = [event.data for event in store.read(lambda tx: tx.ledger.read(kinds=("principal.changed",)))]
    assert [
        ("boss", "added", "local:ann"),
        ("ops", "added", "boss"),
        ("ops", "changed", "boss"),
        ("ops", "disabled", "boss"),
        ("ops", "enabled", "boss"),
        ("ops", "rotated", "boss"),
    ] == [(data["name"], data["word"], data["by"]) for data in events]
    assert {"name", "roles", "may", "word", "by"} == {key for data in events for key in data}
    assert ("operator,dba", "db.*") == (events[-1]["roles"], events[-1]["may"])


@pytest.mark.req("CLI-13")
@pytest.mark.parametrize(
    "words",
    [
        ("set", "boss", "--role", "approver"),
        ("disable", "boss"),
    ],
)
def test_the_last_admin_who_can_act_stays(call: Callable[..., Result], words: tuple[str, ...]) -> None:
    """A disabled admin beside does not count."""
    boss = call("principals", "add", "boss", "--role", "admin").stdout.strip()
    call("principals", "add", "gone", "--role", "admin", token=boss)
    assert 0 == call("principals", "disable", "gone", token=boss).exit_code
    refused = call("principals", *words, token=boss)
    assert (2, True) == (refused.exit_code, "last admin" in refused.stderr)
    assert 0 == call("principals", "enable", "gone", token=boss).exit_code
    assert 0 == call("principals", *words, token=boss).exit_code


@pytest.mark.req("CLI-13")
def test_a_change_of_nothing_and_of_nobody_is_refused(call: Callable[..., Result]) -> None:
    """`set` needs something to set; an unknown name is not found."""
    boss = call("principals", "add", "boss", "--role", "admin").stdout.strip()
    assert 2 == call("principals", "set", "boss", token=boss).exit_code
    assert 6 == call("principals", "set", "nemo", "--role", "viewer", token=boss).exit_code
    assert 6 == call("principals", "disable", "nemo", token=boss).exit_code
    assert 2 == call("principals", "set", "boss", "--may", "a,b", token=boss).exit_code
