"""PostgreSQL over TLS, both sides with a certificate: every service in its own role, everybody else
refused with the reason on both sides, and certificates replaced under load.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Producer
from psycopg.conninfo import make_conninfo
from tests.certificates import CLIENT, DAY, SERVER, Authority, Made
from tests.machines import started, until
from tests.read_side import (
    SECONDS_MAX,
    Stack,
    all_events,
    assert_read_model_equals_the_fold,
    renew_topics,
)
from tests.tls_database import NEEDED, TlsServer, programs, serial_of, tls_server, write_pair
from tests.unit.projection.chains import Chain, every_outcome

from nocturne.deploy.rights import list_of_rights
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import DATABASE, HOST, OWNER, PROJECTION, QUERY
from nocturne.embedded.processes import grpc_serves
from nocturne.runtime.postgres import Database
from nocturne.wire.query.v1 import query_pb2 as pb

PROGRAMS = programs()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(PROGRAMS is None, reason=NEEDED),
]

JOB_SECONDS_MAX = 90.0
CONNECTIONS = (
    "SELECT a.usename, s.client_dn, s.client_serial::text, s.ssl FROM pg_stat_ssl s"
    " JOIN pg_stat_activity a USING (pid) WHERE a.datname = %s AND a.pid <> pg_backend_pid()"
)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[TlsServer]:
    """A server of which the database job has made what it makes: roles and schema."""
    assert PROGRAMS is not None
    with tls_server(tmp_path_factory.mktemp("postgres"), PROGRAMS, authority) as made:
        done = run("nocturne.deploy.database", database_job(made))
        assert done.returncode == 0, done.stderr
        yield made


@pytest.fixture
def server(standing: TlsServer, authority: Authority) -> TlsServer:
    """The server with good certificates on all sides, whatever a test has made of them."""
    made = standing.certify(authority)
    standing.trust_clients_of(authority)
    standing.trust_servers_of(authority)
    standing.hand_out(authority)
    os.kill(standing.pid(), signal.SIGHUP)
    until(lambda: standing.shown() == serial_of(made), SECONDS_MAX, "the new one is shown")
    return standing


@pytest.fixture
def stack(tmp_path: Path, server: TlsServer, kafka_broker: Broker) -> Stack:
    """A ledger of its own in a read model that is empty again."""
    chain = Chain()
    renew_topics(kafka_broker, chain.ledger.genesis.partitions)
    with psycopg.connect(server.dsn(OWNER)) as owner:
        owner.execute("DROP SCHEMA nocturne_v1 CASCADE")
    assert run("nocturne.deploy.database", database_job(server)).returncode == 0
    producer = Producer({"bootstrap.servers": kafka_broker.bootstrap, "linger.ms": 1})
    return Stack(tmp_path, kafka_broker, server, DATABASE, chain, producer)


def database_job(server: TlsServer) -> dict[str, str]:
    """The settings of the job that makes database, roles and schema."""
    folder = server.folder.with_name("job-passwords")
    folder.mkdir(exist_ok=True)
    for role in list_of_rights().database.roles:
        (folder / role.secret).write_text((server.passwords / role.name).read_text())
    address = f"postgresql://{OWNER}@{HOST}:{server.port}/{DATABASE}"
    return {
        "NOCTURNE_POSTGRES_DSN": make_conninfo(address, **server.tls(OWNER)),
        "NOCTURNE_POSTGRES_PASSWORD_FILE": str(server.passwords / OWNER),
        "NOCTURNE_PASSWORDS_DIR": str(folder),
    }


def rebuild_job(stack: Stack, dsn: str) -> dict[str, str]:
    genesis = stack.folder / "genesis"
    genesis.write_bytes(stack.chain.ledger.genesis_bytes)
    return {
        "NOCTURNE_GENESIS_FILE": str(genesis),
        "NOCTURNE_KAFKA_BOOTSTRAP": stack.broker.bootstrap,
        "NOCTURNE_POSTGRES_DSN": dsn,
    }


def run(module: str, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=JOB_SECONDS_MAX,
        check=False,
    )


def connections(server: TlsServer) -> list[tuple[str, str, int, bool]]:
    """Whose they are: the role, the certificate's name and serial number, whether it is TLS."""
    with psycopg.connect(server.dsn(OWNER, "postgres")) as owner:
        rows = owner.execute(CONNECTIONS, (DATABASE,)).fetchall()
    return [(role, name, int(serial), secure) for role, name, serial, secure in rows]


# Let in ----------------------------------------------------------------------------------------


def test_every_service_and_job_works_in_its_role_with_its_certificate(
    stack: Stack, server: TlsServer
) -> None:
    stack.chain = every_outcome()
    stack.publish_all()
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.wait_applied()
        assert_read_model_equals_the_fold(stack)
        assert len(all_events(stub, "orders/1")) > 0
        found = connections(server)
        assert {role for role, *_ in found} == {PROJECTION, QUERY}
        assert all(secure and name == f"/CN={role}" for role, name, _, secure in found)
        rebuilt = run("nocturne.projection.rebuild", rebuild_job(stack, stack.dsn(OWNER)))
        assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
        report = json.loads(rebuilt.stdout.splitlines()[-1])["report"]
        assert (report["outcome"], report["equal"]) == ("swapped", True)
        assert len(all_events(stub, "orders/1")) > 0
    again = run("nocturne.deploy.database", database_job(server))
    assert "0 migrations applied, the schema is current" in again.stdout, again.stderr


# Refused ---------------------------------------------------------------------------------------

Change = Callable[[TlsServer, Authority, Path], dict[str, str]]
"""What a client has other than it should."""


def shows(
    name: str, authority: Authority, folder: Path, *, expired: bool = False
) -> dict[str, str]:
    ends = {"begins": -2 * DAY, "ends": -DAY} if expired else {}
    made = authority.make(name, use=CLIENT, **ends)
    certificate, key = write_pair(made, folder / "shown", name)
    return {"sslcert": str(certificate), "sslkey": str(key)}


def other_server(server: TlsServer, authority: Authority, _: Path) -> dict[str, str]:
    """The server has a certificate of another name."""
    put_in_place(server, lambda: server.certify(authority, "db.elsewhere.example"))
    return {}


def expired_server(server: TlsServer, authority: Authority, _: Path) -> dict[str, str]:
    """The server's certificate has expired."""
    expired = authority.make("postgres", HOST, begins=-2 * DAY, ends=-DAY, use=SERVER)
    put_in_place(server, lambda: server.show(expired))
    return {}


def put_in_place(server: TlsServer, change: Callable[[], Made]) -> None:
    """Give the server another certificate; it is told over a connection that was made before."""
    with psycopg.connect(server.dsn(OWNER, "postgres"), autocommit=True) as owner:
        made = change()
        owner.execute("SELECT pg_reload_conf()")
        until(lambda: server.shown() == serial_of(made), SECONDS_MAX, "the new one is shown")


NOT_IN_THE_CLEAR = (
    f'no pg_hba.conf entry for host "{HOST}", user "{QUERY}", database "{DATABASE}", no encryption'
)
REFUSED: dict[str, tuple[Change, str, str]] = {
    "a server of an authority that is not trusted": (
        lambda server, _, folder: {
            "sslrootcert": str(Authority("stranger").write(folder / "stranger.crt"))
        },
        "certificate verify failed",
        "could not accept SSL connection: tlsv1 alert unknown ca",
    ),
    "a server of another name": (
        other_server,
        f'does not match host name "{HOST}"',
        # The client ends it after a handshake that the server finds nothing wrong with.
        "",
    ),
    "an expired server": (
        expired_server,
        "certificate verify failed",
        "could not accept SSL connection: sslv3 alert certificate expired",
    ),
    "no client certificate": (
        lambda server, _, folder: {
            "sslcert": str(folder / "none"),
            "sslkey": str(folder / "none"),
        },
        "connection requires a valid client certificate",
        "connection requires a valid client certificate",
    ),
    "a client certificate of an authority that is not trusted": (
        lambda server, _, folder: shows(QUERY, Authority("stranger"), folder),
        "alert unknown ca",
        "could not accept SSL connection: certificate verify failed",
    ),
    "an expired client certificate": (
        lambda server, authority, folder: shows(QUERY, authority, folder, expired=True),
        "alert certificate expired",
        "could not accept SSL connection: certificate verify failed",
    ),
    "another role's certificate": (
        lambda server, _, folder: server.tls(PROJECTION),
        # The client is told the same as with a wrong password; which it is, the server's log says.
        f'password authentication failed for user "{QUERY}"',
        f'(clientcert=verify-full) failed for user "{QUERY}": CN mismatch',
    ),
    "plain text": (
        lambda server, _, folder: {"sslmode": "disable"},
        NOT_IN_THE_CLEAR,
        NOT_IN_THE_CLEAR,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_who_is_not_the_one_is_refused_with_the_reason_on_both_sides(
    kafka_broker: Broker, server: TlsServer, authority: Authority, tmp_path: Path, name: str
) -> None:
    """A client, and then a service with the same wrong: it says the same, and does not serve."""
    change, client_says, server_says = REFUSED[name]
    with Database(server.dsn(QUERY)).connect() as connection:
        assert connection.pgconn.ssl_in_use
    wrong = make_conninfo(server.dsn(QUERY), **change(server, authority, tmp_path))
    before = server.log.stat().st_size
    with pytest.raises(psycopg.OperationalError) as refused:
        Database(wrong).connect()
    assert client_says in str(refused.value)
    until(
        lambda: server_says in server.log.read_text()[before:],
        SECONDS_MAX,
        f"{server_says!r} in {server.log}",
    )
    stack = Stack(tmp_path, kafka_broker, server, DATABASE, Chain(), Producer({}))
    process = stack.process("query", QUERY)
    process = replace(
        process,
        environment={**process.environment, "NOCTURNE_POSTGRES_DSN": wrong},
        healthy=lambda: client_says in said(tmp_path / "query.log"),
    )
    with started(process, tmp_path / "query.log"):
        assert not grpc_serves(f"{HOST}:{process.port}")


def test_the_database_job_ends_at_once_with_a_sentence_whatever_is_wrong_with_its_certificate(
    server: TlsServer, authority: Authority, tmp_path: Path
) -> None:
    """No waiting mends it: the job may wait for longer than it is given here to end."""
    for wrong, sentence in (
        (server.tls(QUERY), f'authentication failed for user "{OWNER}"'),
        (shows(OWNER, Authority("stranger"), tmp_path / "stranger"), "alert unknown ca"),
        (shows(OWNER, authority, tmp_path / "expired", expired=True), "alert certificate expired"),
    ):
        job = database_job(server) | {"NOCTURNE_WAIT_SECONDS": str(int(10 * JOB_SECONDS_MAX))}
        job["NOCTURNE_POSTGRES_DSN"] = make_conninfo(job["NOCTURNE_POSTGRES_DSN"], **wrong)
        done = run("nocturne.deploy.database", job)
        assert done.returncode == 1, done.stdout + done.stderr
        assert sentence in done.stderr


def test_projection_and_rebuild_with_anothers_certificate_say_why_and_store_nothing(
    stack: Stack, server: TlsServer
) -> None:
    """They try again, as when the server is away."""
    projection = stack.process("projection", PROJECTION)
    rebuild = [*projection.argv[:-1], "nocturne.projection.rebuild"]
    for role, argv in ((PROJECTION, projection.argv), (OWNER, rebuild)):
        log = stack.folder / f"{role}.log"
        wrong = make_conninfo(stack.dsn(role), **server.tls(QUERY))
        sentence = f'authentication failed for user "{role}"'
        process = replace(
            projection,
            argv=argv,
            environment={**projection.environment, "NOCTURNE_POSTGRES_DSN": wrong},
            healthy=lambda log=log, sentence=sentence: sentence in said(log),  # type: ignore[misc]
        )
        with started(process, log):
            assert stack.rows("SELECT count(*) FROM nocturne_v1.progress") == [(0,)]


def said(log: Path) -> str:
    """All errors that a service has logged, as they were before they were JSON."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]
    return "\n".join(str(value) for line in lines for value in line.values())


# Replaced --------------------------------------------------------------------------------------


def test_certificates_are_replaced_under_load_without_a_restart_and_nothing_is_lost(
    stack: Stack, server: TlsServer, authority: Authority
) -> None:
    """The server's certificate, both clients', and in the end the authority of them all; whenever
    a client's changes its connections are broken, so that the next ones are made with the new one.
    """
    later = Authority("later")
    with (
        stack.projection() as projection,
        stack.query() as query,
        load(stack),
        stack.stub() as stub,
    ):
        until(lambda: {QUERY, PROJECTION} <= roles(server), SECONDS_MAX, "both are connected")
        # The server's own, by the same authority.
        first = server.shown()
        put_in_place(server, lambda: server.certify(authority))
        assert server.shown() != first
        meet_again(stack, server, {})
        # The clients' own.
        meet_again(stack, server, server.hand_out(authority))
        # The authority: trusted beside the old one, then used by all, then alone.
        server.trust_clients_of(authority, later)
        server.trust_servers_of(authority, later)
        server.reload()
        put_in_place(server, lambda: server.certify(later))
        made = server.hand_out(later)
        meet_again(stack, server, made)
        server.trust_clients_of(later)
        server.trust_servers_of(later)
        server.reload()
        meet_again(stack, server, made)
        old = write_pair(authority.make(QUERY, use=CLIENT), stack.folder, "old")
        with pytest.raises(psycopg.OperationalError, match="alert unknown ca"):
            psycopg.connect(server.dsn(QUERY), sslcert=str(old[0]), sslkey=str(old[1]))
        assert projection.poll() is None
        assert query.poll() is None
        assert len(all_events(stub, "grown/4")) > 0
    with stack.projection():
        stack.wait_applied()
    assert_read_model_equals_the_fold(stack)
    assert stack.refused() == {}


def roles(server: TlsServer) -> set[str]:
    return {role for role, *_ in connections(server)}


def meet_again(stack: Stack, server: TlsServer, made: Mapping[str, Made]) -> None:
    """Break every connection of the services, until each has new ones with the certificates that
    were `made`, and blocks go on being applied.
    """
    with psycopg.connect(server.dsn(OWNER, "postgres"), autocommit=True) as owner:
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (DATABASE,)
        )
    wanted = {role: serial_of(one) for role, one in made.items() if role != OWNER}

    def met() -> bool:
        found = connections(server)
        return {PROJECTION, QUERY} <= {role for role, *_ in found} and all(
            serial == wanted.get(role, serial) for role, _, serial, _ in found if role in wanted
        )

    until(met, SECONDS_MAX, f"the services come with {wanted}: {connections(server)}")
    height = stack.height()
    until(lambda: stack.height() > height + 5, SECONDS_MAX, "blocks go on being applied")


@contextmanager
def load(stack: Stack) -> Iterator[None]:
    """Blocks are published, and events read; no answer may fail."""
    over = threading.Event()
    answers: list[int] = []
    failed: list[BaseException] = []

    def publish() -> None:
        while not over.wait(0.02):
            stack.chain.grow(1, seed=len(stack.chain.published))
            stack.publish(*stack.chain.published[-1])
            stack.producer.poll(0)

    def read() -> None:
        with stack.stub() as stub:
            while not over.wait(0.02):
                answers.append(stub.GetStatus(pb.GetStatusRequest(), timeout=SECONDS_MAX).events)

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as fault:
            failed.append(fault)

    working = [
        threading.Thread(target=guarded, args=(one,), daemon=True) for one in (publish, read)
    ]
    stack.chain.grow(1, seed=0)
    stack.publish_all()
    stack.wait_applied()
    for one in working:
        one.start()
    try:
        yield
    finally:
        over.set()
        for one in working:
            one.join(SECONDS_MAX)
        assert stack.producer.flush(SECONDS_MAX) == 0
    assert failed == []
    assert len(answers) > 0
    assert answers == sorted(answers), "what was read once is read again"
