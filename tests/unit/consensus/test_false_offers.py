"""Offers that no correct leader makes: they take nobody's room, and end nobody's process."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from tests.unit.consensus.committees import Committee, Member
from tests.unit.consensus.ledgers import signer
from tests.unit.consensus.test_log_lost import opening

from nocturne.consensus.chain import Executed
from nocturne.consensus.quorum.messages import Offer, Proposal
from nocturne.consensus.replica import UNCHECKED_MAX
from nocturne.core import merkle
from nocturne.core.blocks import BlockHeader, encode_block_header, hash_block, sign_proposal
from nocturne.core.errors import PeerFault
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Ed25519Signer


def proposal_of(header: BlockHeader, by: Ed25519Signer) -> Proposal:
    data = encode_block_header(header)
    digest = hash_block(data)
    return Proposal(header, data, digest, sign_proposal(by, digest))


def records_of(member: Member) -> int:
    return sum(one.block.header.record_count for one in member.published)


def standing_on(committee: Committee) -> tuple[Member, Executed]:
    """Whoever has executed a block that nobody else has heard of, and the block."""
    for member in committee.members:
        for found in member.replica.chain._executed.values():
            return member, found
    raise AssertionError("nobody has executed a block")


def silenced() -> Committee:
    """Four validators that have certified a block and hear no more of each other."""
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    committee.loses = lambda sender, to, say: True
    return committee


def offer_on(committee: Committee, found: Executed, to: Member, header: BlockHeader) -> None:
    """The leader of the view after `found` offers this block on it."""
    parent = found.block.header
    header = replace(
        header,
        view=parent.view + 1,
        parent_digest=found.block.digest,
        parent_view=parent.view,
    )
    liar = committee.members[(header.view - 1) % len(committee.members)]
    assert liar is not to
    offer = Offer(proposal_of(header, liar.signer), ())
    committee.do(to, to.replica.hear(liar.signer.key, offer, committee.clock))


@pytest.mark.parametrize("views_ahead", [5, 1_000_000])
def test_offers_that_nobody_signed_stop_nobody_from_voting(views_ahead: int) -> None:
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    liar, others = committee.members[3], committee.members[:3]
    base = others[0].published[-1].block.header
    for number in range(2 * UNCHECKED_MAX):
        header = replace(
            base,
            view=base.view + views_ahead + number,
            height=base.height + 1_000,
            parent_digest=Hash(bytes([number] * 32)),
        )
        offer = Offer(proposal_of(header, signer(999)), ())
        for member in others:
            with suppress(PeerFault):
                committee.do(member, member.replica.hear(liar.signer.key, offer, committee.clock))
    committee.kill(liar)
    committee.write("b", "c", "d")
    committee.run(20_000)
    assert {records_of(one) for one in others} == {4}


def test_ranges_that_begin_before_the_parents_end_are_no_block() -> None:
    committee = silenced()
    committee.write("b", "b", "b")
    committee.run(50)
    member, found = standing_on(committee)
    committee.ledger.write("b")
    committee.read(member)
    header = found.block.header
    (one,) = header.ranges
    again = replace(header, height=header.height + 1, ranges=(replace(one, end=one.end + 1),))
    offer_on(committee, found, member, again)
    assert len(member.replica.chain._executed) == 1


def test_ranges_of_the_log_epoch_before_an_opening_are_no_block() -> None:
    committee = silenced()
    (before,) = committee.members[0].published[-1].block.header.ranges
    committee.ledger.write("a", "a")
    for one in committee.members:
        for partition, offset, prepared in committee.ledger.records[one.read :]:
            one.replica.gathering.admit(partition, offset, prepared)
        one.replica.gathering.stand()
    committee.control(opening(committee, before.partition, 1))
    committee.run(50)
    member, found = standing_on(committee)
    header = found.block.header
    of_old = replace(
        header,
        height=header.height + 1,
        control_hash=Hash(bytes(32)),
        ranges=(replace(before, start=before.end, end=before.end + 1),),
        record_count=1,
    )
    offer_on(committee, found, member, of_old)
    assert len(member.replica.chain._executed) == 1


def test_a_block_of_another_height_than_the_one_after_its_parent_is_none() -> None:
    committee = silenced()
    committee.write("b")
    committee.run(50)
    member, found = standing_on(committee)
    header = found.block.header
    nothing = Hash(merkle.root([]))
    empty = replace(header, height=10**6, ranges=(), record_count=0, dispositions_root=nothing)
    offer_on(committee, found, member, empty)
    assert len(member.replica.chain._executed) == 1
