"""Create the ledger's topics on an embedded broker, once; nothing in them ever expires."""

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from nocturne.core import topics
from nocturne.embedded.errors import EmbeddedError

ADMIN_SECONDS_MAX = 30
SHOWN_SECONDS_MAX = 15.0
LOOK_SECONDS = 0.05
MIB = 1024 * 1024
# The largest command, plus room for what rides beside it (headers, framing).
COMMAND_BYTES_MAX = MIB + 64 * 1024
BLOCK_BYTES_MAX = 12 * MIB

KEPT = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "CreateTime",
}


def plan(partitions: int) -> dict[str, tuple[int, dict[str, str]]]:
    """Each topic's partition count and settings; commands, events and receipts share the count."""
    return {
        # One replica: `accepted` is honest only if a command is on disk before it is answered.
        topics.COMMANDS: (
            partitions,
            {**KEPT, "flush.messages": "1", "max.message.bytes": str(COMMAND_BYTES_MAX)},
        ),
        topics.BLOCKS: (1, {**KEPT, "max.message.bytes": str(BLOCK_BYTES_MAX)}),
        topics.SEALS: (1, KEPT),
        topics.EVENTS: (partitions, {**KEPT, "max.message.bytes": str(2 * MIB)}),
        topics.RECEIPTS: (partitions, {**KEPT, "max.message.bytes": str(2 * MIB)}),
    }


def ensure(bootstrap: str, partitions: int) -> None:
    """Create what is missing; EmbeddedError when a topic is there with another partition count."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    wanted = plan(partitions)
    try:
        present = _present(client)
        missing = [name for name in wanted if name not in present]
        _create(client, {name: wanted[name] for name in missing})
        _check(client, wanted)
    except KafkaException as error:
        raise EmbeddedError(
            f"The topics could not be created on {bootstrap} ({error.args[0].str()}): "
            "see the broker's log."
        ) from error


def topic_settings(bootstrap: str, name: str) -> dict[str, str]:
    """A topic's settings as the broker has them."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    resource = ConfigResource(ResourceType.TOPIC, name)
    answered = client.describe_configs([resource])[resource].result(ADMIN_SECONDS_MAX)
    return {key: entry.value for key, entry in answered.items()}


def _present(client: AdminClient) -> dict[str, int]:
    found = client.list_topics(timeout=ADMIN_SECONDS_MAX).topics
    return {name: len(topic.partitions) for name, topic in found.items()}


def _create(client: AdminClient, wanted: dict[str, tuple[int, dict[str, str]]]) -> None:
    if not wanted:
        return
    fresh = [
        NewTopic(name, num_partitions=count, replication_factor=1, config=settings)
        for name, (count, settings) in wanted.items()
    ]
    for created in client.create_topics(fresh, operation_timeout=ADMIN_SECONDS_MAX).values():
        try:
            created.result(ADMIN_SECONDS_MAX)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def _check(client: AdminClient, wanted: dict[str, tuple[int, dict[str, str]]]) -> None:
    present = _all_present(client, set(wanted))
    for name, (count, _) in wanted.items():
        if present.get(name, 0) != count:
            raise EmbeddedError(
                f"The topic {name} has {present.get(name, 0)} partitions, expected {count} from "
                "the genesis: this home's broker belongs to another ledger, use another home."
            )


def _all_present(client: AdminClient, names: set[str]) -> dict[str, int]:
    """The partitions of each topic. A topic that was just made is shown a moment later only: the
    controller has it before the broker's metadata do.
    """
    deadline = time.monotonic() + SHOWN_SECONDS_MAX
    while True:
        present = _present(client)
        if all(present.get(name) for name in names) or time.monotonic() > deadline:
            return present
        time.sleep(LOOK_SECONDS)
