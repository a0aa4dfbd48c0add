"""Programs in what a model writes, and pass@k of how many of them pass."""

import math
import re

BLOCK = re.compile(r"^```[^\n`]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
"""A fenced block of Markdown; one that is cut ends with the text."""


def program_of(said: str, question: str) -> str:
    """A program in what a model wrote.

    Args:
        said: What the model wrote.
        question: Text that it continues; "" where it wrote the whole program, of which the first fenced block is taken.
    """
    if question:
        return f"{question}\n{said}\n"
    block = BLOCK.search(said)
    return block.group(1) if block else said


def pass_at_k(n: int, n_passed: int, k: int) -> float:
    """The chance that one of k programs passes, drawn of n of which some do (arXiv 2107.03374, equation 1).

    Args:
        n: Programs.
        n_passed: Those that pass.
        k: Programs that are drawn, at most n.
    """
    return 1.0 - math.comb(n - n_passed, k) / math.comb(n, k)
