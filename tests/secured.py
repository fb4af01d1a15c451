"""A broker and a database that ask who comes, as a deployment has them: users, rights, TLS.

The broker has a listener for each way in: `clients` (SASL_PLAINTEXT), `tls` (SASL_SSL), `other`
(the same with a certificate of another name) and `mutual` (SSL with client certificates). Nothing
is allowed that the list of `nocturne.deploy.rights` does not allow; `admin` is the one superuser.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from tests.certificates import Authority
from tests.machines import free_ports, make_broker, make_server, started

from nocturne.deploy.rights import list_of_rights
from nocturne.embedded import kafka, postgres
from nocturne.embedded.kafka import HOST, Broker
from nocturne.embedded.postgres import Server
from nocturne.embedded.processes import Process, launched
from nocturne.embedded.services import kafka_process, postgres_process
from nocturne.runtime.cluster import SASL, TLS, Cluster, SecurityProtocol

LISTENERS: Mapping[str, SecurityProtocol] = {
    "clients": "sasl_plaintext",
    "tls": "sasl_ssl",
    "other": "sasl_ssl",
    "mutual": "ssl",
}
STRANGER = "stranger"
"""A user that the list does not have."""


@dataclass(frozen=True)
class Secured:
    """Where both are, and everybody's password: a file each in `passwords`."""

    folder: Path
    broker: Broker
    ports: Mapping[str, int]
    server: Server
    authority: Authority

    @property
    def passwords(self) -> Path:
        return self.folder / "passwords"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.crt"

    def cluster(self, user: str, listener: str = "clients") -> Cluster:
        """The cluster as `user` meets it, with its own password."""
        protocol = LISTENERS[listener]
        secure = protocol in TLS
        cluster = Cluster(
            f"{HOST}:{self.ports[listener]}", protocol, ca_file=self.ca_file if secure else None
        )
        if protocol == "ssl":
            certificate, key = self.authority.make(user).write(self.folder / "certificates", user)
            return replace(cluster, cert_file=certificate, key_file=key)
        return replace(cluster, user=user, password_file=self.passwords / f"kafka-{user}")

    def kafka_environment(self, user: str) -> dict[str, str]:
        """The settings of a process that is `user`."""
        return {
            "NOCTURNE_KAFKA_BOOTSTRAP": f"{HOST}:{self.ports['clients']}",
            "NOCTURNE_KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
            "NOCTURNE_KAFKA_USER": user,
            "NOCTURNE_KAFKA_PASSWORD_FILE": str(self.passwords / f"kafka-{user}"),
        }

    def postgres_environment(self, role: str, secret: str) -> dict[str, str]:
        """The settings of a process that is `role`."""
        return {
            "NOCTURNE_POSTGRES_DSN": self.dsn(role),
            "NOCTURNE_POSTGRES_PASSWORD_FILE": str(self.passwords / secret),
        }

    def dsn(self, role: str) -> str:
        """The database's address, without a password."""
        return f"postgresql://{role}@{HOST}:{self.server.port}/{list_of_rights().database.name}"


@contextlib.contextmanager
def secured(folder: Path) -> Iterator[Secured]:
    """Both, empty: no topic, no user but the superuser, no database, no role but the owner."""
    authority = Authority()
    ports = free_ports(*LISTENERS)
    made = Secured(folder, make_broker(folder / "kafka"), ports, make_server(folder), authority)
    authority.write(made.ca_file)
    _make_passwords(made)
    _prepare_broker(made)
    admin = made.cluster(list_of_rights().superuser.name)
    process = replace(kafka_process(made.broker), healthy=lambda: _answers(admin))
    with (
        started(process, folder / "kafka.log"),
        started(_prepared_server(made), made.server.passwords / "log"),
    ):
        yield made


def _make_passwords(made: Secured) -> None:
    made.passwords.mkdir()
    database = list_of_rights().database
    names = [one.secret for one in list_of_rights().principals] + [
        role.secret for role in database.roles
    ]
    for name in (*names, database.owner_secret, f"kafka-{STRANGER}"):
        (made.passwords / name).write_text(secrets.token_urlsafe(16) + "\n")


# Kafka -----------------------------------------------------------------------------------------


def _prepare_broker(made: Secured) -> None:
    """As `kafka.prepare` does, with the listeners and the superuser of this file."""
    broker = made.broker
    broker.folder.mkdir(parents=True)
    broker.settings_file.write_text(kafka.settings(broker) + _security(made))
    (broker.folder / "log4j2.properties").write_text(kafka.LOGGING)
    superuser = list_of_rights().superuser
    password = (made.passwords / superuser.secret).read_text().strip()
    user = f"SCRAM-SHA-512=[name={superuser.name},password={password}]"
    arguments = ("format", "-t", kafka.CLUSTER_ID, "-c", str(broker.settings_file))
    done = subprocess.run(
        launched(broker.argv("kafka.tools.StorageTool", *arguments, "--add-scram", user)),
        env=broker.environment,
        capture_output=True,
        text=True,
        timeout=kafka.FORMAT_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _security(made: Secured) -> str:
    """Settings that follow the usual ones: of two of one name the last counts."""
    superuser = list_of_rights().superuser
    password = (made.passwords / superuser.secret).read_text().strip()
    login = f'required username="{superuser.name}" password="{password}"'
    security = "org.apache.kafka.common.security"
    addresses = ",".join(f"{name.upper()}://{HOST}:{port}" for name, port in made.ports.items())
    protocols = ",".join(f"{name.upper()}:{LISTENERS[name].upper()}" for name in made.ports)
    lines = {
        "listeners": f"{addresses},CONTROLLER://{HOST}:{made.broker.controller_port}",
        "advertised.listeners": addresses,
        "listener.security.protocol.map": f"{protocols},CONTROLLER:SASL_PLAINTEXT",
        "inter.broker.listener.name": "CLIENTS",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        **{
            f"listener.name.{name}.scram-sha-512.sasl.jaas.config": (
                f"{security}.scram.ScramLoginModule {login};"
            )
            for name, protocol in LISTENERS.items()
            if protocol in SASL
        },
        # The controller keeps the users, so that it cannot look them up to let a broker in.
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": (
            f'{security}.plain.PlainLoginModule {login} user_{superuser.name}="{password}";'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{superuser.name}",
        "allow.everyone.if.no.acl.found": "false",
        **_certificate(made, "tls", HOST),
        **_certificate(made, "other", "kafka.elsewhere.example"),
        **_certificate(made, "mutual", HOST),
        "listener.name.mutual.ssl.client.auth": "required",
        # A client whose certificate says CN=command is User:command.
        "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _certificate(made: Secured, listener: str, name: str) -> dict[str, str]:
    files = made.authority.make("broker", name).write(made.folder / "broker", listener)
    together = made.folder / "broker" / f"{listener}.pem"
    together.write_bytes(b"".join(file.read_bytes() for file in reversed(files)))
    prefix = f"listener.name.{listener}.ssl"
    return {
        f"{prefix}.keystore.type": "PEM",
        f"{prefix}.keystore.location": str(together),
        f"{prefix}.truststore.type": "PEM",
        f"{prefix}.truststore.location": str(made.ca_file),
    }


def _answers(cluster: Cluster) -> bool:
    client = AdminClient({**cluster.connection(), "log_level": 0})
    try:
        return bool(client.list_topics(timeout=1.0).brokers)
    except KafkaException:
        return False


# PostgreSQL ------------------------------------------------------------------------------------


def _prepared_server(made: Secured) -> Process:
    postgres.prepare(made.server)
    owner = made.server.passwords / list_of_rights().database.owner
    (made.passwords / list_of_rights().database.owner_secret).write_text(owner.read_text())
    return postgres_process(made.server)


class TlsInFront:
    """TLS before a server that has none, in PostgreSQL's way: the wheel's is built without."""

    def __init__(self, certificate: Path, key: Path, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._behind = port
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            # SSLRequest: length 8, code 80877103; answered with S.
            if client.recv(8, socket.MSG_WAITALL) != b"\x00\x00\x00\x08\x04\xd2\x16\x2f":
                return
            client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as outside,
                socket.create_connection((HOST, self._behind)) as inside,
            ):
                _carry(outside, inside)


def _carry(outside: ssl.SSLSocket, inside: socket.socket) -> None:
    """Both ways until one side ends; by one thread, for no two may be in one TLS connection."""
    while True:
        waiting = [outside] if outside.pending() else select.select([outside, inside], [], [])[0]
        for source in waiting:
            data = source.recv(65536)
            if not data:
                return
            (inside if source is outside else outside).sendall(data)
