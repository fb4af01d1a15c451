"""A PostgreSQL database as a service reaches it: its address, and its password from a file.

Rules: docs/guides/settings.md, PostgreSQL. TLS is libpq's: `sslmode=verify-full sslrootcert=…
sslcert=… sslkey=…` in the address. libpq reads these files for each connection, and so do we the
password, so that all of them can be changed under a service.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from nocturne.core.errors import NocturneError
from nocturne.runtime.secrets import SecretFault, read_secret


@dataclass(frozen=True, slots=True)
class Database:
    """Where a database is and as whom it is met. `dsn` may hold a password and is never shown."""

    dsn: str = field(repr=False)
    password_file: Path | None = None

    def address(self) -> str:
        """libpq's connection string of the next connection, with the password as it is now.
        `psycopg.OperationalError` when its file cannot be read: it is tried again as when the
        server is away.
        """
        if self.password_file is None:
            return self.dsn
        try:
            return make_conninfo(self.dsn, password=str(read_secret(self.password_file)))
        except SecretFault as fault:
            raise psycopg.OperationalError(str(fault)) from fault

    def connect(self, **options: Any) -> psycopg.Connection:
        """A new connection; `options` are psycopg's and libpq's."""
        return psycopg.connect(self.address(), **options)

    async def address_soon(self) -> str:
        """`address`, for who waits for it."""
        return self.address()


def check_dsn(dsn: str, password_file: Path | None) -> None:
    """`NocturneError` unless it is an address, with a password in it or beside it and not both.
    The address itself is never in the message.
    """
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # Its message would show the address, and a password with it.
        parts = {}
    if not parts:
        raise NocturneError("expected an address as libpq takes it: postgresql://… or host=…")
    if password_file is not None and parts.get("password") is not None:
        raise NocturneError("expected no password in it beside a password file")
