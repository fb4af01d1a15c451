"""What a rebuild does to the database beside writing rows: prepare a schema, hold the live one's
commits, compare, swap, and drop what was there before.

Rules: docs/spec/services.md, rebuild. Everything that reads the read model reads `progress` first,
everything that writes it writes `progress` first: its lock is the gate. Names are changed while
nobody is inside.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from nocturne.core.errors import NocturneError
from nocturne.deploy.rights import list_of_rights
from nocturne.projection.comparing import Comparison, Phase, TableDifference, compare
from nocturne.projection.migrate import (
    MIGRATIONS_LOCK,
    SCHEMA,
    MigrationFault,
    SchemaNewer,
    applied_migrations,
    grant,
    migrate_schema,
    migrations,
    pending,
)
from nocturne.runtime.postgres import Database

REBUILT: Final = f"{SCHEMA}_rebuild"
OLD: Final = f"{SCHEMA}_old"
"""What was live, until it is dropped; the next rebuild drops it if this one could not."""

_LOCK: Final = 0x6E6F6374_72656275
"""Any number, always the same: held as long as a rebuild runs."""
LOCK_MS_MAX: Final = 500
"""How long readers and the projection wait at most for an attempt to get the gate that fails."""
REST_SECONDS_MAX: Final = 60
"""Of one statement while the projection's commits are held."""
BULK_SECONDS_MAX: Final = 3600
"""Of comparing one table before; a thousand million rows."""
OWN_SECONDS_MAX: Final = 5.0
"""The connection of a rebuild that was killed is gone within this."""
DROP_ATTEMPTS_MAX: Final = 10
CONNECT_SECONDS_MAX: Final = 5


class RebuildRuns(NocturneError):  # noqa: N818
    """There is one rebuild of a database at a time."""


@dataclass(frozen=True, slots=True)
class Live:
    """The live read model: its height, None when it has none to say."""

    height: int | None
    digest: bytes | None = None


class OnlyOne:
    """Takes the lock that makes a rebuild the only one, on each connection that writes for it."""

    def __init__(self) -> None:
        self._had = False

    def __call__(self, connection: psycopg.Connection) -> None:
        """`RebuildRuns` when another has it; after a broken connection the server may need a
        moment to notice, so that then it is tried again.
        """
        deadline = time.monotonic() + OWN_SECONDS_MAX
        connection.execute("SET client_connection_check_interval = 1000")
        while not _first(connection, "SELECT pg_try_advisory_lock(%s)", _LOCK):
            other = _first(
                connection,
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                " AND (classid::int8 << 32) + objid::int8 = %s",
                _LOCK,
            )
            if time.monotonic() > deadline:
                if self._had:
                    raise psycopg.OperationalError("the lock of the rebuild is not free yet")
                raise RebuildRuns(
                    f"another rebuild of this database runs (PostgreSQL process {other}): "
                    "wait for its end"
                )
            time.sleep(0.1)
        self._had = True


def prepare(connection: psycopg.Connection, ledger_id: bytes, fresh: bool) -> bool:
    """Make the schema of the rebuild; True when one that was interrupted goes on. `SchemaNewer`
    when the live one is of a newer version.
    """
    try:
        live_version(connection)
    except SchemaNewer:
        raise
    except MigrationFault:
        # Said with the differences: a rebuild is its cure.
        pass
    _drop(connection, OLD)
    if not fresh and _goes_on(connection, ledger_id):
        return True
    _drop(connection, REBUILT)
    migrate_schema(connection, REBUILT, migrations())
    return False


def _goes_on(connection: psycopg.Connection, ledger_id: bytes) -> bool:
    """Nobody but the owner has a right in the schema, so its rows are what a rebuild wrote."""
    known = {one.number: one.checksum for one in migrations()}
    try:
        with connection.transaction():
            if applied_migrations(connection, REBUILT) != known:
                return False
            of = _first(connection, f"SELECT ledger_id FROM {REBUILT}.progress")
    except psycopg.ProgrammingError:
        return False
    return of == ledger_id


def live_version(connection: psycopg.Connection) -> bool:
    """The live schema is of this version; False: of an older one. `MigrationFault` otherwise."""
    try:
        with connection.transaction():
            applied = applied_migrations(connection, SCHEMA)
    except psycopg.ProgrammingError as fault:
        raise MigrationFault("its list of applied migrations is gone") from fault
    return not pending(migrations(), applied)


class Exchange:
    """The connection, of the schemas' owner, by which a rebuild meets the live read model."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg.Connection | None = None
        self._rebuilt_oid: object = None
        self.readers_held_ms = 0.0
        """How long readers were kept waiting at the last swap, at most."""

    def close(self) -> None:
        """Let go of the connection, and so of everything that it holds."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def interrupt(self) -> None:
        """From another thread: end the statement that runs, if one does."""
        if self._connection is not None and not self._connection.closed:
            self._connection.cancel_safe(timeout=CONNECT_SECONDS_MAX)

    def live(self) -> Live:
        """Where the live one stands now."""
        return _live(self._connected())

    def exists(self) -> bool:
        """There is a live schema at all."""
        return bool(_first(self._connected(), "SELECT to_regnamespace(%s) IS NOT NULL", SCHEMA))

    def compare_bulk(self, through: int) -> Comparison:
        """Rows up to a height that both have; the live one goes on."""
        connection = self._connected()
        connection.execute(f"SET statement_timeout = '{BULK_SECONDS_MAX}s'")
        for (table,) in connection.execute(
            "SELECT tablename::text FROM pg_tables WHERE schemaname = %s", (REBUILT,)
        ).fetchall():
            connection.execute(
                sql.SQL("ANALYZE {}.{}").format(sql.Identifier(REBUILT), sql.Identifier(table))
            )
        return self._compare(Phase.BULK, through)

    def hold(self) -> Live:
        """Begin a transaction in which the live one's commits wait, readers do not; where it
        stands. `psycopg.errors.LockNotAvailable` when others were inside for too long.
        """
        connection = self._connected()
        self._rebuilt_oid = _first(connection, "SELECT to_regnamespace(%s)::oid::int8", REBUILT)
        connection.execute("BEGIN")
        connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS_MAX}")
        connection.execute(f"SET LOCAL statement_timeout = '{REST_SECONDS_MAX}s'")
        self._lock_gate("EXCLUSIVE")
        return _live(connection)

    def compare_rest(self, through: int) -> Comparison:
        """Rows above a height, in the transaction of `hold`: both stand still."""
        return self._compare(Phase.REST, through)

    def release(self) -> None:
        """End the transaction of `hold`; nothing has changed."""
        if self._connection is not None and not self._connection.closed:
            self._connection.execute("ROLLBACK")

    def swap(self, kept: str | None) -> None:
        """Give the rebuilt schema the live one's name and rights, and commit. `kept`: the name
        that the live one is to have from now on.
        """
        connection = self._connected()
        began = time.monotonic()
        self._lock_gate("ACCESS EXCLUSIVE")
        # A migration of the live schema comes before or after, never between.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATIONS_LOCK,))
        _take_over_refusals(connection)
        _take_over_degraded(connection)
        _make_progress_new(connection)
        grant(connection, REBUILT)
        if self.exists():
            for role in list_of_rights().database.roles:
                connection.execute(f"REVOKE ALL ON SCHEMA {SCHEMA} FROM {role.name}".encode())
            _rename(connection, SCHEMA, OLD if kept is None else kept)
        _rename(connection, REBUILT, SCHEMA)
        connection.execute("COMMIT")
        self.readers_held_ms = (time.monotonic() - began) * 1000

    def is_swapped(self) -> bool:
        """After a commit without an answer: whether it was one."""
        name = _first(
            self._connected(),
            "SELECT nspname::text FROM pg_namespace WHERE oid::int8 = %s",
            self._rebuilt_oid,
        )
        return name == SCHEMA

    def drop_old(self) -> bool:
        """Drop what was live; False when somebody is still inside: the next rebuild drops it."""
        connection = self._connected()
        for _ in range(DROP_ATTEMPTS_MAX):
            try:
                with connection.transaction():
                    connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS_MAX}")
                    _drop(connection, OLD)
            except psycopg.errors.LockNotAvailable:
                continue
            return True
        return False

    def server_time(self) -> str:
        """`20261121130500`: UTC, for a name."""
        return str(_first(self._connected(), "SELECT to_char(now(), 'YYYYMMDDHH24MISS')"))

    def _compare(self, phase: Phase, through: int) -> Comparison:
        connection = self._connected()
        if not self.exists():
            return Comparison()
        try:
            same_version = live_version(connection)
        except SchemaNewer:
            raise
        except MigrationFault as fault:
            found = Comparison((TableDifference("migrations", fault=str(fault)),))
            return found.then(compare(connection, SCHEMA, REBUILT, phase, through, True))
        return compare(connection, SCHEMA, REBUILT, phase, through, same_version)

    def _lock_gate(self, mode: str) -> None:
        """Where a damaged database has no gate, nobody can be inside."""
        connection = self._connected()
        if _has(connection, f"{SCHEMA}.progress"):
            connection.execute(f"LOCK TABLE {SCHEMA}.progress IN {mode} MODE".encode())

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect(
                autocommit=True,
                connect_timeout=CONNECT_SECONDS_MAX,
                application_name="nocturne-rebuild",
                # The server ends what a rebuild that was killed has begun.
                options="-c client_connection_check_interval=1000 -c timezone=UTC",
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
            )
        return self._connection


def _live(connection: psycopg.Connection) -> Live:
    try:
        with connection.transaction():
            row = connection.execute(
                f"SELECT height, block_digest FROM {SCHEMA}.progress".encode()
            ).fetchone()
    except psycopg.ProgrammingError:
        return Live(None)
    return Live(None) if row is None else Live(*row)


def _take_over_refusals(connection: psycopg.Connection) -> None:
    """Strangers' records that the live projection has counted and the rebuild has not read yet:
    the projection goes on behind them, and would never count them again.
    """

    def step() -> None:
        connection.execute(
            f"""
            WITH fresh AS (
                INSERT INTO {REBUILT}.refused_records (topic, partition, record_offset, cause)
                SELECT old.topic, old.partition, old.record_offset, old.cause
                FROM {SCHEMA}.refused_records AS old
                JOIN {REBUILT}.offsets AS at
                    ON at.topic = old.topic AND at.partition = old.partition
                WHERE old.record_offset >= at.next_offset
                ON CONFLICT DO NOTHING RETURNING cause)
            INSERT INTO {REBUILT}.refused_counts AS known (cause, count)
            SELECT cause, count(*) FROM fresh GROUP BY cause
            ON CONFLICT (cause) DO UPDATE SET count = known.count + excluded.count""".encode()
        )

    _unless_damaged(connection, step)


def _take_over_degraded(connection: psycopg.Connection) -> None:
    """No rebuild ends it."""

    def step() -> None:
        connection.execute(
            f"INSERT INTO {REBUILT}.degraded SELECT * FROM {SCHEMA}.degraded"
            " ON CONFLICT DO NOTHING".encode()
        )

    _unless_damaged(connection, step)


def _make_progress_new(connection: psycopg.Connection) -> None:
    """TRUNCATE, so that a snapshot taken before this commit finds no row at all: whoever waited at
    the gate with one looks again, instead of seeing an earlier height of the rebuild.
    """
    row = connection.execute(f"SELECT * FROM {REBUILT}.progress".encode()).fetchone()
    assert row is not None
    connection.execute(f"TRUNCATE {REBUILT}.progress".encode())
    places = ", ".join(["%s"] * len(row))
    connection.execute(f"INSERT INTO {REBUILT}.progress VALUES ({places})".encode(), row)


def _unless_damaged(connection: psycopg.Connection, step: Callable[[], None]) -> None:
    """`step` reads a table of the live schema; one that is gone or another has nothing to give."""
    try:
        with connection.transaction():
            step()
    except (psycopg.ProgrammingError, psycopg.DataError):
        return


def _rename(connection: psycopg.Connection, name: str, fresh: str) -> None:
    connection.execute(
        sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(fresh))
    )


def _drop(connection: psycopg.Connection, schema: str) -> None:
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


def _has(connection: psycopg.Connection, table: str) -> bool:
    return bool(_first(connection, "SELECT to_regclass(%s) IS NOT NULL", table))


def _first(connection: psycopg.Connection, query: str, *values: object) -> object:
    row = connection.execute(query.encode(), values).fetchone()
    return None if row is None else row[0]
