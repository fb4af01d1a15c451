"""A PostgreSQL server that speaks TLS and asks each client for a certificate of its own.

The wheel's server is built without TLS, so this one is Debian's (`apt-get install postgresql`).
Nobody gets in but over TLS, with the role's password and a certificate whose name is the role's
(`hostssl … clientcert=verify-full`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from cryptography import x509
from tests.certificates import CLIENT, SERVER, Authority, Made
from tests.machines import make_server, started

from nocturne.embedded import postgres
from nocturne.embedded.postgres import DATABASE, HOST, OWNER, ROLES, Server
from nocturne.embedded.processes import launched
from nocturne.embedded.services import postgres_process

INSTALLED = Path("/usr/lib/postgresql")
"""Where Debian's packages put a folder for each version."""
VERSION_MIN = 15
NEEDED = (
    f"needs a PostgreSQL {VERSION_MIN} or newer that is built with TLS: "
    "apt-get install --no-install-recommends postgresql"
)
"""Why a test is skipped."""
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""Length 8, code 80877103; a server that speaks TLS answers S."""
ADMISSION = f"hostssl all all {HOST}/32 scram-sha-256 clientcert=verify-full\n"
SECONDS_MAX = 60.0


def programs() -> Path | None:
    """The programs of the newest version that is new enough and installed."""
    found = [
        (int(one.name), one / "bin")
        for one in INSTALLED.glob("*")
        if one.name.isdecimal() and (one / "bin" / "postgres").exists()
    ]
    fitting = [one for one in found if one[0] >= VERSION_MIN]
    return max(fitting)[1] if fitting else None


@dataclass(frozen=True, slots=True)
class TlsServer(Server):
    """The server; `dsn` is of a client that shows its role's certificate and checks the server's
    name.
    """

    programs: Path

    def dsn(self, role: str, database: str = DATABASE) -> str:
        return f"{Server.dsn(self, role, database)}?{urllib.parse.urlencode(self.tls(role))}"

    def tls(self, role: str) -> dict[str, str]:
        """libpq's settings of a client with the certificate of `role`."""
        return {
            "sslmode": "verify-full",
            "sslrootcert": str(self.ca_file),
            "sslcert": str(self.clients / f"{role}.crt"),
            "sslkey": str(self.clients / f"{role}.key"),
        }

    def server_argv(self) -> list[str]:
        # The last of two settings counts.
        settings = {
            "ssl": "on",
            "ssl_cert_file": self.own / "server.crt",
            "ssl_key_file": self.own / "server.key",
            "ssl_ca_file": self.own / "clients-ca.crt",
            "log_line_prefix": "%u ",
        }
        _, *usual = Server.server_argv(self)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), *usual, *options]

    @property
    def own(self) -> Path:
        """What the server reads."""
        return self.folder.with_name("server-tls")

    @property
    def clients(self) -> Path:
        """A certificate and its key for each role."""
        return self.folder.with_name("client-tls")

    @property
    def ca_file(self) -> Path:
        """Whom clients trust."""
        return self.clients / "ca.crt"

    @property
    def log(self) -> Path:
        return self.passwords / "log"

    # Certificates ------------------------------------------------------------------------------

    def certify(self, authority: Authority, *names: str) -> Made:
        """A new certificate in the old one's place, for `names` or, without, for this machine."""
        return self.show(authority.make("postgres", *(names or (HOST,)), use=SERVER))

    def show(self, made: Made) -> Made:
        """Put a certificate in the server's place; it reads it at its start and when told."""
        _put(self.own / "server.key", made.key, for_server=True)
        _put(self.own / "server.crt", made.certificate, for_server=True)
        return made

    def trust_clients_of(self, *authorities: Authority) -> None:
        trusted = b"".join(one.certificate for one in authorities)
        _put(self.own / "clients-ca.crt", trusted, for_server=True)

    def trust_servers_of(self, *authorities: Authority) -> None:
        _put(self.ca_file, b"".join(one.certificate for one in authorities))

    def hand_out(self, authority: Authority, roles: Sequence[str] = ROLES) -> dict[str, Made]:
        """Give each role a new certificate."""
        made = {role: authority.make(role, use=CLIENT) for role in roles}
        for role, one in made.items():
            write_pair(one, self.clients, role)
        return made

    def reload(self) -> None:
        """Have the server read its files again."""
        with psycopg.connect(self.dsn(OWNER, "postgres")) as owner:
            assert owner.execute("SELECT pg_reload_conf()").fetchone() == (True,)

    def pid(self) -> int:
        """Of the running server, which reads its files again on SIGHUP."""
        return int((self.folder / "postmaster.pid").read_text().splitlines()[0])

    def shown(self) -> int:
        """The serial number of the certificate that clients are shown now, good or bad."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((HOST, self.port), SECONDS_MAX) as plain:
            plain.sendall(SSL_REQUEST)
            assert plain.recv(1) == b"S"
            with context.wrap_socket(plain, server_hostname=HOST) as secure:
                data = secure.getpeercert(binary_form=True)
        assert data is not None
        return x509.load_der_x509_certificate(data).serial_number


@contextlib.contextmanager
def tls_server(folder: Path, programs: Path, authority: Authority) -> Iterator[TlsServer]:
    """The server, with its owner and no database of ours; everybody has a certificate."""
    usual = make_server(folder)
    server = TlsServer(usual.folder, usual.port, usual.passwords, programs)
    _initialise(server)
    server.certify(authority)
    server.trust_clients_of(authority)
    server.hand_out(authority)
    server.trust_servers_of(authority)
    with started(postgres_process(server), server.log):
        yield server


def serial_of(made: Made) -> int:
    """The serial number of a certificate."""
    return x509.load_pem_x509_certificate(made.certificate).serial_number


def write_pair(made: Made, folder: Path, name: str) -> tuple[Path, Path]:
    """`name.crt` and `name.key`: a key that others could read is used by neither side."""
    folder.mkdir(parents=True, exist_ok=True)
    files = (folder / f"{name}.crt", folder / f"{name}.key")
    _put(files[1], made.key)
    _put(files[0], made.certificate)
    return files


def _put(file: Path, data: bytes, *, for_server: bool = False) -> None:
    """Whole at once, and from the first byte on nobody else's to read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_bytes(data)
    if for_server:
        _give(fresh)
    fresh.replace(file)


def _give(file: Path) -> None:
    owner = postgres.user()
    if owner is not None:
        uid, gid = map(int, owner.split(":"))
        os.chown(file, uid, gid)


def _initialise(server: TlsServer) -> None:
    postgres._ensure_passwords(server.passwords)
    password = server.passwords / OWNER
    readable = server.folder.with_name("password")
    _put(readable, password.read_bytes(), for_server=True)
    server.folder.mkdir(parents=True, mode=0o700)
    _give(server.folder)
    done = subprocess.run(
        launched(
            [
                str(server.programs / "initdb"),
                f"--pgdata={server.folder}",
                f"--username={OWNER}",
                f"--pwfile={readable}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-instructions",
            ],
            postgres.user(),
        ),
        cwd="/",
        env=postgres.environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    readable.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    (server.folder / "pg_hba.conf").write_text(ADMISSION)
