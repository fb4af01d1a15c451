"""Evidence that a validator lied: two statements of one view that no correct one signs both. Pure.

Rules: docs/spec/evidence.md, quorum.md §4 (K1, K3). It convinces anyone who knows the validator
set, and says nothing that its two signatures do not say. What a correct validator may sign in one
view is one proposal, one notarize vote, and either a nullify or a finalize vote, the latter also
for another block than it notarized: a quorum may have notarized that one. The order in which votes
were cast is signed by nobody, so a notarize vote after a nullify vote (K1) is no evidence.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from nocturne.core.blocks import (
    HEADER_BYTES_MAX,
    decode_block_header,
    hash_block,
    proposal_signed,
)
from nocturne.core.certificates import (
    Ballot,
    Epoch,
    ValidatorSet,
    VoteKind,
    epoch_from_avro,
    epoch_to_avro,
    vote_signed,
)
from nocturne.core.encoding import ZERO_HASH, AvroRecord, Codec
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Signatures, signatures_from_avro, signatures_to_avro

EVIDENCE_BYTES_MAX: Final = 2 * HEADER_BYTES_MAX + 1024 * 1024
"""Two proposals with the largest headers, so that no lie is too large to be shown."""
REMEMBERED_MAX: Final = 16_384
"""Places whose evidence was made already; the one longest ago is forgotten first."""

_CODEC: Final = Codec("evidence", EVIDENCE_BYTES_MAX)


class Offence(IntEnum):
    """What two statements of one view are together."""

    TWO_PROPOSALS = 1
    TWO_NOTARIZATIONS = 2
    """K1."""
    TWO_FINALIZATIONS = 3
    FINALIZED_AND_NULLIFIED = 4
    """K3."""


@dataclass(frozen=True, slots=True)
class SignedVote:
    """A vote of the evidence's view."""

    kind: VoteKind
    digest: Hash
    signatures: Signatures


@dataclass(frozen=True, slots=True)
class SignedProposal:
    """A header of the evidence's view, proposed by the validator."""

    header_bytes: bytes
    signatures: Signatures


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two statements of the validator with this index in the set, in their order (`in_order`)."""

    ledger_id: LedgerId
    epoch: Epoch
    validator_set_hash: Hash
    view: int
    validator: int
    first: SignedVote | SignedProposal
    second: SignedVote | SignedProposal


def in_order(
    one: SignedVote | SignedProposal, other: SignedVote | SignedProposal
) -> tuple[SignedVote | SignedProposal, SignedVote | SignedProposal]:
    """The two as evidence has them: votes by kind and digest, proposals by digest."""
    return (other, one) if _rank(other) < _rank(one) else (one, other)


def offence_of(
    first: SignedVote | SignedProposal, second: SignedVote | SignedProposal
) -> Offence | None:
    """What two statements of one view are together, if both are the validator's; None: a correct
    one may sign both.
    """
    if isinstance(first, SignedProposal) and isinstance(second, SignedProposal):
        differ = hash_block(first.header_bytes) != hash_block(second.header_bytes)
        return Offence.TWO_PROPOSALS if differ else None
    if isinstance(first, SignedProposal) or isinstance(second, SignedProposal):
        return None
    if {first.kind, second.kind} == {VoteKind.NULLIFY, VoteKind.FINALIZE}:
        return Offence.FINALIZED_AND_NULLIFIED
    if first.kind is second.kind and first.digest != second.digest:
        return _OF_TWO.get(first.kind)
    return None


_OF_TWO: Final = {
    VoteKind.NOTARIZE: Offence.TWO_NOTARIZATIONS,
    VoteKind.FINALIZE: Offence.TWO_FINALIZATIONS,
}


def check_evidence(evidence: Evidence, ledger_id: LedgerId, validators: ValidatorSet) -> Offence:
    """What the validator did; `Malformed` unless it signed both statements, as a member of
    `validators` on this ledger, and no correct validator signs both.
    """
    if evidence.ledger_id != ledger_id:
        raise Malformed("evidence: of another ledger")
    if evidence.validator_set_hash != validators.hash:
        raise Malformed("evidence: of another validator set")
    if not 0 <= evidence.validator < len(validators.keys):
        raise Malformed(
            f"evidence: validator {evidence.validator} of a set of {len(validators.keys)}"
        )
    offence = offence_of(evidence.first, evidence.second)
    if offence is None:
        raise Malformed("evidence: a correct validator may sign both statements")
    for statement in (evidence.first, evidence.second):
        if not _is_signed(evidence, statement, validators):
            raise Malformed(
                f"evidence: a statement that validator {evidence.validator} did not sign"
            )
    return offence


def _is_signed(
    evidence: Evidence, statement: SignedVote | SignedProposal, validators: ValidatorSet
) -> bool:
    key = validators.keys[evidence.validator]
    if isinstance(statement, SignedProposal):
        digest = hash_block(statement.header_bytes)
        return proposal_signed(key, digest, statement.signatures)
    ballot = Ballot(
        statement.kind,
        evidence.ledger_id,
        evidence.epoch,
        evidence.validator_set_hash,
        evidence.view,
        statement.digest,
    )
    return vote_signed(key, ballot, statement.signatures)


def name_of(evidence: Evidence) -> str:
    """Its place: one piece of evidence is enough for each. `Malformed` when it is none.

    `<recovery>-<epoch>-<view>-<validator>-<offence>`, decimal, as in `0-3-17-2-4`.
    """
    offence = offence_of(evidence.first, evidence.second)
    if offence is None:
        raise Malformed("evidence: a correct validator may sign both statements")
    epoch = evidence.epoch
    return f"{epoch.recovery}-{epoch.number}-{evidence.view}-{evidence.validator}-{offence.value}"


class Pieces:
    """Which places have their evidence already: a liar makes as many lies as it likes of each, and
    one is shown.
    """

    def __init__(self) -> None:
        self._names: OrderedDict[str, None] = OrderedDict()

    def is_new(self, evidence: Evidence) -> bool:
        """Whether this is the first piece of its place; it is remembered."""
        name = name_of(evidence)
        if name in self._names:
            return False
        self._names[name] = None
        if len(self._names) > REMEMBERED_MAX:
            self._names.popitem(last=False)
        return True


# Records ---------------------------------------------------------------------------------------


def encode_evidence(evidence: Evidence) -> bytes:
    """The record of the evidence topic."""
    return _CODEC.encode(
        {
            "ledgerId": evidence.ledger_id,
            "epoch": epoch_to_avro(evidence.epoch),
            "validatorSetHash": evidence.validator_set_hash,
            "view": evidence.view,
            "validator": evidence.validator,
            "first": _statement_to_avro(evidence.first),
            "second": _statement_to_avro(evidence.second),
        }
    )


def decode_evidence(data: bytes) -> Evidence:
    """The reverse of `encode_evidence`; `Malformed` on anything else, on statements that are not of
    the view or not in their order. Who signed them, `check_evidence` says.
    """
    record = _CODEC.decode(data)
    if record["view"] < 1 or record["validator"] < 0:
        raise Malformed(f"evidence: view {record['view']} of validator {record['validator']}")
    evidence = Evidence(
        record["ledgerId"],
        epoch_from_avro(record["epoch"]),
        record["validatorSetHash"],
        record["view"],
        record["validator"],
        _statement_from_avro(record["first"]),
        _statement_from_avro(record["second"]),
    )
    for statement in (evidence.first, evidence.second):
        if isinstance(statement, SignedProposal):
            _check_header(evidence, statement.header_bytes)
    if isinstance(evidence.first, SignedProposal) != isinstance(evidence.second, SignedProposal):
        raise Malformed("evidence: expected two votes or two proposals")
    if not _rank(evidence.first) < _rank(evidence.second):
        raise Malformed("evidence: its statements are not two, or not in their order")
    return evidence


def _check_header(evidence: Evidence, header_bytes: bytes) -> None:
    header = decode_block_header(header_bytes)
    found = (header.ledger_id, header.epoch, header.validator_set_hash, header.view)
    if found != (
        evidence.ledger_id,
        evidence.epoch,
        evidence.validator_set_hash,
        evidence.view,
    ):
        raise Malformed("evidence: a proposal of another ledger, epoch, validator set or view")


def _rank(statement: SignedVote | SignedProposal) -> tuple[int, bytes]:
    if isinstance(statement, SignedProposal):
        return 0, hash_block(statement.header_bytes)
    return int(statement.kind), statement.digest


def _statement_to_avro(statement: SignedVote | SignedProposal) -> tuple[str, AvroRecord]:
    signatures = signatures_to_avro(statement.signatures)
    if isinstance(statement, SignedProposal):
        header = statement.header_bytes
        return "nocturne.v1.SignedProposal", {"header": header, "signatures": signatures}
    return "nocturne.v1.SignedVote", {
        "kind": int(statement.kind),
        "digest": statement.digest,
        "signatures": signatures,
    }


def _statement_from_avro(record: AvroRecord) -> SignedVote | SignedProposal:
    signatures = signatures_from_avro(record["signatures"])
    if "header" in record:
        return SignedProposal(record["header"], signatures)
    try:
        kind = VoteKind(record["kind"])
    except ValueError as fault:
        raise Malformed(f"evidence: unknown vote kind {record['kind']}") from fault
    if (kind is VoteKind.NULLIFY) != (record["digest"] == ZERO_HASH):
        raise Malformed("evidence: a nullify vote is of no block, every other of one")
    return SignedVote(kind, record["digest"], signatures)
