"""Inspect: each sample of an evaluation in a sandbox of its own. Extra `inspect`; the provider's name is `midwatch`.

In:   `sandbox="midwatch"`, or `sandbox=("midwatch", "place.yaml")`, or a `SandboxEnvironmentSpec("midwatch", MidwatchPlace(…))`.
Out:  a sandbox environment for each sample, closed when the sample ends.
May import: the sandbox's public names, `files`; inspect_ai. Must not know: tasks, models, scores.
What it has not: other users (`user=`) and programs that outlive their `exec`, both by the sandbox's own rules.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import Any, Final, Literal, overload

import yaml
from pydantic import BaseModel, ConfigDict

from midwatch.adapters import files
from midwatch.errors import MissingExtra, UsageProblem
from midwatch.sandbox import (
    INSIDE,
    EgressRule,
    MountSpec,
    RunResult,
    Sandbox,
    SandboxLimits,
    SandboxProfile,
    open_sandbox,
)

try:
    from inspect_ai.util import (
        ExecResult,
        OutputLimitExceededError,
        SandboxEnvironment,
        SandboxEnvironmentLimits,
        SandboxUserUnsupportedError,
        sandboxenv,
    )
except ModuleNotFoundError as missing:
    raise MissingExtra("inspect", "an Inspect sandbox provider") from missing

__all__ = ["MidwatchEnvironment", "MidwatchPlace"]

_LONGEST_S: Final = 86_400
_NOT_FOUND: Final = 127
_SIGNAL: Final = 128
_GO: Final = 'cd -- "$1" && shift && exec "$@"'


class MidwatchPlace(BaseModel):
    """What the samples' sandboxes are; the fields are those of `SandboxProfile`, in its units.

    Attributes:
        workspace: folder whose files every sample sees at `/workspace`; what a sample changes stays in its sandbox. None: empty.
        backend: `bubblewrap` or `docker`.
        secrets: names of variables that the egress rules may use; their values never enter the sandbox.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Path | None = None
    backend: Literal["bubblewrap", "docker"] = "bubblewrap"
    limits: SandboxLimits = SandboxLimits()
    code: tuple[Path, ...] = ()
    mounts: tuple[MountSpec, ...] = ()
    egress: tuple[EgressRule, ...] = ()
    secrets: tuple[str, ...] = ()
    env: dict[str, str] = {}
    image: str | None = None
    runtime: str | None = None

    def __hash__(self) -> int:
        """Hash what it says; Inspect keeps places as keys."""
        return hash(self.model_dump_json())

    def profile(self, empty: Path) -> SandboxProfile:
        """Give the profile; `empty` is the workspace where none is named."""
        lost = [name for name in self.secrets if name not in os.environ]
        if lost:
            raise UsageProblem(
                f"the variable `{lost[0]}` that `secrets` names is not set; set it, or leave the name out"
            )
        return SandboxProfile(
            workspace=(self.workspace or empty).absolute(),
            limits=self.limits,
            code=self.code,
            mounts=self.mounts,
            egress=self.egress,
            secrets={name: os.environ[name] for name in self.secrets},
            env=self.env,
            image=self.image,
            runtime=self.runtime,
        )


@sandboxenv(name="midwatch")
class MidwatchEnvironment(SandboxEnvironment):
    """One sample's sandbox."""

    def __init__(self, box: Sandbox, stack: contextlib.AsyncExitStack) -> None:
        """Take an open sandbox, and what closes it."""
        super().__init__()
        self._box, self._stack = box, stack

    @classmethod
    def default_concurrency(cls) -> int | None:
        """Two samples for each processor."""
        return 2 * (os.cpu_count() or 1)

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        """Read a place from a log or a file."""
        return MidwatchPlace.model_validate(config)

    @classmethod
    async def sample_init(
        cls, task_name: str, config: BaseModel | str | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """Open a sandbox.

        Raises:
            SandboxError: this machine cannot hold it; the sample fails, nothing is weakened.
        """
        place = _place(config)
        async with contextlib.AsyncExitStack() as stack:
            empty = stack.enter_context(tempfile.TemporaryDirectory(prefix="midwatch-inspect-"))
            box = await stack.enter_async_context(open_sandbox(place.profile(Path(empty)), place.backend))
            return {"default": cls(box, stack.pop_all())}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: BaseModel | str | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        """Close the sandboxes; nothing of them is kept."""
        for environment in environments.values():
            await environment.as_type(cls)._stack.aclose()  # noqa: SLF001 - its own class's

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run a program; never twice, whatever `timeout_retry` says: what timed out may have done its work."""
        if user is not None:
            raise SandboxUserUnsupportedError(f"a sandbox has one user; `{user}` cannot be had, leave `user` out")
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        done = await self._box.run(
            cmd if cwd is None else ["/bin/sh", "-c", _GO, "sh", files.absolute(cwd), *cmd],
            limits=SandboxLimits(),
            workdir=Path(INSIDE),
            timeout_us=(_LONGEST_S if timeout is None else timeout) * 1_000_000,
            max_bytes=limit,
            stdin=input.encode() if isinstance(input, str) else input or b"",
            env=env,
        )
        return _result(done, cmd, limit)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file; folders above it are made."""
        await files.write_file(self._box, file, contents.encode() if isinstance(contents, str) else contents)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """Read a file, line ends as they are."""
        try:
            content = await files.read_file(self._box, file, SandboxEnvironmentLimits.MAX_READ_FILE_SIZE)
        except OSError as failure:
            if failure.errno == errno.EFBIG:
                raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None) from failure
            raise
        return content.decode() if text else content


def _place(config: BaseModel | str | None) -> MidwatchPlace:
    if config is None:
        return MidwatchPlace()
    if isinstance(config, str):
        return MidwatchPlace.model_validate(yaml.safe_load(Path(config).read_text(encoding="utf-8")) or {})
    return MidwatchPlace.model_validate(config.model_dump())


def _result(done: RunResult, cmd: list[str], limit: int) -> ExecResult[str]:
    out, err = (data.decode("utf-8", "replace") for data in (done.stdout, done.stderr))
    if done.status == "timeout":
        raise TimeoutError(f"`{cmd[0]}` ran longer than it may")
    if done.status == "crashed":
        if os.strerror(errno.EACCES) in done.detail:
            raise PermissionError(errno.EACCES, done.detail, cmd[0])
        return ExecResult(success=False, returncode=_NOT_FOUND, stdout=out, stderr=f"{err}{done.detail}")
    if max(done.stdout_bytes, done.stderr_bytes) > limit:
        raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, out or err)
    code = done.exit_code if done.exit_code is not None else _NOT_FOUND
    code = _SIGNAL - code if code < 0 else code
    return ExecResult(success=code == 0, returncode=code, stdout=out, stderr=err)
