"""Client certificates and authorities for Kafka are replaced under load, until the broker refuses
the old ones and has cut every connection: nothing is lost, nothing comes twice, no process starts
anew. A real broker that asks every client for its certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from structlog.testing import capture_logs
from tests.certificates import CLIENT, SERVER, Authority, Made
from tests.integration.test_command_service import FACTS, CommandStand
from tests.machines import free_ports, make_broker, started, until
from tests.stand import Running, fresh_topics

from nocturne.client import Client, Committed, Level, Result
from nocturne.core.commands import SignedCommand
from nocturne.core.errors import Unavailable
from nocturne.core.topics import EVENTS
from nocturne.embedded import kafka, postgres
from nocturne.embedded.kafka import HOST, Broker
from nocturne.embedded.postgres import Server
from nocturne.embedded.processes import grpc_serves
from nocturne.embedded.services import kafka_process
from nocturne.projection.migrate import migrate
from nocturne.runtime import kafka as runtime
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import (
    AckedProducer,
    BatchConsumer,
    ProducedRecord,
    Start,
    TransactionalProducer,
    consumer_config,
    partition_count,
    producer_config,
    watermarks,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SECONDS_MAX = 90.0
"""Of waits for a condition: a broker that starts on a busy machine is the longest."""


class MutualBroker:
    """A broker with a plain listener for tests, and one that asks for certificates. It begins with
    a certificate of the old authority, and trusts clients of the old one and of the next.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker: Broker = make_broker(folder / "kafka")
        self.address = f"{HOST}:{free_ports('mutual')['mutual']}"
        self.old, self.next = Authority("old"), Authority("next")
        kafka.prepare(self.broker)
        listeners = self._listeners()
        with self.broker.settings_file.open("a") as file:
            file.write("".join(f"{name}={value}\n" for name, value in listeners.items()))
        self._use(self.old, self.old.certificate + self.next.certificate)
        self.files = folder / "client"
        self.write(self.old.make("nocturne", use=CLIENT), self.old.certificate)
        self.cluster = Cluster(
            self.address,
            "ssl",
            ca_file=self.files / "ca.crt",
            cert_file=self.files / "client.crt",
            key_file=self.files / "client.key",
        )
        self._running: started | None = None
        # A process ends with the thread that started it: this one lives as long as the broker.
        self._thread = ThreadPoolExecutor(1, "broker")

    def write(self, made: Made, authorities: bytes) -> None:
        """The clients' files."""
        made.write(self.files, "client")
        (self.files / "ca.crt").write_bytes(authorities)

    def start(self) -> None:
        self._running = started(kafka_process(self.broker), self.folder / "log")
        self._thread.submit(self._running.__enter__).result()

    def stop(self) -> None:
        if self._running is not None:
            self._running.__exit__()
            self._running = None

    def forget_the_old(self) -> None:
        """End, and with it every connection; then show and trust the next authority alone."""
        self.stop()
        self._use(self.next, self.next.certificate)
        self.start()

    def environment(self) -> dict[str, str]:
        """Of a service."""
        return {
            "NOCTURNE_KAFKA_BOOTSTRAP": self.address,
            "NOCTURNE_KAFKA_SECURITY_PROTOCOL": "ssl",
            "NOCTURNE_KAFKA_CA_FILE": str(self.cluster.ca_file),
            "NOCTURNE_KAFKA_CERT_FILE": str(self.cluster.cert_file),
            "NOCTURNE_KAFKA_KEY_FILE": str(self.cluster.key_file),
        }

    def _listeners(self) -> dict[str, object]:
        plain, broker = f"PLAINTEXT://{self.broker.bootstrap}", self.folder / "broker"
        prefix = "listener.name.mutual.ssl"
        return {
            "listeners": f"{plain},MUTUAL://{self.address},"
            f"CONTROLLER://{HOST}:{self.broker.controller_port}",
            "advertised.listeners": f"{plain},MUTUAL://{self.address}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,MUTUAL:SSL",
            f"{prefix}.client.auth": "required",
            f"{prefix}.keystore.type": "PEM",
            f"{prefix}.keystore.location": broker / "keystore.pem",
            f"{prefix}.truststore.type": "PEM",
            f"{prefix}.truststore.location": broker / "truststore.pem",
        }

    def _use(self, own: Authority, clients: bytes) -> None:
        made, folder = own.make("broker", HOST, use=SERVER), self.folder / "broker"
        folder.mkdir(exist_ok=True)
        (folder / "keystore.pem").write_bytes(made.key + made.certificate)
        (folder / "truststore.pem").write_bytes(clients)

    def with_old_files(self) -> Cluster:
        """A client that has not changed over: of the old authority, and it trusts both."""
        certificate, key = self.old.make("late", use=CLIENT).write(self.folder / "late", "late")
        both = self.folder / "late" / "ca.crt"
        both.write_bytes(self.old.certificate + self.next.certificate)
        return replace(self.cluster, ca_file=both, cert_file=certificate, key_file=key)


@pytest.fixture
def mutual(tmp_path: Path) -> Iterator[MutualBroker]:
    made = MutualBroker(tmp_path / "mutual")
    try:
        made.start()
        yield made
    finally:
        made.stop()
        made._thread.shutdown()


# The clients -----------------------------------------------------------------------------------


class Load:
    """Numbered records by both producers, each read as long as the load lasts."""

    def __init__(self, cluster: Cluster, plain: str, transacted: str) -> None:
        self.topics = (plain, transacted)
        self.producer = AckedProducer(producer_config(cluster, linger_ms=0))
        self.transactions = TransactionalProducer(producer_config(cluster, linger_ms=0), "load")
        self.consumer = BatchConsumer(
            consumer_config(cluster, "load", isolation_level="read_committed"),
            [Start(plain, 0, 0), Start(plain, 1, 0), Start(transacted, 0, 0)],
        )
        self.acknowledged: list[tuple[int, int]] = []
        self.sent = [0, 0]
        self.transacted = 0
        self.read: dict[tuple[str, int], list[int]] = {
            (plain, 0): [],
            (plain, 1): [],
            (transacted, 0): [],
        }
        self.may_transact = asyncio.Event()
        self.may_transact.set()
        self.over = False
        self._idle = asyncio.Event()

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        await self.transactions.open()
        reading = asyncio.ensure_future(self._read())
        writing = [asyncio.ensure_future(one) for one in (self._produce(), self._transact())]
        try:
            yield
            self.over = True
            self.may_transact.set()
            await asyncio.gather(*writing)
            await self.until(lambda: self.complete, "all is read")
        finally:
            for one in (reading, *writing):
                one.cancel()
            await asyncio.gather(reading, *writing, return_exceptions=True)
            await self.consumer.close()
            await self.producer.close()
            await self.transactions.close()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await asyncio.to_thread(until, condition, SECONDS_MAX, what)

    async def more(self, what: str) -> None:
        """Until more was acknowledged, and transacted if it may be, and read."""
        plain = len(self.read[self.topics[0], 0]) + 100
        transacted = len(self.read[self.topics[1], 0]) + 20 * self.may_transact.is_set()
        await self.until(lambda: len(self.read[self.topics[0], 0]) >= plain, what)
        await self.until(lambda: len(self.read[self.topics[1], 0]) >= transacted, what)

    async def pause_transactions(self) -> None:
        self.may_transact.clear()
        await self._idle.wait()

    @property
    def complete(self) -> bool:
        found = [len(self.read[self.topics[0], one]) for one in (0, 1)]
        return found == self.sent and len(self.read[self.topics[1], 0]) == self.transacted

    async def _produce(self) -> None:
        """Several batches under way, as the services have them."""
        waiting: list[asyncio.Future[list[runtime.Delivery]]] = []
        topic = self.topics[0]
        while not self.over or waiting:
            while not self.over and len(waiting) < 8:
                batch = []
                for _ in range(3):
                    for partition in (0, 1):
                        value = b"%d" % self.sent[partition]
                        batch.append(ProducedRecord(topic, partition, None, value))
                        self.sent[partition] += 1
                waiting.append(self.producer.deliver(batch))
            for delivery in await waiting.pop(0):
                assert not isinstance(delivery, runtime.Undelivered), delivery
                self.acknowledged.append(delivery)
            self.producer.check()
            await asyncio.sleep(0.005)

    async def _transact(self) -> None:
        while not self.over:
            if not self.may_transact.is_set():
                self._idle.set()
                await self.may_transact.wait()
                continue
            self._idle.clear()
            numbers = range(self.transacted, self.transacted + 3)
            topic = self.topics[1]
            await self.transactions.publish(
                [ProducedRecord(topic, 0, None, b"%d" % one) for one in numbers]
            )
            self.transacted += 3

    async def _read(self) -> None:
        while True:
            for message in await self.consumer.batch():
                topic, partition, value = message.topic(), message.partition(), message.value()
                assert topic is not None
                assert partition is not None
                assert value is not None
                self.read[topic, partition].append(int(value))


def test_clients_change_over_under_load_and_outlive_the_old_certificate(
    mutual: MutualBroker,
) -> None:
    admin = AdminClient({"bootstrap.servers": mutual.broker.bootstrap})
    topics = [NewTopic("plain", 2, 1), NewTopic("transacted", 1, 1)]
    for made in admin.create_topics(topics).values():
        made.result(SECONDS_MAX)
    with capture_logs() as said:
        load = asyncio.run(asyncio.wait_for(_rotated(mutual, said), 5 * SECONDS_MAX))
    # Each record once, in its order; what was acknowledged is what is in the log.
    for partition in (0, 1):
        assert load.read["plain", partition] == list(range(load.sent[partition]))
        offsets = sorted(at for one, at in load.acknowledged if one == partition and at >= 0)
        assert offsets == list(range(load.sent[partition]))
        assert watermarks(mutual.cluster, "plain", partition)[1] == load.sent[partition]
    assert load.read["transacted", 0] == list(range(load.transacted))
    assert runtime._rotations._rotations == {}


async def _rotated(mutual: MutualBroker, said: Sequence[Mapping[str, object]]) -> Load:
    load = Load(mutual.cluster, "plain", "transacted")

    def count(event: str) -> int:
        return sum(one["event"] == event for one in said)

    async with load.going_on():
        await load.more("before")
        # Neither a key of another certificate, nor half a file, nor what the broker refuses.
        (mutual.files / "client.key").write_bytes(mutual.old.make("other").key)
        await load.until(lambda: count("kafka_tls_refused") == 1, "the mismatch is said")
        (mutual.files / "client.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nMIIB")
        await load.until(lambda: count("kafka_tls_refused") == 2, "the half file is said")
        mutual.write(Authority("stranger").make("nocturne", use=CLIENT), mutual.old.certificate)
        await load.until(lambda: count("kafka_tls_refused") == 3, "the refusal is said")
        assert count("kafka_tls_taken") == 0
        await load.more("with the first files")
        # Two rotations under full load.
        for authority in (mutual.old, mutual.next):
            before = count("kafka_tls_taken")
            both = mutual.old.certificate + mutual.next.certificate
            mutual.write(authority.make("nocturne", use=CLIENT), both)
            await load.until(lambda before=before: count("kafka_tls_taken") > before, "taken")  # type: ignore[misc]
            await load.until(lambda: _all_changed(load, mutual), "all clients changed over")
            await load.more("with new files")
        # An open transaction when a broker ends may be published again: not while it does.
        await load.pause_transactions()
        await asyncio.to_thread(mutual.forget_the_old)
        await load.more("after every connection was cut")
        load.may_transact.set()
        await load.more("transactions too")
        with pytest.raises(Unavailable):
            await asyncio.to_thread(partition_count, mutual.with_old_files(), "plain")
        await load.more("to the end")
    return load


def _all_changed(load: Load, mutual: MutualBroker) -> bool:
    wanted = mutual.cluster.read_tls()
    clients = (load.producer, load.transactions, load.consumer)
    return all(one._config.files == wanted for one in clients)


# The services ----------------------------------------------------------------------------------


def test_services_change_over_while_commands_come_and_none_is_lost(
    mutual: MutualBroker, postgres_server: Server, tmp_path: Path
) -> None:
    stand = CommandStand(tmp_path / "stand", mutual.broker.bootstrap)
    stand.environment |= mutual.environment()
    fresh_topics(mutual.broker.bootstrap, stand.partitions)
    database = _read_model(postgres_server)
    dsn = postgres_server.dsn(postgres.PROJECTION, database)
    try:
        running = {
            "consensus": stand.start("consensus", healthy=False),
            "signing": stand.start("signing", healthy=False),
            "command": stand.start_command(**mutual.environment()),
            "projection": stand.start("projection", healthy=False, NOCTURNE_POSTGRES_DSN=dsn),
        }
        for name, one in running.items():
            until(lambda one=one: _serves(one), SECONDS_MAX, f"{name} serves")  # type: ignore[misc]
        results = asyncio.run(asyncio.wait_for(_submitted(stand, mutual, running), 5 * SECONDS_MAX))
        assert len(results) > 100
        assert all(isinstance(one, Committed) for one in results.values())
        assert all(one.process.poll() is None for one in running.values())
        events = [message.value() for message in stand.read_all(EVENTS)]
        assert len(set(events)) == len(events) == len(results)
        height = stand.blocks()[-1].header.height
        until(lambda: _height(postgres_server, database) == height, SECONDS_MAX, "all is in rows")
        for one in running.values():
            assert one.stop() == 0, one.said()
    finally:
        stand.stop_all()


def _read_model(server: Server) -> str:
    """A database of its own, migrated; its name."""
    database = f"rotation_{uuid.uuid4().hex}"
    with psycopg.connect(server.dsn(postgres.OWNER, "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database} OWNER {postgres.OWNER}".encode())
    with psycopg.connect(server.dsn(postgres.OWNER, database)) as connection:
        migrate(connection)
    return database


def _height(server: Server, database: str) -> object:
    with psycopg.connect(server.dsn(postgres.OWNER, database)) as connection:
        row = connection.execute("SELECT height FROM nocturne_v1.progress").fetchone()
    return None if row is None else row[0]


def _serves(running: Running) -> bool:
    assert running.process.poll() is None, running.said()
    return grpc_serves(running.address)


def _said(running: Running, event: str) -> int:
    lines = [json.loads(one) for one in running.said().splitlines() if one[:1] == "{"]
    return sum(one["event"] == event for one in lines)


async def _submitted(
    stand: CommandStand, mutual: MutualBroker, running: dict[str, Running]
) -> dict[int, Result]:
    over = asyncio.Event()
    results: dict[int, Result] = {}
    numbers = itertools.count(1)

    async def submitting() -> None:
        genesis = stand.genesis_file.read_bytes()
        async with Client(running["command"].address, genesis=genesis) as client:
            while not over.is_set():
                number = next(numbers)
                signed: SignedCommand = stand.make(f"session/{number}", number, opening=FACTS)
                results[number] = await client.submit(signed, wait=Level.SIGNED)

    async def happens(condition: Callable[[], bool], what: str) -> None:
        await asyncio.to_thread(until, condition, SECONDS_MAX, what)

    async def go_on(what: str) -> None:
        before = len(results)
        await happens(lambda: len(results) > before + 30, what)

    working = [asyncio.ensure_future(submitting()) for _ in range(4)]
    await go_on("before")
    (mutual.files / "client.key").write_bytes(mutual.old.make("other").key)
    for name, one in running.items():
        await happens(lambda one=one: _said(one, "kafka_tls_refused") == 1, f"{name} refuses")  # type: ignore[misc]
    await go_on("with the first files")
    both = mutual.old.certificate + mutual.next.certificate
    mutual.write(mutual.next.make("nocturne", use=CLIENT), both)
    for name, one in running.items():
        await happens(lambda one=one: _said(one, "kafka_tls_taken") > 0, f"{name} takes")  # type: ignore[misc]
    await go_on("with the next files")
    await asyncio.to_thread(mutual.forget_the_old)
    await go_on("after every connection was cut")
    over.set()
    await asyncio.gather(*working)
    return results
