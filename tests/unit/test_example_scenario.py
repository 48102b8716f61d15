"""The nightwatch scenario against nights that this machine does not have: full disks, new packages, failing tools."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from midwatch.agents.answers import Evidence, Parsed, parse_handoff
from midwatch.models.scripted.answer import compose, find_rule
from midwatch.models.scripted.ask import read_ask
from midwatch.models.scripted.scenario import Scenario, load_scenario
from midwatch.records.handoff import Handoff

SCENARIO = Path(__file__).resolve().parents[2] / "examples" / "nightwatch" / "scenario.yaml"
REF = "e:" + "0123456789abcdef"
FAILED = {"ok": False, "error": {"code": "timeout", "message": "it took too long"}, "refs": [REF], "truncated": False}


@pytest.fixture(scope="module", name="scenario")
def _scenario() -> Scenario:
    return load_scenario(SCENARIO)


def _told(data: Mapping[str, Any], *, truncated: bool = False) -> dict[str, Any]:
    return {"ok": True, "data": dict(data), "refs": [REF, "b:" + "0" * 64], "truncated": truncated}


def _handoff(scenario: Scenario, agent: str, results: Mapping[str, Mapping[str, Any]]) -> Handoff:
    """What `agent` hands off after these tool results; it must be one that the kernel takes."""
    calls = [{"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in results]
    answers = [
        {"role": "tool", "tool_call_id": name, "content": orjson.dumps(body).decode()} for name, body in results.items()
    ]
    body = {
        "model": "nightwatch-scripted",
        "messages": [
            {"role": "user", "content": '{"request": {"repo": "."}, "task": "look"}'},
            {"role": "assistant", "content": None, "tool_calls": calls},
            *answers,
        ],
    }
    ask = read_ask(body, agent)
    reply, _ = compose(find_rule(scenario, ask), ask, None, "seed")
    parsed = parse_handoff(
        reply.text,
        agent=agent,
        role="specialist",
        criteria=(),
        resolve={REF: Evidence("some.tool", ok=True)}.get,
        truncated=False,
    )
    assert isinstance(parsed, Parsed), parsed
    assert parsed.rule is None
    assert isinstance(parsed.value, Handoff)
    return parsed.value


@pytest.mark.req("EXAMPLE-2")
def test_new_libraries_and_zombies_need_a_person(scenario: Scenario) -> None:
    """A changed C library asks for a restart, a crowd of zombies for a look; a cut list is not passed off as whole."""
    change = {"at": "2026-11-24T00:20:01Z", "action": "upgrade", "name": "libc6:amd64", "old": "2.39", "new": "2.40"}
    removed = {"at": "2026-11-24T00:10:00Z", "action": "remove", "name": "telnet", "old": "0.17", "new": ""}
    handoff = _handoff(
        scenario,
        "packages",
        {
            "host_packages": _told(
                {"source": "dpkg", "count": 900, "changes": [removed, change], "missing": []}, truncated=True
            ),
            "host_processes": _told(
                {
                    "count": 99,
                    "zombies": 12,
                    "top": [{"pid": 1, "name": "x" * 200, "memory": 1536, "cpu_seconds": 3}],
                    "missing": [],
                }
            ),
        },
    )
    assert [
        "900 package changes in the last 24 hours, says the log of dpkg",
        "upgrade libc6:amd64 2.39 → 2.40",
        "remove telnet 0.17",
        f"99 processes run; most memory: {'x' * 40} (1) 1.5 KiB",
    ] == [item.text for item in handoff.changed]
    assert ["restart what still runs the old version of libc6:amd64; after a new kernel, the machine"] == [
        item.text for item in handoff.needed[:1]
    ]
    assert "12 zombie processes" in handoff.needed[1].text
    assert ["host_packages had more to tell than was read; the counts are whole, the lists are not"] == [
        item.text for item in handoff.risks
    ]


@pytest.mark.req("EXAMPLE-2")
def test_full_disks_and_memory_need_a_person(scenario: Scenario) -> None:
    """Above 90 percent of bytes, inodes or memory somebody is told what to do, with the numbers; below, nobody is."""
    disk = {"kind": "ext4", "size": 1 << 30, "free": 1 << 20}
    handoff = _handoff(
        scenario,
        "storage",
        {
            "host_disks": _told(
                {
                    "disks": [
                        disk | {"mount": "/var", "used_percent": 97, "inodes_percent": 3},
                        disk | {"mount": "/mail", "used_percent": 40, "inodes_percent": 95},
                        disk | {"mount": "/", "used_percent": 89, "inodes_percent": 89},
                    ],
                    "missing": ["/mnt cannot be measured"],
                }
            ),
            "host_memory": _told(
                {
                    "total": 1 << 30,
                    "available": 1 << 26,
                    "used_percent": 93,
                    "swap_total": 0,
                    "swap_free": 0,
                    "missing": [],
                }
            ),
        },
    )
    assert 4 == len(handoff.changed)
    assert [
        "make room on /var: 97 % full, 1.0 MiB free, 3 % of its inodes used",
        "make room on /mail: 40 % full, 1.0 MiB free, 95 % of its inodes used",
        "find what uses the memory: only 64.0 MiB of 1.0 GiB are available",
    ] == [item.text for item in handoff.needed]
    assert ["not known: /mnt cannot be measured"] == [item.text for item in handoff.risks]


@pytest.mark.req("EXAMPLE-3")
@pytest.mark.parametrize(
    ("agent", "tools"),
    [
        ("packages", ("host_packages", "host_processes")),
        ("storage", ("host_disks", "host_memory")),
        ("repo", ("git_log", "git_churn")),
    ],
)
def test_tools_that_fail_leave_risks_and_no_facts(scenario: Scenario, agent: str, tools: tuple[str, ...]) -> None:
    """When every tool fails, the handoff claims nothing and names each failure."""
    handoff = _handoff(scenario, agent, dict.fromkeys(tools, FAILED))
    assert ((), ()) == (handoff.changed, handoff.needed)
    assert [f"{tool} gave no facts: it took too long" for tool in tools] == [item.text for item in handoff.risks]
