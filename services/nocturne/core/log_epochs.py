"""Log epochs: where a partition's log goes on after the broker lost it, by the operators' word.

Rules: docs/spec/blocks.md §1 and §8. A `LogEpochOpened` names one partition, its next log epoch,
the topic that continues the log, and the first offset of it. The log hash goes on from the last
one, so that a certificate still binds all records before; offsets are the new log epoch's own.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from nocturne.core.blocks import LOG_EPOCH_MAX, PARTITIONS_MAX, log_continued
from nocturne.core.control import Control, decode_control
from nocturne.core.encoding import INTEGER_MAX, AvroRecord
from nocturne.core.errors import Malformed
from nocturne.core.state_leaf import LogPosition

ACTION: Final = "LogEpochOpened"
NO_TOPIC: Final = bytes(16)
"""The topic's id in a position before the partition's first range."""


@dataclass(frozen=True, slots=True)
class LogOpening:
    """One partition goes on in `log_epoch` with the records of the topic `topic_uuid` from offset
    `start` on.
    """

    partition: int
    log_epoch: int
    topic_uuid: bytes
    start: int


def opening_fields(opening: LogOpening) -> AvroRecord:
    """The fields of `LogEpochOpened`."""
    return {
        "partition": opening.partition,
        "logEpoch": opening.log_epoch,
        "topicUuid": opening.topic_uuid,
        "from": opening.start,
    }


def opening_of(control: Control) -> LogOpening:
    """What a `LogEpochOpened` says; `Malformed` when it is another action, or can be said of no
    ledger.
    """
    if control.action != ACTION:
        raise Malformed(f"control: expected {ACTION}, got {control.action}")
    fields = control.fields
    opening = LogOpening(
        fields["partition"], fields["logEpoch"], fields["topicUuid"], fields["from"]
    )
    if not 0 <= opening.partition < PARTITIONS_MAX:
        raise Malformed(f"log epoch: no partition has the number {opening.partition}")
    if not 2 <= opening.log_epoch <= LOG_EPOCH_MAX:
        raise Malformed(f"log epoch: expected 2 to {LOG_EPOCH_MAX}, got {opening.log_epoch}")
    if opening.topic_uuid == NO_TOPIC:
        raise Malformed("log epoch: it names no topic")
    if not 0 <= opening.start <= INTEGER_MAX:
        raise Malformed(f"log epoch: expected an offset up to {INTEGER_MAX}, got {opening.start}")
    return opening


def check_opening(position: LogPosition | None, opening: LogOpening) -> None:
    """`Malformed` unless it is the next log epoch of the partition that stands at `position`; None:
    the ledger has no such partition.
    """
    if position is None:
        raise Malformed(f"log epoch: the ledger has no partition {opening.partition}")
    if opening.log_epoch != position.log_epoch + 1:
        raise Malformed(
            f"log epoch: expected {position.log_epoch + 1} of partition {opening.partition} next, "
            f"got {opening.log_epoch}"
        )


def opened(position: LogPosition, opening: LogOpening) -> LogPosition:
    """The partition's position once the log epoch is open: nothing of it is consumed."""
    return LogPosition(
        position.partition,
        opening.log_epoch,
        opening.topic_uuid,
        opening.start,
        log_continued(position.log_hash, opening.topic_uuid, opening.log_epoch),
    )


def openings_of(control: Iterable[bytes]) -> list[LogOpening]:
    """What those of the control records say that open a log epoch, in order. `Malformed` when one
    is no control record, or says what no ledger could.
    """
    decided = [decode_control(record)[0] for record in control]
    return [opening_of(one) for one in decided if one.action == ACTION]


def positions_after(
    positions: Mapping[int, LogPosition], control: Iterable[bytes]
) -> dict[int, LogPosition]:
    """The positions of a whole ledger after the control records of a block; `Malformed` when one of
    them opens a log epoch that is not the partition's next.
    """
    after = dict(positions)
    for opening in openings_of(control):
        check_opening(after.get(opening.partition), opening)
        after[opening.partition] = opened(after[opening.partition], opening)
    return after


def known_positions_after(
    positions: Mapping[int, LogPosition], control: Iterable[bytes]
) -> dict[int, LogPosition]:
    """As `positions_after`, for who knows the positions of some partitions only: of the others
    nothing is known after it either.
    """
    after = dict(positions)
    for opening in openings_of(control):
        position = after.get(opening.partition)
        if position is not None:
            check_opening(position, opening)
            after[opening.partition] = opened(position, opening)
    return after
