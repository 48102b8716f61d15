"""Many threads of many processes on one file: what they claim together is what there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from midwatch.records.gate import GateRow, Link
from midwatch.records.spend import Account
from midwatch.store.port import Tx
from midwatch.store.sqlite import SqliteStore

CAP = 300
CLAIMS = 10
WORKER = """
import random, sys, threading
from midwatch.errors import BoundReached
from midwatch.records.spend import Line
from midwatch.store.sqlite import SqliteStore
path, process, claims = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = SqliteStore(path)
faults, charged, watch = [], [], threading.Lock()

def look():
    for item in store.read(lambda tx: tx.budgets.accounts(["s"])):
        if item.spent + item.held > item.cap or item.held < 0:
            faults.append(item)

def work(number):
    choose = random.Random(process * 100 + number)
    for place in range(claims):
        name, amount = f"{process}:{number}:{place}", choose.randint(1, 9)
        lines = [Line("s", "cost", amount)]
        try:
            store.write(lambda tx: tx.budgets.reserve(name, run="r", lines=lines, at_us=1))
        except BoundReached:
            continue
        finally:
            look()
        end = choose.choice(("release", "settle", "settle", "settle"))
        if end == "release":
            store.write(lambda tx: tx.budgets.release(name))
            continue
        actual = choose.randint(0, amount)
        store.write(lambda tx: tx.budgets.confirm(name))
        store.write(lambda tx: tx.budgets.settle(name, {"cost": actual}, at_us=2))
        with watch:
            charged.append(actual)

threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
store.close()
print(len(faults), sum(charged))
"""


@pytest.mark.req("STORE-3")
def test_twelve_threads_of_four_processes_never_pass_the_cap(tmp_path: Path) -> None:
    """No reader ever sees more than the cap, nothing stays held, and the account shows what was charged to the unit."""
    path = tmp_path / "m.db"
    store = SqliteStore(path)
    store.write(lambda tx: tx.budgets.set_cap("s", "cost", CAP))
    store.close()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(process), str(CLAIMS)], stdout=subprocess.PIPE, text=True
        )
        for process in range(4)
    ]
    said = [child.communicate(timeout=60)[0].split() for child in children]
    assert [0] * 4 == [child.returncode for child in children]
    assert [0] * 4 == [int(faults) for faults, _ in said]
    charged = sum(int(amount) for _, amount in said)
    store = SqliteStore(path)
    standing = store.read(lambda tx: tx.budgets.accounts(["s"]))
    store.close()
    assert [Account("s", "cost", CAP, charged, 0)] == list(standing)
    assert CAP // 2 < charged <= CAP


GATES = 60
PEOPLE = 4
ANSWERER = """
import sys
from midwatch.errors import GateNotUsable
from midwatch.records.gate import GateAnswer
from midwatch.store.sqlite import SqliteStore
path, name, gates = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = SqliteStore(path)
tally = {"closed": 0, "said": 0, "used": 0}

def once(key, work):
    try:
        store.write(work)
        tally[key] += 1
    except GateNotUsable:
        pass

print("ready", flush=True)
sys.stdin.readline()
for place in range(gates):
    gate = f"{place:016x}"
    once("said", lambda tx: tx.gates.say(GateAnswer(gate, "n", "ann", "approve", "operator", "", 5, name)))
    once("used", lambda tx: tx.notices.use_link(f"{place:032x}", at_us=5))
    once("closed", lambda tx: tx.gates.answer(gate, approve=True, by=name, reason="", at_us=5))
store.close()
print(tally["closed"], tally["said"], tally["used"])
"""


@pytest.mark.req("STORE-9")
def test_processes_that_answer_at_once_close_each_gate_once(tmp_path: Path) -> None:
    """Four processes, the same gates in the same order: one closing, one word of the same person, one use of a link each."""
    path = tmp_path / "m.db"
    store = SqliteStore(path)

    def fill(tx: Tx) -> None:
        for place in range(GATES):
            gate = f"{place:016x}"
            tx.gates.open(GateRow(gate, "r", "a", "x.y", "d", "n", "p", "operator", "why", "card", "open", 1, 100))
            tx.notices.link(Link(f"{place:032x}", gate, "n", "ann", expires_us=100))

    store.write(fill)
    people = [
        subprocess.Popen(
            [sys.executable, "-c", ANSWERER, str(path), f"person{number}", str(GATES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PEOPLE)
    ]
    for person in people:
        assert person.stdout is not None
        assert "ready\n" == person.stdout.readline()
    outcomes = [person.communicate("go\n", timeout=90)[0].split() for person in people]
    closed, said, used = (sum(int(outcome[column]) for outcome in outcomes) for column in range(3))
    assert (GATES, GATES, GATES) == (closed, said, used)
    rows = store.read(lambda tx: tx.gates.list(statuses=("approved",)))
    by = [sum(row.answered_by == f"person{number}" for row in rows) for number in range(PEOPLE)]
    assert by == [int(outcome[0]) for outcome in outcomes]
    store.close()
