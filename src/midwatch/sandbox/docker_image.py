"""Docker image: what a container's cell runs on: one made from this machine's Python, or the operator's own, looked at first.

In:   an engine, the name of an image or None. Out: `Image`: its name, its interpreter, where that imports from.
May import: docker_api, errors, anyio. Must not know: profiles, sandboxes.
Why one is made: nothing is pulled, so a sandbox needs no registry and no network; and workers import what is installed on this
machine, which only the same Python can. Its tag is a digest of all it holds: made once, made anew when this machine has changed.
Why the operator's own is probed: a Python with another binary interface fails late, in the middle of a call, and in odd words.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import anyio.to_thread

from midwatch.errors import SandboxError
from midwatch.sandbox.docker_api import Engine
from midwatch.sandbox.profile import interpreter

__all__ = ["BIN", "REPOSITORY", "Image", "contents", "interpreter", "of_machine", "of_operator"]

REPOSITORY: Final = "midwatch-python"
BIN: Final = "/opt/midwatch/bin"
"""Where `python` and `python3` lead to the interpreter, whatever its path is."""

_PROGRAMS: Final = (
    "sh dash bash env arch b2sum base32 base64 basename cat chgrp chmod chown cksum comm cp csplit cut date dd df dir dirname du "
    "echo expand expr factor false fmt fold head id install join link ln logname ls md5sum mkdir mkfifo mktemp mv nice nl nohup "
    "nproc numfmt od paste pathchk pr printenv printf pwd readlink realpath rm rmdir seq sha1sum sha256sum sha512sum shred shuf "
    "sleep sort split stat stdbuf stty sum sync tac tail tee test timeout touch tr true truncate tsort tty uname unexpand uniq "
    "unlink users vdir wc whoami yes [ grep egrep fgrep sed awk mawk find xargs tar gzip gunzip zcat diff cmp patch which ps kill "
    "setsid flock"
)
_LIBRARIES: Final = (
    *("libgcc_s.so.1", "libstdc++.so.6", "libz.so.1"),
    *("libm.so.6", "libpthread.so.0", "librt.so.1", "libdl.so.2", "libutil.so.1"),
)
"""What extension modules may take for granted on any Linux: the C library's old parts are named by wheels that were built on old ones."""
_DATA: Final = ("/usr/lib/locale/C.utf8", "/etc/ssl/certs/ca-certificates.crt", "/etc/ld.so.cache")
_SKIPPED: Final = {"test", "tests", "idlelib", "turtledemo", "tkinter", "ensurepip", "lib2to3", "pydoc_data"}
_SKIPPED_TOO: Final = {"site-packages", "dist-packages"}
"""What is installed is shown by each profile, for the agent that needs it."""
_EMPTY: Final = ("dev", "proc", "sys", "tmp", "run/midwatch", "workspace", "etc")
_CHUNK: Final = 1 << 20
_CONFIG: Final = (
    "LABEL midwatch.image=python",
    f"ENV PATH={BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)
_PROBE: Final = (
    "import json, os, sys, sysconfig; print(json.dumps({'python': os.path.realpath(sys.executable), "
    "'soabi': sysconfig.get_config_var('SOABI'), 'path': [part for part in sys.path if part]}))"
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image that cells can run on.

    Attributes:
        python: absolute path of its interpreter, no link. path: where that imports from by itself; empty: as on this machine.
        volumes: folders that it declares as volumes.
    """

    name: str
    python: str
    path: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


async def of_machine(engine: Engine) -> Image:
    """Find the image of this machine's Python, or make it.

    Raises:
        SandboxError: this machine lacks what it is made with, or the engine refuses it.
    """
    with tempfile.TemporaryFile() as file:
        tag = await anyio.to_thread.run_sync(_written, cast("BinaryIO", file))
        name = f"{REPOSITORY}:{tag}"
        if await engine.image(name) is None:
            await engine.import_image(_read(cast("BinaryIO", file)), REPOSITORY, tag, _CONFIG)
    return Image(name, interpreter())


async def of_operator(engine: Engine, name: str) -> Image:
    """Look whether cells can run on an image that the operator named.

    Raises:
        SandboxError: it is not there, or they cannot; the text says why.
    """
    known = await engine.image(name)
    if known is None:
        raise SandboxError(
            f"the Docker engine has no image `{name}`, and nothing is pulled from here; `docker pull {name}` first"
        )
    volumes = tuple(sorted((known.get("Config") or {}).get("Volumes") or {}))
    if volumes:
        raise SandboxError(
            f"image `{name}` declares volumes ({', '.join(volumes)}), which no limit bounds; use one without `VOLUME`"
        )
    said = await _probed(engine, name)
    ours = sysconfig.get_config_var("SOABI")
    if said.get("soabi") != ours:
        raise SandboxError(
            f"image `{name}` has a Python whose binary interface is `{said.get('soabi')}`; workers import what is installed here, "
            f"which is for `{ours}`. Use an image with the same Python, or leave `image` out"
        )
    python, path = said.get("python"), said.get("path")
    if not (isinstance(python, str) and python.startswith("/") and isinstance(path, list)):
        raise SandboxError(f"`python3` of image `{name}` says of itself what no Python says; use another image")
    return Image(name, python, tuple(str(part) for part in path))


async def _probed(engine: Engine, name: str) -> dict[str, Any]:
    """Ask the image's Python what it is, in a container that has and may nothing."""
    body = {
        "Image": name,
        "Entrypoint": ["python3", "-I", "-c", _PROBE],
        "Cmd": [],
        "User": "65534:65534",
        "WorkingDir": "/",
        "NetworkDisabled": True,
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {"midwatch.probe": name},
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Memory": 256 << 20,
            "PidsLimit": 16,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}},
        },
    }
    container = await engine.create(f"midwatch-probe-{os.urandom(6).hex()}", body)
    try:
        try:
            await engine.start(container)
        except SandboxError as refused:
            raise SandboxError(
                f"image `{name}` has no `python3` that can be started; the worker inside needs Python "
                f"{sys.version_info[0]}.{sys.version_info[1]} ({refused})"
            ) from refused
        code = await engine.wait(container, 30)
        printed = await engine.logs(container, 16_384)
    finally:
        with anyio.CancelScope(shield=True):
            await engine.remove(container)
    try:
        said: dict[str, Any] = json.loads(printed)
        if not isinstance(said, dict):
            raise ValueError("it says what no Python says")
    except (ValueError, RecursionError) as wrong:
        words = printed[-300:].decode("utf-8", "replace").strip()
        raise SandboxError(f"`python3` of image `{name}` does not run: it ended with {code}: {words}") from wrong
    return said


# ------------------------------------------------------------------------------------------- what it holds
def contents(python: str | None = None) -> dict[str, str | None]:
    """Give what the image holds: paths without their first slash; a link's target, else None, for a file that is taken from here.

    Raises:
        SandboxError: `ldd` is missing, which knows what the programs load.
    """
    python = python or interpreter()
    found: dict[str, str | None] = {}
    binaries = [python, *(path for name in _PROGRAMS.split() if (path := shutil.which(name, path="/usr/bin:/bin")))]
    library = Path(sysconfig.get_paths()["stdlib"])
    modules = list(_library(library))
    loaded = [*binaries, *(str(path) for path in modules if path.suffix == ".so")]
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            _take(f"/{name}", found)
    for path in (*binaries, *map(str, modules), *_needed(loaded), *_common(), *_data()):
        _take(path, found)
    for name in ("python", "python3"):
        found[f"{BIN[1:]}/{name}"] = python
    return found


def _take(path: str, found: dict[str, str | None]) -> None:
    """Take a path, with every link on the way to it and what they lead to."""
    left, place = [part for part in path.split("/") if part], ""
    for _ in range(200):
        if not left:
            return
        here = f"{place}/{left.pop(0)}"
        if Path(here).is_symlink():
            target = os.readlink(here)  # noqa: PTH115 - as text
            found[here[1:]] = target
            absolute = target if target.startswith("/") else f"{place}/{target}"
            left, place = [part for part in os.path.normpath(absolute).split("/") if part] + left, ""
        elif left:
            place = here
        elif Path(here).is_file():
            found[here[1:]] = None
    if left:
        raise SandboxError(f"`{path}` leads in a circle")


def _library(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in _SKIPPED | _SKIPPED_TOO and not name.startswith("config-")
        )
        for name in sorted(files):
            if not name.endswith((".opt-1.pyc", ".opt-2.pyc", ".exe")) and not name.startswith(("_test", "_tkinter")):
                yield Path(place, name)


def _needed(binaries: Iterable[str]) -> list[str]:
    """Give the libraries that these programs and modules load, and the loader."""
    program = shutil.which("ldd")
    if program is None:
        raise SandboxError(
            "`ldd` is missing, so no image can be made from this machine's Python; install it, or set `image`"
        )
    loaded = _loaded(program, interpreter())
    loader = next((path for path in loaded if Path(path).name.startswith("ld")), program)
    # The loader itself does not run what it lists, and is asked a hundred times: a shell's loop is the quickest way.
    script = 'ask=$1; list=$2; shift 2; for file; do "$ask" $list "$file"; done'
    return sorted({*loaded, *_loaded("sh", "-c", script, "sh", loader, "--list", *sorted(set(binaries)))})


def _loaded(*command: str) -> list[str]:
    ended = subprocess.run(
        command,
        check=False,  # it fails for what loads nothing
        capture_output=True,
        text=True,
        timeout=60,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
    )
    words = (line.split(" => ")[-1].split(" (")[0].strip() for line in ended.stdout.splitlines() if " (0x" in line)
    return sorted({word for word in words if word.startswith("/")})


def _common() -> list[str]:
    program = shutil.which("ldconfig", path="/sbin:/usr/sbin:/bin:/usr/bin")
    if program is None:
        return []
    ended = subprocess.run(
        [program, "-p"], check=False, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL
    )
    known = [line.split() for line in ended.stdout.splitlines() if " => " in line]
    return _needed_with([next((words[-1] for words in known if words[0] == name), "") for name in _LIBRARIES])


def _needed_with(paths: Iterable[str]) -> list[str]:
    chosen = [path for path in paths if path]
    return sorted({*chosen, *_needed(chosen)}) if chosen else []


def _data() -> list[str]:
    paths: list[str] = []
    for name in _DATA:
        place = Path(name)
        paths += [str(path) for path in sorted(place.rglob("*"))] if place.is_dir() else [name]
    return paths


def _written(file: BinaryIO) -> str:
    """Write the image's tar and give its digest. The same contents give the same bytes."""
    entries = contents()
    folders = {str(parent) for path in (*entries, *(f"{name}/x" for name in _EMPTY)) for parent in Path(path).parents}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted((folders | set(entries)) - {"."}):
            if path not in entries:
                tar.addfile(_member(path, tarfile.DIRTYPE, 0o1777 if path == "tmp" else 0o755))
            elif (target := entries[path]) is not None:
                member = _member(path, tarfile.SYMTYPE, 0o777)
                member.linkname = target
                tar.addfile(member)
            else:
                _add_file(tar, path)
    file.seek(0)
    digest = hashlib.file_digest(cast("io.BufferedRandom", file), "sha256")
    digest.update("\n".join(_CONFIG).encode())
    file.seek(0)
    return digest.hexdigest()[:32]


def _add_file(tar: tarfile.TarFile, path: str) -> None:
    with Path("/", path).open("rb") as source:
        known = os.fstat(source.fileno())
        member = _member(path, tarfile.REGTYPE, 0o755 if known.st_mode & stat.S_IXUSR else 0o644)
        # Compiled modules name their source's time; with another they would be compiled anew by every process.
        member.size, member.mtime = known.st_size, int(known.st_mtime)
        tar.addfile(member, source)


def _member(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type, member.mode = kind, mode
    return member


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    while data := await anyio.to_thread.run_sync(file.read, _CHUNK):
        yield data
