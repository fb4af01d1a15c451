"""A service's own directory: one process at a time works in it.

The lock is the kernel's: it ends with the process, whatever way that ends, and never goes stale.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nocturne.core.errors import NocturneError

LOCK_FILE: Final = "lock"


class CannotStart(NocturneError):  # noqa: N818
    """This process cannot run this ledger here; the message says what to change."""


@contextmanager
def held_alone(home: Path) -> Iterator[None]:
    """Make and hold the directory. `CannotStart` when another process holds it: two that sign with
    one key would contradict each other.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise CannotStart(
                f"{home} is in use by another process: stop that one first"
            ) from fault
        yield
