"""Which tokens of a conversation are read where it is longer than `max_tokens` and the prompt gives way.

The middle of the prompt's texts is left out, and what the template adds and the answers stay. No text loses more than
it must: the longest ones are shortened to one length, and each keeps its head and its tail. An eighth of `max_tokens`
is the prompt's own: an answer that leaves less loses its end.
"""

from collections.abc import Sequence

import numpy as np

PROMPT_SHARE = 8
"""The prompt keeps at least one token in as many of `max_tokens`, or all that it has."""


def without_the_middle(
    n_tokens: int, prompts: Sequence[np.ndarray] | None, answers: Sequence[np.ndarray], max_tokens: int
) -> np.ndarray:
    """Indices of the tokens that are kept, rising; more than `max_tokens` where the answers do not fit.

    Where the template adds more than half of `max_tokens`, as with descriptions of many tools, what it adds counts as
    the prompt's; and so it does where the prompt's texts cannot be told from the template's.

    Args:
        n_tokens: Tokens of the whole conversation; the first begins the sequence and is always kept.
        prompts: Indices of the tokens of each text that is no answer, or None where they are not known.
        answers: Indices of the tokens of each answer.
        max_tokens: Most tokens to keep.
    """
    n_answers = sum(map(len, answers))
    n_added = n_tokens - n_answers - sum(map(len, prompts or ()))
    if prompts is None or n_added > max_tokens / 2:
        prompts = _between(n_tokens, answers)
    sizes = [len(part) for part in prompts]
    least = min(sum(sizes), max_tokens // PROMPT_SHARE)
    room = max(least, max_tokens - (n_tokens - sum(sizes)))
    kept = np.ones(n_tokens, bool)
    for part, size in zip(prompts, shortened(sizes, room), strict=True):
        head = -(-size // 2)
        kept[part[head : len(part) - (size - head)]] = False
    return np.flatnonzero(kept)


def shortened(sizes: Sequence[int], room: int) -> list[int]:
    """Sizes whose sum is at most `room`: the largest are made equal, to a token, and the others stay.

    Args:
        sizes: Numbers of tokens.
        room: Most tokens in all.
    """
    found, left = list(sizes), min(room, sum(sizes))
    by_size = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for place, index in enumerate(by_size):
        found[index] = min(sizes[index], left // (len(sizes) - place))
        left -= found[index]
    return found


def _between(n_tokens: int, answers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Runs of tokens in front of the answers; without an answer, all tokens but the first."""
    is_answer = np.zeros(n_tokens, bool)
    for part in answers:
        is_answer[part] = True
    end = int(np.flatnonzero(is_answer)[-1]) + 1 if is_answer.any() else n_tokens
    others = np.flatnonzero(~is_answer[:end])[1:]
    if not len(others):
        return []
    return np.split(others, np.flatnonzero(np.diff(others) > 1) + 1)
