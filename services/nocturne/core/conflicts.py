"""Proof that the ledger's promise is broken, which convinces anyone who knows its keys. Pure.

Rules: docs/spec/modes.md §3. Nothing else is in it: who brings it need not be believed. Two shapes:

    two certified blocks    that no one chain has: two of one height, or one of the next height
                            whose parent is another than the first. Each is a header and its commit
                            proof, so a quorum signed both
    two seals               of the authority, for two blocks of one height
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from nocturne.core.blocks import (
    HEADER_BYTES_MAX,
    BlockHeader,
    BlockKind,
    Seal,
    decode_block_header,
    decode_seal,
    encode_seal,
    hash_block,
    seal_signed,
)
from nocturne.core.certificates import (
    COMMIT_PROOF_BYTES_MAX,
    CommitProof,
    decode_commit_proof,
    encode_commit_proof,
)
from nocturne.core.encoding import HASH_BYTES, domain, take_variable, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Key
from nocturne.core.recent import Recent
from nocturne.core.validator_sets import ValidatorSets

CONFLICT_BYTES_MAX: Final = 2 * (HEADER_BYTES_MAX + COMMIT_PROOF_BYTES_MAX) + 1024
"""Two of the largest headers and commit proofs, and what is around them."""
REMEMBERED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of the commit proofs of the newest blocks that a reader has at hand, about: four validators' of
some 10 000 blocks."""

_BLOCKS: Final = domain("nocturne/conflicting-blocks/v1")
_SEALS: Final = domain("nocturne/conflicting-seals/v1")
_VOTE_BYTES: Final = 512
"""What a vote takes in memory, about."""


@dataclass(frozen=True, slots=True)
class Certified:
    """A ledger block's header and a commit proof of it."""

    header_bytes: bytes
    proof: CommitProof

    @property
    def header(self) -> BlockHeader:
        """Decoded; `Malformed` when it is none."""
        return decode_block_header(self.header_bytes)

    @property
    def digest(self) -> Hash:
        """The block's."""
        return hash_block(self.header_bytes)


@dataclass(frozen=True, slots=True)
class ConflictingBlocks:
    """Two certified blocks that no one chain has, in their order (`conflicting_blocks`)."""

    ledger_id: LedgerId
    first: Certified
    second: Certified

    def __str__(self) -> str:
        first, second = self.first.header, self.second.header
        if first.height == second.height:
            return (
                f"two certified blocks at height {first.height}: {self.first.digest.hex()} and "
                f"{self.second.digest.hex()}"
            )
        return (
            f"two certified blocks at height {first.height}: {self.first.digest.hex()} and "
            f"{second.parent_digest.hex()}, on which the certified block {second.height} stands"
        )


@dataclass(frozen=True, slots=True)
class ConflictingSeals:
    """Two seals of the authority for two blocks of one height, the smaller block digest first."""

    ledger_id: LedgerId
    first: Seal
    second: Seal

    def __str__(self) -> str:
        return (
            f"the authority sealed two blocks at height {self.first.height}: "
            f"{self.first.block_digest.hex()} and {self.second.block_digest.hex()}"
        )


Conflict: TypeAlias = ConflictingBlocks | ConflictingSeals


def conflicting_blocks(ledger_id: LedgerId, one: Certified, other: Certified) -> ConflictingBlocks:
    """The two in their order: heights ascending, of one height digests ascending."""
    first, second = sorted((one, other), key=lambda each: (each.header.height, each.digest))
    return ConflictingBlocks(ledger_id, first, second)


def conflicting_seals(ledger_id: LedgerId, one: Seal, other: Seal) -> ConflictingSeals:
    """The two in their order."""
    first, second = sorted((one, other), key=lambda each: each.block_digest)
    return ConflictingSeals(ledger_id, first, second)


def check_conflict(
    conflict: Conflict, ledger_id: LedgerId, sets: ValidatorSets, authority: Key
) -> None:
    """`Malformed` unless it proves that a quorum certified, or the authority sealed, two histories
    of the ledger. `sets` know the validators of both blocks' epochs.
    """
    if conflict.ledger_id != ledger_id:
        raise Malformed("conflict: of another ledger")
    match conflict:
        case ConflictingBlocks(_, first, second):
            for one in (first, second):
                sets.check_proof(one.proof, one.header, one.digest, ledger_id)
        case ConflictingSeals(_, first_seal, second_seal):
            for seal in (first_seal, second_seal):
                if not seal_signed(authority, seal):
                    raise Malformed(f"conflict: a seal {seal.height} that the authority did not")


def encode_conflict(conflict: Conflict) -> bytes:
    """Its one encoding: domain ‖ ledger id ‖ for each of the two its parts, each variable."""
    match conflict:
        case ConflictingBlocks(ledger_id, first, second):
            parts = [
                first.header_bytes,
                encode_commit_proof(first.proof),
                second.header_bytes,
                encode_commit_proof(second.proof),
            ]
            return _BLOCKS + ledger_id + b"".join(map(variable, parts))
        case ConflictingSeals(ledger_id, first_seal, second_seal):
            parts = [encode_seal(first_seal), encode_seal(second_seal)]
            return _SEALS + ledger_id + b"".join(map(variable, parts))


def decode_conflict(data: bytes) -> Conflict:
    """The reverse of `encode_conflict`; `Malformed` on anything else, and on two that one chain may
    have. Nothing is said of signatures.
    """
    if len(data) > CONFLICT_BYTES_MAX:
        raise Malformed(f"conflict: expected at most {CONFLICT_BYTES_MAX} bytes, got {len(data)}")
    if data.startswith(_BLOCKS):
        ledger_id, parts = _parts(data[len(_BLOCKS) :], 4)
        one = Certified(parts[0], decode_commit_proof(parts[1]))
        other = Certified(parts[2], decode_commit_proof(parts[3]))
        blocks = ConflictingBlocks(ledger_id, one, other)
        _check_blocks(blocks)
        return blocks
    if data.startswith(_SEALS):
        ledger_id, parts = _parts(data[len(_SEALS) :], 2)
        seals = ConflictingSeals(ledger_id, decode_seal(parts[0]), decode_seal(parts[1]))
        _check_seals(seals)
        return seals
    raise Malformed("conflict: of no known kind")


def _parts(data: bytes, count: int) -> tuple[LedgerId, list[bytes]]:
    parts: list[bytes] = []
    at = HASH_BYTES
    for _ in range(count):
        part, at = take_variable(data, at, "conflict")
        parts.append(part)
    if at != len(data):
        raise Malformed(f"conflict: expected {at} bytes after its kind, got {len(data)}")
    return LedgerId(data[:HASH_BYTES]), parts


def _check_blocks(conflict: ConflictingBlocks) -> None:
    first, second = conflict.first.header, conflict.second.header
    for one in (first, second):
        if one.ledger_id != conflict.ledger_id:
            raise Malformed("conflict: a block of another ledger")
        if one.kind is not BlockKind.LEDGER:
            raise Malformed("conflict: a tail block has its ancestor's height")
    if first.height == second.height:
        if conflict.first.digest >= conflict.second.digest:
            raise Malformed("conflict: not two blocks in their order")
    elif second.height != first.height + 1 or second.parent_digest == conflict.first.digest:
        raise Malformed("conflict: one chain may have both blocks")


def _check_seals(conflict: ConflictingSeals) -> None:
    first, second = conflict.first, conflict.second
    if {first.ledger_id, second.ledger_id} != {conflict.ledger_id}:
        raise Malformed("conflict: a seal of another ledger")
    if first.height != second.height or first.block_digest >= second.block_digest:
        raise Malformed("conflict: not seals of two blocks of one height, in their order")


class CertifiedBlocks(Recent[int, Certified]):
    """The newest certified blocks of a chain that is read, by height: one half of a proof, should
    the other half come.
    """

    def __init__(self) -> None:
        super().__init__(_size_of, REMEMBERED_BYTES_MAX)


def _size_of(one: Certified) -> int:
    headers = len(one.header_bytes) + sum(map(len, one.proof.headers))
    return headers + _VOTE_BYTES * len(one.proof.finalization.votes)
