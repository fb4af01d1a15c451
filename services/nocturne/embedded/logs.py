"""The logs of a home: one file a process, each bounded, with one older file beside it."""

import shutil
from pathlib import Path

LOG_BYTES_MAX = 16 * 1024 * 1024
TAIL_LINES = 12
TAIL_BYTES = 16 * 1024


def rotate(folder: Path) -> None:
    """Bound every log; called at start, when nothing writes."""
    for path in folder.glob("*.log"):
        bound(path)


def bound(path: Path) -> None:
    """Move what was written aside once the log is over its bound.

    Copied and cut, not renamed: a running process keeps the file open. It appends, so it goes on
    at the new end; lines written during the copy can be lost.
    """
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        shutil.copyfile(path, path.with_suffix(".log.1"))
        with path.open("r+b") as log:
            log.truncate(0)


def tail(path: Path) -> tuple[str, ...]:
    """The last lines of a log, for a person who was just told that something failed."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ()
    return tuple(text.splitlines()[-TAIL_LINES:])
