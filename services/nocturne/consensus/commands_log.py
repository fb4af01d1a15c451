"""The commands topic as a validator meets it: is it the one that was certified, and its records.

Rules: docs/spec/consensus.md, intake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import structlog

from nocturne.consensus.gathering import LogLost
from nocturne.core import topics
from nocturne.core.blocks import LogRecord
from nocturne.core.errors import Unavailable
from nocturne.core.log_epochs import NO_TOPIC
from nocturne.core.record_headers import Headers
from nocturne.core.state_leaf import LogPosition
from nocturne.runtime import kafka
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.home import CannotStart

if TYPE_CHECKING:
    from confluent_kafka import Message

TOPIC_CHECK_SECONDS: Final = 10.0
"""How long records of a topic that was made anew while this process ran, and grew past its position
before the next fetch, could be taken for the old one's. Any other way it shows at once."""
UNREADABLE_HEADERS: Final[Headers] = (("\ufffd", None),)

log = structlog.get_logger()


class RecordsGone(LogLost):
    """The log begins beyond what is certified here. A snapshot of others goes further."""


def check_log(
    cluster: Cluster, partitions: int, positions: Sequence[LogPosition]
) -> tuple[bytes, dict[int, int]]:
    """The topic's id, and the first offset that each partition still has. `LogLost` unless it holds
    what is certified up to `positions`; `RecordsGone` when it lacks what comes after it.
    """
    found = kafka.partition_count(cluster, topics.COMMANDS)
    if found != partitions:
        raise CannotStart(
            f"the topic {topics.COMMANDS} has {found} partitions, the genesis {partitions}"
        )
    uuid = kafka.topic_uuid(cluster, topics.COMMANDS)
    kept_from = {}
    for position in positions:
        partition, following = position.partition, position.next_offset
        if position.topic_uuid not in (NO_TOPIC, uuid):
            raise LogLost(
                f"the topic {topics.COMMANDS} was made anew: partition {partition} is "
                f"certified up to offset {following} of topic {position.topic_uuid.hex()}, "
                f"the broker has {uuid.hex()}"
            )
        low, high = kafka.watermarks(cluster, topics.COMMANDS, partition)
        if low > following:
            raise RecordsGone(
                f"partition {partition} of {topics.COMMANDS} starts at offset {low}, certified "
                f"up to {following}: records were deleted before they were certified"
            )
        check_end(position, high)
        kept_from[partition] = low
    return uuid, kept_from


@dataclass(frozen=True, slots=True)
class Kept:
    """What the broker has of a partition: its first offset, and the one after its last."""

    first: int
    end: int


def kept_by_broker(cluster: Cluster, partitions: int) -> tuple[bytes, tuple[Kept, ...]]:
    """The id of the commands topic that the broker has, and what it has of each partition;
    `Unavailable` when it is away.
    """
    uuid = kafka.topic_uuid(cluster, topics.COMMANDS)
    found = [kafka.watermarks(cluster, topics.COMMANDS, one) for one in range(partitions)]
    return uuid, tuple(Kept(*one) for one in found)


def check_end(certified: LogPosition, end: int) -> None:
    """`LogLost` when a partition ends before what is certified of it. `certified` must be from
    before the broker was asked for `end`: both only rise.
    """
    if end < certified.next_offset:
        raise LogLost(
            f"partition {certified.partition} of {topics.COMMANDS} ends at offset {end}, "
            f"certified up to {certified.next_offset}: the broker lost certified records"
        )


async def watch_log(
    cluster: Cluster, uuid: bytes, certified: Callable[[], Sequence[LogPosition]]
) -> None:
    """`LogLost` once the topic is another one than that of `uuid`, or ends before what is
    `certified`. Records that are deleted before they are certified show in the reading itself.
    """
    while True:
        await asyncio.sleep(TOPIC_CHECK_SECONDS)
        positions = tuple(certified())
        try:
            found = await asyncio.to_thread(kafka.topic_uuid, cluster, topics.COMMANDS)
            ends = await asyncio.to_thread(
                kafka.ends, cluster, topics.COMMANDS, [one.partition for one in positions]
            )
        except Unavailable as fault:
            log.warning("topic_check", cause=str(fault))
            continue
        if found != uuid:
            raise LogLost(
                f"the topic {topics.COMMANDS} was made anew while it was read: it was "
                f"{uuid.hex()}, the broker now has {found.hex()}"
            )
        for position in positions:
            check_end(position, ends[position.partition])


def log_record_of(message: Message) -> LogRecord:
    """The record as the broker delivered it. Names of headers that are not UTF-8 cannot be had from
    this client: such a record counts with `UNREADABLE_HEADERS` instead, for every validator alike.
    """
    try:
        headers = tuple(cast("Headers", message.headers() or ()))
    except (SystemError, UnicodeDecodeError):
        headers = UNREADABLE_HEADERS
    return LogRecord(message.key(), message.value(), headers)


def partition_of(message: Message) -> int:
    """The partition of a delivered record."""
    partition = message.partition()
    assert partition is not None
    return partition


def offset_of(message: Message) -> int:
    """The offset of a delivered record."""
    offset = message.offset()
    assert offset is not None
    return offset
