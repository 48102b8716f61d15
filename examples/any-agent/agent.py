"""A whole agent as a program: it lets a model look through a folder with the kernel's tools, and writes an index of it by itself.

Nothing here is Midwatch's: the OpenAI SDK where it is installed, else plain HTTP. The sandbox sets `OPENAI_BASE_URL`, `OPENAI_API_KEY`
(a dummy), `MIDWATCH_TOOLS` and `MIDWATCH_BRIEF`; there is no other way out.
"""

import json
import os
import sys
import urllib.request
from typing import Any

TURNS = 6


def post(url: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    """Send JSON, or ask with GET where there is none to send; give the answer's JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})})  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310 - as above
        return json.load(answer)


def chat(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Ask the model once; gives its message. Which model answers is the fleet's to say."""
    try:
        import openai  # noqa: PLC0415 - only where it is installed
    except ImportError:
        body = {"model": "any", "messages": messages, "tools": tools}
        answer = post(f"{os.environ['OPENAI_BASE_URL']}/chat/completions", body)
        message: dict[str, Any] = answer["choices"][0]["message"]
        return message
    client: Any = openai.OpenAI()
    made = client.chat.completions.create(model="any", messages=messages, tools=tools)
    return dict(made.choices[0].message.model_dump(exclude_none=True))


def look_through(task: str) -> tuple[str, list[str]]:
    """Let the model call tools until it has something to say; gives that, and references to what it saw."""
    tools = [tool["openai"] for tool in post(os.environ["MIDWATCH_TOOLS"], None)["tools"]]
    messages = [
        {
            "role": "system",
            "content": "Look through the folder with your tools, then say in one sentence what it holds.",
        },
        {"role": "user", "content": task},
    ]
    refs: list[str] = []
    for _ in range(TURNS):
        message = chat(messages, tools)
        messages.append(message)
        if not message.get("tool_calls"):
            return message["content"], refs
        for call in message["tool_calls"]:
            url = f"{os.environ['MIDWATCH_TOOLS']}/{call['function']['name']}"
            told = post(url, json.loads(call["function"]["arguments"]), {"midwatch-call-id": call["id"]})
            refs += [ref for ref in told["refs"] if ref.startswith("e:")]
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(told)})
    return "the model did not come to an end", refs


def main() -> None:
    """Read the brief, work, answer with the handoff that a specialist owes."""
    brief = json.load(sys.stdin)
    said, refs = look_through(brief["task"])
    with open("INDEX.md", "w", encoding="utf-8") as file:  # noqa: PTH123 - a program of anybody's
        file.write(f"# Index\n\n{said}\n")
    print(f"asked {brief['agent']}'s model, wrote INDEX.md", file=sys.stderr)
    changed = [{"text": "wrote INDEX.md", "evidence": [brief["evidence"], *refs]}]
    print(json.dumps({"changed": changed, "needed": [], "risks": []}))


if __name__ == "__main__":
    main()
