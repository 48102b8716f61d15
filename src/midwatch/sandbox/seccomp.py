"""Seccomp: the system calls that nothing in a sandbox may make, as one list for every backend.

In:   nothing; for `program` the machine's name. Out: a classic BPF program for `bwrap --seccomp`, Docker's JSON, one digest of both.
May import: errors; the standard library. Must not know: any backend, what a sandbox is for.
Why a list of what is refused: tools are any program at all, and an allow-list breaks one of them with each new C library. What keeps
a sandbox in are its namespaces, its user and its missing capabilities; this list takes away what those do not cover (families of
sockets that no network namespace bounds, kernel doors with a history of holes, key rings that belong to the user and not to a
namespace), and repeats what they refuse. So that a newer kernel opens nothing by itself, `program` answers ENOSYS above `NEWEST`.
Why our own compiler: the kernel's machine has eight instructions that matter here, and a library would be one more thing to find.
Only the low half of an argument is compared where the kernel reads 32 bits: else `1 << 32 | TIOCSTI` passes for another number.
Source: Linux, Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/{seccomp,audit,bpf_common}.h and the tables
`syscall_64.tbl` (x86-64) and `syscall.tbl` (the one that arm64 shares).
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from midwatch.errors import SandboxError

__all__ = ["DENIED", "FAMILIES", "NEWEST", "Arch", "Deny", "Test", "digest", "docker_profile", "program"]

Arch = Literal["x86_64", "aarch64"]
NEWEST: Final = 469
"""`file_setattr`, Linux 6.17: the last call that was read before this list was written. Numbers are shared since 424."""


@dataclass(frozen=True, slots=True)
class Test:
    """One look at one argument's low 32 bits, after `mask`.

    Attributes:
        op: `any`: a bit of `values[0]` is set. `in`, `out`: it is, or is not, one of `values`.
    """

    arg: int
    op: Literal["any", "in", "out"]
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Deny:
    """One call that is refused.

    Attributes:
        x86_64, aarch64: its number; None where that machine has no such call.
        when: it is refused when all tests of one of these hold; empty: always.
        error: what the caller sees. ENOSYS where programs then take another way.
    """

    name: str
    x86_64: int | None
    aarch64: int | None
    why: str
    when: tuple[tuple[Test, ...], ...] = ()
    error: int = errno.EPERM


_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
FAMILIES: Final = (_UNIX, _INET, _INET6, _NETLINK)
"""Netlink because runtimes list interfaces by it (Go, Node, `getifaddrs`), so its route protocol only."""

_STREAM, _DGRAM, _TYPE = 1, 2, 0xF
_TCP, _UDP = 6, 17
_NEW_TIME: Final = 0x80
_NEW: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

_SOCKETS: Final = (
    (Test(0, "out", FAMILIES),),
    (Test(0, "in", (_NETLINK,)), Test(2, "out", (0,))),
    (Test(0, "in", (_INET, _INET6)), Test(1, "out", (_STREAM, _DGRAM), _TYPE)),
    (Test(0, "in", (_INET, _INET6)), Test(2, "out", (0, _TCP, _UDP))),
)
_DEVICE: Final = ("in", (0x2000, 0x6000), 0xF000)
_MOUNTS, _TIME, _CODE, _HOST = (
    "changes mounts",
    "changes the clock",
    "loads code into the kernel",
    "belongs to the host",
)
_OTHERS, _KEYS = "reaches into other processes", "key rings belong to the user, not to a namespace"
_RING = "does its work past this filter, and has a history of holes"
_WATCH, _OLD = "watches whole filesystems", "no program of today needs it"
_X86 = "hardware of x86"

DENIED: Final[tuple[Deny, ...]] = (
    # Namespaces: a user namespace gives back the capabilities, and with them most of the kernel.
    Deny("clone", 56, 220, "opens namespaces", ((Test(0, "any", (_NEW,)),),)),
    Deny("clone3", 435, 435, "its flags lie in memory, where no filter reads", error=errno.ENOSYS),
    Deny("unshare", 272, 97, "opens namespaces", ((Test(0, "any", (_NEW | _NEW_TIME,)),),)),
    Deny("setns", 308, 268, "enters namespaces"),
    # Mounts, of the old and the new interface.
    Deny("mount", 165, 40, _MOUNTS),
    Deny("umount2", 166, 39, _MOUNTS),
    Deny("pivot_root", 155, 41, _MOUNTS),
    Deny("chroot", 161, 51, "changes the root"),
    Deny("open_tree", 428, 428, _MOUNTS),
    Deny("open_tree_attr", 467, 467, _MOUNTS),
    Deny("move_mount", 429, 429, _MOUNTS),
    Deny("fsopen", 430, 430, _MOUNTS),
    Deny("fsconfig", 431, 431, _MOUNTS),
    Deny("fsmount", 432, 432, _MOUNTS),
    Deny("fspick", 433, 433, _MOUNTS),
    Deny("mount_setattr", 442, 442, _MOUNTS),
    Deny("statmount", 457, 457, "tells the host's paths", error=errno.ENOSYS),
    Deny("listmount", 458, 458, "tells the host's paths", error=errno.ENOSYS),
    Deny("open_by_handle_at", 304, 265, "opens files of a filesystem past every mount and folder"),
    Deny("mknod", 133, None, "makes device nodes", ((Test(1, *_DEVICE),),)),
    Deny("mknodat", 259, 33, "makes device nodes", ((Test(2, *_DEVICE),),)),
    # Sockets: a network namespace does not bound vsock, AF_ALG and others; modules are loaded on demand.
    Deny("socket", 41, 198, "other families and protocols are doors past the network namespace", _SOCKETS),
    Deny("socketpair", 53, 199, "as `socket`", ((Test(0, "out", (_UNIX,)),),)),
    # Doors to the kernel with a history.
    Deny("io_uring_setup", 425, 425, _RING, error=errno.ENOSYS),
    Deny("io_uring_enter", 426, 426, _RING, error=errno.ENOSYS),
    Deny("io_uring_register", 427, 427, _RING, error=errno.ENOSYS),
    Deny("bpf", 321, 280, _CODE),
    Deny("perf_event_open", 298, 241, "counts and samples what the kernel does"),
    Deny("userfaultfd", 323, 282, "holds the kernel still in the middle of a copy"),
    Deny("fanotify_init", 300, 262, _WATCH),
    Deny("fanotify_mark", 301, 263, _WATCH),
    Deny(
        "personality",
        135,
        92,
        "turns off protections of memory",
        ((Test(0, "out", (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)),),),
    ),
    Deny("ioctl", 16, 29, "types into the terminal (TIOCSTI, TIOCLINUX)", ((Test(1, "in", (0x5412, 0x541C)),),)),
    # Other processes, those of the same user in other sandboxes too.
    Deny("ptrace", 101, 117, _OTHERS),
    Deny("process_vm_readv", 310, 270, _OTHERS),
    Deny("process_vm_writev", 311, 271, _OTHERS),
    Deny("process_madvise", 440, 440, _OTHERS),
    Deny("process_mrelease", 448, 448, _OTHERS),
    Deny("pidfd_getfd", 438, 438, _OTHERS),
    Deny("kcmp", 312, 272, _OTHERS),
    Deny("move_pages", 279, 239, _OTHERS),
    Deny("migrate_pages", 256, 238, _OTHERS),
    Deny("add_key", 248, 217, _KEYS),
    Deny("request_key", 249, 218, _KEYS),
    Deny("keyctl", 250, 219, _KEYS),
    # The machine.
    Deny("init_module", 175, 105, _CODE),
    Deny("finit_module", 313, 273, _CODE),
    Deny("delete_module", 176, 106, _CODE),
    Deny("create_module", 174, None, _CODE),
    Deny("get_kernel_syms", 177, None, _OLD),
    Deny("query_module", 178, None, _OLD),
    Deny("kexec_load", 246, 104, _CODE),
    Deny("kexec_file_load", 320, 294, _CODE),
    Deny("reboot", 169, 142, _HOST),
    Deny("swapon", 167, 224, _HOST),
    Deny("swapoff", 168, 225, _HOST),
    Deny("settimeofday", 164, 170, _TIME),
    Deny("clock_settime", 227, 112, _TIME),
    Deny("clock_adjtime", 305, 266, _TIME),
    Deny("adjtimex", 159, 171, _TIME),
    Deny("sethostname", 170, 161, _HOST),
    Deny("setdomainname", 171, 162, _HOST),
    Deny("quotactl", 179, 60, _HOST),
    Deny("quotactl_fd", 443, 443, _HOST),
    Deny("acct", 163, 89, _HOST),
    Deny("syslog", 103, 116, "reads the kernel's log, with addresses"),
    Deny("vhangup", 153, 58, _HOST),
    Deny("iopl", 172, None, _X86),
    Deny("ioperm", 173, None, _X86),
    Deny("modify_ldt", 154, None, _X86),
    Deny("uselib", 134, None, _OLD),
    Deny("ustat", 136, None, _OLD),
    Deny("sysfs", 139, None, _OLD),
    Deny("_sysctl", 156, None, _OLD),
    Deny("nfsservctl", 180, 42, _OLD),
    Deny("lookup_dcookie", 212, 18, _OLD),
)

# ---------------------------------------------------------------------------------------------- the program
_Step = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant: `struct sock_filter`."""

_LOAD, _AND, _EQUAL, _GREATER, _SET, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCH, _ARGS = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AUDIT: Final[dict[str, int]] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NAMES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
_X32, _NONE = 0x40000000, 0xFFFFFFFF
_FAR: Final = 255


def program(arch: str | None = None) -> bytes:
    """Give the filter as the kernel takes it: `struct sock_filter[]`, little-endian.

    Args:
        arch: as `uname -m` says it; None: this machine's.

    Raises:
        SandboxError: no numbers are known for that machine, so nothing could be refused there.
    """
    said = platform.machine() if arch is None else arch
    name = _NAMES.get(said, said)
    if name not in _AUDIT:
        raise SandboxError(f"no seccomp filter for `{said}`; sandboxes are enforced on {' and '.join(_AUDIT)}")
    steps = [*_head(name), *_always(name), *_sometimes(name), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def _head(arch: str) -> list[_Step]:
    """Kill what speaks another machine's language (its numbers mean other calls), refuse what is newer than this list."""
    newer: list[_Step] = [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    if arch == "x86_64":  # x32 calls have a bit of their own, -1 has it too and is no call
        newer = [(_EQUAL, 2, 0, _NONE), (_SET, 0, 1, _X32), (_RETURN, 0, 0, _KILL), *newer]
    return [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT[arch]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_GREATER, 0, len(newer), NEWEST),
        *newer,
    ]


def _always(arch: str) -> list[_Step]:
    """Refuse what is refused whatever its arguments are, one run of comparisons for each error."""
    steps: list[_Step] = []
    for error in sorted({item.error for item in DENIED}):
        numbers = [_number(item, arch) for item in DENIED if not item.when and item.error == error]
        known = [number for number in numbers if number is not None]
        last = len(known) - 1
        if last > _FAR:
            raise AssertionError("a jump reaches 255 instructions")
        steps += [(_EQUAL, last - place, int(place == last), number) for place, number in enumerate(known)]
        steps.append((_RETURN, 0, 0, _ERRNO | error))
    return steps


def _sometimes(arch: str) -> list[_Step]:
    steps: list[_Step] = []
    for item in DENIED:
        number = _number(item, arch)
        if item.when and number is not None:
            # The accumulator holds an argument after the block, so a call that passes is allowed right there.
            block = [step for rule in item.when for step in _rule(rule, item.error)]
            block.append((_RETURN, 0, 0, _ALLOW))
            steps += [(_EQUAL, 0, len(block), number), *block]
    return steps


def _rule(tests: tuple[Test, ...], error: int) -> list[_Step]:
    """All tests hold: refuse. One does not: go on after this rule. Built from its end, so that distances are known."""
    rest: list[_Step] = [(_RETURN, 0, 0, _ERRNO | error)]
    for test in reversed(tests):
        rest = [*_look(test, len(rest)), *rest]
    return rest


def _look(test: Test, rest: int) -> list[_Step]:
    """Fall through into the `rest` instructions after this test when it holds, else jump over them."""
    steps: list[_Step] = [(_LOAD, 0, 0, _ARGS + 8 * test.arg)]
    if test.mask != _NONE:
        steps.append((_AND, 0, 0, test.mask))
    last = len(test.values) - 1
    if test.op == "any":
        return [*steps, (_SET, 0, rest, test.values[0])]
    if test.op == "in":
        return [*steps, *((_EQUAL, last - i, rest if i == last else 0, value) for i, value in enumerate(test.values))]
    return [*steps, *((_EQUAL, last - i + rest, 0, value) for i, value in enumerate(test.values))]


def _number(item: Deny, arch: str) -> int | None:
    return item.x86_64 if arch == "x86_64" else item.aarch64


# ------------------------------------------------------------------------------------------- Docker's JSON
def docker_profile() -> dict[str, Any]:
    """Give the same list as the `seccomp` security option takes it.

    That form names calls, so a name that the engine's library does not know is passed over there, and nothing stands for `NEWEST`.
    Its comparisons know no "none of these": such a test becomes one rule for each range of bits that none of the values has.
    """
    rules: list[dict[str, Any]] = []
    for item in DENIED:
        shape = {"names": [item.name], "action": "SCMP_ACT_ERRNO", "errnoRet": item.error, "comment": item.why}
        ways = [way for rule in item.when for way in itertools.product(*map(_ranges, rule))] or [()]
        rules += [{**shape, "args": [_compared(*part) for part in way]} for way in ways]
    names = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": name, "subArchitectures": []} for name in names],
        "syscalls": rules,
    }


def _ranges(test: Test) -> Iterator[tuple[int, int, int]]:
    """Give (argument, mask, value) for each part of what makes the test hold."""
    if test.op == "any":
        bits = (1 << place for place in range(32) if test.values[0] & test.mask & 1 << place)
        yield from ((test.arg, bit, bit) for bit in bits)
    elif test.op == "in":
        yield from ((test.arg, test.mask, value) for value in test.values)
    else:
        yield from ((test.arg, mask, value) for mask, value in sorted(_others(test.values, test.mask)))


def _others(values: tuple[int, ...], mask: int) -> set[tuple[int, int]]:
    """Cover all numbers under `mask` but `values`: each value with one bit turned and nothing said of those below it."""
    found: set[tuple[int, int]] = set()
    for value, place in itertools.product(values, (p for p in range(32) if mask & 1 << p)):
        upper = mask & ~((1 << place) - 1)
        turned = (value ^ 1 << place) & upper
        if all(other & upper != turned for other in values):
            found.add((upper, turned))
    return found


def _compared(arg: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": arg, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def digest() -> str:
    """SHA-256 hex of everything that is enforced, for the ledger: the same text means the same list."""
    whole = hashlib.sha256(json.dumps(docker_profile(), sort_keys=True, separators=(",", ":")).encode())
    for arch in _AUDIT:
        whole.update(program(arch))
    return whole.hexdigest()
