"""A program that a plain user runs: what a run in sandboxes promises, held without any right; it says in words what does not.

In:   `python -m tests.scenario.plain_user FOLDER`, an empty folder of the user's own. Out: a line of JSON, each fact by its name.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from midwatch import wiring
from midwatch.errors import InvalidFleet
from midwatch.isolating import sandboxes
from midwatch.sandbox.launching import runtime_folder
from tests.scenario.studio import Call, Host, Studio, write


def staged(root: Path) -> dict[str, Any]:
    """Write, read, break off, meet; commit, and undo."""
    calls: list[list[Call]] = [
        write("a.txt"),
        [("bad", {"path": "b", "how": "crash"})],
        [("look", {"path": "b"}), ("look", {"path": "a.txt"})],
    ]
    studio = Studio(root / "staged", calls)
    run = studio.carry().run
    told: dict[str, Any] = {"results": studio.results(run), "before": studio.files(), "staged": studio.paths(run)}
    told["committed"] = (studio.commit(run).status, studio.files())
    with studio.opened() as kernel:
        told["undone"] = [item.outcome for item in kernel.undo(run)]
        told["after"] = (kernel.commit(run).status, studio.files())
    return told | {"living": studio.living()}


def sent(root: Path) -> dict[str, Any]:
    """Read through the broker, and have a write held back until the commit."""
    with Host() as host:
        calls: list[list[Call]] = [[("post", {"path": "/one", "body": "1"})], [("get", {"path": "/two"})]]
        studio = Studio(root / "sent", calls, sandbox=host.rule(", stage: true"))
        (studio.meeting / "host").write_text(f"http://localhost:{host.port}")
        run = studio.carry().run
        before = [item[1] for item in host.seen]
        studio.commit(run)
        statuses = [item["status"] if isinstance(item, dict) else item for item in studio.results(run)]
        return {"statuses": statuses, "asked": before, "sent": [item[1] for item in host.seen]}


def refused(root: Path) -> dict[str, Any]:
    """Ask for a bound of the whole tree, which takes control groups that nobody gave this user."""
    try:
        Studio(root / "refused", [write("a.txt")], sandbox="limits: {memory: 100MiB}").carry()
    except InvalidFleet as error:
        return {"refused": "cannot bound memory" in str(error)}
    return {"refused": False}


def killed(root: Path) -> dict[str, Any]:
    """Kill the kernel in a call; then go on."""
    studio = Studio(
        root / "killed", [write("a.txt"), [("meet", {"path": "b.txt", "text": "B"})], [("look", {"path": "a.txt"})]]
    )
    child = os.fork()
    if child == 0:
        studio.carry()
        os._exit(0)
    pause = threading.Event()
    while not _began(studio):
        pause.wait(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left = _inside()
    for _ in range(300):
        left = _inside()
        if not left:
            break
        pause.wait(0.01)
    (studio.meeting / "go").write_text("")
    result = studio.carry(studio.freed())
    folder = runtime_folder()
    return {
        "left": left,
        "went_on": (result.status, studio.results(result.run)),
        "register": len(list((studio.home / "sandboxes").iterdir())) + len(sandboxes(studio.home).list()),
        "runtime": [path.name for path in folder.glob("box.*")] + [path.name for path in (folder / "users").glob("*")],
    }


def _began(studio: Studio) -> bool:
    if not (studio.home / wiring.DATABASE).exists():
        return False
    with wiring.open_store(studio.home) as store:
        events = store.read(lambda tx: tx.ledger.read(kinds=("intent",), limit=100))
    return any(event.data.get("tool") == "ops.meet" for event in events)


def _inside() -> list[str]:
    """Give this user's processes that are the launcher, bubblewrap, or live in a sandbox: those with no environment of this process."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            text = (place / "cmdline").read_bytes()
            mine = place.stat().st_uid == os.getuid()
        except OSError:
            continue
        if mine and (b"/sandbox/launcher.py" in text or b"bwrap" in text or b"/sandbox/cell.py" in text):
            found.append(text.replace(b"\0", b" ").decode("utf-8", "replace")[:200])
    return found


def main() -> None:
    """Tell all of it."""
    root = Path(sys.argv[1])
    told: dict[str, Any] = {"uid": os.getuid()}
    for part in (staged, sent, refused, killed):
        told |= part(root)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
