"""The read model in PostgreSQL, asked with a role that can only SELECT.

Every answer comes from one snapshot, which also says how far the ledger was applied in it. No
connection is held while an answer is on its way to a reader.

A rebuilt read model takes the live one's name in a moment in which nobody reads `progress`, which
every snapshot reads first: so a snapshot sees one of the two, never a mixture, and one that is
older than the exchange sees the new one's `progress` without its row, and is taken again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg import IsolationLevel
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from nocturne.core.commands import decode_signed_command_trusted
from nocturne.core.errors import Unavailable
from nocturne.core.events import Position
from nocturne.core.identifiers import LEDGER_SESSION, Hash, LedgerId, SessionId, event_id
from nocturne.core.modes import Cause, Degraded
from nocturne.core.topics import PREFIX_BYTES
from nocturne.query.records import EventRow, ReceiptRow, RecordRow, reading_row
from nocturne.runtime.postgres import Database

POOL_CONNECTIONS_MAX: Final = 8
POOL_SECONDS_MAX: Final = 2.0
STATEMENT_SECONDS_MAX: Final = 10
ATTEMPTS_MAX: Final = 3
BACKOFF_SECONDS: Final = 0.1
KIND_EVENTS: Final = 1
KIND_RECEIPT: Final = 2

Connection = psycopg.AsyncConnection[TupleRow]
Answer = TypeVar("Answer")

log = structlog.get_logger()

# Everything asked for is found by an index. With the statistics of a database that has just been
# filled, the planner would rather hash whole tables.
_OPTIONS: Final = (
    f"-c statement_timeout={STATEMENT_SECONDS_MAX * 1000} -c default_transaction_read_only=on"
    " -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off -c timezone=UTC"
    " -c idle_in_transaction_session_timeout=60000"
)
_SESSION: Final = (
    "SELECT session, kind, kind_version, sequence, head_hash, receipt_count, closed, opened_at,"
    " updated_at, changed_height FROM nocturne_v1.sessions"
)
_EVENT: Final = (
    "SELECT e.sequence, e.event_hash, e.height, e.leaf_index, e.event_index, e.header,"
    " e.signatures, b.time, r.value, r.command_length FROM nocturne_v1.events AS e"
    " JOIN nocturne_v1.records AS r ON (r.height, r.leaf_index) = (e.height, e.leaf_index)"
    " JOIN nocturne_v1.blocks AS b ON b.height = e.height"
)
_RECEIPT: Final = (
    "SELECT p.log_epoch, p.partition, p.record_offset, p.home_index, p.height, p.leaf_index,"
    " p.receipt_hash, p.header, p.signatures, b.time FROM nocturne_v1.receipts AS p"
    " JOIN nocturne_v1.blocks AS b ON b.height = p.height"
)
_BY_HASH: Final = """
    SELECT r.height, r.leaf_index FROM nocturne_v1.records AS r
    LEFT JOIN nocturne_v1.receipts AS p ON (p.log_epoch, p.partition, p.record_offset)
        = (r.log_epoch, r.partition, r.record_offset)
    WHERE r.command_hash = %s
    ORDER BY r.kind <> 1, coalesce(p.claimed, false), r.height, r.leaf_index LIMIT 1"""
_BY_EVENT: Final = "SELECT height, leaf_index FROM nocturne_v1.events WHERE event_id = %s::uuid"
_BY_POSITION: Final = """
    SELECT height, (first_leaf + %(offset)s - first_offset)::int4 FROM (
        SELECT * FROM nocturne_v1.ranges
        WHERE log_epoch = %(log_epoch)s AND partition = %(partition)s
            AND first_offset <= %(offset)s
        ORDER BY first_offset DESC LIMIT 1) AS one
    WHERE %(offset)s < end_offset"""


@dataclass(frozen=True, slots=True)
class Applied:
    """What an answer was read at. Before block 1: height 0 and the ledger id."""

    height: int
    digest: bytes
    time: int
    ledger_id: bytes


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session, heads and counts as of the snapshot. Times in ms."""

    session: SessionId
    kind: str
    kind_version: int
    sequence: int
    head_hash: bytes
    receipt_count: int
    closed: bool
    opened_at: int
    updated_at: int
    changed_height: int


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A block: header, whole commit proof, leaves of its disposition tree."""

    height: int
    time: int
    header: bytes
    proof: bytes
    leaves: bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """What there is in all, and what was refused, by cause."""

    sessions: int
    events: int
    receipts: int
    records: int
    refused: dict[str, int]


class _NoProgress(Exception):  # noqa: N818
    """The read model is not founded, or the snapshot is older than an exchange of it."""


class Snapshot:
    """One read-only transaction; all its answers are of one moment."""

    def __init__(self, connection: Connection, applied: Applied, model: int) -> None:
        self._connection = connection
        self.applied = applied
        self.model = model
        """Another number once a rebuilt read model has taken the place of the one before."""

    async def session(self, session: SessionId) -> SessionRow | None:
        """The session, None if it was never opened."""
        rows = await self._rows(f"{_SESSION} WHERE session = %s", session)
        return SessionRow(*rows[0]) if rows else None

    async def sessions(self, after: str, prefix: str, limit: int) -> list[SessionRow]:
        """Sessions after an id, in the order of their ids; `~ledger` is not among them."""
        rows = await self._rows(
            f"{_SESSION} WHERE session > %s AND session >= %s AND session < %s"
            " AND session <> %s ORDER BY session LIMIT %s",
            after,
            prefix,
            # No character of an id is above `~`, so all between begin with the prefix.
            prefix + "\x7f",
            LEDGER_SESSION,
            limit,
        )
        return [SessionRow(*row) for row in rows]

    async def events(
        self, session: SessionId, first: int, limit: int, through: int | None = None
    ) -> list[EventRow]:
        """Events from a sequence, ascending; with `through`, of blocks up to that height."""
        bound = "" if through is None else " AND e.height <= %s"
        rows = await self._rows(
            f"{_EVENT} WHERE e.session = %s AND e.sequence >= %s{bound}"
            " ORDER BY e.sequence LIMIT %s",
            session,
            first,
            *(() if through is None else (through,)),
            limit,
        )
        return [EventRow(*row) for row in rows]

    async def receipts(
        self, session: SessionId | None, after: Position, limit: int, claimed: bool | None = None
    ) -> list[ReceiptRow]:
        """Receipts after a position that name the session; of `~ledger`: that are kept there."""
        column = "home" if session == LEDGER_SESSION else "session"
        bound = "" if session is None else f" AND p.{column} = %s"
        # Written out, for the indexes of those that are not claimed to be found.
        bound += {None: "", False: " AND NOT p.claimed", True: " AND p.claimed"}[claimed]
        rows = await self._rows(
            f"{_RECEIPT} WHERE (p.log_epoch, p.partition, p.record_offset) > (%s, %s, %s){bound}"
            " ORDER BY p.log_epoch, p.partition, p.record_offset LIMIT %s",
            after.log_epoch,
            after.partition,
            after.offset,
            *(() if session is None else (session,)),
            limit,
        )
        return [_receipt_row(row) for row in rows]

    async def home_receipts(
        self, home: SessionId, first: int, limit: int, through: int
    ) -> list[ReceiptRow]:
        """Receipts of a session's receipts_root from an index, of blocks up to a height."""
        rows = await self._rows(
            f"{_RECEIPT} WHERE p.home = %s AND p.home_index >= %s AND p.height <= %s"
            " ORDER BY p.home_index LIMIT %s",
            home,
            first,
            through,
            limit,
        )
        return [_receipt_row(row) for row in rows]

    async def find_command(self, command_hash: bytes) -> tuple[int, int] | None:
        """(height, leaf) of what became of a command: its events if it has any, else its first
        receipt, those of authenticated authors before those of strangers.
        """
        return _place(await self._rows(_BY_HASH, command_hash))

    async def find_event(self, event_id: bytes) -> tuple[int, int] | None:
        """(height, leaf) of the command that an event came of."""
        return _place(await self._rows(_BY_EVENT, event_id.hex()))

    async def find_position(self, at: Position) -> tuple[int, int] | None:
        """(height, leaf) of an offset of the commands topic."""
        return _place(
            await self._rows_named(
                _BY_POSITION,
                {"log_epoch": at.log_epoch, "partition": at.partition, "offset": at.offset},
            )
        )

    async def record(self, height: int, leaf_index: int) -> RecordRow | None:
        """One disposition with its record and signatures."""
        rows = await self._rows(
            "SELECT kind, log_epoch, partition, record_offset, command_length, key, value, headers,"
            " command_hash FROM nocturne_v1.records WHERE height = %s AND leaf_index = %s",
            height,
            leaf_index,
        )
        if not rows:
            return None
        kind, log_epoch, partition, offset, length, key, value, headers, command_hash = rows[0]
        events: list[tuple[Any, ...]] = []
        receipts: list[tuple[Any, ...]] = []
        if kind == KIND_EVENTS:
            events = await self._events_of(value, command_hash)
        elif kind == KIND_RECEIPT:
            receipts = await self._rows(
                "SELECT header, signatures FROM nocturne_v1.receipts"
                " WHERE (log_epoch, partition, record_offset) = (%s, %s, %s)",
                log_epoch,
                partition,
                offset,
            )
        return RecordRow(
            Position(log_epoch, partition, offset),
            height,
            leaf_index,
            length,
            key,
            value,
            headers,
            command_hash,
            tuple(header for header, _ in events),
            receipts[0][0] if receipts else None,
            tuple(signatures for _, signatures in events or receipts),
        )

    async def block(self, height: int) -> BlockRow | None:
        """A block, None if it is not applied."""
        rows = await self._rows(
            "SELECT height, time, header, proof, leaves FROM nocturne_v1.blocks WHERE height = %s",
            height,
        )
        return BlockRow(*rows[0]) if rows else None

    async def validator_changes(self) -> list[tuple[int, bytes]]:
        """(height, control record) of every change of the validators, in their order."""
        return [
            (height, record)
            for height, record in await self._rows(
                "SELECT height, record FROM nocturne_v1.validator_changes ORDER BY height, number"
            )
        ]

    async def leaves(self) -> list[tuple[bytes, bytes]]:
        """Every leaf of the state tree: key and value."""
        return [
            (key, value)
            for key, value in await self._rows(
                "SELECT key, leaf FROM nocturne_v1.sessions"
                " UNION ALL SELECT key, value FROM nocturne_v1.state_leaves"
            )
        ]

    async def state_changes(self, above: int, limit: int) -> list[tuple[int, bytes]]:
        """(height, packed changes) of the blocks above a height, ascending."""
        rows = await self._rows(
            "SELECT height, state_changes FROM nocturne_v1.blocks WHERE height > %s"
            " ORDER BY height LIMIT %s",
            above,
            limit,
        )
        return [(height, changes) for height, changes in rows]

    async def degraded(self) -> Degraded | None:
        """Why the ledger is DEGRADED, as the projection has written it down."""
        try:
            rows = await self._rows("SELECT cause, text FROM nocturne_v1.degraded")
            return Degraded(Cause(rows[0][0]), rows[0][1]) if rows else None
        except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as fault:
            raise Unavailable("the read model is not migrated yet") from fault
        except ValueError as fault:
            raise Unavailable(f"the read model is of another version: {fault}") from fault

    async def counts(self) -> Counts:
        """What there is in all."""
        totals = await self._rows(
            "SELECT sessions, events, receipts, records FROM nocturne_v1.progress"
        )
        refused = await self._rows("SELECT cause, count FROM nocturne_v1.refused_counts")
        sessions, events, receipts, records = totals[0]
        return Counts(sessions, events, receipts, records, dict(refused))

    async def _events_of(self, value: bytes, command_hash: bytes) -> list[tuple[Any, ...]]:
        """Headers and signatures of a command's events: neighbours, the first found by its id."""
        with reading_row("command"):
            count = len(decode_signed_command_trusted(value[PREFIX_BYTES:]).command.events)
        first = event_id(LedgerId(self.applied.ledger_id), Hash(command_hash), 0)
        return await self._rows(
            "SELECT e.header, e.signatures FROM nocturne_v1.events AS first"
            " JOIN nocturne_v1.events AS e ON e.session = first.session"
            " AND e.sequence >= first.sequence AND e.sequence < first.sequence + %s"
            " WHERE first.event_id = %s::uuid ORDER BY e.sequence",
            count,
            first.hex(),
        )

    async def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = await self._connection.execute(query.encode(), values, binary=True)
        return await cursor.fetchall()

    async def _rows_named(self, query: str, values: dict[str, object]) -> list[tuple[Any, ...]]:
        cursor = await self._connection.execute(query.encode(), values, binary=True)
        return await cursor.fetchall()


def _place(rows: Sequence[tuple[Any, ...]]) -> tuple[int, int] | None:
    return (rows[0][0], rows[0][1]) if rows else None


def _receipt_row(row: tuple[Any, ...]) -> ReceiptRow:
    return ReceiptRow(Position(*row[:3]), *row[3:])


class Store:
    """A pool of connections. `database` is met in query's own role, which can only SELECT."""

    def __init__(self, database: Database, ledger_id: bytes) -> None:
        self._ledger_id = ledger_id
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            # Asked for the address of each new connection.
            database.address_soon,
            min_size=1,
            max_size=POOL_CONNECTIONS_MAX,
            open=False,
            configure=_configure,
            kwargs={
                "options": _OPTIONS,
                "application_name": "nocturne-query",
                "connect_timeout": 5,
                "keepalives_idle": 10,
            },
            timeout=POOL_SECONDS_MAX,
            reconnect_timeout=POOL_SECONDS_MAX,
            name="query",
        )
        self.reachable = False
        """The last question was answered."""

    async def open(self) -> None:
        """Begin to connect; questions wait for it."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close(timeout=2.0)

    async def ask(self, question: Callable[[Snapshot], Awaitable[Answer]]) -> Answer:
        """The answer to `question` in a snapshot of its own; asked again when a connection breaks.
        `Unavailable` after the last attempt.
        """
        last: Exception = Unavailable("it was not asked")
        unfounded = False
        for attempt in range(ATTEMPTS_MAX):
            try:
                async with self._pool.connection() as connection:
                    answer = await question(await self._snapshot(connection))
            except _NoProgress as fault:
                if unfounded:
                    raise Unavailable(
                        "the read model is not founded yet: is the projection running?"
                    ) from fault
                # A snapshot that begins now is not older than an exchange.
                last, unfounded = fault, True
                continue
            except psycopg.errors.QueryCanceled as fault:
                raise Unavailable(f"no answer within {STATEMENT_SECONDS_MAX} s") from fault
            except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as fault:
                last = fault
                self.reachable = False
            else:
                self.reachable = True
                return answer
            await asyncio.sleep(BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.0))
            # A restart of the server broke every idle connection: none of them is tried next.
            await self._pool.check()
        cause = str(last).strip().split("\n")[0]
        log.warning("postgres_unavailable", error=cause)
        raise Unavailable(f"PostgreSQL does not answer: {cause}")

    async def _snapshot(self, connection: Connection) -> Snapshot:
        try:
            cursor = await connection.execute(
                "SELECT height, block_digest, block_time, ledger_id, tableoid::int8"
                " FROM nocturne_v1.progress",
                binary=True,
            )
        except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as fault:
            raise Unavailable("the read model is not migrated yet") from fault
        row = await cursor.fetchone()
        if row is None:
            raise _NoProgress
        *applied, model = row
        if row[3] != self._ledger_id:
            raise Unavailable("the read model is of another ledger than the genesis")
        return Snapshot(connection, Applied(*applied), model)


async def _configure(connection: Connection) -> None:
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)
