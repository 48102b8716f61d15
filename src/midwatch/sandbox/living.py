"""Living: which sandboxes of a home live, for operators in other processes: each a small file, and a hold on its control group.

In:   sandboxes as they begin and end. Out: `Living`, by which another process sees, holds, lets go and kills them.
May import: cgroups, port's types, errors. Must not know: what runs in them.
Why files and no table: they belong to a machine's processes, not to the home's history; what a killed supervisor left is swept here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from midwatch.errors import NotFound, SandboxError
from midwatch.sandbox import cgroups
from midwatch.sandbox.port import Stats

__all__ = ["Living", "Register"]


@dataclass(frozen=True, slots=True)
class Living:
    """One sandbox that lives.

    Attributes:
        supervisor: a name of `cgroups.named`, by which it is known whether the process that holds the sandbox lives.
        where: the control group's folder, by controller; empty where the sandbox has none.
    """

    name: str
    run: str
    agent: str
    level: str
    supervisor: str
    began_us: int
    where: Mapping[str, str] = field(default_factory=dict)

    def group(self) -> cgroups.Group:
        """Take hold of its processes.

        Raises:
            SandboxError: it has no control group; only the process that holds it can act on it.
        """
        if not self.where:
            raise SandboxError(f"sandbox `{self.name}` has no control group; stop its run instead")
        return cgroups.Group(self.name, {key: Path(path) for key, path in self.where.items()}, cgroups.Clock())

    def stats(self) -> Stats:
        """Read the kernel's counters; empty where there are none."""
        return self.group().stats() if self.where else Stats()


class Register:
    """The living sandboxes of one home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def began(self, living: Living) -> None:
        """Note one."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        body: dict[str, Any] = asdict(living)
        path = self._folder / f"{living.name}.json"
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(orjson.dumps(body))
        fresh.replace(path)

    def ended(self, name: str) -> None:
        """Forget one; none there is fine."""
        (self._folder / f"{name}.json").unlink(missing_ok=True)
        self._mark(name).unlink(missing_ok=True)

    def hold(self, living: Living) -> None:
        """Stop a sandbox where it stands, until `let`: its supervisor begins no call in it meanwhile, and counts no time against one.

        Raises:
            SandboxError: it has no control group, or cannot be frozen. It goes on.
        """
        group = living.group()
        self._mark(living.name).touch(mode=0o600)
        try:
            group.freeze()
        except SandboxError:
            self._mark(living.name).unlink(missing_ok=True)
            raise

    def let(self, living: Living) -> None:
        """Let a sandbox go on that was held."""
        self._mark(living.name).unlink(missing_ok=True)
        living.group().thaw()

    def held(self, name: str) -> bool:
        """Say whether an operator holds a sandbox."""
        return self._mark(name).exists()

    def _mark(self, name: str) -> Path:
        return self._folder / f"{name}.held"

    def list(self) -> list[Living]:
        """Give those whose supervisor lives, oldest first; the files of the others are removed."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
                living = Living(**orjson.loads(path.read_bytes()))
                if cgroups.supervised(living.supervisor):
                    found.append(living)
                else:
                    path.unlink(missing_ok=True)
                    self._mark(path.stem).unlink(missing_ok=True)
        return sorted(found, key=lambda item: item.began_us)

    def find(self, prefix: str) -> Living:
        """Give the one whose name begins so.

        Raises:
            NotFound: there is none, or more than one.
        """
        found = [item for item in self.list() if item.name.startswith(prefix)]
        if len(found) != 1:
            said = "no living sandbox" if not found else f"{len(found)} living sandboxes"
            raise NotFound(f"{said} named `{prefix}…`; `midwatch sandbox ls` lists them")
        return found[0]
