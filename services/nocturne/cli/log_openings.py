"""Which log epochs operators have to open after a loss, and the file in which they sign them. Pure.

Rules: docs/spec/blocks.md §8, docs/runbooks/log-lost.md. A partition needs one where the broker
does not have the certified log: another topic, an end before what is certified, a beginning after
it. That records were rewritten does not show in offsets: operators name such a partition.

    proposal    for each control record, in the order of their numbers: u32 length ‖ record
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Final

from nocturne.client.operating import LogPartition, LogStands
from nocturne.core.blocks import PARTITIONS_MAX
from nocturne.core.control import decode_control
from nocturne.core.encoding import variable
from nocturne.core.errors import Malformed
from nocturne.core.governing import GOVERNING_BYTES_MAX
from nocturne.core.log_epochs import NO_TOPIC, LogOpening, opening_of

PROPOSAL_BYTES_MAX: Final = 4 * 1024 * 1024
"""256 records of a few signatures each have some 100 KiB."""


def openings_for(
    stands: LogStands, named: Set[int], starts: Mapping[int, int]
) -> tuple[LogOpening, ...]:
    """The log epochs to open, partitions ascending: of those `named`, or of all that the broker has
    lost. Each begins with the broker's first record, or where `starts` says. `Malformed` for a
    partition that there is not, or an offset that the broker does not reach.
    """
    known = {one.partition: one for one in stands.partitions}
    for partition in {*named, *starts}:
        if partition not in known:
            raise Malformed(f"the ledger has no partition {partition}")
    wanted = named or {one.partition for one in stands.partitions if lost(stands, one)}
    for partition in starts:
        if partition not in wanted:
            raise Malformed(f"partition {partition} needs no new log epoch")
    return tuple(
        _opening(stands, known[partition], starts.get(partition)) for partition in sorted(wanted)
    )


def lost(stands: LogStands, one: LogPartition) -> str:
    """Why the broker does not have the certified log of this partition; empty if it has."""
    if one.topic_uuid not in (NO_TOPIC, stands.topic_uuid):
        return "another topic"
    if one.end_offset < one.next_offset:
        return "ends too early"
    if one.first_offset > one.next_offset:
        return "begins too late"
    return ""


def _opening(stands: LogStands, one: LogPartition, start: int | None) -> LogOpening:
    first = one.first_offset if start is None else start
    if not one.first_offset <= first <= one.end_offset:
        raise Malformed(
            f"partition {one.partition}: the broker has the offsets from {one.first_offset} up to "
            f"{one.end_offset}, {first} is none of them"
        )
    return LogOpening(one.partition, one.log_epoch + 1, stands.topic_uuid, first)


def proposal_of(records: Sequence[bytes]) -> bytes:
    """The file of these control records."""
    return b"".join(map(variable, records))


def parse_proposal(data: bytes) -> tuple[tuple[bytes, LogOpening], ...]:
    """The control records of a file, and what each opens; `Malformed` when it is none."""
    if len(data) > PROPOSAL_BYTES_MAX:
        raise Malformed(f"expected at most {PROPOSAL_BYTES_MAX} bytes")
    found: list[tuple[bytes, LogOpening]] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        record = data[at + 4 : at + 4 + length]
        if len(data) < at + 4 + length or not 0 < length <= GOVERNING_BYTES_MAX:
            raise Malformed("it is cut, or not a list of control records")
        if len(found) == PARTITIONS_MAX:
            raise Malformed(f"expected at most {PARTITIONS_MAX} records")
        found.append((record, opening_of(decode_control(record)[0])))
        at += 4 + length
    if not found:
        raise Malformed("it has no control record")
    return tuple(found)
