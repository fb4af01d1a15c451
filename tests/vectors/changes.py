"""Exports of a ledger whose validators changed, with one thing wrong each.

Each is a function from the ledger and its good export of `log` to the lines of a bad one; lines 1
and 2 are the changes for epochs 2 and 3. The sentence to say is pinned in `exports.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.vectors.attacks import BadExport, Lines, changed, index_of
from tests.vectors.synthetic import SyntheticLedger, changing_ledger

from nocturne.core.blocks import decode_block_header, encode_block_header, hash_block
from nocturne.core.certificates import Ballot, CommitProof, Epoch, VoteKind, sign_vote
from nocturne.core.exports import BlockLine, ValidatorsLine, parse_line, validators_line

Attack = Callable[[SyntheticLedger, Lines], Lines]

SESSION = "log"


def bad_changes() -> Iterator[BadExport]:
    """Every attack on the changing ledger."""
    ledger = changing_ledger()
    good = ledger.export(SESSION)
    for attack in ATTACKS:
        name = attack.__name__.replace("_", " ")
        yield BadExport(name, SESSION, attack(ledger, list(good)))


def _change(lines: Lines, nth: int) -> tuple[int, ValidatorsLine]:
    index = index_of(lines, ValidatorsLine, nth)
    line = parse_line(lines[index])
    assert isinstance(line, ValidatorsLine)
    return index, line


def _block(lines: Lines, height: int) -> tuple[int, BlockLine]:
    index = index_of(lines, BlockLine, height - 1)
    line = parse_line(lines[index])
    assert isinstance(line, BlockLine)
    return index, line


def _forged(ledger: SyntheticLedger, line: BlockLine, by: int, **fields: object) -> BlockLine:
    """The block with another header, which the set of epoch `by` certifies as it stands."""
    header = replace(line.header, **fields)  # type: ignore[arg-type]
    data = encode_block_header(header)
    validators = ledger.state.view.validator_sets.of(by)
    proof = CommitProof(ledger.finalized_by(validators, data), ())
    return BlockLine(decode_block_header(data), data, hash_block(data), proof)


def _line_of(ledger: SyntheticLedger, height: int, epoch: int) -> bytes:
    block = ledger.blocks[height - 1]
    keys = ledger.state.view.validator_sets.of(epoch).keys
    return validators_line(block.header_bytes, block.proof, keys)


# The lines of changes --------------------------------------------------------------------------


def a_change_is_missing(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], *lines[2:]]


def the_last_change_is_missing(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [*lines[:2], *lines[3:]]


def the_changes_are_exchanged(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def a_change_stands_twice(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [*lines[:2], *lines[1:]]


def a_change_stands_after_a_block(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], lines[1], lines[3], lines[2], *lines[4:]]


def a_change_stands_before_the_export_line(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[1], lines[0], *lines[2:]]


def a_change_changes_nothing(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], _line_of(ledger, 2, 1), *lines[1:]]


def a_change_is_not_below_the_exports_height(ledger: SyntheticLedger, lines: Lines) -> Lines:
    low = changing_ledger()
    del low.blocks[4:]
    own = low.export(SESSION)
    return [own[0], lines[1], *own[1:]]


def a_change_is_shown_by_a_block_that_does_not_end_its_epoch(
    ledger: SyntheticLedger, lines: Lines
) -> Lines:
    return [lines[0], _line_of(ledger, 3, 2), *lines[2:]]


def a_change_has_other_keys(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _change(lines, 0)
    keys = (*line.keys[:3], ledger.validator_keys()[7].key)
    return changed(lines, index, replace(line, keys=keys))


def a_changes_keys_stand_in_another_order(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _change(lines, 0)
    return changed(lines, index, replace(line, keys=(*line.keys[1:], line.keys[0])))


def a_key_of_a_change_stands_twice(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _change(lines, 0)
    return changed(lines, index, replace(line, keys=(*line.keys[:3], line.keys[0])))


def a_change_has_no_keys(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _change(lines, 0)
    return changed(lines, index, replace(line, keys=()))


def a_change_has_a_key_of_no_suite(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _change(lines, 0)
    return changed(lines, index, replace(line, keys=(*line.keys[:3], ())))


def a_change_says_another_first_epoch(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], lines[1].replace(b'"firstEpoch":2', b'"firstEpoch":1'), *lines[2:]]


def a_change_is_certified_by_those_whom_it_brings(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _change(lines, 0)
    hash_of_new = line.block.header.next_validator_set_hash
    forged = _forged(ledger, line.block, 2, validator_set_hash=hash_of_new)
    return changed(lines, index, replace(line, block=forged))


def a_change_is_only_notarized(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _change(lines, 0)
    notarized = replace(line.block.proof.finalization, kind=VoteKind.NOTARIZE)
    block = replace(line.block, proof=CommitProof(notarized, ()))
    return changed(lines, index, replace(line, block=block))


# Who certifies a block ------------------------------------------------------------------------


def a_block_is_certified_by_the_set_before(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 5)
    old = line.header.validator_set_hash
    forged = _forged(ledger, line, 1)
    assert forged.header.validator_set_hash == old
    return changed(lines, index, forged)


def a_block_names_the_set_before(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 5)
    old = ledger.state.view.validator_sets.of(1).hash
    return changed(lines, index, _forged(ledger, line, 1, validator_set_hash=old))


def a_block_names_the_set_and_the_epoch_before(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 5)
    old = ledger.state.view.validator_sets.of(1).hash
    forged = _forged(ledger, line, 1, validator_set_hash=old, epoch=Epoch(0, 1))
    return changed(lines, index, forged)


def a_block_says_another_recovery(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 5)
    return changed(lines, index, _forged(ledger, line, 2, epoch=Epoch(1, 2)))


def a_set_certifies_before_its_first_epoch(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 3)
    new = ledger.state.view.validator_sets.of(2).hash
    return changed(lines, index, _forged(ledger, line, 2, validator_set_hash=new))


def a_rotated_key_votes_on(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 5)
    proof = line.proof.finalization
    ballot = Ballot(
        VoteKind.FINALIZE,
        ledger.state.ledger_id,
        proof.epoch,
        proof.validator_set_hash,
        proof.view,
        proof.digest,
    )
    # Validators 1, 2 and 3 of epoch 1: the last of them has another key since.
    votes = tuple((one, sign_vote(ledger.validator_keys()[one], ballot)) for one in (1, 2, 3))
    forged = CommitProof(replace(proof, votes=votes), ())
    return changed(lines, index, replace(line, proof=forged))


def a_block_is_committed_by_one_of_the_next_epoch(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 4)
    _, later = _block(lines, 5)
    crossing = CommitProof(later.proof.finalization, (later.header_bytes,))
    return changed(lines, index, replace(line, proof=crossing))


ATTACKS: tuple[Attack, ...] = (
    a_change_is_missing,
    the_last_change_is_missing,
    the_changes_are_exchanged,
    a_change_stands_twice,
    a_change_stands_after_a_block,
    a_change_stands_before_the_export_line,
    a_change_changes_nothing,
    a_change_is_not_below_the_exports_height,
    a_change_is_shown_by_a_block_that_does_not_end_its_epoch,
    a_change_has_other_keys,
    a_changes_keys_stand_in_another_order,
    a_key_of_a_change_stands_twice,
    a_change_has_no_keys,
    a_change_has_a_key_of_no_suite,
    a_change_says_another_first_epoch,
    a_change_is_certified_by_those_whom_it_brings,
    a_change_is_only_notarized,
    a_block_is_certified_by_the_set_before,
    a_block_names_the_set_before,
    a_block_names_the_set_and_the_epoch_before,
    a_block_says_another_recovery,
    a_set_certifies_before_its_first_epoch,
    a_rotated_key_votes_on,
    a_block_is_committed_by_one_of_the_next_epoch,
)
