"""A reader from outside: confluent-kafka's AvroDeserializer and a registry, nothing of Nocturne's.

`python -S outside_reader.py BOOTSTRAP REGISTRY TOPIC` prints every record of a topic as JSON, its
bytes in hex, and on stderr why it could not read the others. A program of its own: it is never
imported, and it ends at once where Nocturne could be.
"""

import importlib.util
import json
import sys

assert importlib.util.find_spec("nocturne") is None, "Nocturne can be imported from here"

from confluent_kafka import Consumer, KafkaError, TopicPartition  # noqa: E402
from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: E402
from confluent_kafka.schema_registry.avro import AvroDeserializer  # noqa: E402
from confluent_kafka.serialization import MessageField, SerializationContext  # noqa: E402


def main(bootstrap: str, registry: str, topic: str) -> None:
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "outside",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    unfinished = set(partitions)
    while unfinished:
        message = consumer.poll(20)
        assert message is not None, "the broker says nothing"
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            unfinished.discard(message.partition())
            continue
        try:
            found = deserialize(message.value(), SerializationContext(topic, MessageField.VALUE))
        except Exception as fault:
            print(f"{type(fault).__name__}: {fault}"[:200].replace("\n", " "), file=sys.stderr)
            continue
        print(json.dumps(found, default=bytes.hex))
    consumer.close()
    assert "nocturne" not in sys.modules


main(*sys.argv[1:])
