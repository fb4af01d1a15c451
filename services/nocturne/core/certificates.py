"""Votes, certificates and commit proofs: what convinces anyone that a block is committed.

Rules: docs/spec/consensus.md §2. A notarization is not a commit proof and is refused as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from nocturne.core.encoding import AvroRecord, Codec, domain, sha256, u8, u32, u64, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import (
    Key,
    Signatures,
    Signer,
    key_bytes,
    signatures_from_avro,
    signatures_to_avro,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    VoteCheck = Callable[[Key, "Ballot", Signatures], bool]

COMMIT_PROOF_BYTES_MAX: Final = 4 * 1024 * 1024
COMMIT_PROOF_HEADERS_MAX: Final = 4096

_VOTE: Final = domain("nocturne/vote/v1")
_VALIDATORS: Final = domain("nocturne/validators/v1")
_PROOF_CODEC: Final = Codec("commit_proof", COMMIT_PROOF_BYTES_MAX)


class VoteKind(IntEnum):
    """The three votes of the certificate core."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3


class Epoch(NamedTuple):
    """Recovery number, then number within it; in this order."""

    recovery: int
    number: int


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """The keys of an epoch's validators, in their order; a validator is named by its index."""

    keys: tuple[Key, ...]
    hash: Hash

    @staticmethod
    def of(keys: tuple[Key, ...]) -> ValidatorSet:
        """The set and its hash: domain ‖ count ‖ variable key bytes, each."""
        body = u32(len(keys)) + b"".join(variable(key_bytes(key)) for key in keys)
        return ValidatorSet(keys, Hash(sha256(_VALIDATORS + body)))

    @property
    def quorum(self) -> int:
        """⌊(n+f)/2⌋+1 with f = ⌊(n-1)/3⌋: any two quorums share a correct validator."""
        return quorum(len(self.keys))

    @property
    def faulty_max(self) -> int:
        """f = ⌊(n-1)/3⌋: so many of them may do anything."""
        return faulty_max(len(self.keys))


def quorum(n: int) -> int:
    """⌊(n+f)/2⌋+1, f = ⌊(n-1)/3⌋ (architecture: consensus)."""
    return (n + faulty_max(n)) // 2 + 1


def faulty_max(n: int) -> int:
    """f = ⌊(n-1)/3⌋."""
    return (n - 1) // 3


class Ballot(NamedTuple):
    """What a vote signs. A nullification has no digest (32 zero bytes)."""

    kind: VoteKind
    ledger_id: LedgerId
    epoch: Epoch
    validator_set_hash: Hash
    view: int
    digest: Hash


@dataclass(frozen=True, slots=True)
class Certificate:
    """Exactly a quorum of votes for one ballot, validators ascending."""

    kind: VoteKind
    epoch: Epoch
    validator_set_hash: Hash
    view: int
    digest: Hash
    votes: tuple[tuple[int, Signatures], ...]


@dataclass(frozen=True, slots=True)
class CommitProof:
    """A finalization of the block itself (no headers), or of a descendant with the headers from the
    block's child to the finalized one.
    """

    finalization: Certificate
    headers: tuple[bytes, ...]


class Link(NamedTuple):
    """What a commit proof asks of a header (blocks.link_to)."""

    digest: Hash
    parent_digest: Hash
    ledger_id: LedgerId
    versions: tuple[int, int]
    is_tail: bool
    epoch: Epoch
    validator_set_hash: Hash
    view: int
    height: int


def _ballot_bytes(ballot: Ballot) -> bytes:
    return (
        u8(ballot.kind)
        + ballot.ledger_id
        + u64(ballot.epoch.recovery)
        + u64(ballot.epoch.number)
        + ballot.validator_set_hash
        + u64(ballot.view)
        + ballot.digest
    )


def sign_vote(signer: Signer, ballot: Ballot) -> Signatures:
    """One validator's vote."""
    return signer.sign(_VOTE, _ballot_bytes(ballot))


def vote_signed(key: Key, ballot: Ballot, signatures: Signatures) -> bool:
    """The validator `key` cast `ballot`."""
    return verify(key, _VOTE, _ballot_bytes(ballot), signatures)


def check_certificate(
    certificate: Certificate,
    ledger_id: LedgerId,
    validators: ValidatorSet,
    signed: VoteCheck = vote_signed,
) -> None:
    """`Malformed` unless exactly a quorum of `validators`, ascending, cast the ballot. `signed` is
    another check of a vote for simulations alone.
    """
    if certificate.validator_set_hash != validators.hash:
        raise Malformed("certificate: of another validator set")
    if len(certificate.votes) != validators.quorum:
        raise Malformed(
            f"certificate: expected {validators.quorum} votes, got {len(certificate.votes)}"
        )
    ballot = Ballot(
        certificate.kind,
        ledger_id,
        certificate.epoch,
        certificate.validator_set_hash,
        certificate.view,
        certificate.digest,
    )
    last = -1
    for validator, signatures in certificate.votes:
        if not last < validator < len(validators.keys):
            raise Malformed(f"certificate: validator {validator} after {last}")
        if not signed(validators.keys[validator], ballot, signatures):
            raise Malformed(f"certificate: the vote of validator {validator} does not verify")
        last = validator


def check_commit_proof(
    proof: CommitProof,
    block: Link,
    ledger_id: LedgerId,
    validators: ValidatorSet,
    link: Callable[[bytes], Link],
    signed: VoteCheck = vote_signed,
) -> None:
    """`Malformed` unless `proof` commits `block`.

    `link(header_bytes)` is `Malformed` if they are no header (blocks.link_of). `signed` as in
    `check_certificate`.
    """
    certificate = proof.finalization
    if certificate.kind is not VoteKind.FINALIZE:
        raise Malformed("commit proof: only a finalization commits")
    if len(proof.headers) > COMMIT_PROOF_HEADERS_MAX:
        raise Malformed(f"commit proof: more than {COMMIT_PROOF_HEADERS_MAX} headers")
    last = block
    for header in proof.headers:
        child = link(header)
        _check_child(child, last, ledger_id)
        last = child
    if certificate.digest != last.digest:
        raise Malformed("commit proof: of another block")
    if (certificate.epoch, certificate.validator_set_hash, certificate.view) != (
        last.epoch,
        last.validator_set_hash,
        last.view,
    ):
        raise Malformed("certificate: of another epoch, validator set or view than its block")
    if (block.epoch, block.validator_set_hash) != (last.epoch, last.validator_set_hash):
        raise Malformed("commit proof: a finalization of another epoch than its block's")
    check_certificate(certificate, ledger_id, validators, signed)


def _check_child(child: Link, parent: Link, ledger_id: LedgerId) -> None:
    if child.parent_digest != parent.digest:
        raise Malformed("commit proof: its headers do not lead to the block")
    if child.ledger_id != ledger_id or child.versions != (1, 1):
        raise Malformed("commit proof: a header is of another ledger or version")
    # A tail block only commits what is before it: it has its height, and no ledger block follows.
    height = parent.height if child.is_tail else parent.height + 1
    if child.height != height or (parent.is_tail and not child.is_tail):
        raise Malformed(f"commit proof: a header of height {child.height} after {parent.height}")


def commit_proof_to_avro(proof: CommitProof) -> AvroRecord:
    """The `CommitProof` record."""
    certificate = proof.finalization
    return {
        "finalization": {
            "kind": int(certificate.kind),
            "epoch": epoch_to_avro(certificate.epoch),
            "validatorSetHash": certificate.validator_set_hash,
            "view": certificate.view,
            "digest": certificate.digest,
            "votes": [
                {"validator": validator, "signatures": signatures_to_avro(signatures)}
                for validator, signatures in certificate.votes
            ],
        },
        "headers": list(proof.headers),
    }


def commit_proof_from_avro(record: AvroRecord) -> CommitProof:
    """The reverse of `commit_proof_to_avro`."""
    certificate = record["finalization"]
    if certificate["view"] < 1:
        raise Malformed(f"certificate: views start at 1, got {certificate['view']}")
    try:
        kind = VoteKind(certificate["kind"])
    except ValueError as fault:
        raise Malformed(f"certificate: unknown vote kind {certificate['kind']}") from fault
    return CommitProof(
        Certificate(
            kind,
            epoch_from_avro(certificate["epoch"]),
            certificate["validatorSetHash"],
            certificate["view"],
            certificate["digest"],
            tuple(
                (vote["validator"], signatures_from_avro(vote["signatures"]))
                for vote in certificate["votes"]
            ),
        ),
        tuple(record["headers"]),
    )


def encode_commit_proof(proof: CommitProof) -> bytes:
    """The proof's one encoding."""
    return _PROOF_CODEC.encode(commit_proof_to_avro(proof))


def decode_commit_proof(data: bytes) -> CommitProof:
    """The reverse of `encode_commit_proof`; `Malformed` on anything else."""
    return commit_proof_from_avro(_PROOF_CODEC.decode(data))


def epoch_to_avro(epoch: Epoch) -> AvroRecord:
    """The `Epoch` record."""
    return {"recovery": epoch.recovery, "number": epoch.number}


def epoch_from_avro(record: AvroRecord) -> Epoch:
    """The reverse of `epoch_to_avro`."""
    if record["recovery"] < 0 or record["number"] < 0:
        raise Malformed(f"epoch: expected none below 0, got {record}")
    return Epoch(record["recovery"], record["number"])
