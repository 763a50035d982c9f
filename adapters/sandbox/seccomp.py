"""The system call filter of a sandbox, as a classic BPF program for `bwrap --seccomp` (seccomp(2), linux/filter.h).

It denies what no build needs and what has been the way out of sandboxes: new namespaces and mounts, tracing, kernel
keys, bpf, perf, modules, clocks, pushing characters into a terminal. What programs try first and can do without
answers ENOSYS, so that they fall back: clone3 (its flags lie in memory that a filter cannot read) and io_uring.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL_PROCESS, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
OFFSET_NUMBER, OFFSET_ARCH, OFFSET_ARGS = 0, 4, 16
X32_BIT = 0x40000000

# mnt, cgroup, uts, ipc, user, pid and net namespaces of clone(2); a new time namespace comes only by unshare or clone3
NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK (getifaddrs)


@dataclass(frozen=True)
class Machine:
    arch: int
    column: int
    clone: int
    clone3: int
    ioctl: int
    socket: int
    x32: bool


MACHINES = {
    "x86_64": Machine(0xC000003E, 0, clone=56, clone3=435, ioctl=16, socket=41, x32=True),
    "aarch64": Machine(0xC00000B7, 1, clone=220, clone3=435, ioctl=29, socket=198, x32=False),
}

# name: number on x86_64, on aarch64 (None: does not exist there)
DENIED: dict[str, tuple[int, int | None]] = {
    # the file system's shape
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "fanotify_init": (300, 262),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    # namespaces
    "unshare": (272, 97),
    "setns": (308, 268),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # the kernel itself
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "acct": (163, 89),
    "syslog": (103, 116),
    "personality": (135, 92),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # the clock
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
}
ABSENT: dict[str, tuple[int, int]] = {
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}


def supported(machine: str | None = None) -> bool:
    """Whether there is a filter for this processor."""
    return (machine or platform.machine()) in MACHINES


def program(machine: str | None = None) -> bytes:
    """The filter's instructions, 8 bytes each. KeyError for a processor without one: ask `supported` first."""
    here = MACHINES[machine or platform.machine()]
    denied = [number for pair in DENIED.values() if (number := pair[here.column]) is not None]
    absent = [pair[here.column] for pair in ABSENT.values()] + [here.clone3]
    fail, missing = FAIL | errno.EPERM, FAIL | errno.ENOSYS
    code: list[tuple[int, int, int, int]] = [
        (LOAD, 0, 0, OFFSET_ARCH),
        (JUMP_EQUAL, 1, 0, here.arch),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, OFFSET_NUMBER),
    ]
    if here.x32:
        code += [(JUMP_AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, missing)]
    for numbers, answer in ((denied, fail), (absent, missing)):
        for number in numbers:
            code += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, answer)]
    code += _guard(here.clone, 0, [(JUMP_ANY_BIT, 0, 1, NEW_NAMESPACES), (RETURN, 0, 0, fail)])
    for request in (TIOCSTI, TIOCLINUX):
        code += _guard(here.ioctl, 1, [(JUMP_EQUAL, 0, 1, request), (RETURN, 0, 0, fail)])
    known = [(JUMP_EQUAL, len(FAMILIES) - at, 0, family) for at, family in enumerate(FAMILIES)]
    code += _guard(here.socket, 0, [*known, (RETURN, 0, 0, FAIL | errno.EAFNOSUPPORT)])
    code.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _guard(number: int, argument: int, check: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """`check` on one argument's low word when that call is made; the call's number is loaded again behind it."""
    body = [(LOAD, 0, 0, OFFSET_ARGS + 8 * argument), *check, (LOAD, 0, 0, OFFSET_NUMBER)]
    return [(JUMP_EQUAL, 0, len(body), number), *body]
