"""The process that trains, killed when the trainer has written the checkpoint of a step and that is not yet sealed."""

import os
import signal
import sys
from pathlib import Path

from nait_assets.training import checkpoints, worker

STEP = 5


def main(arguments: list[str]) -> int:
    """Train until then."""
    seal = checkpoints.seal

    def killed(checkpoint: Path) -> None:
        if checkpoint.name == f"checkpoint-{STEP}":
            os.kill(os.getpid(), signal.SIGKILL)
        seal(checkpoint)

    checkpoints.seal = killed
    return worker.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
