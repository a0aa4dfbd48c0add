"""Programs that models write: what isolation keeps in, and what says that one passed."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nait_assets.errors import SetupError
from nait_assets.evaluation import isolation
from nait_assets.evaluation.isolation import PASSED, outcome, outcomes, require_isolation

SECONDS, LONGER = 3.0, 20.0
"""Of programs that run until they are ended, and of others, to which a busy machine must leave their time."""
FORK_BOMB = "import os\nwhile True:\n    os.fork()"
MANY = """
import os
for _ in range(3):
    os.fork()
held = bytearray(2**29)
for place in range(0, len(held), 4096):
    held[place] = 1
while True:
    pass
"""
WRONG = "def double(x):\n    return 0\n"
TO_ALL = (
    "{wrong}import os\nfor one in range(3, 64):\n    try: os.write(one, {word})\n    except OSError: pass\nos._exit(0)"
)
FRAMES = """
import sys
def double(x):
    words, frame = [], sys._getframe()
    while frame:
        held = [*frame.f_locals.values(), *frame.f_globals.values()]
        words += [word for word in held if word and isinstance(word, bytes)]
        words += [word for one in held if isinstance(one, (list, tuple)) for word in one if isinstance(word, bytes)]
        frame = frame.f_back
    assert words, 'no word'
    return 4
"""
JUMP = """
import sys
{frozen}
def double(x):
    frame = sys._getframe(1)
    def jump(frame, event, argument):
        if event == 'line':
            frame.f_lineno += 1
        return jump
    frame.f_trace = jump
    sys.settrace(jump)
"""
JUMPED = "def check(f):\n    x = f(2)\n    assert x == 4\n    y = 1\ncheck(double)"
CODE = f"""
import builtins, sys
frame = sys._getframe()
while frame:
    if 'require_unchanged' in frame.f_globals:
        frame.f_globals['require_unchanged'].__code__ = (lambda places: None).__code__
    frame = frame.f_back
builtins.all = bool
{WRONG}
"""
UNITTEST = """
import unittest
class Tests(unittest.TestCase):
    def test_double(self):
        self.assertEqual(double(2), 4)
assert unittest.main(argv=['tests'], exit=False).result.wasSuccessful()
"""
KERNEL = "import ctypes, os\nC = ctypes.CDLL(None, use_errno=True)\n"
KERNEL += "def refused(found): assert found != -1, os.strerror(ctypes.get_errno())\n"
OTHERS = {
    "ptrace": f"{KERNEL}refused(C.ptrace(16, os.getppid(), 0, 0))",
    "memory": "import os; open(f'/proc/{os.getppid()}/mem', 'r+b')",
    "pipes": f"{KERNEL}refused(C.syscall(438, os.pidfd_open(os.getppid()), 0, 0))",
    "user": f"{KERNEL}refused(C.unshare(0x10000000 | 0x20000))",
}
"""Ways to other processes and to rights, which a user who is not root would have."""


def isolated(program: str, seconds: float = SECONDS, tests: str = "") -> str:
    """How a program ended, and that it ended in time."""
    began = time.monotonic()
    found = outcome(program, tests, seconds)
    assert time.monotonic() - began < seconds + isolation.GRACE_SECONDS
    return found


@pytest.mark.usefixtures("isolating")
def test_a_correct_program_passes() -> None:
    """It may use the libraries that are installed, processes and files of its own folder."""
    program = (
        "import json, subprocess, tempfile, numpy\nassert json.loads('[1]') == [1]\nassert numpy.ones(3).sum() == 3\n"
    )
    program += "assert subprocess.run(['echo', '1'], capture_output=True).stdout == b'1\\n'\n"
    program += "with tempfile.NamedTemporaryFile('w+') as file:\n    file.write('x')\nopen('own', 'w').write('x')"
    assert isolated(program, 20) == PASSED
    assert outcomes(["x = 1", "x = 2"], "assert x == 1, 'no'", 20) == [PASSED, "failed: AssertionError: no"]
    require_isolation()


@pytest.mark.usefixtures("isolating")
@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("import pickle\nclass Own: pass", "assert isinstance(pickle.loads(pickle.dumps(Own())), Own)"),
        (
            "from multiprocessing import Pool\ndef double(x): return 2 * x",
            "with Pool(2) as pool:\n    assert pool.map(double, [1, 2]) == [2, 4]",
        ),
        ("def double(x): return 2 * x", UNITTEST),
        ("import os\nif os.fork() == 0: os._exit(0)\nos.wait()", ""),
        (
            "def size(path):\n    with open(path) as file: return len(file.read())",
            "from unittest.mock import mock_open, patch\nwith patch('builtins.open', mock_open(read_data='ab')):\n"
            "    assert size('x') == 2",
        ),
    ],
)
def test_what_programs_and_tests_commonly_do_passes(program: str, tests: str) -> None:
    """They are `__main__`, as where they are run by hand, and may start processes and change what they put back."""
    assert isolated(program, LONGER, tests) == PASSED


@pytest.mark.usefixtures("isolating")
@pytest.mark.parametrize(
    ("program", "tests", "said"),
    [
        (TO_ALL.format(wrong=WRONG, word=b"passed"), "assert double(2) == 4", "failed: passed"),
        (
            f"{WRONG}import os\nwrite = os.write\nos.write = lambda one, word: write(one, b'passed')",
            "assert double(2) == 4",
            "failed: passed",
        ),
        (FRAMES, "assert double(2) == 4", "no word"),
        (JUMP.format(frozen=""), JUMPED, "not traced"),
        (f"import builtins\nbuiltins.all = bool\n{WRONG}", "assert all([double(2) == 4])", "changed builtins.all"),
        (
            JUMP.format(frozen="import _imp\nsys.settrace = _imp.create_builtin(sys.__spec__).settrace"),
            JUMPED,
            "sys.settrace",
        ),
        (f"import gc\ngc.get_objects()\n{WRONG}", "assert double(2) == 4", "gc.get_objects"),
        (CODE, "assert all([double(2) == 4])", "set no __code__"),
        (f"import builtins\nbuiltins.exec = print\n{WRONG}", "assert double(2) == 4", "AssertionError"),
        (f"__builtins__ = {{'all': bool}}\n{WRONG}", "assert all([double(2) == 4])", "changed __builtins__"),
        (
            f"import unittest\nunittest.TestCase.assertEqual = lambda *_: None\n{WRONG}",
            UNITTEST,
            "changed unittest.TestCase.assertEqual",
        ),
        (f"{WRONG}text = '''", "def check():\n    '''Twice.'''\n    assert double(2) == 4\ncheck()", "SyntaxError"),
        (f"{WRONG}class E(Exception):\n    def __str__(self): return 'passed'\nE.__name__ = ''\nraise E", "", "failed"),
        (f"{WRONG}class E(Exception):\n    def __str__(self): raise SystemExit\nraise E", "", "failed: E"),
        (
            f"{WRONG}import atexit\natexit.register(print, 'passed')\nprint('passed')",
            "assert double(2) == 4",
            "Assertion",
        ),
    ],
)
def test_a_program_cannot_say_that_it_passed(program: str, tests: str, said: str) -> None:
    """Neither by the word, nor by taking from the tests what they rely on."""
    found = isolated(program, LONGER, tests)
    assert found.startswith("failed: ")
    assert said in found


@pytest.mark.usefixtures("isolating")
@pytest.mark.parametrize("way", OTHERS)
@pytest.mark.parametrize("as_root", [True, False])
def test_a_program_reaches_no_other_process_and_no_rights(way: str, as_root: bool) -> None:
    """Not its own first process either, which says whether it passed; also where the user is not root."""
    if as_root:
        assert "not permitted" in isolated(OTHERS[way]) or "denied" in isolated(OTHERS[way])
        return
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    code = f"from nait_assets.evaluation.isolation import outcome; print(outcome({OTHERS[way]!r}, '', {SECONDS}))"
    command = ["unshare", "-r", sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=isolation.PROJECT)
    assert "not permitted" in found.stdout or "denied" in found.stdout, found.stdout + found.stderr


@pytest.mark.usefixtures("isolating")
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.memfd_create('x')", "not permitted"),
        (f"{KERNEL}refused(C.shmget(0, 4096, 0o1600))", "not permitted"),
        ("import os\nfor n in range(10**5): open(str(n), 'w').close()", "No space left"),
        ("import socket; socket.socket(40, socket.SOCK_STREAM)", "not supported"),  # vsock
        ("import socket; socket.socket(38, socket.SOCK_SEQPACKET)", "not supported"),  # the kernel's cryptography
    ],
)
def test_nothing_is_held_that_no_limit_counts(program: str, said: str) -> None:
    """Memory of no process, a folder's entries, the host of a virtual machine."""
    assert said in isolated(program, LONGER)


@pytest.mark.usefixtures("isolating")
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os; os._exit(0)", "ended without a word"),
        ("import os\nif os.fork(): assert False", "AssertionError"),  # the child comes to the end
        ("while True: pass", "timed out"),
        ("import time; time.sleep(1000)", "timed out"),
        ("held = []\nwhile True: held.append(bytearray(10**8))", "MemoryError"),
        (MANY, "memory"),
        (FORK_BOMB, "BlockingIOError"),
        ("open('large', 'wb').write(bytes(10**8))", "File too large"),
        ("for n in range(99): open(str(n), 'wb').write(bytes(10**6))", "No space left"),
        ("held = [open('/dev/null') for _ in range(1000)]", "Too many open files"),
        ("print('x' * 10**8)\nassert False, 'y' * 10**7", "AssertionError"),
        ("import os, signal; os.kill(1, signal.SIGKILL); os.kill(0, signal.SIGKILL)", "without a word"),
    ],
)
def test_a_program_that_does_harm_fails_in_time(program: str, said: str) -> None:
    """And says why."""
    found = isolated(program, SECONDS if said == "timed out" else LONGER)
    assert found != PASSED
    assert said in found


@pytest.mark.usefixtures("isolating")
def test_there_is_no_network() -> None:
    """Neither to this machine nor beyond, also where something listens, by address and by path."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()  # it does listen
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        assert "unreachable" in isolated(program)
    named = f"\0nait-{os.getpid()}"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(named)
        server.listen()
        found = isolated(f"import socket; socket.socket(socket.AF_UNIX).connect({named!r})")
        assert "refused" in found


@pytest.mark.usefixtures("isolating")
def test_there_is_no_environment_and_no_file_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, not that of the process that started it either; nothing outside its folder is written."""
    monkeypatch.setenv("NAIT_SECRET", "secret")
    (tmp_path / "key").write_text("secret")
    assert isolated("import os; assert 'NAIT_SECRET' not in os.environ") == PASSED
    for pid in (os.getpid(), 1):
        assert "Error" in isolated(
            f"assert b'secret' not in open('/proc/{pid}/environ', 'rb').read(); assert {pid} != 1"
        )
    assert "FileNotFoundError" in isolated(f"open({str(tmp_path / 'key')!r})")
    for place in ("/outside", "/usr/outside", str(Path(sys.prefix) / "outside"), str(tmp_path / "outside")):
        assert "Error" in isolated(f"open({place!r}, 'w')")
        assert not Path(place).exists()
    assert isolated("import os; assert os.listdir('.') == []") == PASSED
    assert "Error" in isolated("import os; os.setuid(0)")


@pytest.mark.usefixtures("isolating")
def test_no_process_is_left_behind() -> None:
    """Not one that has left its group either."""
    name = f"nait-left-{os.getpid()}"
    program = f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.execv('/bin/sleep', [{name!r}, '60'])"
    assert isolated(program) == PASSED
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(line.startswith(name.encode()) for line in lines)


@pytest.mark.usefixtures("isolating")
def test_where_no_process_is_shown_there_is_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen, each with its own memory, could not be counted together."""
    unseen = """
import nait_assets.evaluation.isolated_program as own
def mount(kind, *given, of=own.mount, **more):
    if kind == "proc":
        raise OSError("not allowed")
    of(kind, *given, **more)
own.mount = mount
main()
"""
    monkeypatch.setattr(isolation, "RUNNER", isolation.RUNNER.replace("main()\n", unseen))
    assert isolated("import os, numpy\nassert os.listdir('/proc') == []", LONGER) == PASSED
    assert "BlockingIOError" in isolated("import os\nos.fork()", LONGER)


def test_where_nothing_can_be_isolated_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence instead."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SetupError, match="cannot isolate it: it runs darwin"):
        require_isolation()
    monkeypatch.setattr(sys, "platform", "linux")
    written, runner = tmp_path / "written", isolation.RUNNER
    for refused in ("NEW_NAMESPACES = 1", "filter_here = bytes", "limit = None", "CAPABILITY_VERSION = 0"):
        refusing = f"import nait_assets.evaluation.isolated_program as own\nown.{refused}\nmain()"
        monkeypatch.setattr(isolation, "RUNNER", runner.replace("main()", refusing))
        with pytest.raises(SetupError, match=r"cannot isolate it: \w+: "):
            outcome(f"open({str(written)!r}, 'w')", "", SECONDS)
        assert not written.exists()
