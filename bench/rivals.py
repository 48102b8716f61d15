"""Rivals: what others offer in place of a sandbox of ours, each run as its makers say: Docker's own command line, sandbox-runtime.

In:   what to run inside. Out: `Row`s; a `Missing` where something cannot be had here, with the reason in words.
Must not know: Midwatch. No `main`: `bench.sandbox` prints all of it in one table.
What is fetched lies below `.docker-engine/`, which no commit takes, and is fetched only when the caller asks for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Docker", "Missing", "Row", "docker", "plain", "sandbox_runtime", "waited"]

_ROOT = Path(__file__).resolve().parent.parent
_SCRIPT = _ROOT / "scripts" / "docker_engine.py"
_SCRATCH = _ROOT / ".docker-engine"
_FILES = """
import os, sys
for number in range(10_000):
    folder = f"/made/{number % 50}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{number}.py", "w") as file:
        file.write(f"{number}" * 200)
"""


class Missing(Exception):
    """It cannot be had here; the text says why."""


def _nothing() -> float:
    return 0.0


@dataclass(slots=True)
class Row:
    """One line of the table.

    Attributes:
        act: does it once; or more often, and gives the milliseconds of each. times: how often in each round.
        elsewhere: milliseconds of processor time so far of processes that are no children of this one.
        before, after: what is not measured. walls, cpus: milliseconds of each time.
    """

    name: str
    act: Callable[[], Awaitable[object]]
    times: int = 1
    elsewhere: Callable[[], float] = _nothing
    before: Callable[[], Awaitable[object]] | None = None
    after: Callable[[], Awaitable[object]] | None = None
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)


def waited(argv: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a program to its end, its output thrown away, by the cheapest call there is."""
    quiet = [(os.POSIX_SPAWN_OPEN, place, os.devnull, os.O_RDWR, 0) for place in (0, 1, 2)]
    pid = os.posix_spawn(argv[0], argv, environment or {}, file_actions=quiet)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, f"{argv[0]} ended with {code}"


def plain(
    name: str, argv: list[str], environment: dict[str, str] | None = None, elsewhere: Callable[[], float] = _nothing
) -> Row:
    """Give the row of a program."""

    async def act() -> None:
        waited(argv, environment)

    return Row(name, act, elsewhere=elsewhere)


@dataclass(frozen=True, slots=True)
class Docker:
    """An engine and its command line."""

    host: str
    program: str
    group: Path | None

    def run(self, *words: str) -> str:
        """Give what a command says."""
        said = subprocess.run(
            [self.program, *words], check=True, capture_output=True, text=True, timeout=120, env=self.environment
        )
        return said.stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        """What the command line needs."""
        return {"DOCKER_HOST": self.host, "HOME": str(_SCRATCH)}

    def inside(self) -> float:
        """Give the processor time of all containers so far, living and dead."""
        return 0.0 if self.group is None else int((self.group / "cpuacct.usage").read_text()) / 1e6

    def rows(self, image: str, command: list[str]) -> Iterator[Row]:
        """Give `docker run` and `docker exec`."""
        held = self.run("run", "--detach", "--network", "none", image, *command[:-1], "import time; time.sleep(600)")
        yield plain(
            "docker run",
            [self.program, "run", "--rm", "--network", "none", image, *command],
            self.environment,
            elsewhere=self.inside,
        )
        yield plain("docker exec", [self.program, "exec", held, *command], self.environment, elsewhere=self.inside)

    def diff(self, image: str, python: str) -> tuple[float, int]:
        """Have 10,000 files made in a container; give how long `docker diff` takes, in milliseconds, and how many lines it says."""
        name = f"bench-diff-{os.getpid()}"
        self.run("run", "--name", name, "--network", "none", image, python, "-I", "-S", "-c", _FILES)
        took = []
        for _ in range(3):
            began = time.perf_counter()
            lines = self.run("diff", name).splitlines()
            took.append((time.perf_counter() - began) * 1000)
        self.run("rm", "--force", name)
        return min(took), len(lines)


@contextlib.contextmanager
def docker() -> Iterator[Docker]:
    """Give the engine that DOCKER_HOST names, else a private one for as long as this is open.

    Raises:
        Missing: there is none.
    """
    given, name = os.environ.get("DOCKER_HOST", ""), f"bench-{os.getpid()}"
    try:
        host = given or _engine("start", name, "--while", str(os.getpid()))
        unpacked = _SCRATCH / "root" / "usr" / "bin" / "docker"
        program = str(unpacked) if unpacked.exists() and not given else shutil.which("docker")
        if program is None:
            raise Missing("no `docker` on PATH")
        group = Path("/sys/fs/cgroup/cpuacct") / f"midwatch-engine-{name}"
        yield Docker(host, program, group if group.is_dir() else None)
    finally:
        if not given:
            with contextlib.suppress(Missing):
                _engine("stop", name)


def _engine(*words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-I", str(_SCRIPT), *words], check=False, capture_output=True, text=True, timeout=150
    )
    if ended.returncode != 0:
        raise Missing(f"no Docker engine: {ended.stderr.strip().splitlines()[-1:]}")
    return ended.stdout.strip()


def sandbox_runtime(command: list[str], *, fetch: bool) -> Row:
    """Give the row of Anthropic's sandbox-runtime, as its command line runs it.

    Raises:
        Missing: it is not there and may not be fetched, or what it needs is missing.
    """
    place = _SCRATCH / "sandbox-runtime"
    program = place / "node_modules" / ".bin" / "srt"
    if not program.exists():
        if not fetch:
            raise Missing("not here; `python -m bench.sandbox --srt` fetches it from npm")
        _fetched(place)
    path = f"{place}/root/usr/bin:{os.environ['PATH']}"
    for name in ("node", "socat", "rg", "bwrap"):
        if shutil.which(name, path=path) is None:
            raise Missing(f"it needs `{name}`, which is not installed")
    version = json.loads((place / "node_modules/@anthropic-ai/sandbox-runtime/package.json").read_text())["version"]
    settings = place / "settings.json"
    settings.write_text(
        json.dumps(
            {
                "network": {"allowedDomains": [], "deniedDomains": []},
                "filesystem": {"denyRead": [], "allowWrite": ["."], "denyWrite": []},
            }
        )
    )
    libraries = ":".join(str(folder) for folder in (place / "root").glob("usr/lib/*-linux-*"))
    environment = {"PATH": path, "HOME": str(place), "LD_LIBRARY_PATH": libraries}
    argv = [str(program), "--settings", str(settings), "-c", shlex.join(command)]
    tried = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60, env=environment)
    if tried.returncode != 0:
        raise Missing(
            f"version {version} ends with {tried.returncode}: {(tried.stderr or tried.stdout).strip()[-200:]}"
        )
    return plain(f"sandbox-runtime {version}", argv, environment)


def _fetched(place: Path) -> None:
    if shutil.which("npm") is None:
        raise Missing("it comes by `npm`, which is not installed")
    place.mkdir(parents=True, exist_ok=True)
    commands = [["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), "@anthropic-ai/sandbox-runtime"]]
    packages = {"socat": ("socat", "libwrap0"), "rg": ("ripgrep",)}
    wanted = [package for name, some in packages.items() if shutil.which(name) is None for package in some]
    if wanted and shutil.which("apt-get"):
        commands.append(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *wanted])
    for command in commands:
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=place)
        if ended.returncode != 0:
            raise Missing(f"`{' '.join(command[:2])}` failed: {ended.stderr.strip()[-200:]}")
    for package in place.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(place / "root")], check=True, timeout=60)
