"""What a process has just computed and will want again, held by whoever builds the assets."""

from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Latest(Generic[Value]):
    """By name, the value that was made last, kept as long as what it was made from stays the same.

    One process then makes what many partitions share once. In another process it is made again: nothing rests on it.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[object, Value]] = {}

    def of(self, name: str, made_from: object, make: Callable[[], Value]) -> Value:
        """The value of that name, made unless it is held and was made from the same.

        Args:
            name: what it is; of each name one value is held.
            made_from: versions of everything that it depends on, compared with `==`.
            make: function that makes it.
        """
        if name not in self._held or self._held[name][0] != made_from:
            self._held.pop(name, None)  # before the new one is made: both together may not fit the memory
            self._held[name] = made_from, make()
        return self._held[name][1]
