"""Kernel: the doors that lead past namespaces, and the rights that should be gone. See the package's head."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import pty
import resource
import signal
import socket
import struct
import termios
from collections.abc import Callable
from typing import Final

from midwatch.sandbox.attacks.common import REFUSED, Told, attack, call, failed, got

__all__ = ["NAMES"]

_NAMESPACES: Final = {
    "user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "network": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000,
    "cgroup": 0x02000000, "time": 0x80,
}  # fmt: skip
_NOWHERE: Final = -1
"""An address that leads nowhere: a call that comes as far as reading it was not refused."""
_libc = ctypes.CDLL(None, use_errno=True)


def _status() -> dict[str, str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


@attack()
def capabilities(_told: Told) -> str:
    """Any right of root, in any of the sets."""
    seen = _status()
    return ", ".join(
        f"{name} {seen[name]}" for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(seen[name], 16)
    )


@attack()
def new_privileges(_told: Told) -> str:
    """Rights gained by executing a set-user-id program."""
    return "" if _status().get("NoNewPrivs") == "1" else "no_new_privs is not set"


@attack()
def without_filter(_told: Told) -> str:
    """A process that no filter of system calls watches."""
    return "" if _status().get("Seccomp") == "2" else "no seccomp filter is loaded"


@attack()
def become_root(_told: Told) -> str:
    """User 0, group 0, other groups."""
    calls: tuple[tuple[str, Callable[[], object]], ...] = (
        ("user 0", lambda: os.setresuid(0, 0, 0)),
        ("group 0", lambda: os.setresgid(0, 0, 0)),
        ("groups", lambda: os.setgroups([0])),
    )
    for what, change in calls:
        try:
            change()
        except OSError:
            continue
        return what
    return "it is user 0 already" if os.geteuid() == 0 else ""


@attack()
def map_users(_told: Told) -> str:
    """Another user's id by a mapping of one's own."""
    with open("/proc/self/uid_map", "wb", buffering=0) as file:
        file.write(b"0 0 1\n")
    return "a mapping was taken"


@attack()
def unshare_namespaces(told: Told) -> str:
    """A namespace of each kind."""
    for name, flag in _NAMESPACES.items():
        if call(told, "unshare", flag) == 0:
            return f"a new {name} namespace"
    return ""


@attack()
def clone_namespaces(told: Told) -> str:
    """The same by starting a process in them."""
    for name, flag in _NAMESPACES.items():
        if name == "time":
            continue
        child = call(told, "clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        if child > 0:
            os.waitpid(child, 0)
            return f"a process in a new {name} namespace"
    return ""


@attack()
def clone3_namespaces(told: Told) -> str:
    """The same by the call whose flags lie in memory."""
    given = ctypes.create_string_buffer(struct.pack("<8Q", _NAMESPACES["user"], 0, 0, 0, signal.SIGCHLD, 0, 0, 0))
    child = call(told, "clone3", given, 64)
    if child == 0:
        os._exit(0)
    if child > 0:
        os.waitpid(child, 0)
    return got(child, "a process in a new user namespace")


@attack()
def enter_namespaces(told: Told) -> str:
    """The namespaces of processes that were here before."""
    for pid in (1, os.getppid(), told.victim):
        for name in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
            try:
                descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
            except OSError:
                continue
            if call(told, "setns", descriptor, 0) == 0:
                return f"the {name} namespace of process {pid}"
    return ""


@attack()
def mount_anything(told: Told) -> str:
    """Any mount. Asked for with a kind that is none, which is looked at after the right to mount."""
    here, kind = ctypes.create_string_buffer(told.workspace.encode()), ctypes.create_string_buffer(b"no-such-kind")
    return failed(call(told, "mount", kind, here, kind, 0, ctypes.c_char_p(None)), "mounts")


@attack()
def unmount(told: Told) -> str:
    """Take mounts away. Asked for something that is none, which is looked at after the right to ask."""
    place = f"{told.workspace}/mount-{told.token}"
    os.mkdir(place)
    try:
        return failed(call(told, "umount2", ctypes.create_string_buffer(place.encode()), 0), "mounts")
    finally:
        os.rmdir(place)


@attack()
def new_mount_calls(told: Told) -> str:
    """The same by the newer interface."""
    here, kind = ctypes.create_string_buffer(told.workspace.encode()), ctypes.create_string_buffer(b"tmpfs")
    attributes = ctypes.create_string_buffer(32)
    tries = {
        "a copy of a mount": call(told, "open_tree", -100, here, 1),
        "a new file system": call(told, "fsopen", kind, 0),
        "a mount to change": call(told, "fspick", -100, here, 0),
        "attributes of a mount": call(told, "mount_setattr", -100, here, 0, attributes, 32),
    }
    return next((what for what, result in tries.items() if result >= 0), "")


@attack()
def change_root(told: Told) -> str:
    """Another root, from which `..` leads further."""
    try:
        os.chroot(told.workspace)
    except OSError:
        here = ctypes.create_string_buffer(told.workspace.encode())
        return got(call(told, "pivot_root", here, here), "another root")
    return "another root"


@attack()
def key_rings(told: Told) -> str:
    """Keys of the user, which no namespace divides."""
    kind, name = ctypes.create_string_buffer(b"user"), ctypes.create_string_buffer(f"midwatch-{told.token}".encode())
    tries = {
        "a session's key ring": call(told, "keyctl", 0, -3, 1),
        "a user's key ring": call(told, "keyctl", 0, -4, 1),
        "a key of its own": call(told, "add_key", kind, name, name, 4, -2),
    }
    return next((what for what, result in tries.items() if result >= 0), "")


@attack()
def io_uring(told: Told) -> str:
    """A ring through which calls pass unfiltered."""
    return got(call(told, "io_uring_setup", 1, ctypes.create_string_buffer(120)), "a ring")


@attack()
def bpf_program(told: Told) -> str:
    """Memory and programs in the kernel."""
    attributes = ctypes.create_string_buffer(struct.pack("<IIIII", 2, 4, 4, 1, 0), 128)
    return got(call(told, "bpf", 0, attributes, 128), "a map in the kernel")


@attack()
def perf_events(told: Told) -> str:
    """Counters that see what the kernel does."""
    attributes = ctypes.create_string_buffer(struct.pack("<IIQ", 1, 112, 0), 112)
    struct.pack_into("<Q", attributes, 40, 1 << 5 | 1 << 6)  # of this program only, not of the kernel
    return got(call(told, "perf_event_open", attributes, 0, -1, -1, 0), "a counter")


@attack()
def user_faults(told: Told) -> str:
    """Hold the kernel still in the middle of a copy."""
    result = call(told, "userfaultfd", 1)
    return got(result if result >= 0 else call(told, "userfaultfd", 0), "faults to answer")


@attack()
def watch_files(told: Told) -> str:
    """Be told what others do with whole file systems."""
    return got(call(told, "fanotify_init", 0x200, 0), "a group that watches")


@attack()
def load_module(told: Told) -> str:
    """Code for the kernel."""
    return failed(call(told, "finit_module", _NOWHERE, _NOWHERE, 0), "the loader of modules")


@attack()
def replace_kernel(told: Told) -> str:
    """Another kernel for the next start."""
    return failed(call(told, "kexec_load", 0, 0, _NOWHERE, 0x7000), "the loader of kernels")


@attack()
def restart_machine(told: Told) -> str:
    """The end of the machine, asked for with a wrong word, which is looked at after the right to ask."""
    return failed(call(told, "reboot", 0, 0, 0, 0), "the switch")


@attack()
def swapping(told: Told) -> str:
    """What is swapped where."""
    return failed(call(told, "swapon", _NOWHERE, 0), "swap")


@attack()
def accounting(told: Told) -> str:
    """A file that the kernel writes about every process."""
    return failed(call(told, "acct", _NOWHERE), "accounting")


@attack()
def set_clock(told: Told) -> str:
    """The time of the machine; asked for with the time zone it has."""
    zone = ctypes.create_string_buffer(struct.pack("<ii", 0, 0))
    return got(call(told, "settimeofday", ctypes.c_char_p(None), zone), "the clock")


@attack()
def set_host_name(told: Told) -> str:
    """The machine's name; asked for with the name it has."""
    name = socket.gethostname().encode()
    return got(call(told, "sethostname", ctypes.create_string_buffer(name), len(name)), "the name")


@attack()
def ports_of_hardware(told: Told) -> str:
    """The ports of the machine's devices."""
    return got(call(told, "ioperm", 0x80, 1, 1), "a port")


@attack("information")
def kernel_log(told: Told) -> str:
    """The kernel's messages, with addresses."""
    result = call(told, "syslog", 10, ctypes.c_char_p(None), 0)
    return got(result, f"{result} bytes of the kernel's log")


@attack("information")
def kernel_addresses(_told: Told) -> str:
    """Where the kernel's functions lie."""
    with open("/proc/kallsyms", encoding="ascii", errors="replace") as file:
        lines = [file.readline().split() for _ in range(100)]
    return "addresses" if any(line and int(line[0], 16) for line in lines) else ""


@attack()
def type_into_terminal(_told: Told) -> str:
    """Type into a terminal as if it were its user."""
    _, theirs = pty.openpty()
    os.setsid()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    fcntl.ioctl(theirs, termios.TIOCSTI, b"x")
    return "a terminal takes it"


@attack()
def wide_numbers(told: Told) -> str:
    """The same with a bit set in the half of the number that the kernel does not read."""
    _, theirs = pty.openpty()
    os.setsid()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    return got(call(told, "ioctl", theirs, 1 << 32 | 0x5412, ctypes.create_string_buffer(b"x")), "a terminal takes it")


@attack()
def callers_terminal(_told: Told) -> str:
    """The terminal of whoever started the sandbox."""
    os.close(os.open("/dev/tty", os.O_RDWR))
    return "`/dev/tty` opens"


@attack()
def console_input(told: Told) -> str:
    """The selection and keys of the machine's own console."""
    _, theirs = pty.openpty()
    answer = call(told, "ioctl", theirs, 0x541C, ctypes.create_string_buffer(b"\x02"))
    return "" if answer in (-errno.EPERM, -errno.EACCES) else f"not refused (answered {answer})"


@attack()
def personality(told: Told) -> str:
    """Memory whose layout is known, and data that runs."""
    return got(call(told, "personality", 0x0040000 | 0x0400000), "protections are off")


@attack(dies=(signal.SIGSYS, signal.SIGSEGV))
def x32_calls(told: Told) -> str:
    """Calls in the language of x32, whose numbers a filter may not know."""
    if platform.machine() != "x86_64":
        return ""
    result = int(_libc.syscall(ctypes.c_long(0x40000000 | 39)))
    return "they are made" if result > 0 else ""


@attack(dies=(signal.SIGSYS, signal.SIGSEGV))
def i386_calls(_told: Told) -> str:
    """Calls in the language of 32 bits."""
    if platform.machine() != "x86_64":
        return ""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # eax = 20; int 0x80; ret
    result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    return "they are made" if result > 0 else ""


@attack("resource")
def raise_limits(_told: Told) -> str:
    """More than the hard limits, or dumps of memory."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
        return "dumps of memory are allowed"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard > 1 << 16 or hard == resource.RLIM_INFINITY:
        return f"{hard} open files"
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    except ValueError:  # as the module calls a refusal
        return ""
    return "hard limits can be raised"


@attack("resource")
def go_first(_told: Told) -> str:
    """Processor time before everybody else."""
    calls: tuple[tuple[str, Callable[[], object]], ...] = (
        ("a real-time schedule", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
        ("a higher priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 1)),
    )
    for what, ask in calls:
        try:
            ask()
        except OSError as refusal:
            if refusal.errno not in REFUSED:
                raise
            continue
        return what
    return ""


@attack("resource")
def never_killed(_told: Told) -> str:
    """Exempt from being killed when memory ends, before an ordinary process at least."""
    with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
        now = int(file.read())
        file.seek(0)
        file.write(str(max(min(now, 0) - 100, -1000)))
    return "others are killed first"


NAMES: Final = (
    "capabilities", "new_privileges", "without_filter", "become_root", "map_users", "unshare_namespaces", "clone_namespaces",
    "clone3_namespaces", "enter_namespaces", "mount_anything", "unmount", "new_mount_calls", "change_root", "key_rings", "io_uring",
    "bpf_program", "perf_events", "user_faults", "watch_files", "load_module", "replace_kernel", "restart_machine", "swapping",
    "accounting", "set_clock", "set_host_name", "ports_of_hardware", "kernel_log", "kernel_addresses", "type_into_terminal",
    "wide_numbers", "callers_terminal", "console_input", "personality", "x32_calls", "i386_calls", "raise_limits", "go_first",
    "never_killed",
)  # fmt: skip
