"""Collect: what small models really write when one JSON value is due, as raw text for the corpus.

In:   a GGUF file, how many answers. Out: JSONL on stdout: `{id, model, schema, manner, temperature, seed, finish, text}`.
May import: xllamacpp, which is installed beside the bench and not with the product. Must not know: recovery.
Why no grammar: an answer that is constrained needs no recovery. The manners are those that people write into prompts; some of them ask
for what a parser does not like, as people do. Whoever reads the answers says what they mean (`corpus.md`), never this program.

    python bench/recovery/collect.py MODEL.gguf NAME COUNT > raw.jsonl
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any, Final

TOOLS: Final = {
    "services.restart": {"service": "string", "force": "boolean"},
    "files.write": {"path": "string", "content": "string"},
    "tickets.create": {"title": "string", "priority": ["low", "normal", "high"], "labels": ["string"]},
    "metrics.query": {"name": "string", "minutes": "integer"},
    "mail.send": {"to": "string", "subject": "string", "body": "string"},
}
SHAPES: Final = {
    "call": 'an object {"tool": NAME, "arguments": {…}} for one of these tools:\n' + json.dumps(TOOLS),
    "finding": 'an object {"summary": string, "severity": "low" | "medium" | "high", "hosts": [string], "count": integer}',
    "handoff": 'an object {"changed": [{"what": string, "where": string}], "needed": [string], "risks": [string]}',
    "config": 'an object {"name": string, "port": integer, "command": string, "env": {NAME: string}, "enabled": boolean, '
    '"note": string or null}',
}
TASKS: Final = {
    "call": [
        "Restart the nginx service, it hangs, so force it.",
        'Write a Python script to scripts/hello.py that prints "Hello, world!" and the current directory.',
        "Open a high priority ticket: disk is 95% full on db-1; label it disk and urgent.",
        "How many errors were there in the past 30 minutes? The metric is called http_errors.",
        "Tell ops@example.com that the backup failed. Say why: the disk was full. Sign it as Midwatch.",
        "Write a shell script to bin/clean.sh that deletes *.tmp files older than 7 days, with a comment on each line.",
        "Write the Windows path C:\\temp\\new\\report.txt and the regex ^\\d+$ into notes/paths.txt.",
        'Write a JSON config file {"debug": true, "level": 3} to etc/app.json.',
    ],
    "finding": [
        "web-1 and web-2 answered 500 forty times within an hour after the deploy. Summarise it.",
        "The log says: \"user 'root' failed login\" 12 times from host bastion. Summarise it.",
        "Nothing unusual was seen on any of the hosts. Summarise it.",
        "db-3 replication lag is 900 seconds; db-4's is 2 seconds. Summarise it.",
    ],
    "handoff": [
        (
            "You renamed config/app.yaml to config/service.yaml and fixed the port in it. The next agent must update the docs. "
            "The old name may be in use by cron."
        ),
        "You changed nothing. The next agent needs the database password rotated. There is no risk.",
        'You deleted three stale branches and merged "feature/login". CI must run again; the tests are flaky.',
    ],
    "config": [
        'Service api on port 8080, started by `uvicorn app:main --host 0.0.0.0`, with LOG_LEVEL=debug and GREETING set to: say "hi".',
        "Service worker, port 9000, command python -m worker, no environment, disabled, no note.",
        (
            "Service proxy on port 443; command: nginx -g 'daemon off;'; env PATH_TO_CONF=C:\\nginx\\conf; it is enabled; "
            "note: restart it weekly."
        ),
    ],
}
MANNERS: Final = {
    "bare": "Answer with the JSON value alone.",
    "plain": "Answer in JSON.",
    "explain": "First explain in one or two sentences what you do, then give the JSON.",
    "think": "Think first inside <think></think>, where you may try a draft, then give the final JSON.",
    "revise": "Give a first draft of the JSON, then say what is wrong with it, then give the corrected JSON.",
    "xml": "Put the JSON between <tool_call> and </tool_call>.",
    "python": "Answer with a Python dict literal.",
    "comments": "Answer in JSON and add a // comment to each line that says why.",
    "yaml": "Answer in JSON5: keys without quotes where possible, single quotes, trailing commas.",
    "string": "Answer with the JSON encoded once more as one JSON string.",
    "markdown": "Answer in Markdown with a heading, the JSON in a code block, and a line on what happens next.",
}
TEMPERATURES: Final = (0.0, 0.7, 1.2)


def asked() -> list[tuple[str, str, str, float]]:
    """Give every (shape, task, manner, temperature), so that any prefix of the list holds something of each."""
    every = [(shape, task) for shape, tasks in TASKS.items() for task in tasks]
    found = []
    for turn in range(len(every) * len(TEMPERATURES)):
        for number, manner in enumerate(MANNERS):
            shape, task = every[(turn * 7 + number * 5) % len(every)]
            found.append((shape, task, manner, TEMPERATURES[(turn + number) % len(TEMPERATURES)]))
    return list(dict.fromkeys(found))


def main(model: str, name: str, count: int) -> None:
    """Print the answers of one model."""
    xllamacpp: Any = importlib.import_module("xllamacpp")  # of an environment of its own

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel = 2048, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    for number, (shape, task, manner, temperature) in enumerate(asked()[:count]):
        body: dict[str, Any] = {
            "messages": [
                {"role": "system", "content": f"You answer with {SHAPES[shape]}\n{MANNERS[manner]}"},
                {"role": "user", "content": task},
            ],
            "max_tokens": 60 if number % 17 == 16 else 320,
            "temperature": temperature,
            "seed": number,
        }
        choice = server.handle_chat_completions(body)["choices"][0]
        row = {
            "id": f"{name}-{number:03}",
            "model": name,
            "schema": shape,
            "manner": manner,
            "temperature": temperature,
            "seed": number,
            "finish": choice["finish_reason"],
            "text": choice["message"].get("content") or "",
        }
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
