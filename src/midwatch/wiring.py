"""Wiring: the one place that knows concrete adapters.

In:   a fleet file, a home, the environment. Out: an open store, or a `Kernel` with every part chosen.
May import: everything but surfaces. Must not know: how anything is shown.

Where state lives: `--home`, else `MIDWATCH_HOME`, else `$XDG_STATE_HOME/midwatch`, else `~/.local/state/midwatch`; 0700.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midwatch.checking import check_fleet
from midwatch.config.apart import not_apart
from midwatch.config.fleet import Fleet
from midwatch.errors import Denied, InvalidFleet, NotFound, SandboxError
from midwatch.governing_child import govern
from midwatch.records.event import Event
from midwatch.store import choice
from midwatch.store.port import Store, VerifyReport

if TYPE_CHECKING:
    from midwatch.engine.authority import Standing
    from midwatch.engine.context import RouteRuntime
    from midwatch.engine.kernel import Kernel
    from midwatch.engine.rightful import Rightful
    from midwatch.gates.review import Speaker
    from midwatch.governor.budgets import Budget
    from midwatch.sandbox.layers import Layer
    from midwatch.sandbox.port import Backend, Egress, Sandbox
    from midwatch.sandbox.profile import SandboxProfile
    from midwatch.tools.registry import Registry

__all__ = [
    "backend_of",
    "budget",
    "check_fleet",
    "clock",
    "copy_store",
    "has_store",
    "home_path",
    "load_fleet",
    "look",
    "open",
    "open_sandbox",
    "open_store",
    "pause",
    "untouched",
]

DATABASE = choice.DATABASE


def clock() -> int:
    """Microseconds UTC; the only clock of the product, handed to every room that needs one."""
    return time.time_ns() // 1000


def home_path(home: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Choose the home directory; nothing is created."""
    env = os.environ if environ is None else environ
    if home is not None:
        return Path(home).absolute()
    if env.get("MIDWATCH_HOME"):
        return Path(env["MIDWATCH_HOME"]).absolute()
    state = env.get("XDG_STATE_HOME")
    base = Path(state) if state else Path(env.get("HOME", "~")).expanduser() / ".local" / "state"
    return (base / "midwatch").absolute()


@contextlib.contextmanager
def open_store(home: Path, *, create: bool = False, environ: Mapping[str, str] | None = None) -> Iterator[Store]:
    """Open the home's store: a file in it, or the server that `MIDWATCH_STORE` names (`store.choice`).

    Raises:
        NotFound: there is no home yet and `create` is false.
        StoreError: it cannot be used; the message says why.
    """
    store = choice.open_chosen(home, os.environ if environ is None else environ, create=create)
    try:
        yield store
    finally:
        store.close()


def has_store(home: Path) -> bool:
    """Say whether this home has records already."""
    return choice.begun(home) or choice.address(os.environ) is not None


def copy_store(home: Path, url: str) -> VerifyReport:
    """Copy the records in a home's file to an empty store on a server (`store.copying`); the file stays as it is."""
    return choice.copy_home(home, url, at_us=clock())


@contextlib.contextmanager
def budget(name: str, *, home: str | Path | None = None, shared: bool = False, **limits: int | str) -> Iterator[Budget]:
    """Open a scope around a block: what its code claims, and every run that it starts or resumes, is charged to it, and bounded.

    Args:
        name: for people; each block is a scope of its own.
        shared: blocks of that name are one scope, in every process of the home.
        limits: by unit, as the fleet file writes them: `cost="$1.00"`, `tokens="120k"`, `tool_calls=3`, `wall="10m"`.

    Raises:
        UsageProblem: a limit that is none; or the block around is a scope of another home.
        BoundReached: by what is claimed in the block; its `scope` is the `account` of the scope that was hit.
    """
    from midwatch.governor import budgets  # noqa: PLC0415 - as in `open`

    with (
        open_store(home_path(home), create=True) as store,
        budgets.opened(store, name, limits, clock=clock, shared=shared) as made,
    ):
        yield made


def load_fleet(
    path: str | Path,
    *,
    preset: str | None = None,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
) -> tuple[Fleet, str]:
    """Load a fleet file and say in plain words which model it will use, and why; `models.routes.choose_preset` decides.

    Args:
        home: where it is to run: a file that a run of this home broke is taken as it was last endorsed.

    Raises:
        InvalidFleet: with every problem.
    """
    from midwatch.models.routes import choose_preset  # noqa: PLC0415 - the price list takes 0.2 s to load

    env = os.environ if environ is None else environ
    fleet = _load(path, preset, env, home)
    choice = choose_preset(env, fleet.presets, asked=preset)
    if choice.preset is not None and choice.preset != fleet.preset:
        fleet = _load(path, choice.preset, env, home)
    return fleet, f"{_start_info(fleet)}; {choice.words}"


def _load(path: str | Path, preset: str | None, env: Mapping[str, str], home: Path | None) -> Fleet:
    try:
        return Fleet.load(path, preset=preset, environ=env)
    except InvalidFleet as broken:
        if home is None or not has_store(home):
            raise
        from midwatch.engine.rightful import restored  # noqa: PLC0415 - only where a file is broken

        with open_store(home, environ=env) as store:
            return restored(store, Path(path), broken, preset=preset, environ=env, at_us=clock())


def look(store: Store, fleet: Fleet, *, speaker: Speaker, environ: Mapping[str, str]) -> None:
    """Judge a fleet's own authority as it is now, and write down what is pending; nothing of it is loaded or run."""
    from midwatch.engine.rightful import rightful  # noqa: PLC0415 - as in `open`

    with contextlib.suppress(Denied):  # that it would be refused is what the list says
        rightful(store, fleet, speaker=speaker, environ=environ, at_us=clock())


def untouched(fleet: Fleet, home: Path) -> None:
    """Make sure that no run of this home wrote the fleet's code, for commands that load it only to look at it; see `engine.rightful`."""
    from midwatch.engine.rightful import untouched as judged  # noqa: PLC0415 - as in `open`

    if has_store(home):
        with open_store(home) as store:
            judged(store, fleet)


def backend_of(level: str) -> Backend:
    """Make the backend of one level. It starts nothing yet; whoever takes it closes it.

    Raises:
        SandboxError: there is none of that name that isolates, or what it needs is not installed.
    """
    if level == "bubblewrap":
        from midwatch.sandbox.bubblewrap import BubblewrapBackend  # noqa: PLC0415 - each backend loads what only it needs

        return BubblewrapBackend()
    if level == "docker":
        from midwatch.sandbox.docker import DockerBackend  # noqa: PLC0415 - as above

        return DockerBackend()
    raise SandboxError(f"no backend `{level}` isolates; name `bubblewrap` or `docker`, or give a backend of your own")


@contextlib.asynccontextmanager
async def open_sandbox(
    profile: SandboxProfile,
    backend: str | Backend = "bubblewrap",
    *,
    layers: Sequence[Layer] = (),
    egress: Egress | None = None,
) -> AsyncIterator[Sandbox]:
    """Open one sandbox; it is closed with the block, and what no layer holds is gone. Blocking code: `SyncSandbox`.

    Args:
        profile: what its limits leave open is taken from `sandbox.profile.DEFAULT_LIMITS`.
        backend: its name, or an object, which is left open.
        layers: of an earlier sandbox with the same workspace, oldest first; its files are there again.
        egress: what answers requests; a broker of the profile's rules unless given. Without rules there is no way out.

    Raises:
        SandboxError: this machine cannot hold the profile; nothing was started, nothing was weakened.
    """
    from midwatch.sandbox.profile import merged  # noqa: PLC0415 - as in `open`

    whole = replace(profile, limits=merged(profile.limits))
    if whole.egress and egress is None:
        from midwatch.sandbox.egress import Broker  # noqa: PLC0415 - TLS and HTTP only where something may be asked

        egress = Broker(clock)
    async with contextlib.AsyncExitStack() as stack:
        if isinstance(backend, str):
            made = backend_of(backend)
            stack.push_async_callback(made.close)
        else:
            made = backend
        box = await made.start(whole, layers, egress=egress)
        stack.push_async_callback(box.close)
        yield box


def _start_info(fleet: Fleet) -> str:
    used = {fleet.route_of(name).alias: fleet.route_of(name) for name in fleet.agents}
    if any(route.provider == "scripted" for route in used.values()):
        return (
            "no model: answers come from the scripted provider, a local server that follows the fleet's scenario; tools, files and "
            "effects are real"
        )
    named = ", ".join(sorted({f"{route.provider}/{route.model}" for route in used.values()}))
    return f"model: {named} (preset `{fleet.preset or 'none'}`)"


@contextlib.contextmanager
def open(
    fleet: Fleet | str | Path,
    *,
    home: str | Path | None = None,
    preset: str | None = None,
    on_event: Callable[[Event], None] | None = None,
    environ: Mapping[str, str] | None = None,
    workdir: Path | None = None,
    token: str | None = None,
    channel: str = "python",
) -> Iterator[Kernel]:
    """Open a kernel for one fleet; everything it started is stopped when the block ends.

    Args:
        fleet: a `Fleet`, or the path of a fleet file or its folder.
        home: where state lives; see the module's head.
        on_event: called with every ledger event after its commit, on the writing thread.
        workdir: what file tools may see; the current directory by default.
        token: of whoever starts and steers runs; else `MIDWATCH_TOKEN`. Needed where the home knows people by token.
        channel: how they speak: `cli`, `terminal`, `api`, `python`.

    Raises:
        Denied: the home knows people by token, and this one is missing or unknown.
        InvalidFleet: with every problem of the fleet, its tools and its routes.
        StoreError, MissingExtra: nothing was started.
    """
    from midwatch.containment.credentials import Scrubber  # noqa: PLC0415 - heavy rooms load only when a run begins
    from midwatch.engine.kernel import Kernel, Parts  # noqa: PLC0415 - langgraph costs a second
    from midwatch.isolating import isolation  # noqa: PLC0415 - as above

    env = os.environ if environ is None else environ
    info, place = "", home_path(home, env)
    if not isinstance(fleet, Fleet):
        fleet, info = load_fleet(fleet, preset=preset, environ=env, home=place)
    with contextlib.ExitStack() as stack:
        workspace = workdir or Path.cwd()
        store = stack.enter_context(_store_for(fleet, env, place, workspace))
        speaker = _speaker(store, token, env, channel)
        right, fleet, registry, standings = _judged(store, fleet, speaker, env, place, workspace, stack)
        _listens(stack, store, on_event)
        scrub = Scrubber(_scrub_key(store))
        grounds = isolation(fleet, registry, home=place, env=env, clock=clock, make=backend_of, known=scrub.holds)
        parts = Parts(
            store=store,
            fleet=fleet,
            registry=registry,
            routes=_routes(stack, fleet, env, place),
            scrub=scrub,
            isolation=stack.enter_context(grounds),
            clock=clock,
            pause=pause,
            workdir=workspace.absolute(),
            govern=lambda: _govern(store, place, fleet, **choice.named(env)),
            start_info="; ".join(filter(None, (info or _start_info(fleet), right.told))),
            speaker=speaker,
            standings=standings,
            words=right.words,
        )
        yield Kernel(parts)


def _store_for(
    fleet: Fleet, env: Mapping[str, str], home: Path, workspace: Path
) -> contextlib.AbstractContextManager[Store]:
    """Open the store of a home, or make one: not for a fleet that is not sound."""
    if not has_store(home):
        _sound(fleet, env, home, workspace)
    return open_store(home, create=True, environ=env)


def _judged(
    store: Store,
    fleet: Fleet,
    speaker: Speaker,
    env: Mapping[str, str],
    home: Path,
    workspace: Path,
    ends: contextlib.ExitStack,
) -> tuple[Rightful, Fleet, Registry, tuple[Standing, ...]]:
    """Judge the fleet's own authority before any code of it is loaded, then its tools, whose standing comes last."""
    from midwatch.engine.rightful import rightful, withheld  # noqa: PLC0415 - as in `open`
    from midwatch.tools.registry import Registry  # noqa: PLC0415 - as in `open`

    right = rightful(store, fleet, speaker=speaker, environ=env, at_us=clock())
    _sound(right.fleet, env, home, workspace)
    registry = Registry.of_fleet(right.fleet, env)
    ends.callback(registry.close)
    tools, _ = withheld(store, right, registry, speaker=speaker, at_us=clock())
    return right, right.fleet, registry, (right.standing, tools)


def _sound(fleet: Fleet, env: Mapping[str, str], home: Path, workspace: Path) -> None:
    """Raise `InvalidFleet` with everything that keeps this fleet from running here; what it only wishes for, the kernel refuses."""
    errors, _, _ = check_fleet(fleet, env)
    kept = tuple(problem for problem in errors if problem.code != "not-guaranteed")
    kept = (*kept, *not_apart(fleet, home=home, workspace=workspace, environ=env))
    if kept:
        raise InvalidFleet(kept)


def _routes(stack: contextlib.ExitStack, fleet: Fleet, env: Mapping[str, str], home: Path) -> dict[str, RouteRuntime]:
    """Make every route that is used; scenarios get their server on loopback."""
    from midwatch.engine.context import RouteRuntime  # noqa: PLC0415 - langgraph costs a second
    from midwatch.models.openai import open_model  # noqa: PLC0415 - as above
    from midwatch.models.routes import route_price  # noqa: PLC0415 - as above
    from midwatch.models.scripted import ScriptedProvider  # noqa: PLC0415 - as above

    made: dict[str, RouteRuntime] = {}
    servers: dict[Path, str] = {}
    for alias in sorted(fleet.used_routes):
        spec = fleet.routes[alias]
        url = None
        if spec.scenario is not None:
            if spec.scenario not in servers:
                bill = home / f"scripted-bill-{fleet.name}.jsonl"
                server = ScriptedProvider(spec.scenario, bill=bill, clock=clock, keep_requests=False)
                servers[spec.scenario] = stack.enter_context(server).base_url
            url = servers[spec.scenario]
        model = open_model(spec, environ=env, clock=clock, scripted_url=url)
        stack.callback(model.close)
        made[alias] = RouteRuntime(
            model, route_price(spec, at_us=clock()), spec.max_output, spec.retries, spec.timeout_us, spec.protocol
        )
    return made


def _speaker(store: Store, token: str | None, env: Mapping[str, str], channel: str) -> Speaker:
    from midwatch.engine.identity import TOKEN_VARIABLE, identify  # noqa: PLC0415 - as in `open`

    user = env.get("USER") or env.get("LOGNAME") or f"uid {os.getuid()}"
    return identify(store, token=token or env.get(TOKEN_VARIABLE), user=user, channel=channel)


def _scrub_key(store: Store) -> bytes:
    """The home's own key for credential markers; made once, first writer wins."""
    from midwatch.containment.credentials import SCRUB_KEY  # noqa: PLC0415 - as in `open`

    key = store.write(lambda tx: tx.watch.setting(SCRUB_KEY, secrets.token_bytes(32)), durable=True)
    if key is None:
        raise NotFound("the home's key for credential markers is missing")
    return key


def _listens(stack: contextlib.ExitStack, store: Store, on_event: Callable[[Event], None] | None) -> None:
    if on_event is not None:
        stack.callback(store.on_commit(_listener(store, on_event)))


def _listener(store: Store, on_event: Callable[[Event], None]) -> Callable[[Any], None]:
    def tell(seqs: Any) -> None:
        for seq in seqs:
            event = store.read(lambda tx, seq=seq: tx.ledger.get(seq))  # type: ignore[misc]
            if event is not None:
                on_event(event)

    return tell


async def pause(microseconds: int) -> None:
    """Wait; the only way in which the product lets time pass, handed to every room that needs one."""
    await asyncio.sleep(microseconds / 1_000_000)


def _govern(store: Store, home: Path, fleet: Fleet, server: str | None = None) -> None:
    """Make sure that a governor lives, as the fleet says. RunHalted: none does."""
    environ = {**os.environ, choice.VARIABLE: server or ""}
    govern(store, home, fleet.name, fleet.governor, clock=clock, environ=environ)
