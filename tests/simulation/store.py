"""What a node stored of the chain, made whole again after a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nocturne.consensus.quorum.messages import Committed, Proposal, Record
from nocturne.core.certificates import CommitProof
from nocturne.core.identifiers import Hash


def newest(records: Sequence[Record]) -> Committed | None:
    """The last commit that a write-ahead log knows."""
    return next((one for one in reversed(records) if isinstance(one, Committed)), None)


def height_of(block: Committed | None) -> int:
    """0 for genesis."""
    return 0 if block is None else block.proposal.header.height


def missing(
    final: Committed | None,
    stored: int,
    proposals: Mapping[Hash, Proposal],
    published: Sequence[Committed],
) -> list[Committed]:
    """The blocks above `stored` up to `final`, in height order: a crash came between writing a
    commit and storing its blocks, which follow from the log; what is older is published.
    """
    found: list[Committed] = []
    while final is not None and height_of(final) > stored:
        found.append(final)
        header = final.proposal.header
        parent = proposals.get(header.parent_digest)
        if parent is None:
            break
        if parent.header.epoch != header.epoch:
            final = published[parent.header.height - 1]
            continue
        headers = (final.proposal.header_bytes, *final.proof.headers)
        final = Committed(parent, CommitProof(final.proof.finalization, headers))
    found.reverse()
    return found
