"""A program in isolation: run by `isolation` as a script of its own, with nothing of this project imported.

In order: a root folder of its own that has the interpreter and its libraries, read-only, and a working folder in
memory; no network; no process but its own; no privileges; limits; then the program. The standard library alone is
used, by the interpreter that runs the project. What is said goes through a pipe: `isolated` once nothing is left to be
set up, then `passed`, or the error.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

MEMORY_BYTES = 2 * 2**30
FILE_BYTES, FOLDER_BYTES = 16 * 2**20, 64 * 2**20
PROCESSES, FILES = 16, 64
PAUSE_SECONDS = 0.01
SAID_CHARACTERS = 300
WORK, OUTSIDE = "/working-folder", ".outside"
SHARED = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache", "/etc/localtime")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
NEW_NAMESPACES = 0x00020000 | 0x08000000 | 0x20000000 | 0x40000000  # mounts, IPC, processes, network
NEW_USERS = 0x10000000
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, PRIVATE, DETACH = 1, 2, 4, 0x20, 0x1000, 0x4000, 0x40000, 2
MOUNT_SETATTR, AT_RECURSIVE, AT_FDCWD, PIVOT_ROOT = 442, 0x8000, -100, {"x86_64": 155, "aarch64": 41, "riscv64": 41}
DIE_WITH_PARENT, NO_NEW_PRIVILEGES = 1, 38
CAPABILITY_VERSION = 0x20080522
FIRST_USER, N_USERS = 2_000_000, 1_000_000
"""Users that nobody is, one a program: the limit of processes counts those of a user."""
ENVIRONMENT = {
    "HOME": WORK,
    "TMPDIR": WORK,
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

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
    with contextlib.suppress(OSError):  # some containers do not allow it; few programs read it
        mount("proc", f"{root}/proc", "proc", NO_SUID | NO_DEVICES)
    mount("none", f"{root}{WORK}", "tmpfs", NO_SUID | NO_DEVICES, f"size={FOLDER_BYTES},mode=777")
    number = ctypes.c_long(PIVOT_ROOT[os.uname().machine])
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


def limit(seconds: float) -> None:
    """Limits of time, memory, files and processes, which cannot be raised."""
    cpu = int(seconds) + 1
    limits = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_NPROC: PROCESSES,
        resource.RLIMIT_CORE: 0,
    }
    for name, value in limits.items():
        resource.setrlimit(name, (value, value))


def run(program: str, say: int) -> None:
    """Run a program, and say how it ended; one that leaves by itself has not passed."""
    os.setsid()
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    sys.argv = ["program"]
    own, said = os.getpid(), "passed"
    try:
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    except BaseException as error:  # noqa: BLE001  whatever it raises
        said = f"{type(error).__name__}: {error}"[:SAID_CHARACTERS]
    if os.getpid() == own:  # a process that it forked comes by here, too
        os.write(say, said.encode("utf-8", "replace"))
    os._exit(0)


def memory_used() -> int:
    """Bytes that all processes hold; of shared ones each its own; 0 where the kernel does not tell."""
    pages = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            pages += int((process / "statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def first_process(program: str, say: int, seconds: float, as_root: bool) -> None:
    """The first process of its namespace: with it the kernel ends all others."""
    call("prctl", libc.prctl, DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    give_up_privileges(as_root)
    call("prctl", libc.prctl, DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)  # which a change of user undoes
    os.write(say, b"isolated\n")
    child = os.fork()
    if child == 0:
        limit(seconds)
        run(program, say)
    deadline = time.monotonic() + seconds
    said = b"timed out"
    while time.monotonic() < deadline:
        found, _ = os.waitpid(-1, os.WNOHANG)
        if found == child:
            os._exit(0)
        if memory_used() > MEMORY_BYTES:
            said = b"took too much memory"
            break
        time.sleep(PAUSE_SECONDS)
    os.write(say, said)
    os._exit(1)


def main() -> None:
    """Isolate, and run what standard input holds."""
    folder, say, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    program = sys.stdin.buffer.read().decode("utf-8", "replace")
    try:
        call("prctl", libc.prctl, DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        as_root = is_real_root()
        leave(as_root)
        pid = os.fork()
        if pid == 0:
            enter_root(folder)
            first_process(program, say, seconds, as_root)
        os.waitpid(pid, 0)
    except Exception as error:  # noqa: BLE001  nobody else would hear of it
        os.write(say, f"{type(error).__name__}: {error}"[:SAID_CHARACTERS].encode())
        os._exit(3)


if __name__ == "__main__":
    main()
