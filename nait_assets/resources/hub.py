"""The Hugging Face hub: which commit a revision is, and what to tell a user whose repository cannot be read."""

import math
import re
from typing import Any

from nait_assets.errors import ModelError, SourceError

COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT_SECONDS = 10.0
PATIENCE_SECONDS = 20.0
"""Longest time from the first question to the end of the last: a sensor's tick must not take longer."""
PAUSES_SECONDS = (1.0, 2.0)
BUSY_OR_OUT_OF_ORDER = (429, 500, 502, 503, 504)


def hub_commit(
    repository: str,
    revision: str | None,
    kind: str,
    timeout_seconds: float = TIMEOUT_SECONDS,
    use: str | None = None,
) -> str:
    """The commit that a revision of a hub repository points to; a full commit hash is taken as it is.

    A hub that is busy or out of order is asked again, a few times, and within `PATIENCE_SECONDS` in all.

    Args:
        repository: `<org>/<name>`.
        revision: Commit, tag or branch; the default branch if None.
        kind: "dataset" or "model".
        timeout_seconds: A hub that says nothing for so long counts as not reachable.
        use: How to use a local copy, for the error; by default as `hub_error`.

    Raises:
        ModelError: The model's repository or revision does not exist or cannot be reached.
        SourceError: Or the data set's.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    import tenacity

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: _asked_to_wait_seconds(error) < math.inf),
        wait=_pause_seconds,
        stop=tenacity.stop_after_attempt(len(PAUSES_SECONDS) + 1)
        | tenacity.stop_before_delay(max(0.0, PATIENCE_SECONDS - timeout_seconds)),
        reraise=True,
    )
    try:
        return retrying(_ask_commit, repository, revision, kind, timeout_seconds)
    except Exception as error:  # the hub's client raises half a dozen unrelated classes
        raise hub_error(repository, revision, kind, error, use) from error


def _ask_commit(repository: str, revision: str | None, kind: str, timeout_seconds: float) -> str:
    from huggingface_hub import HfApi

    commit = HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=timeout_seconds).sha
    if commit is None:
        raise ValueError("the answer names no commit")
    return commit


def _pause_seconds(state: Any) -> float:
    """Seconds before the hub is asked again: a little longer each time, and at least what it asks for."""
    pause = PAUSES_SECONDS[min(state.attempt_number, len(PAUSES_SECONDS)) - 1]
    return max(pause, _asked_to_wait_seconds(state.outcome.exception()))


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _asked_to_wait_seconds(error: BaseException) -> float:
    """Seconds in a busy hub's `Retry-After`, 0 without one, infinity where asking again would not help."""
    if _status(error) not in BUSY_OR_OUT_OF_ORDER:
        return math.inf
    said = error.response.headers.get("Retry-After", "")  # type: ignore[attr-defined]
    return float(said) if said.isdecimal() else 0.0


def hub_error(
    repository: str, revision: str | None, kind: str, error: Exception, use: str | None = None
) -> ModelError | SourceError:
    """What to tell a user whose hub repository could not be read.

    Args:
        repository: `<org>/<name>`.
        revision: As it was asked for.
        kind: "dataset" or "model".
        error: What the hub's client raised.
        use: How to use a local copy, such as "name the folder in `model.source`".
    """
    flag = "--repo-type dataset " if kind == "dataset" else ""
    use = use or "name a file of it as `source`"
    lines = [(str(error).strip().splitlines() or [""])[0], getattr(error, "server_message", None) or ""]
    reason = ". ".join(line.rstrip(".") for line in lines if line)
    return (ModelError if kind == "model" else SourceError)(
        f"the hub's {kind} {repository!r} (revision {revision or 'default'}) cannot be read: "
        f"{type(error).__name__}: {reason}. {_advice(error)} To use a local copy: "
        f"`hf download {flag}{repository} --local-dir FOLDER` where there is a connection, then {use}."
    )


def _advice(error: Exception) -> str:
    if _status(error) in BUSY_OR_OUT_OF_ORDER:
        seconds = _asked_to_wait_seconds(error)
        return f"The hub is busy or out of order; try again {f'in {seconds:g} s' if seconds else 'later'}."
    if _status(error) in (401, 403):
        return "Check HF_TOKEN, and that its owner has been given access on the repository's page."
    return "Check its name, your connection and, for a gated one, HF_TOKEN."
