"""A read model in PostgreSQL: read where it stands, write a batch of blocks in one transaction.

It is the live one, or one that is rebuilt beside it in a schema of another name; the statements are
the same.

A transaction moves the one row of `progress` from the height the batch follows; a second process,
or a commit whose answer was lost, is seen there and writes nothing twice. All calls block and run
in one thread; they are repeated with back-off while the server is away.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import psycopg
import structlog
from psycopg import sql

from nocturne.core.blocks import decode_block_header
from nocturne.core.errors import Halt, Malformed, NocturneError, Unavailable
from nocturne.core.identifiers import LEDGER_SESSION, Hash, LedgerId, SessionId
from nocturne.core.modes import Degraded, decode_degraded, encode_degraded
from nocturne.core.sparse_tree import SparseTree
from nocturne.core.state_leaf import SessionLeaf
from nocturne.core.validator_sets import ValidatorSets
from nocturne.projection.fold import FirstState, StateTree
from nocturne.projection.migrate import SCHEMA, check_migrated
from nocturne.projection.rows import COLUMNS, Batch, SessionRow, copy_data
from nocturne.runtime.postgres import Database

APPLIED_CHANNEL: Final = "nocturne_v1_applied"
"""Told at each commit, with the height; query listens."""
RETRY_SECONDS_MAX: Final = 120.0
"""How long a batch is tried again before the process gives up; a restart begins where it stands."""
BACKOFF_SECONDS: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 2.0
CONNECT_SECONDS_MAX: Final = 5
STATEMENT_SECONDS_MAX: Final = 30
REFUSED_KEPT: Final = 1000
"""Of the places of refused records, for each partition; all are counted."""
LEAVES_PER_FETCH: Final = 5000

Result = TypeVar("Result")

log = structlog.get_logger()

_MOVE: Final = """
    UPDATE nocturne_v1.progress SET
        height = %(height)s, block_digest = %(digest)s, block_time = %(time)s,
        blocks = blocks + %(blocks)s, records = records + %(records)s,
        events = events + %(events)s, receipts = receipts + %(receipts)s,
        sessions = sessions + %(sessions)s
    WHERE height = %(after)s AND block_digest = %(after_digest)s"""
_INSERT_SESSIONS: Final = """
    INSERT INTO nocturne_v1.sessions (session, key, kind, kind_version, sequence, head_hash,
        receipt_count, closed, opened_at, updated_at, changed_height, leaf)
    SELECT * FROM unnest(%b::text[], %b::bytea[], %b::text[], %b::int4[], %b::int8[], %b::bytea[],
        %b::int8[], %b::bool[], %b::int8[], %b::int8[], %b::int8[], %b::bytea[])"""
_UPDATE_SESSIONS: Final = """
    UPDATE nocturne_v1.sessions AS old SET
        sequence = new.sequence, head_hash = new.head_hash, receipt_count = new.receipt_count,
        closed = old.closed OR new.closed, updated_at = new.updated_at,
        changed_height = new.changed_height, leaf = new.leaf
    FROM unnest(%b::text[], %b::int8[], %b::bytea[], %b::int8[], %b::bool[], %b::int8[],
        %b::int8[], %b::bytea[])
        AS new (session, sequence, head_hash, receipt_count, closed, updated_at, changed_height,
            leaf)
    WHERE old.session = new.session"""
_PUT_LEAVES: Final = """
    INSERT INTO nocturne_v1.state_leaves (key, value, changed_height)
    SELECT * FROM unnest(%b::bytea[], %b::bytea[], %b::int8[])
    ON CONFLICT (key) DO UPDATE
    SET value = excluded.value, changed_height = excluded.changed_height"""
_TAKE_LEAVES: Final = "DELETE FROM nocturne_v1.state_leaves WHERE key = ANY(%b::bytea[])"
_PUT_OFFSETS: Final = """
    INSERT INTO nocturne_v1.offsets (topic, partition, next_offset)
    SELECT * FROM unnest(%b::text[], %b::int4[], %b::int8[])
    ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset
    WHERE nocturne_v1.offsets.next_offset <> excluded.next_offset"""
_PUT_REFUSED: Final = """
    WITH fresh AS (
        INSERT INTO nocturne_v1.refused_records (topic, partition, record_offset, cause)
        SELECT * FROM unnest(%b::text[], %b::int4[], %b::int8[], %b::text[])
        ON CONFLICT DO NOTHING RETURNING cause)
    INSERT INTO nocturne_v1.refused_counts (cause, count)
    SELECT cause, count(*) FROM fresh GROUP BY cause
    ON CONFLICT (cause) DO UPDATE SET count = nocturne_v1.refused_counts.count + excluded.count"""
# Only places below the offset of a restart: those above it may be read and refused again.
_FORGET_REFUSED: Final = """
    DELETE FROM nocturne_v1.refused_records AS old
    USING (
        SELECT topic, partition, next_offset, (
            SELECT record_offset FROM nocturne_v1.refused_records AS kept
            WHERE kept.topic = at.topic AND kept.partition = at.partition
            ORDER BY record_offset DESC OFFSET %s LIMIT 1) AS oldest
        FROM nocturne_v1.offsets AS at) AS at
    WHERE at.topic = old.topic AND at.partition = old.partition AND at.oldest IS NOT NULL
        AND old.record_offset <= LEAST(at.oldest, at.next_offset - 1)"""


_DEGRADE: Final = (
    "INSERT INTO nocturne_v1.degraded (cause, text, kept) VALUES (%s, %s, %s)"
    " ON CONFLICT DO NOTHING"
)
_DEGRADED: Final = "SELECT kept FROM nocturne_v1.degraded"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the read model stands: height, digest and time of the last block, state, validators,
    offsets.
    """

    height: int
    digest: Hash
    time: int
    tree: StateTree
    sets: ValidatorSets
    offsets: dict[tuple[str, int], int]


class Statements:
    """The statements that write one schema."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.copy = {
            table: sql.SQL("COPY {}.{} ({}) FROM STDIN (FORMAT BINARY)").format(
                sql.Identifier(schema), sql.Identifier(table), sql.SQL(columns)
            )
            for table, columns in COLUMNS.items()
        }

    def of(self, statement: str) -> bytes:
        """A statement on the live schema, as it is on this one."""
        return statement.replace(f"{SCHEMA}.", f"{self.schema}.").encode("utf-8")


class Store:
    """One connection, made again when it is lost. `database` is met in the projection's own role;
    a rebuild names the schema it writes, and what each new connection of the owner must do first.
    """

    def __init__(
        self,
        database: Database,
        closing: threading.Event,
        schema: str = SCHEMA,
        connected: Callable[[psycopg.Connection], None] | None = None,
    ) -> None:
        self._database = database
        self._closing = closing
        self._statements = Statements(schema)
        self._name = "nocturne-projection" if connected is None else "nocturne-rebuild"
        self._connected_first = connected
        self._connection: psycopg.Connection | None = None
        self._reachable = False

    @property
    def reachable(self) -> bool:
        """The last attempt to reach the server did."""
        return self._reachable

    def load(self, first_state: FirstState) -> Standing:
        """Where the read model stands; an empty one is founded first. `NocturneError`: it is of
        another ledger. `Halt`: what it holds is not what its last block certified.
        """
        return self._repeated(
            lambda connection: _load(connection, self._statements, first_state), "be read"
        )

    def write(self, after: tuple[int, bytes], batch: Batch) -> None:
        """Write the rows of a batch that follows the block of height and digest `after`."""
        self._repeated(
            lambda connection: _write(connection, self._statements, after, batch), "be written"
        )

    def degrade(self, ledger_id: LedgerId, degraded: Degraded) -> None:
        """Write down why the ledger is DEGRADED, unless something says so already."""
        row = (int(degraded.cause), degraded.text, encode_degraded(ledger_id, degraded))

        def step(connection: psycopg.Connection) -> None:
            connection.execute(self._statements.of(_DEGRADE), row)

        self._repeated(step, "be written")

    def degraded(self) -> Degraded | None:
        """Why the ledger is DEGRADED, as it was written down; `Halt` when that cannot be read."""

        def step(connection: psycopg.Connection) -> Degraded | None:
            row = connection.execute(self._statements.of(_DEGRADED)).fetchone()
            try:
                return None if row is None else decode_degraded(row[0])[1]
            except Malformed as fault:
                raise Halt(f"nocturne_v1.degraded: {fault}") from fault

        return self._repeated(step, "be read")

    def ask(self, step: Callable[[psycopg.Connection], Result], what: str) -> Result:
        """What `step` says, repeated while the server is away; `what` names it if it stays so."""
        return self._repeated(step, what)

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _repeated(self, step: Callable[[psycopg.Connection], Result], what: str) -> Result:
        deadline = time.monotonic() + RETRY_SECONDS_MAX
        attempt = 0
        while True:
            try:
                result = step(self._connected())
            except psycopg.IntegrityError as fault:
                cause = str(fault).strip().split("\n")[0]
                raise Halt(f"what is certified contradicts what is stored: {cause}") from fault
            except (psycopg.OperationalError, psycopg.InterfaceError) as fault:
                self._reachable = False
                self.close()
                cause = str(fault).strip().split("\n")[0]
                log.warning("postgres_unavailable", error=cause, attempt=attempt)
                if time.monotonic() > deadline or self._closing.wait(_backoff(attempt)):
                    raise Unavailable(f"PostgreSQL could not {what}: {cause}") from fault
                attempt += 1
            else:
                self._reachable = True
                return result

    def _connected(self) -> psycopg.Connection:
        if self._connection is None:
            connection = self._database.connect(
                autocommit=True,
                connect_timeout=CONNECT_SECONDS_MAX,
                application_name=self._name,
                options=f"-c statement_timeout={STATEMENT_SECONDS_MAX * 1000} -c timezone=UTC",
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
            )
            if self._connected_first is not None:
                try:
                    self._connected_first(connection)
                except BaseException:
                    connection.close()
                    raise
            self._connection = connection
        return self._connection


def _backoff(attempt: int) -> float:
    """Seconds: doubling, bounded, half of it jitter."""
    bound = min(BACKOFF_SECONDS * float(2 ** min(attempt, 10)), BACKOFF_SECONDS_MAX)
    return bound * random.uniform(0.5, 1.0)


# Reading ---------------------------------------------------------------------------------------


def _load(
    connection: psycopg.Connection, statements: Statements, first_state: FirstState
) -> Standing:
    check_migrated(connection, statements.schema)
    _ensure_founded(connection, statements, first_state)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        row = connection.execute(
            statements.of(
                "SELECT ledger_id, height, block_digest, block_time FROM nocturne_v1.progress"
            )
        ).fetchone()
        if row is None:
            # The snapshot is older than the read model that was swapped in: look again.
            raise psycopg.OperationalError("the read model was exchanged while it was read")
        ledger_id, height, digest, block_time = row
        if ledger_id != first_state.ledger_id:
            raise NocturneError(
                f"the read model is of ledger {ledger_id.hex()}, this one is "
                f"{first_state.ledger_id.hex()}: use another database"
            )
        tree = _load_tree(connection, statements)
        offsets = {
            (topic, partition): offset
            for topic, partition, offset in connection.execute(
                statements.of("SELECT topic, partition, next_offset FROM nocturne_v1.offsets")
            )
        }
        sets = _load_sets(connection, statements, first_state)
        _check_certified(connection, statements, height, tree, sets)
    return Standing(height, digest, block_time, tree, sets, offsets)


def _ensure_founded(
    connection: psycopg.Connection, statements: Statements, first_state: FirstState
) -> None:
    """READ COMMITTED, so that a read model that is swapped in at this moment is seen whole."""
    with connection.transaction():
        found = connection.execute(statements.of("SELECT 1 FROM nocturne_v1.progress")).fetchone()
        if found is None:
            _found(connection, statements, first_state)


def _found(connection: psycopg.Connection, statements: Statements, first_state: FirstState) -> None:
    """The state that genesis defines, so that every leaf of the state tree has its row."""
    connection.execute(
        statements.of(
            "INSERT INTO nocturne_v1.progress (ledger_id, height, block_digest, block_time, blocks,"
            " records, events, receipts, sessions) VALUES (%b, 0, %b, 0, 0, 0, 0, 0, 0)"
        ),
        (first_state.ledger_id, first_state.ledger_id),
    )
    leaf = SessionLeaf.decode(first_state.ledger_leaf)
    kind, version = first_state.kind
    _insert_sessions(
        connection,
        statements,
        [
            SessionRow(
                LEDGER_SESSION,
                first_state.ledger_key,
                kind,
                version,
                leaf.sequence,
                leaf.head_hash,
                leaf.receipt_count,
                False,
                0,
                0,
                0,
                first_state.ledger_leaf,
            )
        ],
    )
    _put_leaves(connection, statements, {key: (value, 0) for key, value in first_state.leaves})


def _load_tree(connection: psycopg.Connection, statements: Statements) -> StateTree:
    changes: dict[bytes, tuple[bytes, SessionId | None] | None] = {}
    with connection.cursor(name="leaves", binary=True) as cursor:
        cursor.itersize = LEAVES_PER_FETCH
        cursor.execute(
            statements.of(
                "SELECT key, leaf, session FROM nocturne_v1.sessions"
                " UNION ALL SELECT key, value, NULL FROM nocturne_v1.state_leaves"
            )
        )
        for key, leaf, session in cursor:
            changes[key] = (leaf, session)
    empty: StateTree = SparseTree()
    return empty.update(changes)


def _load_sets(
    connection: psycopg.Connection, statements: Statements, first_state: FirstState
) -> ValidatorSets:
    sets = first_state.genesis.founding_sets
    try:
        for height, record in connection.execute(
            statements.of(
                "SELECT height, record FROM nocturne_v1.validator_changes ORDER BY height, number"
            )
        ):
            sets = sets.after(height, (record,))
    except Malformed as fault:
        raise Halt(f"the read model's changes of the validators were altered: {fault}") from fault
    return sets


def _check_certified(
    connection: psycopg.Connection,
    statements: Statements,
    height: int,
    tree: StateTree,
    sets: ValidatorSets,
) -> None:
    """What stands in the tables is what the last block certified: nobody altered a row."""
    if height == 0:
        return
    row = connection.execute(
        statements.of("SELECT header FROM nocturne_v1.blocks WHERE height = %s"), (height,)
    ).fetchone()
    if row is None:
        raise Halt(f"the read model stands at height {height}, and has no such block")
    header = decode_block_header(row[0])
    state_root = header.state_root
    if tree.root_hash != state_root:
        raise Halt(
            f"the read model's sessions make the state root {tree.root_hash.hex()}, block {height} "
            f"certifies {state_root.hex()}: rows were altered; "
            "'nocturne rebuild --replace' makes them anew from the log"
        )
    try:
        sets.of_block(header)
        sets.check_next(header)
    except Malformed as fault:
        raise Halt(f"the read model's changes of the validators were altered: {fault}") from fault


# Writing ---------------------------------------------------------------------------------------


def _write(
    connection: psycopg.Connection,
    statements: Statements,
    after: tuple[int, bytes],
    batch: Batch,
) -> None:
    with connection.transaction():
        if not _move(connection, statements, after, batch):
            return
        for table, rows in batch.copied.items():
            if rows:
                _copy(connection, statements, table, rows)
        if batch.opened:
            _insert_sessions(connection, statements, list(batch.opened.values()))
        if batch.changed:
            _update_sessions(connection, statements, list(batch.changed.values()))
        if batch.leaves:
            _put_leaves(connection, statements, batch.leaves)
        _put_offsets(connection, statements, batch.offsets)
        if batch.refusals:
            _put_refused(connection, statements, batch)
        if statements.schema == SCHEMA:
            connection.execute("SELECT pg_notify(%s, %s)", (APPLIED_CHANNEL, str(batch.height)))


def _move(
    connection: psycopg.Connection,
    statements: Statements,
    after: tuple[int, bytes],
    batch: Batch,
) -> bool:
    """Whether the batch is still to be written. `Halt`: someone else writes here too."""
    height, digest = after
    moved = connection.execute(
        statements.of(_MOVE),
        {
            "height": batch.height,
            "digest": batch.digest,
            "time": batch.time,
            "blocks": batch.blocks,
            "records": batch.records,
            "events": batch.events,
            "receipts": batch.receipts,
            "sessions": len(batch.opened),
            "after": height,
            "after_digest": digest,
        },
    )
    if moved.rowcount == 1:
        return True
    row = connection.execute(
        statements.of("SELECT height, block_digest FROM nocturne_v1.progress")
    ).fetchone()
    if row == (batch.height, batch.digest):
        # The answer to the commit was lost, the commit was not.
        return False
    raise Unavailable(
        f"the read model is at {'no height' if row is None else row[0]}, expected {height}: "
        "another process writes it"
    )


def _copy(
    connection: psycopg.Connection, statements: Statements, table: str, rows: Sequence[bytes]
) -> None:
    with connection.cursor() as cursor, cursor.copy(statements.copy[table]) as copy:
        copy.write(copy_data(rows))


def _insert_sessions(
    connection: psycopg.Connection, statements: Statements, rows: Sequence[SessionRow]
) -> None:
    connection.execute(
        statements.of(_INSERT_SESSIONS),
        (
            [row.session for row in rows],
            [row.key for row in rows],
            [row.kind for row in rows],
            [row.kind_version for row in rows],
            [row.sequence for row in rows],
            [row.head_hash for row in rows],
            [row.receipt_count for row in rows],
            [row.closed for row in rows],
            [row.opened_at for row in rows],
            [row.updated_at for row in rows],
            [row.changed_height for row in rows],
            [row.leaf for row in rows],
        ),
    )


def _update_sessions(
    connection: psycopg.Connection, statements: Statements, rows: Sequence[SessionRow]
) -> None:
    connection.execute(
        statements.of(_UPDATE_SESSIONS),
        (
            [row.session for row in rows],
            [row.sequence for row in rows],
            [row.head_hash for row in rows],
            [row.receipt_count for row in rows],
            [row.closed for row in rows],
            [row.updated_at for row in rows],
            [row.changed_height for row in rows],
            [row.leaf for row in rows],
        ),
    )


def _put_leaves(
    connection: psycopg.Connection,
    statements: Statements,
    leaves: dict[bytes, tuple[bytes | None, int]],
) -> None:
    removed = [key for key, (value, _) in leaves.items() if value is None]
    if removed:
        connection.execute(statements.of(_TAKE_LEAVES), (removed,))
    kept = [(key, value, height) for key, (value, height) in leaves.items() if value is not None]
    if kept:
        connection.execute(statements.of(_PUT_LEAVES), tuple(map(list, zip(*kept, strict=True))))


def _put_offsets(
    connection: psycopg.Connection,
    statements: Statements,
    offsets: Sequence[tuple[str, int, int]],
) -> None:
    if offsets:
        connection.execute(
            statements.of(_PUT_OFFSETS), tuple(map(list, zip(*offsets, strict=True)))
        )


def _put_refused(connection: psycopg.Connection, statements: Statements, batch: Batch) -> None:
    refusals = batch.refusals
    connection.execute(
        statements.of(_PUT_REFUSED),
        (
            [one.topic for one in refusals],
            [one.partition for one in refusals],
            [one.offset for one in refusals],
            [one.cause.value for one in refusals],
        ),
    )
    connection.execute(statements.of(_FORGET_REFUSED), (REFUSED_KEPT,))
