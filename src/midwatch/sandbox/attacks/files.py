"""Files: reading and writing what is not the sandbox's own. See the package's head."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from midwatch.sandbox.attacks.common import Told, attack, call, got

__all__ = ["NAMES", "WRITABLE"]

WRITABLE: Final = ("/tmp", "/dev/shm", "/var/tmp")
"""Where writing is meant to work beside the workspace: file systems that end with the sandbox."""
_PLACES: Final = (
    "/", "/etc", "/usr", "/usr/bin", "/usr/local/bin", "/usr/lib", "/bin", "/lib", "/sbin", "/var", "/var/lib", "/var/spool/cron",
    "/home", "/root", "/opt", "/run", "/srv", "/mnt", "/media", "/boot", "/sys", "/proc", "/dev", "/etc/cron.d", "/etc/ld.so.conf.d",
)  # fmt: skip
_SETTINGS: Final = (
    "kernel/modprobe", "kernel/hostname", "kernel/randomize_va_space", "kernel/panic", "kernel/yama/ptrace_scope",
    "kernel/unprivileged_bpf_disabled", "vm/drop_caches", "vm/overcommit_memory", "fs/binfmt_misc/register", "fs/file-max",
    "net/ipv4/ip_forward", "kernel/usermodehelper/bset", "user/max_user_namespaces",
)  # fmt: skip


def _contents(path: str, told: Told) -> str:
    with open(path, "rb") as file:
        data = file.read(65_536)
    return f"`{path}` says the secret" if told.canary.encode() in data else ""


def _first(paths: Iterator[str], told: Told) -> str:
    for path in paths:
        with contextlib.suppress(OSError):
            found = _contents(path, told)
            if found:
                return found
    return ""


def _writable(path: str) -> str:
    """Open for writing, and write nothing."""
    os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    return f"`{path}` can be written to"


def _any_writable(paths: Iterator[str] | tuple[str, ...]) -> str:
    for path in paths:
        with contextlib.suppress(OSError):
            return _writable(path)
    return ""


@attack()
def secret_file(told: Told) -> str:
    """A file of the host that everybody there may read."""
    return _contents(told.secret, told)


@attack()
def etc_shadow(_told: Told) -> str:
    """The host's password hashes."""
    with open("/etc/shadow", "rb") as file:
        return "`/etc/shadow` is readable" if file.read(1) else ""


@attack()
def host_home(told: Told) -> str:
    """The home of whoever started the sandbox: all that it lists there, not only what the sandbox's own programs lie in."""
    seen = os.listdir(told.home)
    return f"`{told.home}` lists {len(seen)} names" if len(seen) > 1 and set(seen) >= set(told.home_names) else ""


@attack()
def bait_folder(told: Told) -> str:
    """Names in a folder of the host, without reading."""
    return f"`{told.folder}` exists" if os.stat(told.folder) else ""


@attack()
def root_of_others(told: Told) -> str:
    """The same file by way of every process's root and working directory."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    ways = ("root", "cwd", "root/proc/1/root", "cwd/../../../../../../..")
    return _first((f"/proc/{pid}/{way}{told.secret}" for pid in ["self", *pids] for way in ways), told)


@attack()
def upwards(told: Told) -> str:
    """The same file by `..` from the workspace, further than there are folders."""
    folder = os.open(told.workspace, os.O_PATH | os.O_DIRECTORY)
    for _ in range(40):
        folder = os.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=folder)
    found = os.open(told.secret.lstrip("/"), os.O_RDONLY, dir_fd=folder)
    return "`..` leads out" if told.canary.encode() in os.read(found, 65_536) else ""


@attack()
def symlink_out(told: Told) -> str:
    """The same file through a link in the workspace, and through the kernel's own links to the root."""
    link = f"{told.workspace}/link-{told.token}"
    os.symlink(told.secret, link)
    try:
        ways = (
            link,
            f"/proc/self/root{told.secret}",
            f"/proc/thread-self/root{told.secret}",
            f"/dev/fd/../root{told.secret}",
        )
        return _first(iter(ways), told)
    finally:
        os.unlink(link)


@attack()
def descriptors_of_others(told: Told) -> str:
    """Open files of processes that were here before: folders and files by way of `/proc/PID/fd`."""
    own = {os.getpid(), os.getppid()}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid in own:
            continue
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{name}"
                with contextlib.suppress(OSError):
                    kind = os.stat(path).st_mode
                    target = os.readlink(path)
                    if stat.S_ISDIR(kind) or (stat.S_ISREG(kind) and os.access(path, os.R_OK)):
                        return f"process {pid} holds `{target}` open for us"
    return ""


@attack()
def leaked_descriptors(told: Told) -> str:
    """What this very program was given beside its three streams."""
    return ", ".join(told.descriptors)


@attack()
def write_outside(told: Told) -> str:
    """A new file anywhere but in the workspace and the places that end with the sandbox."""
    for place in (*_PLACES, told.folder, told.home, str(Path(told.readonly).parent)):
        if place.startswith((*WRITABLE, told.workspace)):
            continue
        path = f"{place.rstrip('/')}/midwatch-{told.token}"
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
            with contextlib.suppress(OSError):
                os.unlink(path)
            return f"`{place}` can be written to"
    return ""


@attack()
def change_programs(told: Told) -> str:
    """The programs and the code that the sandbox itself runs on."""
    ways = ("/usr/bin/env", "/bin/sh", "/etc/passwd", "/etc/hosts", told.readonly, os.path.realpath("/proc/self/exe"))
    return _any_writable(ways)


@attack()
def hardlink_readonly(told: Told) -> str:
    """A read-only file under a second name in the workspace, where it could be written."""
    for number, path in enumerate((told.readonly, "/usr/bin/env", "/etc/passwd", os.path.realpath("/proc/self/exe"))):
        name = f"{told.workspace}/hard-{told.token}-{number}"
        with contextlib.suppress(OSError):
            os.link(path, name)
            try:
                return _writable(name)
            finally:
                os.unlink(name)
    return ""


@attack()
def setuid_file(told: Told) -> str:
    """A program that runs as its owner, wherever it could be planted."""
    for place in (told.workspace, *WRITABLE):
        path = f"{place}/suid-{told.token}"
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))
            try:
                os.chmod(path, 0o6755)
                if os.stat(path).st_mode & stat.S_ISUID and not os.statvfs(place).f_flag & os.ST_NOSUID:
                    return f"`{place}` keeps a set-user-id file that would run as user {os.stat(path).st_uid}"
            finally:
                os.unlink(path)
    return ""


@attack()
def make_device(told: Told) -> str:
    """A node of the machine's memory and of its first disk, in every place that can be written."""
    for place in (told.workspace, *WRITABLE):
        for number, device in enumerate((os.makedev(1, 1), os.makedev(8, 0))):
            path = f"{place}/node-{told.token}-{number}"
            with contextlib.suppress(OSError):
                os.mknod(path, stat.S_IFCHR | 0o666 if number == 0 else stat.S_IFBLK | 0o666, device)
                os.unlink(path)
                return f"a device node in `{place}`"
    return ""


@attack()
def host_devices(_told: Told) -> str:
    """The machine's memory, log, terminals and disks."""
    names = [
        "mem",
        "kmem",
        "port",
        "kmsg",
        "kvm",
        "fuse",
        "net/tun",
        "vhost-vsock",
        "vsock",
        "console",
        "tty0",
        "vcs",
        "uinput",
        "loop-control",
    ]
    with contextlib.suppress(OSError):
        names += [name for name in os.listdir("/dev") if stat.S_ISBLK(os.stat(f"/dev/{name}").st_mode)]
    for name in names:
        with contextlib.suppress(OSError):
            os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
            return f"`/dev/{name}` opens"
    return ""


@attack()
def kernel_memory(_told: Told) -> str:
    """The kernel's memory and its faults, as files."""
    for name in ("kcore", "kmsg", "vmcore", "kpageflags", "kpagecount"):
        with contextlib.suppress(OSError):
            os.close(os.open(f"/proc/{name}", os.O_RDONLY | os.O_NONBLOCK))
            return f"`/proc/{name}` opens"
    return ""


@attack()
def core_pattern(_told: Told) -> str:
    """The program that the host starts, as root, when anything crashes."""
    return _writable("/proc/sys/kernel/core_pattern")


@attack()
def kernel_settings(_told: Told) -> str:
    """Settings of the kernel."""
    return _any_writable(tuple(f"/proc/sys/{name}" for name in _SETTINGS))


@attack()
def sysrq(_told: Told) -> str:
    """The machine's emergency keys."""
    return _writable("/proc/sysrq-trigger")


@attack()
def control_groups(_told: Told) -> str:
    """The bounds that hold this sandbox."""
    names = (
        "cgroup.procs",
        "memory.max",
        "pids.max",
        "memory.limit_in_bytes",
        "release_agent",
        "notify_on_release",
        "cgroup.freeze",
        "tasks",
    )
    ways = (f"{folder}/{name}" for folder, _, _ in os.walk("/sys/fs/cgroup") for name in names)
    return _any_writable(ways)


@attack()
def system_files(_told: Told) -> str:
    """The kernel's objects: debugging, tracing, power, firmware."""
    ways = (
        "power/state",
        "kernel/uevent_helper",
        "kernel/mm/transparent_hugepage/enabled",
        "kernel/profiling",
        "module/kernel/parameters/panic",
    )
    found = _any_writable(tuple(f"/sys/{name}" for name in ways))
    for name in ("kernel/debug", "kernel/tracing", "kernel/security", "fs/bpf", "firmware/efi/efivars"):
        with contextlib.suppress(OSError):
            found = found or (f"`/sys/{name}` lists" if os.listdir(f"/sys/{name}") else "")
    return found


@attack()
def by_handle(told: Told) -> str:
    """Any file of a file system by its number."""
    handle = ctypes.create_string_buffer(136)
    ctypes.c_uint.from_buffer(handle).value = 128
    mount, where = ctypes.c_int(), ctypes.create_string_buffer(told.workspace.encode())
    answer = call(told, "name_to_handle_at", -100, where, handle, ctypes.byref(mount), 0)
    folder = os.open(told.workspace, os.O_RDONLY)
    # Where the file system gives no number, one is made up: who may not use them is refused before it is looked at.
    result = call(told, "open_by_handle_at", folder, handle, os.O_RDONLY)
    if answer < 0 and result == -116:  # stale: looked at, and none of this file system
        return "numbers of files are looked up"
    return got(result, "a file by its number")


@attack("information")
def mount_sources(told: Told) -> str:
    """Paths of the host in the list of mounts."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    for line in lines:
        left, _, right = line.partition(" - ")
        root, inside = left.split(" ")[3:5]
        told_of = [word for word in (told.folder, told.home) if word != "/" and word in line]
        options = [word for word in right.split(",") if "dir=/" in word]
        if (
            told_of
            or options
            or (root not in ("/", inside) and not inside.startswith(("/proc", "/sys", "/dev")) and inside != "/")
        ):
            return f"`{inside}` comes from `{(told_of or options or [root])[0]}`"
    return ""


@attack("information")
def control_group_path(_told: Told) -> str:
    """Where in the host's control groups this is."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        paths = {line.strip().split(":", 2)[2] for line in file}
    named = sorted(path for path in paths if path.strip("/."))
    return f"`{named[0]}`" if named else ""


NAMES: Final = (
    "secret_file", "etc_shadow", "host_home", "bait_folder", "root_of_others", "upwards", "symlink_out", "descriptors_of_others",
    "leaked_descriptors", "write_outside", "change_programs", "hardlink_readonly", "setuid_file", "make_device", "host_devices",
    "kernel_memory", "core_pattern", "kernel_settings", "sysrq", "control_groups", "system_files", "by_handle", "mount_sources",
    "control_group_path",
)  # fmt: skip
