"""What validators say to each other and keep in their journals, as bytes.

Rules: docs/spec/peers.md. Pure. Every value has one encoding, and `decode` takes no other; headers,
signatures and certificates in it stand in their own encodings (core).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from nocturne.consensus.quorum.messages import Cast, Committed, Offer, Proposal, Vote
from nocturne.consensus.quorum.tally import VIEWS_AHEAD_MAX
from nocturne.core.blocks import HEADER_BYTES_MAX, decode_block_header, hash_block
from nocturne.core.certificates import (
    COMMIT_PROOF_BYTES_MAX,
    Certificate,
    CommitProof,
    Epoch,
    VoteKind,
    decode_commit_proof,
    encode_commit_proof,
)
from nocturne.core.conflicts import Conflict, decode_conflict, encode_conflict
from nocturne.core.encoding import HASH_BYTES
from nocturne.core.errors import Malformed
from nocturne.core.governing import GOVERNING_BYTES_MAX
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Signatures, signatures_bytes, signatures_from_bytes
from nocturne.wire.consensus.v1 import peer_pb2

VALUE_BYTES_MAX: Final = COMMIT_PROOF_BYTES_MAX + HEADER_BYTES_MAX + 64 * 1024
"""The longest is a committed block's header with a commit proof of many headers."""
GROUNDS_MAX: Final = VIEWS_AHEAD_MAX + 1
NEWEST_VOTES_MAX: Final = len(VoteKind)
RECOVERY_MAX: Final = 2**31 - 1
NUMBER_MAX: Final = 2**63 - 1

_KINDS: Final = frozenset(int(kind) for kind in VoteKind)


@dataclass(frozen=True, slots=True)
class Fetch:
    """Asks for a block's header by its digest."""

    digest: Hash


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to `Fetch`."""

    proposal: Proposal


@dataclass(frozen=True, slots=True)
class AskVotes:
    """Asks for the newest votes that are held of the one who asks."""


@dataclass(frozen=True, slots=True)
class NewestVotes:
    """The answer to `AskVotes`: at most one of each kind."""

    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class Control:
    """A signed control record that waits for a block."""

    record: bytes


@dataclass(frozen=True, slots=True)
class Conflicting:
    """Proof that the ledger is DEGRADED, in its one encoding; its signatures are not checked."""

    conflict: Conflict


@dataclass(frozen=True, slots=True)
class Halting:
    """Who says it halts; whether for having read other bytes than a quorum certified."""

    log_rewritten: bool


Value = (
    Offer
    | Cast
    | Certificate
    | Committed
    | Proposal
    | Vote
    | Fetch
    | Fetched
    | AskVotes
    | NewestVotes
    | Control
    | Conflicting
    | Halting
)


def encode(value: Value) -> bytes:
    """The value's one encoding."""
    return _message_of(value).SerializeToString(deterministic=True)


def decode(data: bytes) -> Value:
    """The value of `data`; `Malformed` unless it is the one encoding of one."""
    if len(data) > VALUE_BYTES_MAX:
        raise Malformed(f"peer value: expected at most {VALUE_BYTES_MAX} bytes, got {len(data)}")
    message = peer_pb2.PeerValue()
    try:
        message.ParseFromString(data)
    except DecodeError as fault:
        raise Malformed(f"peer value: {fault}") from fault
    # What stands in its fields has one encoding by itself.
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != data:
        raise Malformed("peer value: not in its one encoding")
    return _value_of(message)


def _message_of(value: Value) -> peer_pb2.PeerValue:
    match value:
        case Offer(proposal, grounds):
            offer = peer_pb2.Offer(
                proposal=_proposal(proposal), grounds=[_certificate(one) for one in grounds]
            )
            return peer_pb2.PeerValue(offer=offer)
        case Cast(vote, again):
            return peer_pb2.PeerValue(cast=peer_pb2.Cast(vote=_vote(vote), again=again))
        case Certificate():
            return peer_pb2.PeerValue(certificate=_certificate(value))
        case Committed(proposal, proof):
            committed = peer_pb2.Committed(
                proposal=_proposal(proposal), proof=encode_commit_proof(proof)
            )
            return peer_pb2.PeerValue(committed=committed)
        case Proposal():
            return peer_pb2.PeerValue(proposal=_proposal(value))
        case Vote():
            return peer_pb2.PeerValue(vote=_vote(value))
        case Fetch(digest):
            return peer_pb2.PeerValue(fetch=digest)
        case Fetched(proposal):
            return peer_pb2.PeerValue(fetched=_proposal(proposal))
        case AskVotes():
            return peer_pb2.PeerValue(ask_votes=peer_pb2.AskVotes())
        case NewestVotes(votes):
            newest = peer_pb2.NewestVotes(votes=[_vote(one) for one in votes])
            return peer_pb2.PeerValue(newest_votes=newest)
        case Control(record):
            return peer_pb2.PeerValue(control=record)
        case Conflicting(conflict):
            return peer_pb2.PeerValue(conflict=encode_conflict(conflict))
        case Halting(log_rewritten):
            return peer_pb2.PeerValue(halting=peer_pb2.Halting(log_rewritten=log_rewritten))


def _value_of(message: peer_pb2.PeerValue) -> Value:
    match message.WhichOneof("value"):
        case "offer":
            return _offer_of(message.offer)
        case "cast":
            return Cast(_vote_of(message.cast.vote), message.cast.again)
        case "certificate":
            return _certificate_of(message.certificate)
        case "committed":
            return Committed(
                _proposal_of(message.committed.proposal),
                decode_commit_proof(message.committed.proof),
            )
        case "proposal":
            return _proposal_of(message.proposal)
        case "vote":
            return _vote_of(message.vote)
        case "fetch":
            return Fetch(_hash_of(message.fetch))
        case "fetched":
            return Fetched(_proposal_of(message.fetched))
        case "ask_votes":
            return AskVotes()
        case "newest_votes":
            return _newest_votes_of(message.newest_votes)
        case "control":
            return _control_of(message.control)
        case "conflict":
            return Conflicting(decode_conflict(message.conflict))
        case "halting":
            return Halting(message.halting.log_rewritten)
        case None:
            raise Malformed("peer value: empty, or of a kind that is not known here")


def _proposal(proposal: Proposal) -> peer_pb2.Proposal:
    return peer_pb2.Proposal(
        header=proposal.header_bytes, signatures=signatures_bytes(proposal.signatures)
    )


def _proposal_of(message: peer_pb2.Proposal) -> Proposal:
    header = decode_block_header(message.header)
    digest = hash_block(message.header)
    return Proposal(header, message.header, digest, _signatures_of(message.signatures))


def _offer_of(message: peer_pb2.Offer) -> Offer:
    if len(message.grounds) > GROUNDS_MAX:
        raise Malformed(
            f"offer: expected at most {GROUNDS_MAX} certificates, got {len(message.grounds)}"
        )
    grounds = tuple([_certificate_of(one) for one in message.grounds])
    return Offer(_proposal_of(message.proposal), grounds)


def _certificate(certificate: Certificate) -> bytes:
    return encode_commit_proof(CommitProof(certificate, ()))


def _certificate_of(data: bytes) -> Certificate:
    proof = decode_commit_proof(data)
    if proof.headers:
        raise Malformed(f"certificate: expected no headers, got {len(proof.headers)}")
    return proof.finalization


def _vote(vote: Vote) -> peer_pb2.Vote:
    return peer_pb2.Vote(
        validator=vote.validator,
        kind=vote.kind,
        recovery=vote.epoch.recovery,
        epoch=vote.epoch.number,
        view=vote.view,
        digest=vote.digest,
        signatures=signatures_bytes(vote.signatures),
    )


def _vote_of(message: peer_pb2.Vote) -> Vote:
    if message.kind not in _KINDS:
        raise Malformed(f"vote: expected kind 1, 2 or 3, got {message.kind}")
    if message.recovery > RECOVERY_MAX or message.epoch > NUMBER_MAX:
        raise Malformed("vote: epoch out of range")
    if not 1 <= message.view <= NUMBER_MAX:
        raise Malformed(f"vote: expected a view from 1 to 2^63-1, got {message.view}")
    return Vote(
        message.validator,
        VoteKind(message.kind),
        Epoch(message.recovery, message.epoch),
        message.view,
        _hash_of(message.digest),
        _signatures_of(message.signatures),
    )


def _newest_votes_of(message: peer_pb2.NewestVotes) -> NewestVotes:
    if len(message.votes) > NEWEST_VOTES_MAX:
        raise Malformed(
            f"newest votes: expected at most {NEWEST_VOTES_MAX}, got {len(message.votes)}"
        )
    return NewestVotes(tuple([_vote_of(one) for one in message.votes]))


def _control_of(record: bytes) -> Control:
    if len(record) > GOVERNING_BYTES_MAX:
        raise Malformed(f"control: expected at most {GOVERNING_BYTES_MAX} bytes, got {len(record)}")
    return Control(record)


def _signatures_of(data: bytes) -> Signatures:
    found = signatures_from_bytes(data)
    if not found:
        raise Malformed("signatures: expected at least one, got none")
    return found


def _hash_of(data: bytes) -> Hash:
    if len(data) != HASH_BYTES:
        raise Malformed(f"hash: expected {HASH_BYTES} bytes, got {len(data)}")
    return Hash(data)
