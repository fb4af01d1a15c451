"""What validators say to each other and keep in their journals, as bytes.

Rules: docs/spec/peers.md. Pure. Every value has one encoding, and `decode` takes no other; headers,
signatures and certificates in it stand in their own encodings (core).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from nocturne.consensus.offers import (
    PART_BYTES,
    PARTS_MAX,
    AskPart,
    AskSnapshot,
    Manifest,
    Part,
    Snapshot,
    SnapshotOffer,
    check_manifest,
)
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
from nocturne.core.certified_snapshot import CHANGES_BYTES_MAX, CHANGES_MAX
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
    | AskSnapshot
    | SnapshotOffer
    | AskPart
    | Part
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
            return peer_pb2.PeerValue(committed=_committed(proposal, proof))
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
        case AskSnapshot(height, urgent):
            asked = peer_pb2.AskSnapshot(height=height, urgent=urgent)
            return peer_pb2.PeerValue(ask_snapshot=asked)
        case SnapshotOffer():
            return peer_pb2.PeerValue(snapshot_offer=_offered(value))
        case AskPart(digest, index):
            return peer_pb2.PeerValue(ask_part=peer_pb2.AskPart(digest=digest, index=index))
        case Part(digest, index, data):
            part = peer_pb2.Part(digest=digest, index=index, data=data)
            return peer_pb2.PeerValue(part=part)


def _value_of(message: peer_pb2.PeerValue) -> Value:
    match message.WhichOneof("value"):
        case "offer":
            return _offer_of(message.offer)
        case "cast":
            return Cast(_vote_of(message.cast.vote), message.cast.again)
        case "certificate":
            return _certificate_of(message.certificate)
        case "committed":
            return _committed_of(message.committed)
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
        case "ask_snapshot":
            return AskSnapshot(_number_of(message.ask_snapshot.height), message.ask_snapshot.urgent)
        case "snapshot_offer":
            return _snapshot_offer_of(message.snapshot_offer)
        case "ask_part":
            index = _index_of(message.ask_part.index)
            return AskPart(_hash_of(message.ask_part.digest), index)
        case "part":
            return _part_of(message.part)
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


def _committed(proposal: Proposal, proof: CommitProof) -> peer_pb2.Committed:
    return peer_pb2.Committed(proposal=_proposal(proposal), proof=encode_commit_proof(proof))


def _committed_of(message: peer_pb2.Committed) -> Committed:
    return Committed(_proposal_of(message.proposal), decode_commit_proof(message.proof))


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


def _offered(offer: SnapshotOffer) -> peer_pb2.SnapshotOffer:
    found = offer.snapshot
    if found is None:
        return peer_pb2.SnapshotOffer(height=offer.height)
    snapshot = peer_pb2.Snapshot(
        block=_committed(found.block.proposal, found.block.proof),
        changes=found.changes,
        published_height=found.published_height,
        published_offset=found.published_offset,
        size=found.manifest.size,
        parts=b"".join(found.manifest.parts),
    )
    return peer_pb2.SnapshotOffer(height=offer.height, snapshot=snapshot)


def _snapshot_offer_of(message: peer_pb2.SnapshotOffer) -> SnapshotOffer:
    height = _number_of(message.height)
    if not message.HasField("snapshot"):
        return SnapshotOffer(height, None)
    found = message.snapshot
    if len(found.changes) > CHANGES_MAX or sum(map(len, found.changes)) > CHANGES_BYTES_MAX:
        raise Malformed("snapshot: more changes of the validators than an offer may have")
    parts, rest = divmod(len(found.parts), HASH_BYTES)
    if rest or parts > PARTS_MAX:
        raise Malformed(f"snapshot: expected hashes of {HASH_BYTES} bytes, at most {PARTS_MAX}")
    starts = range(0, len(found.parts), HASH_BYTES)
    hashes = tuple([Hash(found.parts[at : at + HASH_BYTES]) for at in starts])
    manifest = Manifest(found.size, hashes)
    check_manifest(manifest)
    return SnapshotOffer(
        height,
        Snapshot(
            _committed_of(found.block),
            tuple(found.changes),
            _number_of(found.published_height),
            _number_of(found.published_offset),
            manifest,
        ),
    )


def _part_of(message: peer_pb2.Part) -> Part:
    if not 0 < len(message.data) <= PART_BYTES:
        raise Malformed(f"part: expected 1 to {PART_BYTES} bytes, got {len(message.data)}")
    return Part(_hash_of(message.digest), _index_of(message.index), message.data)


def _index_of(index: int) -> int:
    if index >= PARTS_MAX:
        raise Malformed(f"part: expected a number below {PARTS_MAX}, got {index}")
    return index


def _number_of(number: int) -> int:
    if number > NUMBER_MAX:
        raise Malformed("peer value: a height or an offset out of range")
    return number


def _signatures_of(data: bytes) -> Signatures:
    found = signatures_from_bytes(data)
    if not found:
        raise Malformed("signatures: expected at least one, got none")
    return found


def _hash_of(data: bytes) -> Hash:
    if len(data) != HASH_BYTES:
        raise Malformed(f"hash: expected {HASH_BYTES} bytes, got {len(data)}")
    return Hash(data)
