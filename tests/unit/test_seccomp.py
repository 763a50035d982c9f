"""The filter is run by a small interpreter of classic BPF (linux/filter.h): what it decides, not how it is written."""

from __future__ import annotations

import errno
import struct

import pytest

from adapters.sandbox import seccomp

ALLOW, KILL = seccomp.ALLOW, seccomp.KILL_PROCESS
EPERM, ENOSYS, EAFNOSUPPORT = (seccomp.FAIL | code for code in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))


def decide(program: bytes, number: int, args: tuple[int, ...] = (), *, arch: int) -> int:
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*args, *[0] * (6 - len(args))))
    code = list(struct.iter_unpack("HBBI", program))
    at = accumulator = 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        if op == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif op == seccomp.RETURN:
            return int(k)
        else:
            hit = {
                seccomp.JUMP_EQUAL: accumulator == k,
                seccomp.JUMP_AT_LEAST: accumulator >= k,
                seccomp.JUMP_ANY_BIT: bool(accumulator & k),
            }[op]
            at += yes if hit else no


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(machine: str, number: int, *args: int) -> int:
    return decide(seccomp.program(machine), number, args, arch=seccomp.MACHINES[machine].arch)


def test_every_named_call_is_denied(machine: str) -> None:
    column = seccomp.MACHINES[machine].column
    for name, numbers in seccomp.DENIED.items():
        if numbers[column] is not None:
            assert ask(machine, numbers[column]) == EPERM, name
    for name, pair in seccomp.ABSENT.items():
        assert ask(machine, pair[column]) == ENOSYS, name


def test_no_number_stands_twice() -> None:
    for column in (0, 1):
        numbers = [pair[column] for pair in (*seccomp.DENIED.values(), *seccomp.ABSENT.values())]
        known = [number for number in numbers if number is not None]
        assert len(known) == len(set(known))


def test_what_builds_need_is_allowed(machine: str) -> None:
    everyday = {"x86_64": (0, 1, 2, 9, 39, 59, 61, 231, 257, 293), "aarch64": (56, 63, 64, 93, 94, 172, 221, 222)}
    for number in everyday[machine]:
        assert ask(machine, number) == ALLOW


def test_threads_and_forks_pass_but_new_namespaces_do_not(machine: str) -> None:
    here = seccomp.MACHINES[machine]
    pthread, fork = 0x3D0F00, 0x01200011
    assert ask(machine, here.clone, pthread) == ALLOW
    assert ask(machine, here.clone, fork) == ALLOW
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(machine, here.clone, fork | flag) == EPERM
    assert ask(machine, here.clone3, 0) == ENOSYS


def test_terminals_cannot_be_typed_into(machine: str) -> None:
    ioctl = seccomp.MACHINES[machine].ioctl
    tcgets = 0x5401
    assert ask(machine, ioctl, 0, tcgets) == ALLOW
    assert ask(machine, ioctl, 0, seccomp.TIOCSTI) == EPERM
    assert ask(machine, ioctl, 0, seccomp.TIOCLINUX) == EPERM
    assert ask(machine, ioctl, 0, seccomp.TIOCSTI | 1 << 32) == EPERM  # the kernel looks at the low word only


@pytest.mark.parametrize(("family", "verdict"), [(1, ALLOW), (2, ALLOW), (10, ALLOW), (16, ALLOW)])
def test_plain_sockets_are_allowed(machine: str, family: int, verdict: int) -> None:
    assert ask(machine, seccomp.MACHINES[machine].socket, family) == verdict


@pytest.mark.parametrize("family", [0, 3, 9, 15, 17, 38, 40])
def test_other_sockets_are_not(machine: str, family: int) -> None:
    assert ask(machine, seccomp.MACHINES[machine].socket, family) == EAFNOSUPPORT


def test_foreign_architectures_are_killed_and_x32_is_absent() -> None:
    i386 = 0x40000003
    assert decide(seccomp.program("x86_64"), 11, arch=i386) == KILL
    assert ask("x86_64", seccomp.X32_BIT | 165) == ENOSYS


def test_the_program_is_short_enough_for_the_kernel(machine: str) -> None:
    assert len(seccomp.program(machine)) // 8 < 4096
    assert not seccomp.supported("sparc64")
