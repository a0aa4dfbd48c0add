"""A program in isolation: run by `isolation` in a process of its own, with nothing else of this project imported.

In order: a root folder of its own that has the interpreter and its libraries, read-only, and a working folder in
memory; no network; no process but its own; no privileges; limits; then the program and its tests. The standard library
alone is used, by the interpreter that runs the project. What is said goes through a pipe: `isolated` once nothing is
left to be set up, then `passed`, or `failed: ` and why.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nait_assets.evaluation.isolated_calls import (
    MOUNT_SETATTR,
    NEW_NAMESPACES,
    NEW_USERS,
    NUMBERS,
    filter_here,
    number_of,
)
from nait_assets.evaluation.isolated_tests import SAID_CHARACTERS, WORK, run

MEMORY_BYTES = 2 * 2**30
FILE_BYTES, FOLDER_BYTES, FOLDER_FILES = 16 * 2**20, 64 * 2**20, 4096
PROCESSES, FILES = 16, 64
PAUSE_SECONDS = 0.01
SAID_BYTES = 2048
NOT_ISOLATED = 3
OUTSIDE = ".outside"
SHARED = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache", "/etc/localtime")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, PRIVATE, DETACH = 1, 2, 4, 0x20, 0x1000, 0x4000, 0x40000, 2
AT_RECURSIVE, AT_FDCWD = 0x8000, -100
DIE_WITH_PARENT, DUMPABLE, SECCOMP, NO_NEW_PRIVILEGES, FILTER = 1, 4, 22, 38, 2
CAPABILITY_VERSION = 0x20080522
FOLDER_OPTIONS = f"size={FOLDER_BYTES},nr_inodes={FOLDER_FILES},mode=777"
FIRST_USER, N_USERS = 2_000_000, 1_000_000
"""Users that nobody is, one a program: the limit of processes counts those of a user."""

libc = ctypes.CDLL(None, use_errno=True)


def call(what: str, function: Callable[..., int], *arguments: object) -> None:
    """Call a function of the C library, and raise OSError where it fails."""
    if function(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount; a target is made before."""
    call(
        f"mount {target}",
        libc.mount,
        source.encode(),
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )


def make_read_only(path: str) -> None:
    """Nothing below a path can be written any more; other attributes of its mounts stay as they are."""
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY, 0, 0, 0)
    call(
        f"mount_setattr {path}",
        libc.syscall,
        ctypes.c_long(MOUNT_SETATTR),
        ctypes.c_int(AT_FDCWD),
        path.encode(),
        ctypes.c_uint(AT_RECURSIVE),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )


def is_real_root() -> bool:
    """Whether this process is root outside of all user namespaces, for whom a limit of processes would not hold."""
    users = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    return os.geteuid() == 0 and users == ["0", "0", "4294967295"]


def leave(as_root: bool) -> None:
    """New namespaces of mounts, processes and network; of users, too, for who is not root."""
    user, group = os.geteuid(), os.getegid()
    call("unshare", libc.unshare, NEW_NAMESPACES | (0 if as_root else NEW_USERS))
    if not as_root:
        for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
            Path("/proc/self", name).write_text(text, encoding="ascii")


def enter_root(folder: str) -> None:
    """A root folder in memory that has the interpreter, its libraries and a working folder, and nothing else.

    Args:
        folder: Folder that it is mounted on, seen by this process alone.
    """
    mount("", "/", flags=RECURSIVE | PRIVATE)
    mount("none", folder, "tmpfs", NO_SUID | NO_DEVICES, "size=1m,mode=755")
    root = Path(folder)
    for name in (*SHARED, *DEVICES, sys.prefix, sys.base_prefix):
        share(Path(name), root.joinpath(*Path(name).parts[1:]), as_link=name in SHARED)
    for inside in (root / "proc", root / OUTSIDE, root / WORK[1:]):
        inside.mkdir()
    (root / "dev" / "shm").symlink_to(WORK)  # semaphores of multiprocessing
    with contextlib.suppress(OSError):  # some containers do not allow it; few programs read it
        mount("proc", f"{root}/proc", "proc", NO_SUID | NO_DEVICES)
    mount("none", f"{root}{WORK}", "tmpfs", NO_SUID | NO_DEVICES, FOLDER_OPTIONS)
    number = ctypes.c_long(number_of(NUMBERS["pivot_root"]))
    call("pivot_root", libc.syscall, number, str(root).encode(), f"{root}/{OUTSIDE}".encode())
    os.chdir("/")
    call("umount", libc.umount2, f"/{OUTSIDE}".encode(), DETACH)
    Path(f"/{OUTSIDE}").rmdir()
    flags = ctypes.c_ulong(REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES)
    call("remount", libc.mount, None, b"/", None, flags, None)
    os.chdir(WORK)


def share(path: Path, inside: Path, as_link: bool) -> None:
    """Show a path in the new root, read-only; nothing where it is not there, or in what is shown already.

    Args:
        path: Path outside.
        inside: Path under the new root.
        as_link: Whether a link stays one, such as /lib to usr/lib.
    """
    if inside.is_symlink() or inside.exists() or not path.exists():
        return
    inside.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if as_link and path.is_symlink():
        inside.symlink_to(path.readlink())
        return
    if path.is_dir():
        inside.mkdir()
    else:
        inside.touch()
    mount(str(path), str(inside), flags=BIND | RECURSIVE)
    make_read_only(str(inside))


def give_up_privileges(as_root: bool) -> None:
    """Be nobody, and stay so."""
    if as_root:
        user = FIRST_USER + int.from_bytes(os.urandom(4), "little") % N_USERS
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header, none = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    call("capset", libc.capset, ctypes.byref(header), ctypes.byref(none))
    call("prctl", libc.prctl, NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    call("prctl", libc.prctl, DUMPABLE, 0, 0, 0, 0)  # nor can a process of the same user read or change this one


def refuse_calls() -> None:
    """Calls by which a program could get more than the limits give it end with an error, for good."""
    steps = filter_here()
    held = ctypes.create_string_buffer(steps, len(steps))
    program = struct.pack("HxxxxxxP", len(steps) // 8, ctypes.addressof(held))
    call("seccomp", libc.prctl, SECCOMP, FILTER, program, 0, 0)


def limit(seconds: float, processes: int) -> None:
    """Limits of time, memory, files and processes, which cannot be raised."""
    cpu = int(seconds) + 1
    limits = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_NPROC: processes,
        resource.RLIMIT_CORE: 0,
    }
    for name, value in limits.items():
        resource.setrlimit(name, (value, value))


def memory_used() -> int:
    """Bytes that all processes hold; of shared ones each its own; 0 where the kernel does not tell."""
    pages = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            pages += int((process / "statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def first_process(program: str, tests: str, say: int, seconds: float, as_root: bool) -> None:
    """The first process of its namespace: with it the kernel ends all others. It alone says how a program ended."""
    call("prctl", libc.prctl, DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    give_up_privileges(as_root)
    call("prctl", libc.prctl, DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)  # which a change of user undoes
    secrets = [os.urandom(32)]
    secret = secrets[0]
    heard, verdict = os.pipe()
    child = os.fork()
    if child == 0:
        del secret
        os.close(heard)
        limit(seconds, PROCESSES if memory_used() else 2)  # this one and the first, where no more can be counted
        refuse_calls()
        os.write(say, b"isolated\n")
        os.close(say)
        run(program, tests, verdict, secrets)
    os.set_blocking(heard, False)
    os.close(verdict)
    os.write(say, ended(child, heard, secret, time.monotonic() + seconds))
    os._exit(0)


def ended(child: int, heard: int, secret: bytes, deadline: float) -> bytes:
    """Wait for a program, and say how it ended.

    Args:
        child: Its process.
        heard: Pipe that it writes to, read without waiting.
        secret: What is in it, and nothing else, if the tests came to their end.
        deadline: End of its time, on the clock of `time.monotonic`.
    """
    while time.monotonic() < deadline:
        found, status = os.waitpid(-1, os.WNOHANG)
        if found == child:
            said = b""
            with contextlib.suppress(BlockingIOError):
                said = os.read(heard, SAID_BYTES)
            if not said and os.waitstatus_to_exitcode(status) == NOT_ISOLATED:
                return b""  # it has said so itself
            return b"passed" if said == secret else b"failed: " + (said or b"ended without a word")
        if memory_used() > MEMORY_BYTES:
            return b"failed: took too much memory"
        time.sleep(PAUSE_SECONDS)
    return b"failed: timed out"


def main() -> None:
    """Isolate, and run what standard input holds."""
    folder, say, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    given = json.loads(sys.stdin.buffer.read())
    try:
        call("prctl", libc.prctl, DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        as_root = is_real_root()
        leave(as_root)
        pid = os.fork()
        if pid == 0:
            enter_root(folder)
            first_process(given["program"], given["tests"], say, seconds, as_root)
        os.waitpid(pid, 0)
    except Exception as error:  # noqa: BLE001  nobody else would hear of it
        os.write(say, f"{type(error).__name__}: {error}"[:SAID_CHARACTERS].encode())
        os._exit(NOT_ISOLATED)


if __name__ == "__main__":
    main()
