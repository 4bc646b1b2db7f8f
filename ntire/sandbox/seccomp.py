"""The system calls that submitted code may make, as a BPF program for `bwrap --seccomp`: all others are refused.

`ntire.sandbox.system_calls` lists what is allowed. Three calls depend on their arguments: `clone` makes no namespaces;
`socket` is of the local and internet families only, as others, such as vsock, know no network namespace, and of their usual
protocols; `ioctl` does not type into terminals. A call of another processor architecture ends the process, as its numbers
mean other things.

Program: `linux/filter.h`, `linux/seccomp.h`.
"""

import errno
import platform
import struct
from dataclasses import dataclass

from ntire.sandbox.system_calls import ALLOWED

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`; the arguments have 8 bytes each, the low half first."""
X32 = 0x40000000
"""From here on, numbers of x86-64 mean another set of calls."""
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
"""Families of sockets that a network namespace holds in."""
PROTOCOLS = (0, 6, 17)
"""Of the internet: the usual one, TCP, UDP. MPTCP, UDP-Lite and others are code of the kernel that nothing here needs."""
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX type into a terminal."""

HIDDEN_MEMORY = ("memfd_create", "shmget")
"""Memory of no process and no folder: nobody counts it where no control group does."""

DENIED = {
    # name: (x86-64, AArch64); what `ntire doctor` tries, as the worst of what the list leaves out
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
    "fanotify_init": (300, 262), "personality": (135, 92), "memfd_secret": (447, 447), "statmount": (457, 457),
    "listmount": (458, 458), "open_tree_attr": (467, 467), "vmsplice": (278, 75), "mq_open": (240, 180),
    "remap_file_pages": (216, 234), "clone3": (435, 435),
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
LAST = max(ALLOWED["x86_64"].values())
"""A number beyond is a call of a kernel that is newer than the list; libraries know what to do where there is no such call."""


def program(machine: str | None = None, *, counted: bool = True) -> bytes | None:
    """The filter for this machine, or for the one named; None for an architecture whose numbers are not known here.

    `counted`: whether a control group counts all memory. Where none does, memory that belongs to nobody is refused.
    """
    machine = machine or platform.machine()
    known = MACHINES.get(machine)
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
    # Its flags stand behind a pointer, where no filter can look; libraries fall back to clone.
    lines += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    lines += _looked_at(known.clone, [(LOAD, 0, 0, _argument(0)), *_refused_bits(NEW_NAMESPACES)])
    lines += _looked_at(known.socket, _sockets())
    typing = [line for one in TERMINAL_INPUT for line in ((EQUAL, 0, 1, one), (RETURN, 0, 0, ERRNO | errno.EPERM))]
    lines += _looked_at(known.ioctl, [(LOAD, 0, 0, _argument(1)), *typing, (RETURN, 0, 0, ALLOW)])
    for name, number in ALLOWED[machine].items():
        if counted or name not in HIDDEN_MEMORY:
            lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    lines += [(AT_LEAST, 0, 1, LAST + 1), (RETURN, 0, 0, ERRNO | errno.ENOSYS), (RETURN, 0, 0, ERRNO | errno.EPERM)]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


Line = tuple[int, int, int, int]


def _argument(number: int) -> int:
    return ARGUMENTS + 8 * number


def _refused_bits(bits: int) -> list[Line]:
    return [(ANY_BIT, 0, 1, bits), (RETURN, 0, 0, ERRNO | errno.EPERM), (RETURN, 0, 0, ALLOW)]


def _sockets() -> list[Line]:
    """By family, then by protocol."""
    lines: list[Line] = [(LOAD, 0, 0, _argument(0)), (EQUAL, 0, 1, UNIX), (RETURN, 0, 0, ALLOW)]
    of_family: list[tuple[int, tuple[int, ...]]] = [(INET, PROTOCOLS), (INET6, PROTOCOLS), (NETLINK, (0,))]
    for family, protocols in of_family:
        allowed = [line for one in protocols for line in ((EQUAL, 0, 1, one), (RETURN, 0, 0, ALLOW))]
        body = [(LOAD, 0, 0, _argument(2)), *allowed, (RETURN, 0, 0, ERRNO | errno.EPROTONOSUPPORT)]
        lines += [(EQUAL, 0, len(body), family), *body]
    return [*lines, (RETURN, 0, 0, ERRNO | errno.EAFNOSUPPORT)]


def _looked_at(number: int, body: list[Line]) -> list[Line]:
    """A call that is decided by its arguments: every way through `body` returns."""
    return [(EQUAL, 0, len(body), number), *body]
