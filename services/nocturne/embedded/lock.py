"""One run at a time on one home: an flock that ends with the process that holds it.

The file stays behind and names the last holder's pid; only the lock says whether it lives.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from nocturne.embedded.errors import EmbeddedError


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock. EmbeddedError when a live process holds it."""
    with path.open("a+") as file:
        if not take(file.fileno()):
            raise EmbeddedError(
                f"This home is in use by process {_pid(path)}: run 'nocturne down' first, or "
                "choose another home with --home."
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def holder(path: Path) -> int | None:
    """The pid of the live process that holds the lock, or None."""
    try:
        file = path.open("r")
    except FileNotFoundError:
        return None
    with file:
        return None if take(file.fileno()) else _pid(path)


def take(descriptor: int) -> bool:
    """Lock an open file for as long as it is open; False when another holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(path: Path) -> int | None:
    text = path.read_text().strip()
    return int(text) if text.isdecimal() else None
