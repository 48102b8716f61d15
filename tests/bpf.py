"""The kernel's filter machine in Python: what a seccomp program answers to one call, without making the call.

In:   a program as the kernel takes it, an architecture, a number, arguments. Out: the 32-bit verdict.
Must not know: how the program was made. Source: Linux, Documentation/networking/filter.rst, and `seccomp_check_filter`.
"""

import struct
from collections.abc import Sequence

__all__ = ["AARCH64", "ALLOW", "I386", "KILL_PROCESS", "X86_64", "errno_of", "verdict"]

X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
ALLOW, KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_WORD = 0xFFFFFFFF


def errno_of(answer: int) -> int | None:
    """The error that a verdict gives to the caller; None when it gives none."""
    return answer & 0xFFFF if answer & 0xFFFF0000 == _ERRNO else None


def verdict(program: bytes, arch: int, number: int, args: Sequence[int] = ()) -> int:
    """Run the program to its `return`.

    Raises:
        AssertionError: it holds an instruction that the kernel would not take, or jumps out of itself.
    """
    filled = [*args, *[0] * (6 - len(args))]
    data = struct.pack("<IIQ6Q", number & _WORD, arch, 0, *(arg & (1 << 64) - 1 for arg in filled))
    steps = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at = value = 0
    while at < len(steps):
        code, yes, no, k = steps[at]
        at += 1
        if code == 0x06:  # return a constant
            return int(k)
        value, jump = _step(code, k, value, data)
        at += {None: 0, True: yes, False: no}[jump] if code != 0x05 else k
    raise AssertionError("the program runs past its end")


def _step(code: int, k: int, value: int, data: bytes) -> tuple[int, bool | None]:
    """Give the accumulator and, for a comparison, what it said."""
    if code == 0x20:  # load a word of the call
        assert k % 4 == 0
        return struct.unpack_from("<I", data, k)[0], None
    if code == 0x54:
        return value & k, None
    if code == 0x05:  # jump always
        return value, None
    said = {0x15: value == k, 0x25: value > k, 0x35: value >= k, 0x45: bool(value & k)}
    assert code in said, f"instruction {code:#x}"
    return value, said[code]
