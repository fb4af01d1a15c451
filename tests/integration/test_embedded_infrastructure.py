"""Kafka and PostgreSQL really start, keep what they were given, and come back after a kill."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from tests.machines import make_broker, make_server, started

from nocturne.core import topics as names
from nocturne.deploy import topics
from nocturne.embedded import kafka, postgres
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import OWNER, PROJECTION, QUERY, Server
from nocturne.embedded.services import kafka_process, postgres_process
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import topic_settings

pytestmark = pytest.mark.integration

FLUSH_SECONDS_MAX = 20.0


def produce(broker: Broker, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
    producer.produce(topic, value, partition=0)
    assert producer.flush(FLUSH_SECONDS_MAX) == 0


def consume(broker: Broker, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    try:
        return [message.value() for message in consumer.consume(count, FLUSH_SECONDS_MAX)]
    finally:
        consumer.close()


@pytest.fixture(scope="module")
def ledger_topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of this module alone: the shared one may have the topics with other partitions."""
    broker = make_broker(tmp_path_factory.mktemp("kafka"))
    kafka.prepare(broker)
    with started(kafka_process(broker), broker.folder / "log"):
        topics.ensure(Cluster(broker.bootstrap), topics.plan(3))
        yield broker


def test_a_record_that_was_produced_is_consumed(ledger_topics: Broker) -> None:
    produce(ledger_topics, names.SEALS, b"one")
    assert consume(ledger_topics, names.SEALS, 1) == [b"one"]


def test_topics_keep_everything_and_commands_are_on_disk_before_the_answer(
    ledger_topics: Broker,
) -> None:
    for name in names.TOPICS:
        settings = topic_settings(Cluster(ledger_topics.bootstrap), name)
        assert settings["retention.ms"] == "-1"
        assert settings["cleanup.policy"] == "delete"
        assert settings["message.timestamp.type"] == "CreateTime"
    commands = topic_settings(Cluster(ledger_topics.bootstrap), names.COMMANDS)
    assert commands["flush.messages"] == "1"


def test_creating_the_topics_again_changes_nothing(ledger_topics: Broker) -> None:
    topics.ensure(Cluster(ledger_topics.bootstrap), topics.plan(3))


def test_another_partition_count_is_refused(ledger_topics: Broker) -> None:
    with pytest.raises(topics.TopicFault, match="has 3 partitions, expected 4 from the genesis"):
        topics.ensure(Cluster(ledger_topics.bootstrap), topics.plan(4))


def test_a_killed_broker_comes_back_with_its_records(tmp_path: Path) -> None:
    broker = make_broker(tmp_path / "kafka")
    kafka.prepare(broker)
    process = kafka_process(broker)
    with started(process, tmp_path / "log") as running:
        topics.ensure(Cluster(broker.bootstrap), topics.plan(1))
        produce(broker, names.COMMANDS, b"before the kill")
        running.kill()
        running.wait()
    kafka.prepare(broker)
    with started(process, tmp_path / "log"):
        produce(broker, names.COMMANDS, b"after the kill")
        assert consume(broker, names.COMMANDS, 2) == [b"before the kill", b"after the kill"]


def test_each_role_enters_with_its_own_password_and_query_cannot_write(
    postgres_server: Server,
) -> None:
    for role in (OWNER, PROJECTION, QUERY):
        with psycopg.connect(postgres_server.dsn(role)) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (role,)
    with (
        psycopg.connect(postgres_server.dsn(QUERY)) as connection,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        connection.execute("CREATE TEMP TABLE mine (a int)")


def test_a_wrong_password_is_refused(postgres_server: Server) -> None:
    stranger = postgres_server.dsn(QUERY).replace(f"{QUERY}:", f"{QUERY}:x")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(stranger)


def test_passwords_are_closed_to_everyone_else(postgres_server: Server) -> None:
    for role in (OWNER, PROJECTION, QUERY):
        assert (postgres_server.passwords / role).stat().st_mode & 0o077 == 0


def test_a_killed_database_comes_back_with_its_rows(tmp_path: Path) -> None:
    server = make_server(tmp_path)
    postgres.prepare(server)
    process = postgres_process(server)
    with started(process, tmp_path / "log") as running:
        postgres.ensure_roles(server)
        with psycopg.connect(server.dsn(OWNER)) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        running.kill()
        running.wait()
    postgres.prepare(server)
    with started(process, tmp_path / "log"):
        postgres.ensure_roles(server)
        with psycopg.connect(server.dsn(OWNER)) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_deep_home_is_no_obstacle_to_the_database(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 20) / ("deeper" * 20)
    server = make_server(deep)
    deep.mkdir(parents=True)
    postgres.prepare(server)
    with started(postgres_process(server), deep / "log"):
        assert postgres.answers(server, seconds=2.0)
