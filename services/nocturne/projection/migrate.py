"""Bring the database to the schema this version needs: numbered files, each applied once.

`python -m nocturne.projection.migrate` runs with the owner's address in NOCTURNE_POSTGRES_DSN.
Every file's SHA-256 is kept: a file that was changed after it was applied is refused, and so is a
database that a newer version has migrated. It also grants the services' roles what `rights.json`
says. The same files make a schema of another name, for a rebuild.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from typing import Final

import psycopg
from psycopg import sql
from pydantic import ValidationError

from nocturne.core.errors import NocturneError
from nocturne.deploy.rights import list_of_rights
from nocturne.runtime.settings import PREFIX, DatabaseSettings, ProcessSettings, read_settings

SCHEMA: Final = "nocturne_v1"

MIGRATIONS_LOCK: Final = 0x6E6F6374_75726E65
"""Any number, always the same: two migrations at once wait for each other, and a swap for them."""

_FILE: Final = re.compile(r"([0-9]{4})_([a-z0-9_]{1,60})\.sql\Z")
_LIVE_NAME: Final = re.compile(rf"\b{SCHEMA}\b")


class Settings(ProcessSettings, DatabaseSettings):
    """What a migration reads from the environment. The address is the owner's."""


class MigrationFault(NocturneError):  # noqa: N818
    """The database cannot be brought to, or is not at, the schema of this version."""


class SchemaNewer(MigrationFault):
    """A newer version has migrated the database: this one cannot know what it holds."""


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
    try:
        settings = read_settings(Settings)
    except ValidationError as fault:
        for error in fault.errors(include_url=False, include_input=False):
            variable = PREFIX + "_".join(map(str, error["loc"])).upper()
            print(f"migrate: {variable}: {error['msg']}", file=sys.stderr)
        return 2
    try:
        with settings.database.connect(
            connect_timeout=10, application_name="nocturne-migrate"
        ) as owner:
            applied = migrate(owner)
    except (psycopg.Error, NocturneError) as fault:
        print(f"migrate: {str(fault).strip()}", file=sys.stderr)
        return 1
    print(f"migrate: {len(applied)} applied, the schema is current")
    return 0


def migrations() -> tuple[Migration, ...]:
    """The files of this version, by number: 1, 2, 3, …"""
    folder = resources.files("nocturne.projection.migrations")
    return numbered(
        (file.name, file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    )


def numbered(files: Iterable[tuple[str, str]]) -> tuple[Migration, ...]:
    """(name, statements) of files as migrations in their order. `MigrationFault` when a name is
    none, and when a number is missing or stands twice.
    """
    found = []
    for name, statements in files:
        match = _FILE.match(name)
        if match is None:
            raise MigrationFault(f"{name[:80]}: expected a name like 0001_what_it_does.sql")
        found.append(Migration(int(match[1]), match[2], statements))
    found.sort(key=lambda migration: migration.number)
    numbers = [one.number for one in found]
    if numbers != list(range(1, len(found) + 1)):
        raise MigrationFault(
            f"this version's migrations have the numbers {numbers}, expected 1, 2, 3, … each once"
        )
    return tuple(found)


def pending(known: tuple[Migration, ...], applied: dict[int, bytes]) -> tuple[Migration, ...]:
    """The migrations still to apply. `MigrationFault` when what was applied is not what is known:
    another file under a number, a number that is missing, a number of a newer version.
    """
    for number, checksum in sorted(applied.items()):
        if number < 1:
            raise MigrationFault(f"the database has migration {number}, and they begin at 1")
        if number > len(known):
            raise SchemaNewer(
                f"the database has migration {number}, this version ends at {len(known)}: "
                "run a version that is not older than the database"
            )
        if known[number - 1].checksum != checksum:
            raise MigrationFault(
                f"migration {number} ({known[number - 1].name}) was applied with other statements: "
                "a file that was applied must never be changed; put it back as it was"
            )
    if sorted(applied) != list(range(1, len(applied) + 1)):
        raise MigrationFault(f"the database has migrations {sorted(applied)}, with holes")
    return known[len(applied) :]


def migrate(
    owner: psycopg.Connection, known: tuple[Migration, ...] | None = None
) -> tuple[Migration, ...]:
    """Apply to the live schema what is pending, and grant the roles' rights."""
    owner.commit()
    owner.autocommit = True
    owner.execute("SELECT pg_advisory_lock(%s)", (MIGRATIONS_LOCK,))
    try:
        done = migrate_schema(owner, SCHEMA, migrations() if known is None else known)
        with owner.transaction():
            grant(owner, SCHEMA)
    finally:
        owner.execute("SELECT pg_advisory_unlock(%s)", (MIGRATIONS_LOCK,))
    return done


def migrate_schema(
    owner: psycopg.Connection, schema: str, known: tuple[Migration, ...]
) -> tuple[Migration, ...]:
    """Apply to a schema what is pending there, each file in a transaction of its own; nobody but
    the owner gets a right in what is new.
    """
    _ensure_ledger_of_migrations(owner, schema)
    todo = pending(known, applied_migrations(owner, schema))
    for migration in todo:
        with owner.transaction():
            owner.execute(_LIVE_NAME.sub(schema, migration.statements).encode("utf-8"))
            owner.execute(
                sql.SQL(
                    "INSERT INTO {}.migrations (number, name, checksum) VALUES (%s, %s, %s)"
                ).format(sql.Identifier(schema)),
                (migration.number, migration.name, migration.checksum),
            )
    return todo


def check_migrated(connection: psycopg.Connection, schema: str = SCHEMA) -> None:
    """`psycopg.OperationalError` while it is not migrated; `MigrationFault` on another schema."""
    try:
        applied = applied_migrations(connection, schema)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as fault:
        raise psycopg.OperationalError("the database is not migrated yet") from fault
    if pending(migrations(), applied):
        raise psycopg.OperationalError("the database is not fully migrated yet")


def applied_migrations(connection: psycopg.Connection, schema: str) -> dict[int, bytes]:
    """Number and checksum of what was applied to a schema."""
    rows = connection.execute(
        sql.SQL("SELECT number, checksum FROM {}.migrations").format(sql.Identifier(schema))
    ).fetchall()
    return {number: bytes(checksum) for number, checksum in rows}


def _ensure_ledger_of_migrations(owner: psycopg.Connection, schema: str) -> None:
    name = sql.Identifier(schema)
    owner.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
    owner.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {}.migrations ("
            " number integer PRIMARY KEY, name text NOT NULL, checksum bytea NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        ).format(name)
    )


def grant(owner: psycopg.Connection, name: str) -> None:
    """Give the services' roles in the schema of this name what `rights.json` says, and nobody
    anything else. A role that is not there is made, without a login.
    """
    schema = sql.Identifier(name)
    owner.execute(sql.SQL("REVOKE ALL ON SCHEMA {} FROM PUBLIC").format(schema))
    tables = [
        table
        for (table,) in owner.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", (name,)
        ).fetchall()
    ]
    for role in list_of_rights().database.roles:
        grantee = sql.Identifier(role.name)
        found = owner.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role.name,)).fetchone()
        if found is None:
            owner.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(grantee))
        owner.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, grantee))
        owner.execute(
            sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}").format(schema, grantee)
        )
        for table in tables:
            rights = sql.SQL(", ").join(map(sql.SQL, role.rights_in(table)))
            owner.execute(
                sql.SQL("GRANT {} ON {} TO {}").format(rights, sql.Identifier(name, table), grantee)
            )


if __name__ == "__main__":
    sys.exit(main())
