"""Whether a snapshot that somebody else offers is the ledger's state after a committed block.

Rules: docs/spec/peers.md §5. Pure. Nobody who offers or carries one is trusted: the chain of trust
begins with genesis, leads over the changes of the validators to the set of the block's epoch, from
its votes to the block's header, and from the header's state root to every byte of the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from nocturne.core import snapshot
from nocturne.core.blocks import (
    FORMAT_VERSION,
    RULES_VERSION,
    BlockHeader,
    BlockKind,
    decode_block_header,
    hash_block,
    proposal_signed,
)
from nocturne.core.certificates import CommitProof, ValidatorSet
from nocturne.core.errors import Malformed
from nocturne.core.exports import ValidatorsLine, parse_line, validators_line
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Signatures
from nocturne.core.kinds import KindRegistry
from nocturne.core.state import LedgerState
from nocturne.core.validator_sets import ValidatorSets, check_keys

CHANGES_MAX: Final = 4096
CHANGES_BYTES_MAX: Final = 3 * 1024 * 1024
"""Of the lines of one claim: it is one message between validators. Some 1 000 changes of four
validators, 200 of 31."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A block with its commit proof, and the changes of the validators before it: a `validators`
    line (exports.md §1) for each epoch with another set than the one before, ascending.
    """

    header_bytes: bytes
    leader_signatures: Signatures
    proof: CommitProof
    changes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Proved:
    """The header of a block that is committed."""

    header: BlockHeader
    digest: Hash


def prove(claim: Claim, genesis: Genesis, ledger_id: LedgerId) -> Proved:
    """The block of a claim; `Malformed` unless genesis and the changes lead to the validators that
    committed it.
    """
    header = decode_block_header(claim.header_bytes)
    digest = hash_block(claim.header_bytes)
    _check_header(header, ledger_id)
    sets = _sets_before(claim.changes, header.height, genesis.founding_sets, ledger_id)
    sets.check_proof(claim.proof, header, digest, ledger_id)
    keys = sets.of_block(header).keys
    # No vote says anything of the leader's signature, and whoever takes the block passes it on.
    if not any(proposal_signed(key, digest, claim.leader_signatures) for key in keys):
        raise Malformed(f"snapshot: block {header.height} is proposed by no validator of its epoch")
    return Proved(header, digest)


def load(
    proved: Proved,
    genesis_bytes: bytes,
    chunks: Iterable[bytes],
    registry: KindRegistry | None = None,
) -> LedgerState:
    """The state of a snapshot; `Malformed` unless it is the one after the block. Its root binds
    sessions, log positions, validator sets and control number (blocks.md §5).
    """
    state = snapshot.decode(genesis_bytes, chunks, registry)
    header = proved.header
    if state.root_hash != header.state_root:
        raise Malformed(
            f"snapshot: its state has the root {state.root_hash.hex()}, "
            f"block {header.height} the root {header.state_root.hex()}"
        )
    state.view.validator_sets.of_block(header)
    state.view.validator_sets.check_next(header)
    return state


def change_line(
    header_bytes: bytes, proof: CommitProof, sets: ValidatorSets
) -> tuple[int, bytes] | None:
    """The height of an epoch's last block, and the line that shows the change of the validators
    after it; None when the block shows none. `sets` are those after it, or after a later block:
    `Malformed` when they know the next epoch's no more.
    """
    header = decode_block_header(header_bytes)
    if not sets.is_end(header.height):
        return None
    if header.next_validator_set_hash == header.validator_set_hash:
        return None
    following = sets.of(sets.epoch_at(header.height) + 1)
    if following.hash != header.next_validator_set_hash:
        raise Malformed(f"validators: those after block {header.height} are not known any more")
    return header.height, validators_line(header_bytes, proof, following.keys)


def _sets_before(
    lines: Sequence[bytes], height: int, founding: ValidatorSets, ledger_id: LedgerId
) -> ValidatorSets:
    """The sets that genesis and the lines prove, all of them below `height`."""
    if len(lines) > CHANGES_MAX or sum(map(len, lines)) > CHANGES_BYTES_MAX:
        raise Malformed("snapshot: more changes of the validators than one claim may have")
    sets = founding
    for line in lines:
        change = parse_line(line)
        if not isinstance(change, ValidatorsLine):
            raise Malformed("snapshot: expected a line of validators")
        if change.block.header.height >= height:
            raise Malformed(f"snapshot: a change of the validators that is not below {height}")
        sets = _with_change(sets, change, ledger_id)
    return sets


def _with_change(sets: ValidatorSets, line: ValidatorsLine, ledger_id: LedgerId) -> ValidatorSets:
    header = line.block.header
    where = f"validators of epoch {line.first_epoch}"
    _check_header(header, ledger_id)
    sets.check_proof(line.block.proof, header, line.block.digest, ledger_id)
    if not sets.is_end(header.height):
        raise Malformed(f"{where}: block {header.height} is not the last of its epoch")
    if line.first_epoch <= sets.decided[-1].first_epoch:
        raise Malformed(f"{where}: they stand after those of a later epoch")
    if header.next_validator_set_hash == header.validator_set_hash:
        raise Malformed(f"{where}: they are those of the epoch before")
    check_keys(line.keys)
    validators = ValidatorSet.of(line.keys)
    if validators.hash != header.next_validator_set_hash:
        raise Malformed(f"{where}: block {header.height} names others")
    return sets.proved(line.first_epoch, validators)


def _check_header(header: BlockHeader, ledger_id: LedgerId) -> None:
    if (header.format_version, header.rules_version) != (FORMAT_VERSION, RULES_VERSION):
        raise Malformed(f"block {header.height}: of another version")
    if header.kind is not BlockKind.LEDGER or header.ledger_id != ledger_id:
        raise Malformed(f"block {header.height}: not a ledger block of this ledger")
