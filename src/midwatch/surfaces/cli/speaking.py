"""Speaking: who a command speaks for: a token from a file or the environment, or whoever works on the machine.

In:   options, the environment, an open store. Out: a `Speaker`.
May import: errors; the engine's identity when a command runs. Must not know: what is said.
Why never a token as an argument: every user of the machine reads other people's arguments with `ps`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import operator

if TYPE_CHECKING:
    from midwatch.gates.review import Speaker
    from midwatch.store.port import Store

__all__ = ["read_token", "speaker", "token_option"]

_Callback = TypeVar("_Callback", bound=Callable[..., Any])
_LONGEST = 4096
_NAME = 64


def token_option(callback: _Callback) -> _Callback:
    """Give a command `--token-file`."""
    return click.option(
        "--token-file",
        metavar="FILE",
        help="File with your token; else MIDWATCH_TOKEN. Never an argument: others see those.",
    )(callback)


def read_token(token_file: str | None) -> str | None:
    """Read the token of the file, else of the environment. UsageProblem: the file cannot be read or holds none."""
    if token_file is None:
        return os.environ.get("MIDWATCH_TOKEN") or None
    try:
        with Path(token_file).open(encoding="utf-8") as file:  # never all of it: the name may lead to what has no end
            text = file.read(_LONGEST).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageProblem(f"the token file `{token_file}` cannot be read: {reason}") from error
    if not text:
        raise UsageProblem(f"the token file `{token_file}` is empty")
    return text


def speaker(store: Store, token_file: str | None, by: str | None = None, *, channel: str = "cli") -> Speaker:
    """Say who speaks.

    Args:
        by: a name of one's own choice; only where the home knows nobody by token.

    Raises:
        Denied: a token is needed, or is not known. UsageProblem: `by` where people have tokens, or no plain name.
    """
    from midwatch.engine.identity import identify
    from midwatch.gates.review import Speaker as Made

    found = identify(store, token=read_token(token_file), user=operator(None), channel=channel)
    if by is None:
        return found
    if found.principal is not None:
        raise UsageProblem(
            "this home knows its people by token, so `--by` means nothing here; your token says who you are"
        )
    if not by.isprintable() or "," in by or not 0 < len(by) <= _NAME:
        raise UsageProblem(f"`--by` must be one name of at most {_NAME} plain characters, without commas")
    return Made(by, None, channel)
