"""Bring the database to the schema this version needs: numbered files, each applied once.

`python -m nocturne.projection.migrate` runs with the owner's address in NOCTURNE_POSTGRES_DSN.
Every file's SHA-256 is kept: a file that was changed after it was applied is refused, and so is a
database that a newer version has migrated. It also grants the services' roles what they may do.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from typing import Final

import psycopg
from psycopg import sql

from nocturne.core.errors import NocturneError

SCHEMA: Final = "nocturne_v1"
PROJECTION_ROLE: Final = "nocturne_projection"
QUERY_ROLE: Final = "nocturne_query"
DSN_VARIABLE: Final = "NOCTURNE_POSTGRES_DSN"

# Any number, always the same: two migrations at once wait for each other.
_LOCK: Final = 0x6E6F6374_75726E65


class MigrationFault(NocturneError):  # noqa: N818
    """The database cannot be brought to, or is not at, the schema of this version."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file `0001_what_it_does.sql`."""

    number: int
    name: str
    statements: str

    @property
    def checksum(self) -> bytes:
        """SHA-256 of the file."""
        return sha256(self.statements.encode("utf-8")).digest()


def main() -> int:
    """Migrate the database of the environment; 0 when it is at this version's schema."""
    dsn = os.environ.get(DSN_VARIABLE)
    if not dsn:
        print(f"{DSN_VARIABLE}: the database owner's address is missing", file=sys.stderr)
        return 2
    try:
        with psycopg.connect(dsn, connect_timeout=10, application_name="nocturne-migrate") as owner:
            applied = migrate(owner)
    except (psycopg.Error, NocturneError) as fault:
        print(f"migrate: {str(fault).strip()}", file=sys.stderr)
        return 1
    print(f"migrate: {len(applied)} applied, the schema is current")
    return 0


def migrations() -> tuple[Migration, ...]:
    """The files of this version, by number: 1, 2, 3, …"""
    found = []
    for file in resources.files("nocturne.projection.migrations").iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    return tuple(found)


def pending(known: tuple[Migration, ...], applied: dict[int, bytes]) -> tuple[Migration, ...]:
    """The migrations still to apply. `MigrationFault` when what was applied is not what is known:
    another file under a number, a number that is missing, a number of a newer version.
    """
    for number, checksum in sorted(applied.items()):
        if number > len(known):
            raise MigrationFault(
                f"the database has migration {number}, this version ends at {len(known)}: "
                "run a version that is not older than the database"
            )
        if known[number - 1].checksum != checksum:
            raise MigrationFault(
                f"migration {number} ({known[number - 1].name}) was applied with other statements: "
                "a file that was applied must never be changed"
            )
    if sorted(applied) != list(range(1, len(applied) + 1)):
        raise MigrationFault(f"the database has migrations {sorted(applied)}, with holes")
    return known[len(applied) :]


def migrate(owner: psycopg.Connection) -> tuple[Migration, ...]:
    """Apply what is pending, each file in a transaction of its own, and grant the roles' rights."""
    owner.commit()
    owner.autocommit = True
    owner.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        _ensure_ledger_of_migrations(owner)
        todo = pending(migrations(), _applied(owner))
        for migration in todo:
            with owner.transaction():
                owner.execute(migration.statements.encode("utf-8"))
                owner.execute(
                    "INSERT INTO nocturne_v1.migrations (number, name, checksum)"
                    " VALUES (%s, %s, %s)",
                    (migration.number, migration.name, migration.checksum),
                )
        with owner.transaction():
            _grant(owner)
    finally:
        owner.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
    return todo


def check_migrated(connection: psycopg.Connection) -> None:
    """`psycopg.OperationalError` while it is not migrated; `MigrationFault` on another schema."""
    try:
        applied = _applied(connection)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as fault:
        raise psycopg.OperationalError("the database is not migrated yet") from fault
    if pending(migrations(), applied):
        raise psycopg.OperationalError("the database is not fully migrated yet")


def _ensure_ledger_of_migrations(owner: psycopg.Connection) -> None:
    owner.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
    owner.execute(
        "CREATE TABLE IF NOT EXISTS nocturne_v1.migrations ("
        " number integer PRIMARY KEY, name text NOT NULL, checksum bytea NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )


def _applied(connection: psycopg.Connection) -> dict[int, bytes]:
    rows = connection.execute("SELECT number, checksum FROM nocturne_v1.migrations").fetchall()
    return {number: bytes(checksum) for number, checksum in rows}


def _grant(owner: psycopg.Connection) -> None:
    """Projection changes rows and no structure; query reads; neither sees anything else."""
    schema = sql.Identifier(SCHEMA)
    for role in (PROJECTION_ROLE, QUERY_ROLE):
        found = owner.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
        if found is None:
            owner.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        owner.execute(
            sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, sql.Identifier(role))
        )
    owner.execute(sql.SQL("REVOKE ALL ON SCHEMA {} FROM PUBLIC").format(schema))
    grants = (
        (PROJECTION_ROLE, "SELECT, INSERT, UPDATE, DELETE"),
        (QUERY_ROLE, "SELECT"),
    )
    for role, rights in grants:
        name = sql.Identifier(role)
        owner.execute(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}").format(schema, name))
        owner.execute(
            sql.SQL("GRANT {} ON ALL TABLES IN SCHEMA {} TO {}").format(
                sql.SQL(rights), schema, name
            )
        )
    # What was applied is for the owner to say.
    owner.execute(
        sql.SQL("REVOKE INSERT, UPDATE, DELETE ON {}.migrations FROM {}").format(
            schema, sql.Identifier(PROJECTION_ROLE)
        )
    )


if __name__ == "__main__":
    sys.exit(main())
