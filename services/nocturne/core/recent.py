"""The newest things of a kind, bounded by their number and their size. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Name, Value]):
    """Past `size_max` in all, as `size_of` has it, or past `count_max` the oldest goes."""

    def __init__(
        self, size_of: Callable[[Value], int], size_max: int, count_max: int | None = None
    ) -> None:
        """`count_max` None: as many as the size allows."""
        self._size_of = size_of
        self._size_max = size_max
        self._count_max = count_max
        self._values: OrderedDict[Name, Value] = OrderedDict()
        self._size = 0

    def add(self, name: Name, value: Value) -> None:
        """The newest; one that is here stays as it is, and as old."""
        if name in self._values:
            return
        self._values[name] = value
        self._size += self._size_of(value)
        while self._size > self._size_max or self._is_crowded:
            _, oldest = self._values.popitem(last=False)
            self._size -= self._size_of(oldest)

    @property
    def _is_crowded(self) -> bool:
        return self._count_max is not None and len(self._values) > self._count_max

    def __contains__(self, name: Name) -> bool:
        return name in self._values

    def get(self, name: Name) -> Value | None:
        """None when it was let go, or never came."""
        return self._values.get(name)
