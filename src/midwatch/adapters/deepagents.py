"""Deepagents: a sandbox as the place where a deep agent has its files and its shell. Extra `deepagents`.

In:   an open `SyncSandbox`. Out: `MidwatchBackend`, for `create_deep_agent(backend=…)`.
May import: the sandbox's public names, `files`; deepagents. Must not know: models, graphs, runs.
Listing, reading, editing and searching are deepagents' own and need `python3` inside; here are only shell, upload and download.
"""

from __future__ import annotations

import errno
from typing import Final

from midwatch.adapters import files
from midwatch.errors import MissingExtra
from midwatch.sandbox import RunResult, SyncSandbox

try:
    from deepagents.backends.protocol import ExecuteResponse, FileDownloadResponse, FileUploadResponse
    from deepagents.backends.sandbox import BaseSandbox
except ModuleNotFoundError as missing:
    raise MissingExtra("deepagents", "a deepagents backend") from missing

__all__ = ["MidwatchBackend"]

TIMED_OUT: Final = 124
"""Exit code of what was killed at its deadline, as `timeout(1)` gives it."""

_ERRORS: Final = {
    errno.ENOENT: "file_not_found",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.EISDIR: "is_directory",
    errno.ENOTDIR: "invalid_path",
    errno.ENAMETOOLONG: "invalid_path",
    errno.EINVAL: "invalid_path",
}


class MidwatchBackend(BaseSandbox):
    """A deepagents backend that acts in one sandbox. Whoever opened the sandbox closes it."""

    def __init__(
        self,
        sandbox: SyncSandbox,
        *,
        timeout_s: int = 120,
        longest_s: int = 600,
        max_output: int = 4 << 20,
        max_file: int = 100 << 20,
    ) -> None:
        """Take an open sandbox.

        Args:
            timeout_s: of a command that names none, seconds. longest_s: of one that asks for no end (0); the profile's own wall
                time bounds every command.
            max_output: bytes of a command's output that are kept: its end. max_file: bytes of a file that is downloaded.
        """
        self._sandbox = sandbox
        self._timeout_s, self._longest_s = timeout_s, longest_s
        self._max_output, self._max_file = max_output, max_file

    @property
    def id(self) -> str:
        """The sandbox's name."""
        return self._sandbox.name

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a shell command; both its streams come as one, in the order in which they were written."""
        seconds = self._timeout_s if timeout is None else timeout or self._longest_s
        done = self._sandbox.run(
            ["/bin/sh", "-c", f"exec 2>&1\n{command}"], timeout_us=seconds * 1_000_000, max_bytes=self._max_output
        )
        return _response(done, seconds)

    def upload_files(self, files_: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files, one after the other; each tells how it went."""
        return [self._upload(path, content) for path, content in files_]

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read files, one after the other; each tells how it went."""
        return [self._download(path) for path in paths]

    def _upload(self, path: str, content: bytes) -> FileUploadResponse:
        if _odd(path):
            return FileUploadResponse(path=path, error="invalid_path")
        try:
            self._sandbox.apply(files.write_file, path, content)
        except OSError as failure:
            return FileUploadResponse(path=path, error=_code(failure))
        return FileUploadResponse(path=path, error=None)

    def _download(self, path: str) -> FileDownloadResponse:
        if _odd(path):
            return FileDownloadResponse(path=path, content=None, error="invalid_path")
        try:
            content = self._sandbox.apply(files.read_file, path, self._max_file)
        except OSError as failure:
            return FileDownloadResponse(path=path, content=None, error=_code(failure))
        return FileDownloadResponse(path=path, content=content, error=None)


def _odd(path: str) -> bool:
    return not path.startswith("/") or "\0" in path


def _code(failure: OSError) -> str:
    return _ERRORS.get(failure.errno or 0, failure.strerror or str(failure))


def _response(done: RunResult, seconds: int) -> ExecuteResponse:
    output = done.stdout.decode("utf-8", "replace")
    if done.status == "timeout":
        said = f"{output}\nkilled: it ran longer than {seconds} s, or than its sandbox allows"
        return ExecuteResponse(output=said.lstrip(), exit_code=TIMED_OUT, truncated=False)
    if done.status == "crashed":
        return ExecuteResponse(output=f"{output}\n{done.detail}".lstrip(), exit_code=None, truncated=False)
    code = done.exit_code
    if code is not None and code < 0:
        code = 128 - code  # as a shell tells of a signal
    return ExecuteResponse(output=output, exit_code=code, truncated=done.stdout_bytes > len(done.stdout))
