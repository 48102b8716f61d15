"""Isolating: the part of the wiring that knows which sandboxes there are, and what a fleet's words mean for them.

In:   a fleet, its tools, a home, a workspace. Out: `Isolation`, open for one block.
May import: as wiring. Must not know: runs, how anything is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from midwatch.config.fleet import Fleet
from midwatch.config.sandbox_mounts import holds_home, reach
from midwatch.config.specs import SandboxSpec
from midwatch.errors import InvalidFleet, Problem, SandboxError
from midwatch.sandbox import cgroups
from midwatch.sandbox.effects import Request
from midwatch.sandbox.living import Living, Register
from midwatch.sandbox.port import Backend, Egress, Sandbox
from midwatch.sandbox.profile import SandboxProfile, interpreter, merged

if TYPE_CHECKING:
    from midwatch.engine.staging import Isolation
    from midwatch.sandbox.egress import Api, Bars
    from midwatch.tools.registry import Registry

__all__ = ["backends_of", "isolation", "profile_of", "sandboxes"]


def sandboxes(home: Path) -> Register:
    """Give the living sandboxes of a home."""
    return Register(home / "sandboxes")


def backends_of(fleet: Fleet, make: Callable[[str], Backend]) -> dict[str, Backend]:
    """Make every backend that an agent of the fleet needs.

    Raises:
        InvalidFleet: this machine cannot hold one of them; every one is named, and what to do.
    """
    made: dict[str, Backend] = {}
    problems: list[Problem] = []
    for name in sorted(fleet.agents):
        spec = fleet.sandbox_of(name)
        word = spec.backend or "bubblewrap"
        if word == "process":
            continue
        place = (
            fleet.where("agents", name, "sandbox") if fleet.agents[name].sandbox is not None else fleet.where("sandbox")
        )
        try:
            if word not in made:
                made[word] = make(word)
            refuse = getattr(made[word], "refuse", None)
            if refuse is not None:
                refuse(merged(spec.limits))
        except SandboxError as refused:
            problem = Problem(place, f"the sandbox of `{name}` cannot be held here: {refused}", "sandbox")
            if str(problem) not in map(str, problems):
                problems.append(problem)
    if problems:
        raise InvalidFleet(tuple(problems))
    return made


@contextlib.contextmanager
def isolation(
    fleet: Fleet,
    registry: Registry,
    *,
    home: Path,
    env: Mapping[str, str],
    clock: Callable[[], int],
    make: Callable[[str], Backend],
    known: Callable[[str], bool],
) -> Iterator[Isolation]:
    """Choose where each agent's tools act. Every sandbox is closed when the block ends.

    Args:
        make: a backend by its word. known: says whether a text holds a credential.
    """
    from midwatch.engine.staging import Isolation  # noqa: PLC0415 - langgraph costs a second
    from midwatch.sandbox.process import ProcessSandbox  # noqa: PLC0415 - as above

    backends = backends_of(fleet, make)
    folders = _code(registry)
    if backends:
        _kept_apart((*folders, *(_interpreter() if "bubblewrap" in backends else ())), home, env)
    code = (*folders, *(program.path for agent in fleet.agents.values() for program in agent.programs))

    def egress(spec: SandboxSpec, api: Api | None, bars: Bars | None) -> Egress | None:
        if not spec.egress and api is None:
            return None
        from midwatch.sandbox.egress import Broker  # noqa: PLC0415 - only where something may be asked

        return Broker(clock, known=known, api=api, bars=bars)

    async def send(agent: str, request: Request, body: bytes) -> Request:
        from midwatch.sandbox.egress import Broker  # noqa: PLC0415 - as above

        spec = fleet.sandbox_of(agent)
        return await Broker(clock, known=known).send_staged(request, body, spec.egress, _secrets(spec, env))

    try:
        yield Isolation(
            plain=ProcessSandbox(fleet.sandbox.limits),
            backends=backends,
            specs={name: fleet.sandbox_of(name) for name in fleet.agents},
            profile=lambda spec, workspace: profile_of(spec, workspace, code=code, env=env),
            egress=egress,
            layers=home / "layers",
            send=send,
            default=fleet.sandbox,
            imports=lambda name: "" if fleet.sandbox_of(name).image is not None else _packages(code),
            living=_living(sandboxes(home), clock),
            held=sandboxes(home).held,
        )
    finally:
        for backend in backends.values():
            _closed(backend)


def _living(register: Register, clock: Callable[[], int]) -> Callable[[str, str, Sandbox, bool], None]:
    """Make what notes every sandbox that begins and ends; what a killed process noted is forgotten."""
    register.list()

    def living(run: str, agent: str, sandbox: Sandbox, begins: bool) -> None:  # noqa: FBT001 - as the port names it
        if not begins:
            register.ended(sandbox.name)
            return
        group = getattr(sandbox, "group", None)
        where = {} if group is None else {key: str(path) for key, path in group.where.items()}
        supervisor = cgroups.named("supervisor")
        register.began(Living(sandbox.name, run, agent, sandbox.level, supervisor, clock(), where))

    return living


def profile_of(spec: SandboxSpec, workspace: Path, *, code: tuple[Path, ...], env: Mapping[str, str]) -> SandboxProfile:
    """Say what a fleet's words mean for a workspace."""
    return SandboxProfile(
        workspace=workspace,
        limits=merged(spec.limits),
        code=code,
        mounts=spec.mounts,
        egress=spec.egress,
        secrets=_secrets(spec, env),
        env=spec.env,
        image=spec.image,
        runtime=spec.runtime,
    )


def _secrets(spec: SandboxSpec, env: Mapping[str, str]) -> dict[str, str]:
    return {name: env[name] for name in spec.secrets if name in env}


def _code(registry: Registry) -> tuple[Path, ...]:
    """Give what workers import from: this process's import path and the files of the fleet's tools; never `/`, never a home.

    The folder that this process was started in is on its import path where it was started as a module. It holds a person's whole project,
    and the agent would read it as that person does, so it is shown only where a tool of the fleet is imported from it.
    """
    sources = [(registry.get(name).ref or "").rpartition(":")[0] for name in registry.names()]
    files = {Path(source) for source in sources if source.endswith(".py")} | {
        path for one in registry.sources for path in one.files
    }
    modules = {source.partition(".")[0] for source in sources if source and not source.endswith(".py")}
    folders = {Path(entry) for entry in sys.path if Path(entry).is_absolute()} | {Path(sysconfig.get_path("purelib"))}
    too_much = {Path("/"), Path.home(), *Path.home().parents}
    here = Path.cwd()
    if not any((here / name).is_dir() or (here / f"{name}.py").is_file() for name in modules):
        too_much.add(here)
    return tuple(sorted(path for path in files | folders if path.exists() and path.resolve() not in too_much))


def _interpreter() -> tuple[Path, ...]:
    """Give what is shown so that this machine's Python runs: where it is installed, which for one in `~/bin` is a person's own folder."""
    return (Path(interpreter()).parents[1],)


def _kept_apart(folders: Iterable[Path], home: Path, env: Mapping[str, str]) -> None:
    """Refuse an import path that would show what no mount may show.

    Raises:
        InvalidFleet: every such folder is named, and what to do.
    """
    problems = []
    for folder in folders:
        real = folder.resolve()
        wrong = "would show Midwatch's home" if real.is_dir() and holds_home(real, home) else reach(real, env)
        if wrong is not None:
            message = f"the import path `{folder}`, which sandboxes see, {wrong}; start it with another (`PYTHONPATH`, folder, Python)"
            problems.append(Problem("", message, "mount-reach"))
    if problems:
        raise InvalidFleet(tuple(problems))


def _packages(code: Iterable[Path]) -> str:
    """Give the folders of installed packages among what is shown; an image of the user's own may have another Python."""
    return ":".join(str(path) for path in code if path.name in ("site-packages", "dist-packages"))


def _closed(backend: Backend) -> None:
    """Close a backend from wherever this is: a loop may be running in this thread."""
    thread = threading.Thread(target=lambda: asyncio.run(backend.close()), name="midwatch-close")
    thread.start()
    thread.join()
