"""Make the database, its roles and its schema: `python -m nocturne.deploy.database`.

Runs as the schema's owner of `rights.json`, once or as often as one likes: what is so already is
left alone. Where somebody else has made the database and the roles, the owner needs no right to
make any. Settings: docs/guides/settings.md. Exit codes: 0 all is as it should be, 1 it is not, or
PostgreSQL is away, 2 settings.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from nocturne.core.errors import NocturneError, Unavailable
from nocturne.deploy import jobs
from nocturne.deploy.granting import WAIT_SECONDS, WaitSeconds, passwords_of, sayer
from nocturne.deploy.rights import Role, list_of_rights
from nocturne.projection.migrate import migrate
from nocturne.runtime.postgres import Database
from nocturne.runtime.secrets import Secret
from nocturne.runtime.settings import DatabaseSettings, ProcessSettings, read_settings
from nocturne.runtime.telemetry import configure_logs

CONNECT_SECONDS_MAX: Final = 5
LOOK_SECONDS: Final = 0.2
MAINTENANCE: Final = "postgres"
"""The database that every server has: another is made from it."""
READ_ONLY: Final = "default_transaction_read_only"

_FINAL: Final = (errors.InvalidPassword, errors.InvalidAuthorizationSpecification)
"""The server is there, and waiting makes nothing better."""

_MISSING: Final = re.compile(r'database "[^"\n]*" does not exist')


class DatabaseFault(NocturneError):  # noqa: N818
    """The database is there and is not what this ledger needs."""


class Settings(ProcessSettings, DatabaseSettings):
    """What the job reads from the environment. The address is the owner's."""

    passwords_dir: Path | None = None
    """The folder of the roles' passwords; None: others have made the roles."""
    wait_seconds: WaitSeconds = WAIT_SECONDS


def main() -> int:
    """Run the job with the settings of the environment; its exit code."""
    return jobs.run("database", {"grant": _grant_all}, sys.argv[1:])


def _grant_all() -> str:
    settings = read_settings(Settings)
    configure_logs("database", settings.log_level)
    say = sayer("database")
    roles = list_of_rights().database.roles
    found = passwords_of(settings.passwords_dir, {role.secret: False for role in roles})
    passwords = {role.name: found[role.secret] for role in roles if role.secret in found}
    try:
        if ensure_database(settings.database, settings.wait_seconds):
            say("the database was made")
        with settings.database.connect(
            connect_timeout=CONNECT_SECONDS_MAX, application_name="nocturne-database"
        ) as owner:
            owner.autocommit = True
            for sentence in ensure_roles(owner, passwords):
                say(sentence)
            return f"{len(migrate(owner))} migrations applied, the schema is current"
    except psycopg.Error as fault:
        raise DatabaseFault(_cause(fault)) from fault


def ensure_database(database: Database, seconds: float) -> bool:
    """Until the server answers, and there is the database; whether it was made now. `Unavailable`
    when the server does not answer in time, or does not let us in.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            database.connect(connect_timeout=CONNECT_SECONDS_MAX).close()
        except psycopg.OperationalError as fault:
            cause = _cause(fault)
            if _is_missing(fault):
                _create(database)
                return True
            if isinstance(fault, _FINAL) or _is_refusal(cause):
                raise Unavailable(f"PostgreSQL: {cause}") from fault
            if time.monotonic() > deadline:
                raise Unavailable(f"PostgreSQL: {cause} within {seconds:.0f} s") from fault
            time.sleep(LOOK_SECONDS)
        else:
            return False


def ensure_roles(owner: psycopg.Connection, passwords: Mapping[str, Secret]) -> list[str]:
    """Make the services' roles, or give them these passwords; without them they must be there. What
    was done. Nobody else may enter the database from then on. `DatabaseFault` when a role is
    missing, or is more than a service's role is.
    """
    said = []
    for role in list_of_rights().database.roles:
        known = _role_of(owner, role)
        if role.name in passwords:
            _give_password(owner, role, passwords[role.name], made=known is None)
            said.append(f"the role {role.name} has its password")
        elif known is None:
            raise DatabaseFault(
                f"there is no role {role.name}: make it, or name the folder of the passwords "
                "(NOCTURNE_PASSWORDS_DIR) and it is made"
            )
        if role.read_only and f"{READ_ONLY}=on" not in (known or ()):
            owner.execute(
                sql.SQL("ALTER ROLE {} SET {} = on").format(
                    sql.Identifier(role.name), sql.Identifier(READ_ONLY)
                )
            )
    _shut(owner)
    return said


def _role_of(owner: psycopg.Connection, role: Role) -> tuple[str, ...] | None:
    """The settings of a role's sessions; None when there is no such role."""
    row = owner.execute(
        "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls,"
        " coalesce(rolconfig, '{}') FROM pg_roles WHERE rolname = %s",
        (role.name,),
    ).fetchone()
    if row is None:
        return None
    if row[0]:
        raise DatabaseFault(
            f"the role {role.name} has attributes that let it do more than its grants "
            "(superuser, createdb, createrole, replication or bypassrls): take them from it"
        )
    return tuple(row[1])


def _give_password(owner: psycopg.Connection, role: Role, password: Secret, *, made: bool) -> None:
    # What the server stores is made here: the password itself is in no statement, and so in no log.
    verifier = owner.pgconn.encrypt_password(
        str(password).encode(), role.name.encode(), b"scram-sha-256"
    ).decode()
    verb = sql.SQL("CREATE" if made else "ALTER")
    statement = sql.SQL("{} ROLE {} LOGIN PASSWORD {}")
    owner.execute(statement.format(verb, sql.Identifier(role.name), sql.Literal(verifier)))


def _shut(owner: psycopg.Connection) -> None:
    """Only the owner and the services' roles enter the database, and make nothing in it."""
    database = sql.Identifier(owner.info.dbname)
    owner.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    for role in list_of_rights().database.roles:
        owner.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                database, sql.Identifier(role.name)
            )
        )


def _create(database: Database) -> None:
    name = conninfo_to_dict(database.dsn).get("dbname")
    if not isinstance(name, str):
        raise DatabaseFault("the address names no database: append /nocturne to it, or dbname=…")
    with database.connect(
        dbname=MAINTENANCE, connect_timeout=CONNECT_SECONDS_MAX, autocommit=True
    ) as owner:
        try:
            owner.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    sql.Identifier(name)
                )
            )
        except errors.DuplicateDatabase:
            # Another run of this job was first.
            return


def _is_missing(fault: psycopg.OperationalError) -> bool:
    # A failed connection has no SQLSTATE in libpq: its words must do.
    return _MISSING.search(str(fault)) is not None


def _is_refusal(cause: str) -> bool:
    return any(
        words in cause
        for words in (
            "password authentication failed",
            "no pg_hba.conf entry",
            "certificate",
            "alert unknown ca",
        )
    )


def _cause(fault: psycopg.Error) -> str:
    return str(fault).strip().split("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
