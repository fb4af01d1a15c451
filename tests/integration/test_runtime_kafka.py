"""The runtime's consumers and producers against a real broker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from tests.machines import make_broker, started

from nocturne.core.errors import Unavailable
from nocturne.embedded import kafka
from nocturne.embedded.kafka import Broker
from nocturne.embedded.services import kafka_process
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import (
    AckedProducer,
    BatchConsumer,
    Consumed,
    ProducedRecord,
    Start,
    TransactionalProducer,
    Undelivered,
    committed_offsets,
    consumer_config,
    headers_of,
    partition_count,
    producer_config,
    topic_uuid,
    watermarks,
)

pytestmark = pytest.mark.integration

SECONDS_MAX = 20.0


def make_topic(broker: Broker, partitions: int = 1) -> str:
    name = f"runtime-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(SECONDS_MAX)
    return name


def records(topic: str, count: int, partition: int = 0) -> list[ProducedRecord]:
    return [
        ProducedRecord(topic, partition, b"key", b"%d" % number, [("name", b"value")])
        for number in range(count)
    ]


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), SECONDS_MAX))


async def read(consumer: BatchConsumer, count: int) -> list[bytes | None]:
    values: list[bytes | None] = []
    while len(values) < count:
        values += [message.value() for message in await consumer.batch()]
    return values


def test_records_come_out_as_they_went_in_with_their_offsets(kafka_broker: Broker) -> None:
    topic = make_topic(kafka_broker)

    async def test() -> None:
        producer = AckedProducer(producer_config(Cluster(kafka_broker.bootstrap)))
        positions = await producer.produce_batch(records(topic, 3000))
        assert positions == [(0, offset) for offset in range(3000)]
        consumer = BatchConsumer(
            consumer_config(Cluster(kafka_broker.bootstrap), "test"), [Start(topic, 0, 0)]
        )
        first = (await consumer.batch())[0]
        assert (first.key(), first.value(), first.headers()) == (
            b"key",
            b"0",
            [("name", b"value")],
        )
        await read(consumer, 3000 - consumer.next_offset(topic, 0))
        assert consumer.next_offset(topic, 0) == 3000
        assert consumer.lag() == 0
        await consumer.close()
        await producer.close()

    run(test)


def test_a_consumer_starts_where_it_is_told(kafka_broker: Broker) -> None:
    topic = make_topic(kafka_broker)

    async def test() -> None:
        producer = AckedProducer(producer_config(Cluster(kafka_broker.bootstrap)))
        await producer.produce_batch(records(topic, 10))
        consumer = BatchConsumer(
            consumer_config(Cluster(kafka_broker.bootstrap), "test"), [Start(topic, 0, 7)]
        )
        assert await read(consumer, 3) == [b"7", b"8", b"9"]
        await consumer.close()
        await producer.close()

    run(test)


def test_an_offset_past_the_log_is_unavailable_and_not_another_start(kafka_broker: Broker) -> None:
    topic = make_topic(kafka_broker)

    async def test() -> None:
        consumer = BatchConsumer(
            consumer_config(Cluster(kafka_broker.bootstrap), "test"), [Start(topic, 0, 7)]
        )
        with pytest.raises(Unavailable):
            await consumer.batch()
        await consumer.close()

    run(test)


def test_a_slow_reader_bounds_what_waits_and_loses_nothing(kafka_broker: Broker) -> None:
    topic = make_topic(kafka_broker)

    async def test() -> None:
        producer = AckedProducer(producer_config(Cluster(kafka_broker.bootstrap)))
        await producer.produce_batch(records(topic, 1000))
        consumer = BatchConsumer(
            consumer_config(Cluster(kafka_broker.bootstrap), "test"),
            [Start(topic, 0, 0)],
            batch_records_max=10,
            backlog_batches_max=2,
        )
        values: list[bytes | None] = []
        while len(values) < 1000:
            batch = await consumer.batch()
            assert len(batch) <= 10
            values += [message.value() for message in batch]
        assert values == [b"%d" % number for number in range(1000)]
        await consumer.close()
        await producer.close()

    run(test)


def test_control_markers_move_the_next_offset_even_at_the_end(kafka_broker: Broker) -> None:
    topic = make_topic(kafka_broker)

    async def test() -> None:
        producer = TransactionalProducer(
            producer_config(Cluster(kafka_broker.bootstrap)), f"id-{uuid.uuid4()}"
        )
        await producer.open()
        await producer.publish(records(topic, 3))
        await producer.publish(records(topic, 2))
        consumer = BatchConsumer(
            consumer_config(
                Cluster(kafka_broker.bootstrap), "test", isolation_level="read_committed"
            ),
            [Start(topic, 0, 0)],
        )
        offsets = []
        # 0 1 2 marker 4 5 marker
        while consumer.next_offset(topic, 0) < 7:
            offsets += [message.offset() for message in await consumer.batch()]
        assert offsets == [0, 1, 2, 4, 5]
        assert consumer.next_offset(topic, 0) == 7
        await consumer.close()
        await producer.close()

    run(test)


def test_a_transaction_commits_records_and_positions_together(kafka_broker: Broker) -> None:
    topic, source = make_topic(kafka_broker), make_topic(kafka_broker)
    group = f"group-{uuid.uuid4()}"

    async def test() -> None:
        consumer = BatchConsumer(
            consumer_config(Cluster(kafka_broker.bootstrap), group), [Start(source, 0, 0)]
        )
        producer = TransactionalProducer(producer_config(Cluster(kafka_broker.bootstrap)), group)
        await producer.publish(
            records(topic, 1), Consumed({(source, 0): 17}, consumer.group_metadata())
        )
        await producer.close()
        await consumer.close()

    run(test)
    assert committed_offsets(Cluster(kafka_broker.bootstrap), group, [(source, 0), (topic, 0)]) == {
        (source, 0): 17
    }


def test_a_second_producer_of_a_transactional_id_fences_the_first(kafka_broker: Broker) -> None:
    topic = make_topic(kafka_broker)
    identity = f"id-{uuid.uuid4()}"

    async def test() -> None:
        first = TransactionalProducer(producer_config(Cluster(kafka_broker.bootstrap)), identity)
        await first.publish(records(topic, 1))
        second = TransactionalProducer(producer_config(Cluster(kafka_broker.bootstrap)), identity)
        await second.open()
        # The first one makes itself anew and fences the second in turn: no record is lost.
        await first.publish(records(topic, 1))
        await second.publish(records(topic, 1))
        await first.close()
        await second.close()

    run(test)
    assert watermarks(Cluster(kafka_broker.bootstrap), topic, 0) == (0, 6)


def test_a_topic_made_anew_has_another_id(kafka_broker: Broker) -> None:
    topic = make_topic(kafka_broker, partitions=3)
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap})
    first = topic_uuid(Cluster(kafka_broker.bootstrap), topic)
    assert len(first) == 16
    assert first != bytes(16)
    assert topic_uuid(Cluster(kafka_broker.bootstrap), topic) == first
    assert partition_count(Cluster(kafka_broker.bootstrap), topic) == 3
    other = make_topic(kafka_broker)
    admin.delete_topics([topic])[topic].result(SECONDS_MAX)
    assert topic_uuid(Cluster(kafka_broker.bootstrap), other) != first


def test_records_for_a_broker_that_is_away_are_undelivered_after_the_bound() -> None:
    async def test() -> None:
        producer = AckedProducer(producer_config(Cluster("127.0.0.1:9"), delivery_timeout_ms=500))
        with pytest.raises(Unavailable):
            await producer.produce_batch(records("topic", 2))
        assert not producer.reachable
        await producer.close(0.1)

    run(test)


# No client writes such a name on its own: aiokafka's record builder in Python can be made to.
HOSTILE = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class NotUtf8(str):
    def encode(self, *_):
        return b"\\xff\\xfe"

async def main(bootstrap, topic):
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    for name in (NotUtf8("x"), "x"):
        await producer.send_and_wait(topic, b"v", headers=[(name, b"1"), ("y", None)])
    await producer.stop()

asyncio.run(main(*sys.argv[1:]))
"""


def test_headers_that_are_not_text_are_none(kafka_broker: Broker) -> None:
    topic = make_topic(kafka_broker)

    async def test() -> None:
        hostile = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", HOSTILE, kafka_broker.bootstrap, topic),
            env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"},
        )
        assert await hostile.wait() == 0
        consumer = BatchConsumer(
            consumer_config(Cluster(kafka_broker.bootstrap), "test"), [Start(topic, 0, 0)]
        )
        found = []
        while len(found) < 2:
            found += [headers_of(message) for message in await consumer.batch()]
        assert found == [None, (("x", b"1"), ("y", None))]
        await consumer.close()

    run(test)


def test_clients_outlive_a_killed_broker(tmp_path: Path) -> None:
    broker = make_broker(tmp_path / "kafka")
    kafka.prepare(broker)
    process = kafka_process(broker)

    async def read_to(consumer: BatchConsumer, count: int) -> list[bytes | None]:
        values: list[bytes | None] = []
        while len(values) < count:
            values += [message.value() for message in await consumer.batch()]
        return values

    async def test() -> None:
        first = started(process, tmp_path / "log")
        running = await asyncio.to_thread(first.__enter__)
        topic, other = make_topic(broker), make_topic(broker)
        producer = AckedProducer(producer_config(Cluster(broker.bootstrap)))
        transactions = TransactionalProducer(producer_config(Cluster(broker.bootstrap)), "outlives")
        consumer = BatchConsumer(
            consumer_config(Cluster(broker.bootstrap), "test", isolation_level="read_committed"),
            [Start(topic, 0, 0), Start(other, 0, 0)],
        )
        await transactions.open()
        for one in range(3):
            await producer.produce_batch(records(topic, 20))
            await transactions.publish(records(other, 20))
            await read_to(consumer, 40)
            if one == 2:
                break
            late = producer.deliver(records(topic, 100))
            publishing = asyncio.ensure_future(transactions.publish(records(other, 100)))
            running.send_signal(signal.SIGKILL)
            await asyncio.to_thread(running.wait)
            again = started(process, tmp_path / "log")
            running = await asyncio.to_thread(again.__enter__)
            assert not any(isinstance(delivery, Undelivered) for delivery in await late)
            await publishing
            # Transactions may come twice; what is acknowledged comes at least once.
            values = await read_to(consumer, 200)
            while consumer.lag() > 0:
                values += [message.value() for message in await consumer.batch()]
            assert len(values) >= 200
        await consumer.close()
        await producer.close()
        await transactions.close()
        await asyncio.to_thread(again.__exit__)

    asyncio.run(asyncio.wait_for(test(), 100))
