"""Read a topic's records one by one, from all its partitions, for as long as they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from nocturne.cli.tail_records import Record
from nocturne.core.errors import Unavailable
from nocturne.core.topics import EVENTS, RECEIPTS, SEALS
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import consumer_config, headers_of, partition_count, watermarks

CONSUMER_GROUP: Final = "nocturne-consumer-tail"
POLL_SECONDS: Final = 0.2
"""How long a Ctrl-C may wait."""
QUEUED_KILOBYTES_MAX: Final = 8 * 1024
"""Fetched ahead of the screen: memory stays flat however much there is to read."""
TRANSACTIONAL: Final = frozenset({EVENTS, RECEIPTS, SEALS})
"""Signing writes these in transactions: an aborted one's records are nobody's."""


def read(cluster: Cluster, topic: str, from_beginning: bool) -> Generator[Record, None, None]:
    """The records of `topic`: all that are kept, or those that come from now on. Without an end.
    `Unavailable` when there is no such broker or topic, or reading cannot go on.
    """
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)
    committed = topic in TRANSACTIONAL
    starts = []
    for partition in range(partition_count(cluster, topic)):
        low, high = watermarks(cluster, topic, partition)
        starts.append(TopicPartition(topic, partition, low if from_beginning else high))
    consumer = Consumer(
        consumer_config(
            cluster,
            CONSUMER_GROUP,
            isolation_level="read_committed" if committed else "read_uncommitted",
            enable_partition_eof=False,
            queued_max_messages_kbytes=QUEUED_KILOBYTES_MAX,
        )
    )
    try:
        consumer.assign(starts)
        while True:
            message = consumer.poll(POLL_SECONDS)
            if message is not None:
                record = _record(message)
                if record is not None:
                    yield record
    except KafkaException as fault:
        raise Unavailable(f"The broker at {cluster.bootstrap}: {fault.args[0].str()}.") from fault
    finally:
        consumer.close()


def _record(message: Message) -> Record | None:
    """The record of a message; None for an error that passes by itself."""
    error = message.error()
    if error is not None:
        if error.retriable() or (error.code() < 0 and error.code() not in _FINAL):
            return None
        raise KafkaException(error)
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    kind, time = message.timestamp()
    return Record(
        topic,
        partition,
        offset,
        time if kind else None,
        message.key(),
        message.value(),
        headers_of(message),
    )


_FINAL: Final = frozenset(
    {KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError._AUTO_OFFSET_RESET}
)
"""Errors of the client itself that waiting does not mend."""
