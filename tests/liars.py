"""What validators that lie sign: evidence of each kind, really signed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.ledger_factory import Ledger

from nocturne.core.blocks import BlockHeader, encode_block_header, hash_block, sign_proposal
from nocturne.core.certificates import Ballot, ValidatorSet, VoteKind, sign_vote
from nocturne.core.evidence import Evidence, SignedProposal, SignedVote, in_order
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Ed25519Signer


@dataclass(frozen=True, slots=True)
class Place:
    """A ledger of some validators, and the header that proposals are like."""

    ledger_id: LedgerId
    validators: ValidatorSet
    header: BlockHeader

    @staticmethod
    def of(ledger: Ledger) -> Place:
        """Like block 1."""
        return Place(ledger.ledger_id, ledger.validators, ledger.blocks[0].header)


NONE = Hash(bytes(32))
SOME = (Hash(b"\x01" * 32), Hash(b"\x02" * 32))


def vote_of(
    place: Place, signer: Ed25519Signer, view: int, kind: VoteKind, digest: Hash
) -> SignedVote:
    """A vote of the view in the header's epoch."""
    header = place.header
    ballot = Ballot(kind, place.ledger_id, header.epoch, place.validators.hash, view, digest)
    return SignedVote(kind, digest, sign_vote(signer, ballot))


def proposal_of(place: Place, signer: Ed25519Signer, view: int, time: int) -> SignedProposal:
    """A proposal of the view, but for view and time the header."""
    header: BlockHeader = replace(place.header, view=view, time=time)
    data = encode_block_header(header)
    return SignedProposal(data, sign_proposal(signer, hash_block(data)))


def said_in(
    place: Place, signer: Ed25519Signer, view: int
) -> tuple[SignedVote | SignedProposal, ...]:
    """Everything that can be said in a view, of two blocks."""
    return (
        *(proposal_of(place, signer, view, 1_700_000_000_000 + number) for number in (0, 1)),
        *(vote_of(place, signer, view, VoteKind.NOTARIZE, one) for one in SOME),
        vote_of(place, signer, view, VoteKind.NULLIFY, NONE),
        *(vote_of(place, signer, view, VoteKind.FINALIZE, one) for one in SOME),
    )


def evidence_about(
    place: Place,
    view: int,
    one: SignedVote | SignedProposal,
    other: SignedVote | SignedProposal,
    validator: int = 0,
) -> Evidence:
    """The two statements as a record."""
    epoch = place.header.epoch
    return Evidence(
        place.ledger_id, epoch, place.validators.hash, view, validator, *in_order(one, other)
    )


def lies_of(
    place: Place, signer: Ed25519Signer, view: int = 7, validator: int = 0
) -> tuple[Evidence, ...]:
    """One of each offence, in the order of `Offence`."""
    first, second, one, other, nothing, final, rival = said_in(place, signer, view)
    pairs = ((first, second), (one, other), (final, rival), (nothing, final))
    return tuple(evidence_about(place, view, *pair, validator) for pair in pairs)
