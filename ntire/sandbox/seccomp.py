"""The system calls that submitted code may not make, as a BPF program for `bwrap --seccomp`.

Refused with EPERM: other processes' memory, mounts and namespaces, keys, kernel modules, BPF, tracing, clocks, handles that
reach around paths, io_uring. Sockets are of the local and internet families only: others, such as vsock, know no network
namespace. A call of another processor architecture ends the process, as its numbers mean other things.

Numbers: Linux, `asm/unistd_64.h` (x86-64) and `asm-generic/unistd.h` (AArch64). Program: `linux/filter.h`, `linux/seccomp.h`.
"""

import errno
import platform
import struct
from dataclasses import dataclass

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`; the arguments have 8 bytes each, the low half first."""
X32 = 0x40000000
"""From here on, numbers of x86-64 mean another set of calls."""
FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: those that a network namespace holds in."""
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX type into a terminal."""

DENIED = {
    # name: (x86-64, AArch64)
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "move_pages": (279, 239), "migrate_pages": (256, 238),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "bpf": (321, 280), "perf_event_open": (298, 241), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "userfaultfd": (323, 282), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116), "vhangup": (153, 58),
    "fanotify_init": (300, 262),
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A processor architecture: its place in DENIED, its name in the kernel, and the calls that are looked at closely."""

    column: int
    audit: int
    clone: int
    socket: int
    ioctl: int


MACHINES = {
    "x86_64": Machine(0, 0xC000003E, clone=56, socket=41, ioctl=16),
    "aarch64": Machine(1, 0xC00000B7, clone=220, socket=198, ioctl=29),
}
CLONE3 = 435


def program(machine: str | None = None) -> bytes | None:
    """The filter for this machine, or for the one named; None for an architecture whose numbers are not known here."""
    known = MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, known.audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, ERRNO | errno.ENOSYS),
    ]
    for numbers in DENIED.values():
        lines += [(EQUAL, 0, 1, numbers[known.column]), (RETURN, 0, 0, ERRNO | errno.EPERM)]
    # Its flags stand behind a pointer, where no filter can look; libraries fall back to clone.
    lines += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    lines += _looked_at(known.clone, 0, [(ANY_BIT, 0, 1, NEW_NAMESPACES), (RETURN, 0, 0, ERRNO | errno.EPERM)])
    allowed = [(EQUAL, len(FAMILIES) - number, 0, family) for number, family in enumerate(FAMILIES)]
    lines += _looked_at(known.socket, 0, [*allowed, (RETURN, 0, 0, ERRNO | errno.EAFNOSUPPORT)])
    typing = [
        line for request in TERMINAL_INPUT for line in ((EQUAL, 0, 1, request), (RETURN, 0, 0, ERRNO | errno.EPERM))
    ]
    lines += _looked_at(known.ioctl, 1, typing)
    lines.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def _looked_at(number: int, argument: int, body: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """A call that is allowed or not by one of its arguments; what `body` does not return goes on behind it."""
    inside = [(LOAD, 0, 0, ARGUMENTS + 8 * argument), *body, (LOAD, 0, 0, NUMBER)]
    return [(EQUAL, 0, len(inside), number), *inside]
