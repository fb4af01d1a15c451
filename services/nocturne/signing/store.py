"""What the authority has signed, on disk: one synced transaction a batch, before it is signed.

Rules: docs/spec/signing.md. SQLite in its write-ahead mode with full syncs. Shell: blocks, so it
runs in a thread of its own, one call at a time.

    blocks   height, digest (32 bytes a height)
    heads    session, its last signed sequence and event hash
    state    one row: whose it is, and from where the blocks topic is read on
    validators    one row once they have changed: the sets as of that place
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.core.errors import Halt
from nocturne.core.identifiers import Hash, LedgerId, SessionId
from nocturne.core.state_leaf import LogPosition, decode_positions, encode_positions
from nocturne.signing.guard import Head

HEADS_CACHED_MAX: Final = 65_536
"""About 15 MB; sessions beyond are read from disk when they are touched."""
QUERY_SESSIONS_MAX: Final = 500
"""Below SQLite's bound on the parameters of one statement."""
CACHE_KIB: Final = 8 * 1024
WAL_PAGES: Final = 1000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS blocks (height INTEGER PRIMARY KEY, digest BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS heads (
    session TEXT PRIMARY KEY, sequence INTEGER NOT NULL, hash BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    owner BLOB NOT NULL,
    published_height INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    positions BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS validators (
    only INTEGER PRIMARY KEY CHECK (only = 1), sets BLOB NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Resume:
    """Up to which height everything is published, the offset in the blocks topic to read on from,
    and the log's positions and the decided validator sets (encoded) after that height.
    """

    published_height: int
    next_offset: int
    positions: tuple[LogPosition, ...]
    sets: bytes


@dataclass(frozen=True, slots=True)
class Recorded:
    """One block to be signed for the first time."""

    height: int
    digest: Hash


class SigningStore:
    """The authority's memory. It never grows in the process, only on disk."""

    def __init__(self, path: Path, ledger_id: LedgerId, key: bytes) -> None:
        """`Halt` when the file is damaged or another ledger's or key's."""
        self._owner = ledger_id + key
        self._cache: OrderedDict[SessionId, Head] = OrderedDict()
        try:
            self._open(path)
        except sqlite3.DatabaseError as fault:
            raise Halt(f"{path}: {fault}: put it back from a backup") from fault

    def _open(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        run = self._database.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run(f"PRAGMA cache_size = -{CACHE_KIB}")
        run(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        self._database.executescript(_SCHEMA)
        row = run("SELECT owner FROM state").fetchone()
        if row is None:
            run("INSERT INTO state VALUES (1, ?, 0, 0, x'')", (self._owner,))
        elif row[0] != self._owner:
            raise Halt(f"{path}: it belongs to another ledger or another key")
        path.chmod(0o600)

    def resume(self) -> Resume:
        """Where to go on."""
        height, offset, positions = self._database.execute(
            "SELECT published_height, next_offset, positions FROM state"
        ).fetchone()
        sets = self._database.execute("SELECT sets FROM validators").fetchone()
        return Resume(height, offset, decode_positions(positions), b"" if sets is None else sets[0])

    def last_height(self) -> int:
        """The newest height that was signed, 0 before the first."""
        row = self._database.execute("SELECT max(height) FROM blocks").fetchone()
        return row[0] or 0

    def digest(self, height: int) -> Hash | None:
        """The digest of the block that was signed at `height`."""
        row = self._database.execute(
            "SELECT digest FROM blocks WHERE height = ?", (height,)
        ).fetchone()
        return None if row is None else Hash(row[0])

    def heads(self, sessions: Iterable[SessionId]) -> dict[SessionId, Head]:
        """The heads of those of the sessions that have one."""
        found: dict[SessionId, Head] = {}
        missing: list[SessionId] = []
        for session in sessions:
            head = self._cache.get(session)
            if head is None:
                missing.append(session)
            else:
                self._cache.move_to_end(session)
                found[session] = head
        for start in range(0, len(missing), QUERY_SESSIONS_MAX):
            some = missing[start : start + QUERY_SESSIONS_MAX]
            marks = ",".join("?" * len(some))
            rows = self._database.execute(
                f"SELECT session, sequence, hash FROM heads WHERE session IN ({marks})", some
            )
            for session, sequence, event_hash in rows:
                found[session] = Head(sequence, Hash(event_hash))
        return found

    def record(
        self, blocks: Sequence[Recorded], heads: Mapping[SessionId, Head], resume: Resume | None
    ) -> None:
        """Blocks and the heads after them, and what is published by now, in one synced transaction:
        all of them, or none and the process ends.
        """
        try:
            self._write(blocks, heads, resume)
        except sqlite3.Error as fault:
            # After a failed sync nobody knows what is on disk: never tried again.
            raise SystemExit(f"signing store: commit failed ({fault}): the process ends") from fault
        self._remember(heads)

    def _write(
        self, blocks: Sequence[Recorded], heads: Mapping[SessionId, Head], resume: Resume | None
    ) -> None:
        run = self._database.execute
        run("BEGIN IMMEDIATE")
        self._database.executemany(
            "INSERT INTO blocks VALUES (?, ?)", [(one.height, one.digest) for one in blocks]
        )
        self._database.executemany(
            "INSERT OR REPLACE INTO heads VALUES (?, ?, ?)",
            [(session, head.sequence, head.hash) for session, head in heads.items()],
        )
        if resume is not None:
            run(
                "UPDATE state SET published_height = ?, next_offset = ?, positions = ?",
                (
                    resume.published_height,
                    resume.next_offset,
                    encode_positions(resume.positions),
                ),
            )
            if resume.sets:
                run("INSERT OR REPLACE INTO validators VALUES (1, ?)", (resume.sets,))
        run("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _remember(self, heads: Mapping[SessionId, Head]) -> None:
        for session, head in heads.items():
            self._cache[session] = head
            self._cache.move_to_end(session)
        while len(self._cache) > HEADS_CACHED_MAX:
            self._cache.popitem(last=False)
