"""Records on the ledger's topics by someone who is not their writer."""

from __future__ import annotations

from confluent_kafka import Message, Producer


def append(
    bootstrap: str,
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, str | bytes | None]] | None = None,
) -> int:
    """Append one record as anyone with access to the broker could; its offset."""
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 16_000_000})
    offsets: list[int] = []

    def delivered(error: object, message: Message) -> None:
        assert error is None, error
        offset = message.offset()
        assert offset is not None
        offsets.append(offset)

    producer.produce(topic, value, key, partition, delivered, headers=headers or [])
    producer.flush(10)
    return offsets[0]
