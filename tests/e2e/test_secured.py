"""A whole ledger where nothing is met in the clear and nobody without a name: Kafka over SASL_SSL
with its list of rights, PostgreSQL over TLS with a certificate for each role, gRPC over mutual TLS
with an access file. One run of the command line on it, from the first event to a verified export.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo
from tests.certificates import CLIENT, SERVER, Authority
from tests.machines import until
from tests.secured import Secured, secured
from tests.stand import Running, Stand
from tests.tls_database import NEEDED, TlsServer, programs, tls_server, write_pair

from nocturne.deploy.rights import list_of_rights
from nocturne.embedded.kafka import HOST
from nocturne.embedded.postgres import DATABASE, OWNER

PROGRAMS = programs()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(PROGRAMS is None, reason=NEEDED),
]

SECONDS_MAX = 90.0
TOKEN = "token-of-the-desk-0123456789"
DOORS = ("command", "query", "consensus")
"""What the command line calls; the others' doors answer to health checks only."""


@dataclass
class Ledger:
    """The ledger's services, and the command line as somebody who may use it."""

    folder: Path
    place: Secured
    server: TlsServer
    stand: Stand
    running: dict[str, Running]
    authority: Authority

    def nocturne(self, *words: str, code: int = 0, **more: str) -> str:
        """What a command prints; `more` is laid over its environment."""
        done = subprocess.run(
            [sys.executable, "-m", "nocturne.cli", *words],
            env={
                **os.environ,
                **{f"NOCTURNE_{name}": value for name, value in (self.own | more).items()},
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else " ".join(done.stderr.split())

    def json(self, *words: str) -> list[Any]:
        return [json.loads(line) for line in self.nocturne(*words, "--json").splitlines()]

    @property
    def own(self) -> dict[str, str]:
        """As docs/guides/security.md and cli.md say."""
        token = self.folder / "desk.token"
        token.write_text(TOKEN + "\n")
        certificate, key = write_pair(
            self.authority.make("desk", use=CLIENT), self.folder / "desk", "desk"
        )
        consumer = self.place.cluster("consumer", "tls")
        return {
            "HOME": str(self.folder / "desk-home"),
            "COMMAND_ADDRESS": self.running["command"].address,
            "QUERY_ADDRESS": self.running["query"].address,
            "CONTROL_ADDRESS": self.running["consensus"].address,
            "LEDGER": str(self.stand.genesis_file),
            "CA_FILE": str(self.place.ca_file),
            "CLIENT_CERT_FILE": str(certificate),
            "CLIENT_KEY_FILE": str(key),
            "TOKEN_FILE": str(token),
            "KAFKA_BOOTSTRAP": consumer.bootstrap,
            "KAFKA_SECURITY_PROTOCOL": consumer.protocol,
            "KAFKA_USER": "consumer",
            "KAFKA_PASSWORD_FILE": str(consumer.password_file),
            "KAFKA_CA_FILE": str(consumer.ca_file),
        }


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Every service as its own principal, in its own role, with its own certificate."""
    assert PROGRAMS is not None
    folder = tmp_path_factory.mktemp("secured")
    with (
        secured(folder / "place") as place,
        tls_server(folder / "postgres", PROGRAMS, place.authority) as server,
    ):
        stand = Stand(folder / "home", f"{HOST}:{place.ports['tls']}")
        run_job("topics", topics_job(place, stand))
        run_job("database", database_job(place, server))
        access = folder / "access.json"
        digest = f"sha256-{hashlib.sha256(TOKEN.encode()).hexdigest()}"
        desk = {"name": "desk", "roles": ["submit", "audit"], "tokens": [digest]}
        access.write_text(json.dumps({"principals": [desk]}))
        made = Ledger(folder, place, server, stand, {}, place.authority)
        try:
            for service in ("consensus", "signing", "projection", "query", "command"):
                settings = service_settings(made, service, access)
                made.running[service] = stand.start(service, healthy=False, **settings)
            for service in ("signing", "projection"):
                stand.wait_healthy(service, made.running[service])
            until(
                lambda: is_ready(made), SECONDS_MAX, "every door answers, and says that it serves"
            )
            yield made
        finally:
            stand.stop_all()


def kafka_settings(place: Secured, user: str) -> dict[str, str]:
    """Over SASL_SSL."""
    cluster = place.cluster(user, "tls")
    return place.kafka_environment(user) | {
        "NOCTURNE_KAFKA_BOOTSTRAP": cluster.bootstrap,
        "NOCTURNE_KAFKA_SECURITY_PROTOCOL": cluster.protocol,
        "NOCTURNE_KAFKA_CA_FILE": str(cluster.ca_file),
    }


def postgres_settings(server: TlsServer, role: str) -> dict[str, str]:
    address = f"postgresql://{role}@{HOST}:{server.port}/{DATABASE}"
    return {
        "NOCTURNE_POSTGRES_DSN": make_conninfo(address, **server.tls(role)),
        "NOCTURNE_POSTGRES_PASSWORD_FILE": str(server.passwords / role),
    }


def service_settings(ledger: Ledger, service: str, access: Path) -> dict[str, str]:
    settings = {"NOCTURNE_KAFKA_BOOTSTRAP": ""}
    if service != "query":
        settings |= kafka_settings(ledger.place, service)
    for role in list_of_rights().database.roles:
        if role.service == service:
            settings |= postgres_settings(ledger.server, role.name)
    if service in DOORS:
        made = ledger.authority.make(service, HOST, use=SERVER)
        certificate, key = write_pair(made, ledger.folder / "doors", service)
        settings |= {
            "NOCTURNE_TLS_CERT_FILE": str(certificate),
            "NOCTURNE_TLS_KEY_FILE": str(key),
            "NOCTURNE_TLS_CLIENT_CA_FILE": str(ledger.place.ca_file),
            "NOCTURNE_ACCESS_FILE": str(access),
        }
    return settings


def topics_job(place: Secured, stand: Stand) -> dict[str, str]:
    return kafka_settings(place, list_of_rights().superuser.name) | {
        "NOCTURNE_GENESIS_FILE": str(stand.genesis_file),
        "NOCTURNE_TOPIC_REPLICAS": "1",
        "NOCTURNE_PASSWORDS_DIR": str(place.passwords),
        "NOCTURNE_KAFKA_ACLS": "add",
    }


def database_job(place: Secured, server: TlsServer) -> dict[str, str]:
    for role in list_of_rights().database.roles:
        (server.passwords / role.name).write_text((place.passwords / role.secret).read_text())
    return postgres_settings(server, OWNER) | {"NOCTURNE_PASSWORDS_DIR": str(place.passwords)}


def run_job(name: str, settings: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"nocturne.deploy.{name}"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def is_ready(ledger: Ledger) -> bool:
    for name, one in ledger.running.items():
        assert one.process.poll() is None, f"{name}: {one.said()}"
    done = subprocess.run(
        [sys.executable, "-m", "nocturne.cli", "status", "--json"],
        env={**os.environ, **{f"NOCTURNE_{n}": value for n, value in ledger.own.items()}},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return done.returncode == 0 and json.loads(done.stdout)["ready"] is True


# One run ---------------------------------------------------------------------------------------


def test_a_ledger_is_written_read_exported_and_verified(ledger: Ledger) -> None:
    for name in ("ann", "ben"):
        ledger.nocturne("keys", "new", name)
    (first,) = ledger.json("submit", "orders/1", "Ordered", '{"item":"bolts"}', "--as", "ann")
    assert [one["sequenceNumber"] for one in first["events"]] == [1]
    ledger.json("members", "orders/1", "add", "ben", "--role", "writer", "--as", "ann")
    ledger.json("submit", "orders/1", "Paid", '{"amount":7}', "--as", "ben")
    # An author goes on under another key.
    ledger.nocturne("keys", "rotate", "ben")
    ledger.json("submit", "orders/1", "Sent", "{}", "--as", "ben")
    git(ledger.folder / "history")
    (imported,) = ledger.json("import", "git", str(ledger.folder / "history"), "--as", "ann")
    assert imported["imported"] == 2

    def read() -> list[str]:
        return [one["eventType"] for one in ledger.json("events", "orders/1")]

    until(lambda: "Sent" in read(), SECONDS_MAX, "the last event is in the read model")
    assert [one for one in read() if one in ("Ordered", "Paid", "Sent")] == [
        "Ordered",
        "Paid",
        "Sent",
    ]
    assert len(ledger.json("members", "orders/1")) > 0
    assert len(ledger.json("sessions")) >= 2
    ledger.nocturne("policy", "show")
    for session, file in (("orders/1", "order.jsonl"), (imported["sessionIds"][0], "git.jsonl")):
        ledger.nocturne("export", session, file)
        # Offline: by what the genesis says, and with no address at all.
        ledger.nocturne(
            "verify",
            file,
            "--trust",
            str(ledger.stand.genesis_file),
            COMMAND_ADDRESS="",
            QUERY_ADDRESS="",
            CONTROL_ADDRESS="",
        )
    altered = ledger.folder / "altered.jsonl"
    altered.write_text((ledger.folder / "order.jsonl").read_text().replace("bolts", "nails"))
    ledger.nocturne("verify", str(altered), code=1)


def git(folder: Path) -> None:
    """A history of two commits."""
    folder.mkdir()
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    for number in (1, 2):
        words = ["git", *who, "commit", "-q", "--allow-empty", "-m", f"Commit {number}"]
        subprocess.run(words, cwd=folder, check=True)


def test_topics_are_watched_by_a_reader_outside_who_may_read_them(ledger: Ledger) -> None:
    ledger.json("submit", "watched/1", "Noted", "{}")
    for topic in ("blocks", "seals", "events"):
        (told,) = ledger.json("tail", topic, "--from-beginning", "--limit", "1")
        assert told["check"] == "verified", told
    # What the list gives no reader outside: commands that nobody has judged yet.
    said = ledger.nocturne("tail", "commands", "--from-beginning", "--limit", "1", code=3)
    assert "nocturne.commands.v1" in said


def test_the_reader_outside_is_told_why_the_broker_and_it_do_not_meet(
    ledger: Ledger, tmp_path: Path
) -> None:
    wrong_ca = Authority("stranger").write(tmp_path / "stranger.crt")
    wrong_password = tmp_path / "password"
    wrong_password.write_text("not the one of consumer\n")
    words = ("tail", "events", "--from-beginning", "--limit", "1")
    said = ledger.nocturne(*words, code=3, KAFKA_CA_FILE=str(wrong_ca))
    assert "certificate verify failed" in said
    said = ledger.nocturne(*words, code=3, KAFKA_PASSWORD_FILE=str(wrong_password))
    assert "the user 'consumer' do not accept each other" in said
    said = ledger.nocturne(*words, code=2, KAFKA_SECURITY_PROTOCOL="ssl")
    assert "NOCTURNE_KAFKA_USER: " in said
