"""Shell: one program, run to its end in the agent's sandbox. No shell reads the words.

In:   a program and its arguments. Out: exit code and the end of what it printed.
May import: the decorator, the markers, errors; the standard library. Must not know: who asks.
Why the worst effect class: a program can do anything that its user can, and nobody knows it beforehand.
"""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass
from typing import IO, Annotated, Final

from pydantic import Field

from midwatch.errors import ToolFailure
from midwatch.tools.binding import ToolContext
from midwatch.tools.contract import EVERYONE, Arg, Out
from midwatch.tools.decorate import tool

__all__ = ["run"]

TAIL: Final = 3_000
_CHUNK: Final = 65_536


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended. `exit_code` is negative for a signal; `stdout` and `stderr` are the end of each."""

    exit_code: int
    stdout: Annotated[str, Field(max_length=TAIL)]
    stderr: Annotated[str, Field(max_length=TAIL)]
    stdout_bytes: Annotated[int, Field(ge=0)]
    stderr_bytes: Annotated[int, Field(ge=0)]


class _Tail:
    """The end of a stream and how long it was, gathered in a thread of its own."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.kept, self.total = stream, b"", 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream:  # closed by its only reader, at its end
            while data := self._stream.read(_CHUNK):  # unbuffered: gives what there is
                self.total += len(data)
                self.kept = (self.kept + data)[-4 * TAIL :]

    def text(self) -> str:
        self._thread.join(timeout=1)  # who went to the background may hold the stream open
        return self.kept.decode("utf-8", "replace")[-TAIL:]


@tool(
    name="shell.run",
    effect="grants_authority",
    idempotent=False,
    reversible=False,
    open_world=True,
    observers=(EVERYONE,),
    runs="sandbox",
    timeout="60s",
    max_bytes="16KiB",
)
def run(
    context: ToolContext,
    command: Annotated[
        list[Annotated[str, Field(max_length=4096)]], Field(min_length=1, max_length=100), Arg(role="command")
    ],
) -> Annotated[Ran, Out(author="third_party")]:
    """Run one program with its arguments in the working directory, and tell how it ended and what it printed last.

    Args:
        command: the program, then one entry for each argument; no shell reads it.
    """
    if "\x00" in "".join(command) or not command[0]:
        raise ToolFailure("invalid_arguments", "the command has an empty program or a zero byte")
    try:
        child = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=context.workdir,
        )
    except FileNotFoundError:
        raise ToolFailure("not_found", "there is no program of that name") from None
    except PermissionError:
        raise ToolFailure("denied", "the program may not be executed") from None
    except OSError as failure:
        raise ToolFailure("unavailable", "the program cannot be started") from failure
    if child.stdout is None or child.stderr is None:
        raise ToolFailure("unavailable", "the program cannot be read")
    stdout, stderr = _Tail(child.stdout), _Tail(child.stderr)
    code = child.wait()
    return Ran(code, stdout.text(), stderr.text(), stdout.total, stderr.total)
