"""Ratios: their partition keys, and how many rows of the pool each keeps."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any


def ratio_key(ratio: Any) -> str:
    """The partition key of a ratio: at least two and at most four decimals, `0.1` -> `"0.10"`."""
    try:
        value = Decimal(str(ratio)).normalize()
    except ArithmeticError as error:
        raise ValueError(f"ratio {ratio!r} is not a number") from error
    if not value.is_finite() or not 0 < value <= 1:
        raise ValueError(f"ratio {ratio!r} must lie in (0, 1]")
    decimals = max(2, -int(value.as_tuple().exponent))
    if decimals > 4:
        raise ValueError(f"ratio {ratio!r} has more than four decimals")
    return f"{value:.{decimals}f}"


def rounded_up(share: float | str, n: int) -> int:
    """ceil(share x n), exact, of the share as it is written: in floats 0.07 x 100 is a little more than 7."""
    return math.ceil(Fraction(str(share)) * n)
