"""Calls of the Linux kernel that a program in isolation is refused, whatever its privileges.

Run in the isolated process: the standard library alone.
"""

import errno
import os
import socket
import struct

NEW_NAMESPACES = 0x00020000 | 0x08000000 | 0x20000000 | 0x40000000  # mounts, IPC, processes, network
NEW_USERS = 0x10000000
MOUNT_SETATTR = 442
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
NUMBERS = {
    # mounts, where a file system without a limit could be made
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (MOUNT_SETATTR, MOUNT_SETATTR),
    # namespaces, in which it would be root
    "unshare": (272, 97),
    "setns": (308, 268),
    # memory of no process and of no folder, which nothing limits
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    # parts of the kernel that programs do not need, and in which its flaws are found
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
}
"""Calls that a program is refused: their numbers on x86-64, and on the others."""
CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""Sockets that a network namespace keeps in; those to a virtual machine's host (vsock) it may not."""


def number_of(numbers: tuple[int, int]) -> int:
    """Number of a call of the kernel on this machine."""
    return numbers[os.uname().machine != "x86_64"]


def filter_here() -> bytes:
    """A filter of calls of the kernel (seccomp): a program of 8-byte steps that reads what is called, and by what."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, end, refuse = 0x7FFF0000, 0x80000000, 0x00050000
    number, machine, first = 0, 4, 16  # places of the call's number, of the architecture and of the first argument
    architecture = ARCHITECTURES[os.uname().machine]
    steps = [(load, 0, 0, machine), (equal, 1, 0, architecture), (answer, 0, 0, end), (load, 0, 0, number)]
    if architecture == ARCHITECTURES["x86_64"]:  # the same calls by other numbers (x32)
        steps += [(at_least, 0, 1, 0x40000000), (answer, 0, 0, refuse | errno.EPERM)]
    for numbers in NUMBERS.values():
        steps += [(equal, 0, 1, number_of(numbers)), (answer, 0, 0, refuse | errno.EPERM)]
    # its flags lie in memory, which a filter cannot read; the C library then takes clone
    steps += [(equal, 0, 1, number_of(CLONE3)), (answer, 0, 0, refuse | errno.ENOSYS)]
    steps += [(equal, 0, 4, number_of(CLONE)), (load, 0, 0, first), (any_bit, 0, 1, NEW_NAMESPACES | NEW_USERS)]
    steps += [(answer, 0, 0, refuse | errno.EPERM), (answer, 0, 0, allow)]
    steps += [(equal, 1, 0, number_of(SOCKET)), (answer, 0, 0, allow), (load, 0, 0, first)]
    for family in FAMILIES:
        steps += [(equal, 0, 1, int(family)), (answer, 0, 0, allow)]
    steps += [(answer, 0, 0, refuse | errno.EAFNOSUPPORT)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
