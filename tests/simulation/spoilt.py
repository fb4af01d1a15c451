"""Blocks with one thing wrong, for liars to offer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from tests.simulation.log import RECORDS_PER_BLOCK_MAX, Chains
from tests.simulation.node import RULES

from nocturne.consensus.quorum.messages import Contents, Proposal
from nocturne.core.blocks import BlockHeader, BlockKind
from nocturne.core.identifiers import Hash


def spoilt(
    header: BlockHeader, start: int | None, copy: Sequence[Hash], dice: Random, chains: Chains
) -> BlockHeader:
    """The block with a field changed; as often, with another range. Its parent's range ends at
    `start`, the liar's copy of the log is `copy`.
    """
    ranges = [] if start is None else _other_ranges(header, start, copy, chains)
    if ranges and dice.random() < 0.5:
        return dice.choice(ranges)
    bound = RULES.clock_bound_ms
    other = Hash(bytes([dice.randrange(1, 256)] * 32))
    return dice.choice(
        [
            replace(header, state_root=other),
            replace(header, dispositions_root=other),
            replace(header, record_count=header.record_count + 1),
            replace(header, height=header.height + dice.choice((-1, 1))),
            replace(header, parent_view=max(0, header.parent_view - 1)),
            replace(header, parent_digest=other),
            replace(header, time=header.time + 3 * bound),
            replace(header, time=max(0, header.time - 3 * bound)),
            replace(header, validator_set_hash=other),
            replace(header, next_validator_set_hash=other),
            replace(header, leader_proof=b"x"),
            replace(header, rules_version=2),
        ]
    )


def _other_ranges(
    header: BlockHeader, start: int, copy: Sequence[Hash], chains: Chains
) -> list[BlockHeader]:
    """Ranges that begin elsewhere, that are too long, that are none; records in a tail."""
    last = len(copy) - 1
    told = [(start + 1, last), (start - 1, last), (0, last)]
    told += [(start, start + RECORDS_PER_BLOCK_MAX + 1), (start, start), (start, start + 1)]
    return [
        with_contents(header, chains.contents(copy, begin, end))
        for begin, end in told
        if 0 <= begin <= end <= last
    ]


def candidates(header: BlockHeader, known: Iterable[Proposal]) -> list[Proposal]:
    """Which of the `known` blocks a fork could stand on."""
    return [
        one
        for one in known
        if one.header.epoch == header.epoch
        and one.header.view < header.view
        and one.header.kind is BlockKind.LEDGER
        and one.digest != header.parent_digest
    ]


def fork(
    header: BlockHeader, parent: Proposal, start: int, copy: Sequence[Hash], chains: Chains
) -> BlockHeader:
    """A block that is right in all but what entitles it to its parent."""
    ended = parent.header.height % RULES.epoch_length == 0
    end = start if ended else min(len(copy) - 1, start + RECORDS_PER_BLOCK_MAX)
    return with_contents(
        replace(
            header,
            kind=BlockKind.TAIL if ended else BlockKind.LEDGER,
            height=parent.header.height + (not ended),
            parent_digest=parent.digest,
            parent_view=parent.header.view,
            time=max(header.time, parent.header.time),
        ),
        chains.contents(copy, start, end),
    )


def with_contents(header: BlockHeader, told: Contents) -> BlockHeader:
    """`header` over other records."""
    return replace(
        header,
        ranges=told.ranges,
        control_hash=told.control_hash,
        record_count=told.record_count,
        dispositions_root=told.dispositions_root,
        state_root=told.state_root,
    )
