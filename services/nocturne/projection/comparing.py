"""Compare the live read model with the rebuilt one, row by row, in SQL. The statements are pure.

Rules: docs/spec/services.md, rebuild. Both are schemas of one database, so rows are compared
themselves and no hash of them: what differs has a name at once. The bulk is compared before the
live one's commits are held, up to a height that both have; the rest while they are held. Together
that is every row of every table that is a function of the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import psycopg
from psycopg import sql

NAMED_MAX: Final = 5
"""Keys of rows that differ, for each table; all are counted."""


class Growth(Enum):
    """How a table's rows relate to heights."""

    BY_HEIGHT = "height"
    """Rows of a block, never changed."""
    CHANGED = "changed_height"
    """Rows that later blocks change."""
    WHOLE = ""
    """A few rows, compared at the end only."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A table, its key, and which of its rows belong to which height."""

    table: str
    key: tuple[str, ...]
    growth: Growth


COMPARED: Final = (
    Compared("progress", ("one_row",), Growth.WHOLE),
    Compared("blocks", ("height",), Growth.BY_HEIGHT),
    Compared("ranges", ("log_epoch", "partition", "first_offset"), Growth.BY_HEIGHT),
    Compared("records", ("height", "leaf_index"), Growth.BY_HEIGHT),
    Compared("events", ("session", "sequence"), Growth.BY_HEIGHT),
    Compared("receipts", ("log_epoch", "partition", "record_offset"), Growth.BY_HEIGHT),
    Compared("validator_changes", ("height", "number"), Growth.BY_HEIGHT),
    Compared("sessions", ("session",), Growth.CHANGED),
    Compared("state_leaves", ("key",), Growth.WHOLE),
)
NOT_COMPARED: Final = ("migrations", "offsets", "refused_records", "refused_counts", "degraded")
"""Not functions of the log up to a height: where each reads on, and what it has seen of strangers'
records or of two histories, depend on how far beyond its last block each has read.
"""


class Phase(Enum):
    """Which rows are compared."""

    BULK = "bulk"
    """Those up to a height; the live one goes on meanwhile."""
    REST = "rest"
    """Those above it; both stand still, at one height."""


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A row by its key. `what`: altered, missing (in the live one), or extra (there only)."""

    key: str
    what: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableDifference:
    """What differs in a table: counts, the first rows; `fault` when it is not what it must be."""

    table: str
    altered: int = 0
    missing: int = 0
    extra: int = 0
    first: tuple[RowDifference, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The tables that differ, and `skipped`: what only one has, for it is of another version."""

    differences: tuple[TableDifference, ...] = ()
    skipped: tuple[str, ...] = ()

    def then(self, later: Comparison) -> Comparison:
        """Both together, a line for each table."""
        merged: dict[str, TableDifference] = {}
        for one in (*self.differences, *later.differences):
            known = merged.get(one.table)
            merged[one.table] = one if known is None else _added(known, one)
        skipped = dict.fromkeys((*self.skipped, *later.skipped))
        return Comparison(tuple(merged.values()), tuple(skipped))


def _added(one: TableDifference, other: TableDifference) -> TableDifference:
    return TableDifference(
        one.table,
        one.altered + other.altered,
        one.missing + other.missing,
        one.extra + other.extra,
        tuple(dict.fromkeys((*one.first, *other.first)))[:NAMED_MAX],
        one.fault or other.fault,
    )


def compare(
    connection: psycopg.Connection,
    live: str,
    rebuilt: str,
    phase: Phase,
    through: int,
    same_version: bool,
) -> Comparison:
    """Rows up to `through` (bulk), or above it. With another version's live schema, columns and
    tables that both have.
    """
    found = Comparison()
    columns = {schema: _columns(connection, schema) for schema in (live, rebuilt)}
    if phase is Phase.BULK and same_version:
        found = found.then(_compare_structure(connection, live, rebuilt, columns))
    for one in COMPARED:
        if phase is Phase.BULK and one.growth is Growth.WHOLE:
            continue
        ours, theirs = columns[rebuilt][one.table], columns[live].get(one.table, ())
        shared = [name for name in ours if name in theirs]
        if not set(one.key) <= set(shared):
            fault = TableDifference(one.table, fault="it has not the columns of its key")
            missing = TableDifference(one.table, fault="there is no such table")
            found = found.then(Comparison((fault if theirs else missing,)))
            continue
        if not same_version:
            alone = sorted({*ours, *theirs} - set(shared))
            found = found.then(Comparison(skipped=tuple(f"{one.table}.{name}" for name in alone)))
        statement = statement_of(one, shared, live, rebuilt, phase)
        found = found.then(Comparison(_differences(connection, one.table, statement, through)))
    return found


def statement_of(
    one: Compared, columns: Sequence[str], live: str, rebuilt: str, phase: Phase
) -> sql.Composed:
    """Counts and the first keys of the rows that differ."""
    key = [sql.Identifier(name) for name in one.key]
    others = [name for name in columns if name not in one.key]
    only_live = sql.SQL("r.{} IS NULL").format(key[0])
    only_rebuilt = sql.SQL("l.{} IS NULL").format(key[0])
    differs = [
        sql.SQL("l.{0} IS DISTINCT FROM r.{0}").format(sql.Identifier(name)) for name in others
    ]
    return sql.SQL(
        "WITH different AS ("
        "SELECT {order}, concat_ws(', ', {named}) AS named,"
        " CASE WHEN {only_rebuilt} THEN 'missing' WHEN {only_live} THEN 'extra'"
        " ELSE 'altered' END AS what,"
        " array_remove(ARRAY[{columns}]::text[], NULL) AS columns"
        " FROM (SELECT * FROM {live}.{table}{rows}) AS l"
        " FULL JOIN (SELECT * FROM {rebuilt}.{table}{rows}) AS r ON {joined}"
        " WHERE ({only_rebuilt} OR {only_live} OR {differs}){which})"
        " SELECT count(*) FILTER (WHERE what = 'altered') OVER (),"
        " count(*) FILTER (WHERE what = 'missing') OVER (),"
        " count(*) FILTER (WHERE what = 'extra') OVER (), named, what, columns"
        " FROM different ORDER BY {ordered} LIMIT {limit}"
    ).format(
        order=_joined(", ", "coalesce(l.{0}, r.{0}) AS {0}", key),
        named=sql.SQL(", ").join(
            sql.SQL("{} || coalesce(l.{}, r.{})::text").format(
                sql.Literal(f"{name}="), sql.Identifier(name), sql.Identifier(name)
            )
            for name in one.key
        ),
        only_live=only_live,
        only_rebuilt=only_rebuilt,
        columns=sql.SQL(", ").join(
            sql.SQL("CASE WHEN {} THEN {} END").format(different, sql.Literal(name))
            for different, name in zip(differs, others, strict=True)
        ),
        live=sql.Identifier(live),
        rebuilt=sql.Identifier(rebuilt),
        table=sql.Identifier(one.table),
        rows=_rows(one, phase),
        joined=_joined(" AND ", "l.{0} = r.{0}", key),
        differs=sql.SQL(" OR ").join(differs),
        which=_which(one, phase),
        ordered=sql.SQL(", ").join(key),
        limit=sql.Literal(NAMED_MAX),
    )


def _joined(separator: str, part: str, names: Sequence[sql.Identifier]) -> sql.Composed:
    return sql.SQL(separator).join(sql.SQL(part).format(name) for name in names)


def _rows(one: Compared, phase: Phase) -> sql.SQL:
    if one.growth is not Growth.BY_HEIGHT:
        return sql.SQL("")
    bulk = phase is Phase.BULK
    return (
        sql.SQL(" WHERE height <= %(through)s") if bulk else sql.SQL(" WHERE height > %(through)s")
    )


def _which(one: Compared, phase: Phase) -> sql.SQL:
    """Of rows that change: what the live one has changed since is compared with the rest."""
    if one.growth is not Growth.CHANGED:
        return sql.SQL("")
    if phase is Phase.BULK:
        return sql.SQL(" AND (l.changed_height IS NULL OR l.changed_height <= %(through)s)")
    return sql.SQL(
        " AND (l.changed_height IS NULL OR r.changed_height IS NULL"
        " OR greatest(l.changed_height, r.changed_height) > %(through)s)"
    )


def _differences(
    connection: psycopg.Connection, table: str, statement: sql.Composed, through: int
) -> tuple[TableDifference, ...]:
    try:
        with connection.transaction():
            # In key order by the indexes: a hash of whole rows would be written to disk and read.
            connection.execute("SET LOCAL enable_hashjoin = off")
            connection.execute("SET LOCAL jit = off")
            rows = connection.execute(statement, {"through": through}).fetchall()
    except psycopg.OperationalError:
        # The server is away, or takes too long: that says nothing of the rows.
        raise
    except psycopg.Error as fault:
        cause = str(fault).strip().split("\n")[0]
        return (TableDifference(table, fault=f"it cannot be compared: {cause}"),)
    if not rows:
        return ()
    altered, missing, extra = rows[0][:3]
    first = tuple(RowDifference(named, what, tuple(names)) for *_, named, what, names in rows)
    return (TableDifference(table, altered, missing, extra, first),)


def _columns(connection: psycopg.Connection, schema: str) -> dict[str, tuple[str, ...]]:
    rows = connection.execute(
        "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class AS c"
        " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind = 'r' GROUP BY c.relname",
        (schema,),
    ).fetchall()
    return {table: tuple(names) for table, names in rows}


def _compare_structure(
    connection: psycopg.Connection,
    live: str,
    rebuilt: str,
    columns: dict[str, dict[str, tuple[str, ...]]],
) -> Comparison:
    """Of one version, both have the same tables, columns and indexes."""
    found = []
    indexes = {schema: _indexes(connection, schema) for schema in (live, rebuilt)}
    for table, ours in columns[rebuilt].items():
        theirs = columns[live].get(table)
        if theirs is None:
            found.append(TableDifference(table, fault="there is no such table"))
        elif set(ours) != set(theirs):
            odd = ", ".join(sorted(set(ours) ^ set(theirs)))
            found.append(TableDifference(table, fault=f"only one of both has the columns {odd}"))
        odd = ", ".join(
            sorted({name for (of, name, _) in indexes[live] ^ indexes[rebuilt] if of == table})
        )
        if theirs is not None and odd:
            found.append(TableDifference(table, fault=f"its indexes differ: {odd}"))
    return Comparison(tuple(found))


def _indexes(connection: psycopg.Connection, schema: str) -> set[tuple[str, str, str]]:
    rows = connection.execute(
        "SELECT tablename::text, indexname::text, replace(indexdef, schemaname || '.', '')"
        " FROM pg_indexes WHERE schemaname = %s",
        (schema,),
    )
    return {(table, name, definition) for table, name, definition in rows}
