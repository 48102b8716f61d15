"""The list of refused calls: what the compiled program says, without loading it."""

import itertools
import platform
import tempfile
from collections.abc import Iterator

import pyseccomp  # type: ignore[import-untyped]
import pytest

from midwatch.errors import SandboxError
from midwatch.sandbox import seccomp
from midwatch.sandbox.seccomp import DENIED, NEWEST, Deny
from tests.bpf import AARCH64, ALLOW, I386, KILL_PROCESS, X86_64, errno_of, verdict

pytestmark = pytest.mark.req("SECCOMP-1")

ARCHS = {"x86_64": X86_64, "aarch64": AARCH64}
BY_NAME = {item.name: item for item in DENIED}
EPERM, ENOSYS = 1, 38
HIGH = 1 << 32
"""Set in the half of an argument that the kernel does not read."""

ARGUMENTS: dict[str, dict[tuple[int, ...], bool]] = {
    "clone": {
        (0x01200011,): False,  # fork
        (0x003D0F00,): False,  # a thread
        (0x4111,): False,  # vfork
        **{(flag | 17,): True for flag in (0x20000, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30)},
        (HIGH | 0x10000000,): True,
    },
    "unshare": {(0x400,): False, (0x200,): False, (0x10000000,): True, (0x80,): True, (0x20000 | 0x400,): True},
    "socket": {
        (1, 1, 0): False,  # unix stream, datagram, with flags
        (1, 2 | 0x80800, 0): False,
        (2, 1, 0): False,
        (2, 1 | 0x80000, 6): False,
        (2, 2, 17): False,
        (10, 1, 6): False,
        (10, 2, 0): False,
        (16, 3 | 0x80000, 0): False,  # interfaces, as getifaddrs asks for them
        (16, 3, 9): True,  # audit
        (16, 3, 4): True,  # sock_diag
        (16, 3, 12): True,  # netfilter
        (2, 3, 1): True,  # raw
        (10, 3, 58): True,
        (2, 2, 1): True,  # ping
        (2, 1, 132): True,  # SCTP
        (2, 1, 262): True,  # MPTCP
        (2, 5, 132): True,
        (2, 10, 0): True,  # SOCK_PACKET
        (0, 1, 0): True,
        **{(family, 1, 0): True for family in (3, 4, 5, 9, 15, 17, 21, 29, 30, 31, 38, 40, 41, 42, 44, 45, 46)},
        (HIGH | 40, 1, 0): True,
        (HIGH | 1, 1, 0): False,
        (0xFFFFFFFF, 1, 0): True,
    },
    "socketpair": {(1, 1, 0): False, (30, 1, 0): True, (2, 1, 0): True},
    "ioctl": {
        (0, 0x5401): False,  # TCGETS
        (0, 0x5413): False,  # TIOCGWINSZ
        (0, 0x5411): False,
        (0, 0x5412): True,  # TIOCSTI
        (0, 0x541C): True,  # TIOCLINUX
        (0, HIGH | 0x5412): True,
        (0, 0xFFFFFFFF << 32 | 0x541C): True,
    },
    "personality": {
        **{(value,): False for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)},
        **{(value,): True for value in (0x40000, 0x400000, 0x100000, 6, 4, 0xFFFFFFFE, 0x60000)},
    },
    "mknod": {(0, 0o100644): False, (0, 0o10600): False, (0, 0o20666): True, (0, 0o60600): True, (0, 0o140600): False},
    "mknodat": {(0, 0, 0o100644): False, (0, 0, 0o10600): False, (0, 0, 0o20666): True, (0, 0, 0o60600): True},
}  # fmt: skip


def number(item: Deny, arch: str) -> int | None:
    """Its number there."""
    return item.x86_64 if arch == "x86_64" else item.aarch64


def known(arch: str) -> dict[int, Deny]:
    """The list by number."""
    pairs = ((number(item, arch), item) for item in DENIED)
    return {at: item for at, item in pairs if at is not None}


@pytest.mark.parametrize("arch", ARCHS)
def test_every_listed_call_is_refused_and_every_other_one_allowed(arch: str) -> None:
    """A call without conditions is refused with its own error whatever its arguments are; one that is not listed is allowed."""
    filter_, listed = seccomp.program(arch), known(arch)
    for at, args in itertools.product(range(NEWEST + 1), ((0,) * 6, ((1 << 64) - 1,) * 6)):
        found = verdict(filter_, ARCHS[arch], at, args)
        item = listed.get(at)
        if item is None:
            assert found == ALLOW, at
        elif not item.when:
            assert errno_of(found) == item.error, item.name


@pytest.mark.parametrize("arch", ARCHS)
def test_arguments_decide_where_the_list_says_so(arch: str) -> None:
    """Threads, forks, ordinary sockets, terminals pass; namespaces, other families, typing into terminals do not."""
    filter_ = seccomp.program(arch)
    assert {item.name for item in DENIED if item.when} == set(ARGUMENTS)
    for name, table in ARGUMENTS.items():
        at = number(BY_NAME[name], arch)
        for args, refused in table.items() if at is not None else ():
            assert at is not None
            found = verdict(filter_, ARCHS[arch], at, args)
            assert errno_of(found) == EPERM if refused else found == ALLOW, (name, args)


@pytest.mark.parametrize("arch", ARCHS)
def test_another_machines_language_kills_and_what_is_newer_is_unknown(arch: str) -> None:
    """i386, x32 and the other architecture end the process; a number above the newest that was read is no call at all."""
    filter_ = seccomp.program(arch)
    other = {"x86_64": AARCH64, "aarch64": X86_64}[arch]
    assert KILL_PROCESS == verdict(filter_, I386, 4)
    assert KILL_PROCESS == verdict(filter_, other, 1)
    for at in (NEWEST + 1, 1000, 0x3FFFFFFF, -1):
        assert ENOSYS == errno_of(verdict(filter_, ARCHS[arch], at)), at
    if arch == "x86_64":
        for at in (0x40000000, 0x40000000 | 41, 0x40000200, 0x7FFFFFFF):
            assert KILL_PROCESS == verdict(filter_, X86_64, at), hex(at)


def test_numbers_are_those_of_the_machine() -> None:
    """Each name has the number that libseccomp's tables give it, on both machines."""
    codes = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}
    newer = {"open_tree_attr", "statmount", "listmount"}  # than the library of an older system
    for item, arch in itertools.product(DENIED, ARCHS):
        resolved = pyseccomp.resolve_syscall(codes[arch], item.name)
        if item.name not in newer or resolved >= 0:
            assert (number(item, arch) or -1) == (resolved if resolved >= 0 else -1), (item.name, arch)


@pytest.mark.req("SECCOMP-2")
@pytest.mark.parametrize("arch", ARCHS)
def test_dockers_form_says_the_same(arch: str) -> None:
    """What libseccomp makes of the profile for Docker answers each call of the table as our own program does."""
    ours, theirs = seccomp.program(arch), from_profile(arch)
    known_there = {item.name for item in DENIED if item.name not in {"open_tree_attr", "statmount", "listmount"}}
    for at, args in calls(arch):
        item = known(arch).get(at)
        if item is None or item.name in known_there:
            expected, found = (verdict(code, ARCHS[arch], at, args) for code in (ours, theirs))
            assert expected == found, (at, item and item.name, [hex(arg) for arg in args])
    for foreign in (I386, X86_64 if arch == "aarch64" else AARCH64):
        assert verdict(theirs, foreign, 1) in {0, KILL_PROCESS}
    if arch == "x86_64":
        assert verdict(theirs, X86_64, 0x40000000 | 41) in {0, KILL_PROCESS}


def from_profile(arch: str) -> bytes:
    """Compile the profile as an engine's runtime does: rule by rule, unknown names passed over."""
    made = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    if arch == "aarch64" and platform.machine() == "x86_64":
        made.add_arch(pyseccomp.Arch.AARCH64)
        made.remove_arch(pyseccomp.Arch.X86_64)
    for rule in seccomp.docker_profile()["syscalls"]:
        assert "SCMP_ACT_ERRNO" == rule["action"]
        at = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, rule["names"][0])
        if at != -1:
            args = [pyseccomp.Arg(a["index"], pyseccomp.MASKED_EQ, a["value"], a["valueTwo"]) for a in rule["args"]]
            made.add_rule(pyseccomp.ERRNO(rule["errnoRet"]), at, *args)
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def calls(arch: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """All numbers with small, large and mixed arguments; each row of the table; a grid around the conditions of `socket`."""
    for at in range(424 if arch == "x86_64" else 292):
        yield from ((at, (value,) * 6) for value in (0, 1, 0x20000, 0xFFFFFFFF, (1 << 64) - 1))
    for name, table in ARGUMENTS.items():
        at_ = number(BY_NAME[name], arch)
        if at_ is not None:
            yield from ((at_, args) for args in table)
    at_ = number(BY_NAME["socket"], arch)
    assert at_ is not None
    values = (*range(20), 38, 40, 132, 256, 262, HIGH | 2, 0x80000 | 3)
    yield from (
        (at_, args) for args in itertools.product((*range(48), HIGH | 40), (0, 1, 2, 3, 5, 10, 0x80002), values)
    )
    at_ = number(BY_NAME["personality"], arch)
    assert at_ is not None
    yield from ((at_, (1 << bit | extra,)) for bit in range(33) for extra in (0, 8, 0x20000, 0x20008))


def test_both_forms_have_one_digest_and_fit() -> None:
    """The digest is stable, the program is small, and a machine without numbers is refused."""
    assert seccomp.digest() == seccomp.digest()
    assert 64 == len(seccomp.digest())
    for arch in ARCHS:
        assert 0 == len(seccomp.program(arch)) % 8
        assert 4096 * 8 > len(seccomp.program(arch))
    assert seccomp.program("amd64") == seccomp.program("x86_64")
    assert seccomp.program("arm64") == seccomp.program("aarch64")
    with pytest.raises(SandboxError, match="no seccomp filter for `riscv64`"):
        seccomp.program("riscv64")


def test_every_refusal_has_a_reason_and_no_name_stands_twice() -> None:
    """The list is read by people: each name once, each with its reason."""
    assert len(DENIED) == len(BY_NAME)
    assert all(item.why for item in DENIED)
    assert {EPERM, ENOSYS} == {item.error for item in DENIED}
