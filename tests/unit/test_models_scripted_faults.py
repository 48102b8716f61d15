"""Faults of the scripted provider as the real client meets them, and what each costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from midwatch.models.scripted import Fault, ScriptedProvider, parse_scenario
from midwatch.models.scripted.faults import KINDS

TEXT = "0123456789" * 4  # 10 tokens

SCENARIO = f"""\
scenario: 1
prices: {{m: {{input: "$1", output: "$10"}}}}
stream_chars: 4
rules:
  - {{name: call, agent: caller, say: "", tool_calls: [{{name: disks, arguments: {{limit: 2, all: true}}}}]}}
  - {{name: twice, agent: twice, say: ok, fault: {{kind: status, status: 503, times: 2}}}}
  - {{name: always, agent: always, fault: {{kind: status, status: 500}}}}
  - {{name: shaped, when: schema != '', answer: {{ok: true}}}}
  - {{name: text, say: "{TEXT}"}}
"""
TOOLS: list[Any] = [{"type": "function", "function": {"name": "disks", "parameters": {"type": "object"}}}]
SHAPE = {"type": "json_schema", "json_schema": {"name": "v", "schema": {"type": "object"}}}


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    """The scenario above, served."""
    with ScriptedProvider(parse_scenario(SCENARIO), clock=lambda: 1) as serving:
        yield serving


@pytest.fixture
def client(provider: ScriptedProvider) -> Iterator[openai.OpenAI]:
    """The OpenAI SDK without retries."""
    with openai.OpenAI(base_url=provider.base_url, api_key="any", max_retries=0, timeout=20) as sdk:
        yield sdk


def ask(client: openai.OpenAI, agent: str = "a", **options: Any) -> Any:
    """One request of four prompt bytes."""
    said: list[Any] = [{"role": "user", "content": "1234"}]
    return client.chat.completions.create(
        model="m", messages=said, extra_headers={"x-midwatch-agent": agent}, **options
    )


def streamed(client: openai.OpenAI, agent: str = "a", **options: Any) -> tuple[str, list[str], list[Any]]:
    """Text, finish reasons and usages of a stream that ends in order."""
    parts = list(ask(client, agent, stream=True, stream_options={"include_usage": True}, **options))
    choices = [choice for part in parts for choice in part.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    return text, [one.finish_reason for one in choices if one.finish_reason], [p.usage for p in parts if p.usage]


def line(provider: ScriptedProvider) -> tuple[str, str | None, int, int, int]:
    """Outcome, fault, prompt, completion and cost of the only line of the bill."""
    (one,) = provider.bill
    return one.outcome, one.fault, one.prompt_tokens, one.completion_tokens, one.cost_microusd


@pytest.mark.req("SCRIPTED-6")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "failure"),
    [(429, openai.RateLimitError), (500, openai.InternalServerError), (503, openai.InternalServerError)],
)
def test_status(
    provider: ScriptedProvider,
    client: openai.OpenAI,
    status: int,
    failure: type[openai.APIStatusError],
    stream: bool,
) -> None:
    """An error status arrives with its `Retry-After` and costs nothing."""
    provider.inject(Fault("status", status=status, retry_after=7))
    with pytest.raises(failure) as caught:
        ask(client, stream=stream)
    assert (status, "7") == (caught.value.status_code, caught.value.response.headers["retry-after"])
    assert ("fault", "status", 0, 0, 0) == line(provider)
    assert TEXT == ask(client).choices[0].message.content


@pytest.mark.req("SCRIPTED-6")
def test_the_first_matches_fail_and_later_ones_do_not(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """`times: 2` fails twice; a fault without `times` fails always."""
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            ask(client, "twice")
    assert "ok" == ask(client, "twice").choices[0].message.content
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            ask(client, "always")
    assert ["fault", "fault", "finished", "fault", "fault", "fault"] == [one.outcome for one in provider.bill]


@pytest.mark.req("SCRIPTED-6")
def test_times_is_exact_among_parallel_requests(client: openai.OpenAI) -> None:
    """16 requests at once meet a fault with `times: 2` exactly twice."""
    outcomes: list[str] = []

    def one() -> None:
        try:
            outcomes.append(ask(client, "twice").choices[0].message.content)
        except openai.InternalServerError:
            outcomes.append("failed")

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert ["failed"] * 2 + ["ok"] * 14 == sorted(outcomes)


@pytest.mark.req("SCRIPTED-6", "SCRIPTED-9")
@pytest.mark.parametrize("stream", [False, True])
def test_timeout(provider: ScriptedProvider, client: openai.OpenAI, stream: bool) -> None:
    """Nothing comes; the client gives up, and is charged for all that was generated for it."""
    provider.inject(Fault("timeout", seconds=60))
    with pytest.raises(openai.APITimeoutError):
        ask(client, stream=stream, timeout=0.2)
    provider.wait_billed(1)
    assert ("client_left", "timeout", 1, 10, 101) == line(provider)


@pytest.mark.req("SCRIPTED-6")
def test_a_timeout_is_bounded(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """After its bound the held connection is closed without an answer."""
    provider.inject(Fault("timeout", seconds=0))
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    assert ("fault", "timeout", 1, 10, 101) == line(provider)


@pytest.mark.req("SCRIPTED-6", "SCRIPTED-9")
@pytest.mark.parametrize(("chunks", "text", "tokens"), [(0, "", 0), (1, "", 0), (3, "01234567", 2), (999, TEXT, 10)])
def test_cut_stream(provider: ScriptedProvider, client: openai.OpenAI, chunks: int, text: str, tokens: int) -> None:
    """The socket closes after so many events; the bill holds the whole prompt and what was generated by then."""
    provider.inject(Fault("cut_stream", after_chunks=chunks))
    got: list[str] = []
    with pytest.raises((openai.APIConnectionError, httpx.HTTPError, ConnectionError)) as caught:
        got.extend(
            choice.delta.content or ""
            for part in ask(client, stream=True, stream_options={"include_usage": True})
            for choice in part.choices
        )
    assert not isinstance(caught.value, openai.APITimeoutError)
    assert ("cut", "cut_stream", 1, tokens, 1 + 10 * tokens) == line(provider)
    assert text.startswith("".join(got))


@pytest.mark.req("SCRIPTED-6", "SCRIPTED-9")
def test_cut_whole_answer(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """A whole answer that breaks off is an error for the client, and charged in full."""
    provider.inject(Fault("cut_stream"))
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    assert ("cut", "cut_stream", 1, 10, 101) == line(provider)


@pytest.mark.req("SCRIPTED-9")
def test_a_client_that_leaves_a_stream(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """Who leaves after the first piece is charged the prompt and no more than was sent by then, and at least that."""
    provider.inject(Fault("slow", delay_ms=400))
    stream = ask(client, stream=True)
    texts = (part.choices[0].delta.content for part in stream)
    assert "0123" == next(text for text in texts if text)
    stream.close()
    (one,) = provider.wait_billed(1)
    assert ("client_left", 1) == (one.outcome, one.prompt_tokens)
    assert 1 <= one.completion_tokens <= 2
    assert TEXT == ask(client).choices[0].message.content


@pytest.mark.req("SCRIPTED-6")
def test_slow(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """A slow stream is complete in the end."""
    provider.inject(Fault("slow", delay_ms=1, times=2))
    assert (TEXT, ["stop"]) == streamed(client)[:2]
    assert TEXT == ask(client).choices[0].message.content
    assert [("fault", "slow")] * 2 == [(one.outcome, one.fault) for one in provider.bill]


@pytest.mark.req("SCRIPTED-6")
def test_no_finish(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """A stream ends in order without saying why, and a whole answer has no finish reason; both are charged."""
    provider.inject(Fault("no_finish", times=2))
    text, reasons, usages = streamed(client)
    assert (TEXT, [], 10) == (text, reasons, usages[0].completion_tokens)
    assert ask(client).choices[0].finish_reason is None
    assert [10, 10] == [one.completion_tokens for one in provider.bill]


@pytest.mark.req("SCRIPTED-6")
def test_no_usage(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """Usage is asked for and never sent; it is charged all the same."""
    provider.inject(Fault("no_usage", times=2))
    assert (TEXT, ["stop"], []) == streamed(client)
    assert ask(client).usage is None
    assert [101, 101] == [one.cost_microusd for one in provider.bill]


@pytest.mark.req("SCRIPTED-6")
@pytest.mark.parametrize(("multiplier", "told"), [("1/10", 1), ("0", 0), ("3", 30)])
def test_lying_usage(provider: ScriptedProvider, client: openai.OpenAI, multiplier: str, told: int) -> None:
    """The client is told another number than the bill holds."""
    body = {"agent": "a", "fault": {"kind": "lying_usage", "multiplier": multiplier, "times": 2}}
    assert 200 == httpx.post(f"{provider.url}/control/faults", json=body).status_code
    assert told == ask(client).usage.completion_tokens
    assert [told] == [usage.completion_tokens for usage in streamed(client)[2]]
    assert [10, 10] == [one.completion_tokens for one in provider.bill]


WRAPPED = "Here is what you asked for:\n\n```json\n{}\n```\n\nShall I go on?"


def arguments(message: Any) -> list[tuple[str, str]]:
    """Names and raw arguments of the calls in a message."""
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


@pytest.mark.req("SCRIPTED-6")
def test_spoilt_tool_calls(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """Malformed arguments, repeated keys, another shape and an unknown tool arrive as such."""
    expected = {
        "malformed_arguments": ("disks", '{"limit":2,"all":true,'),
        "duplicate_keys": ("disks", '{"limit": 2, "all": true, "limit": null}'),
        "wrong_schema": ("disks", '{"unexpected": true}'),
        "wrong_tool": ("no_such_tool", '{"limit":2,"all":true}'),
        "wrapped": ("disks", WRAPPED.format('{"limit":2,"all":true}')),
    }
    for kind, call in expected.items():
        provider.inject(Fault(kind))
        choice = ask(client, "caller", tools=TOOLS).choices[0]
        assert ([call], "tool_calls") == (arguments(choice.message), choice.finish_reason), kind
    with pytest.raises(ValueError, match="property name"):
        json.loads(expected["malformed_arguments"][1])
    provider.inject(Fault("wrong_tool", name="erase_all"))
    assert [("erase_all", "{}")] == arguments(ask(client).choices[0].message)
    assert [*expected, "wrong_tool"] == [one.fault for one in provider.bill]


@pytest.mark.req("SCRIPTED-6")
def test_spoilt_text(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """Broken JSON, repeated keys, another shape and nothing at all arrive where a schema was asked for."""
    expected = {
        "bad_json": '{"ok":true,',
        "malformed_arguments": '{"ok":true,',
        "duplicate_keys": '{"ok": true, "ok": null}',
        "wrong_schema": '{"unexpected": true}',
        "wrapped": WRAPPED.format('{"ok":true}'),
        "empty": "",
    }
    for kind, text in expected.items():
        provider.inject(Fault(kind, times=2))
        choice = ask(client, response_format=SHAPE).choices[0]
        assert (text, "stop") == (choice.message.content, choice.finish_reason), kind
        assert text == streamed(client, response_format=SHAPE)[0]


@pytest.mark.req("SCRIPTED-6")
@pytest.mark.parametrize("stream", [False, True])
def test_prose(provider: ScriptedProvider, client: openai.OpenAI, stream: bool) -> None:
    """A megabyte of prose comes in spite of `max_tokens`, which still bounds the charge."""
    provider.inject(Fault("prose", bytes=1_000_000))
    text = streamed(client, max_tokens=50)[0] if stream else ask(client, max_tokens=50).choices[0].message.content
    assert 1_000_000 == len(text)
    assert ("fault", "prose", 1, 50, 501) == line(provider)


@pytest.mark.req("SCRIPTED-6")
def test_the_control_endpoint(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """Faults can be injected for one agent, are counted, and can be cleared; a wrong one is refused."""
    url = f"{provider.url}/control/faults"
    refused: tuple[object, ...] = (
        {"fault": "explode"},
        {"fault": {"kind": "slow", "bytes": 1}},
        {"fault": "empty", "who": 1},
        [],
        {},
    )
    for wrong in refused:
        assert 400 == httpx.post(url, json=wrong).status_code
    assert 200 == httpx.post(url, json={"agent": "b", "fault": {"kind": "empty", "times": 2}}).status_code
    assert TEXT == ask(client, "a").choices[0].message.content
    assert ["", "", TEXT] == [ask(client, "b").choices[0].message.content for _ in range(3)]
    assert 200 == httpx.post(url, json={"fault": "empty"}).status_code
    assert 200 == httpx.delete(url).status_code
    assert TEXT == ask(client, "a").choices[0].message.content


@pytest.mark.req("SCRIPTED-6")
def test_every_fault_is_tested_here() -> None:
    """A fault that is added to the list is added to these tests."""
    source = Path(__file__).read_text(encoding="utf-8")
    assert [] == [kind for kind in KINDS if f'"{kind}"' not in source]


@pytest.mark.req("SCRIPTED-8")
@pytest.mark.parametrize("stream", [False, True])
def test_an_unwritable_bill_completes_no_answer(
    provider: ScriptedProvider, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """When the bill's disk is full the client gets an error, or a stream without an end, and never a finish reason."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("midwatch.models.scripted.bill.Bill.add", full)
    if not stream:
        with pytest.raises(openai.InternalServerError, match="bill cannot be written"):
            ask(client)
        return
    reasons: list[str | None] = []
    with pytest.raises((openai.APIConnectionError, httpx.HTTPError)):
        reasons.extend(part.choices[0].finish_reason for part in ask(client, stream=True))
    assert {None} >= set(reasons)


def process(tmp_path: Path, *options: str, **popen: Any) -> tuple[subprocess.Popen[str], str]:
    """The provider as a process, and its base URL."""
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    command = [sys.executable, "-m", "midwatch.models.scripted", str(path), "--bill", str(tmp_path / "bill"), *options]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **popen)
    assert child.stdout is not None
    return child, json.loads(child.stdout.readline())["base_url"]


def ended(child: subprocess.Popen[str]) -> int:
    """Its exit code, within a bound; its pipes closed."""
    try:
        return child.wait(20)
    finally:
        child.kill()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


@pytest.mark.req("SCRIPTED-8")
def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Every answer that a client has in full is on the bill when the server is killed among 8 busy clients."""
    child, base_url = process(tmp_path)
    keys: list[str] = []
    enough = threading.Event()

    def work(name: str) -> None:
        with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=20) as sdk:
            for number in range(10_000):
                key = f"{name}-{number}"
                try:
                    finished = [
                        part.choices[0].finish_reason
                        for part in sdk.chat.completions.create(
                            model="m",
                            messages=[{"role": "user", "content": "x"}],
                            stream=True,
                            extra_headers={"idempotency-key": key},
                        )
                    ]
                except (openai.APIError, httpx.HTTPError):
                    return
                if finished and finished[-1] == "stop":
                    keys.append(key)
                if len(keys) >= 40:
                    enough.set()

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    assert enough.wait(30)
    os.kill(child.pid, signal.SIGKILL)
    for thread in threads:
        thread.join(30)
    assert -signal.SIGKILL == ended(child)
    rows = [json.loads(row) for row in (tmp_path / "bill").read_text().splitlines(keepends=True) if row.endswith("\n")]
    assert list(range(1, len(rows) + 1)) == [row["seq"] for row in rows]
    assert set() == set(keys) - {row["idempotency_key"] for row in rows}
    assert len(rows) <= len(keys) + 8  # at most the one request a client had open when it happened


@pytest.mark.req("SCRIPTED-10")
def test_the_process_ends_on_sigterm_and_continues_its_bill(tmp_path: Path) -> None:
    """It says where it listens, ends with 0 on SIGTERM, and a second one goes on with the bill of the first."""
    for expected in (1, 2):
        child, base_url = process(tmp_path)
        with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=20) as sdk:
            assert TEXT == ask(sdk).choices[0].message.content
        bill = httpx.get(base_url.removesuffix("/v1") + "/bill").json()
        assert expected == bill["totals"]["requests"]
        child.terminate()
        assert 0 == ended(child)


@pytest.mark.req("SCRIPTED-10")
def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    """With `--until-stdin-closes` a closed pipe ends it, so that a killed parent leaves no server behind."""
    child, _ = process(tmp_path, "--until-stdin-closes", stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.close()
    assert 0 == ended(child)


@pytest.mark.req("SCRIPTED-10")
def test_a_wrong_scenario_ends_the_process_with_2(tmp_path: Path) -> None:
    """Problems go to stderr, nothing to stdout."""
    path = tmp_path / "s.yaml"
    path.write_text("scenario: 1\nrules: [{say: x, colour: red}]")
    command = [sys.executable, "-m", "midwatch.models.scripted", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (2, "") == (done.returncode, done.stdout)
    assert "s.yaml:2: `colour` is not known here" in done.stderr


@pytest.mark.req("SCRIPTED-9")
def test_closing_the_provider_bills_what_is_open() -> None:
    """A request that is held while the provider is closed is on the bill when the block has ended."""
    with (
        ScriptedProvider(parse_scenario(SCENARIO), clock=lambda: 1) as serving,
        openai.OpenAI(base_url=serving.base_url, api_key="any", max_retries=0, timeout=20) as sdk,
    ):
        serving.inject(Fault("slow", delay_ms=20_000))
        stream = ask(sdk, stream=True)  # the head is out, so the request is dispatched
        serving.__exit__(None, None, None)
        assert ("client_left", "slow", 1, 0, 1) == line(serving)
        stream.close()
