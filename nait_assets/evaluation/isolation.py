"""Running a program that nobody has read: in a process of its own, without network, files, environment or privileges.

Belongs here: starting it, bounding it, and what became of it. What keeps it in is in `isolated_program`, which runs in
that process. Linux alone can do so; where it cannot, nothing is run.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nait_assets.errors import SetupError

PROJECT = Path(__file__).parents[2]
RUNNER = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
from nait_assets.evaluation.isolated_program import main
del sys.path[0]
main()
"""
STARTED, PASSED, WORDLESS = "isolated\n", "passed", "failed: ended without a word"
GRACE_SECONDS = 20.0
"""For starting and ending a process, beside a program's own time: the machine may be busy."""
SAID_BYTES = 4096


def outcome(program: str, tests: str, seconds: float) -> str:
    """How a program ended: `passed`, or `failed: ` and why.

    Args:
        program: Python.
        tests: Python that is run behind it, and raises where something is wrong.
        seconds: Time that it may take, by the clock and of the processor.

    Raises:
        SetupError: This machine cannot isolate it; it was not run.
    """
    said = _said(json.dumps({"program": program, "tests": tests}), seconds)
    if not said.startswith(STARTED):
        raise SetupError(
            "evaluation.tasks of `kind: pass@k` run what a model writes, and this machine cannot isolate it: "
            f"{said or 'the isolated process did not start'}. It takes Linux, as root or where users may make "
            "namespaces (`unshare -rmn true` works), which some containers forbid."
        )
    return said.removeprefix(STARTED) or WORDLESS


def outcomes(programs: Sequence[str], tests: str, seconds: float) -> list[str]:
    """The same of several programs for one problem, in their order, as many at once as there are processors."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(lambda program: outcome(program, tests, seconds), programs))


def require_isolation() -> None:
    """Whether programs can be isolated here, and run then.

    Raises:
        SetupError: They cannot.
    """
    found = outcome("import json, math", "", GRACE_SECONDS)
    if found != PASSED:
        raise SetupError(f"evaluation.tasks of `kind: pass@k`: an isolated program cannot use Python here: {found}.")


def _said(given: str, seconds: float) -> str:
    """What the isolated process says, of which no process is left behind."""
    if sys.platform != "linux":
        return f"it runs {sys.platform}"
    read, write = os.pipe()
    try:
        with tempfile.TemporaryDirectory(prefix="isolated_") as folder:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", RUNNER, folder, str(write), str(seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                pass_fds=(write,),
                start_new_session=True,
            )
            os.close(write)
            write = -1
            try:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(given.encode("ascii"))
                    process.stdin.close()
                return _read(read, time.monotonic() + seconds + GRACE_SECONDS)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)


def _read(pipe: int, deadline: float) -> str:
    """What comes through a pipe until it is closed, the time is up or it is too much."""
    said = b""
    while len(said) < SAID_BYTES:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(pipe, SAID_BYTES) if ready else b""
        if not part:
            break
        said += part
    return said.decode("utf-8", "replace")
