"""The file that keeps the counts of opened sessions over a restart: `<home>/opened-sessions`.

It spares reading all blocks again, no more: a file that is not there, torn or another ledger's
counts for nothing, and the blocks topic is read from its beginning.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import structlog

from nocturne.command.limits import COUNTS_BYTES_MAX, Counted, decode_counts, encode_counts
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import LedgerId

FILE: Final = "opened-sessions"

log = structlog.get_logger()


def load(home: Path, ledger_id: LedgerId) -> Counted | None:
    """What was kept last; None when nothing usable was."""
    path = home / FILE
    try:
        with path.open("rb") as file:
            return decode_counts(file.read(COUNTS_BYTES_MAX + 1), ledger_id)
    except FileNotFoundError:
        return None
    except Malformed as fault:
        log.warning("counts_unusable", file=str(path), cause=str(fault))
        return None


def save(home: Path, ledger_id: LedgerId, counted: Counted) -> None:
    """Keep `counted`: the whole of it or what was there before, whatever happens meanwhile."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = home / f"{FILE}.new"
    with fresh.open("wb") as file:
        file.write(encode_counts(ledger_id, counted))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(home / FILE)
