"""Who certifies which epoch: what genesis says, and what the operators decided since.

Rules: docs/spec/consensus.md §1 and docs/spec/blocks.md §8. A set that is decided in epoch e
certifies from epoch e+2 on, so that every header of e can name the set of e+1. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, TypeAlias

from nocturne.core.blocks import BlockHeader, link_of, link_to
from nocturne.core.certificates import CommitProof, Epoch, ValidatorSet, check_commit_proof
from nocturne.core.control import Control, decode_control
from nocturne.core.encoding import AvroRecord, u64, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import (
    Key,
    Signatures,
    is_valid_key,
    key_from_avro,
    key_to_avro,
    signatures_from_avro,
    signatures_to_avro,
    verify_possession,
)

VALIDATORS_MAX: Final = 31
"""Of a set that the operators decide: a certificate is a list of Ed25519 signatures."""
EPOCHS_UNTIL: Final = 2
"""From the epoch that decides a set to the first that it certifies."""
SETS_KEPT_MAX: Final = 64
"""Of the sets that a chain decides the newest are kept: all that certify what is still to come are
among them, and older blocks that are met again can be told from forged ones.
"""
ACTION: Final = "ValidatorSetChanged"

Member: TypeAlias = tuple[Key, Signatures]
"""A validator's key and the proof of its possession."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A set, the first epoch that it certifies, and the control record that decided it: empty for
    genesis's, and for a set that is known by its hash in a header (`proved`).
    """

    first_epoch: int
    validators: ValidatorSet
    record: bytes = b""

    def members(self, founding: Sequence[Member]) -> tuple[Member, ...]:
        """The validators with their proofs of possession; `founding` are those of genesis."""
        return members_of(decode_control(self.record)[0]) if self.record else tuple(founding)


@dataclass(frozen=True, slots=True)
class ValidatorSets:
    """The sets that are decided, first epochs ascending; each certifies until the next one does.

    It is a value: a block makes a new one (`after`), with the newest 64 sets.
    """

    epoch_length: int
    decided: tuple[Decided, ...]

    @staticmethod
    def founding(epoch_length: int, validators: ValidatorSet) -> ValidatorSets:
        """Genesis's validators certify from epoch 0 on."""
        return ValidatorSets(epoch_length, (Decided(0, validators),))

    @property
    def newest(self) -> ValidatorSet:
        """The set that was decided last, whether it certifies yet or not."""
        return self.decided[-1].validators

    def epoch_at(self, height: int) -> int:
        """The number of the epoch that has this height."""
        return epoch_at(self.epoch_length, height)

    def is_end(self, height: int) -> bool:
        """Whether the block of this height is an epoch's last."""
        return height > 0 and height % self.epoch_length == 0

    def of(self, number: int) -> ValidatorSet:
        """The set of an epoch, as far as it is decided. `Malformed` for one before all that is
        known here.
        """
        return self._deciding(number).validators

    def _deciding(self, number: int) -> Decided:
        for one in reversed(self.decided):
            if one.first_epoch <= number:
                return one
        raise Malformed(f"validators: those of epoch {number} are not known here")

    def of_block(self, header: BlockHeader) -> ValidatorSet:
        """The set that has to certify a block. `Malformed` when its header names another epoch than
        its height's, or another set than its epoch's.
        """
        number = self.epoch_at(header.height)
        if header.epoch != Epoch(0, number):
            raise Malformed(
                f"block {header.height}: it says epoch {header.epoch.number} "
                f"(recovery {header.epoch.recovery}), its height is of epoch {number}"
            )
        found = self.of(number)
        if header.validator_set_hash != found.hash:
            raise Malformed(
                f"block {header.height}: of another validator set than that of epoch {number}"
            )
        return found

    def check_proof(
        self, proof: CommitProof, header: BlockHeader, digest: Hash, ledger_id: LedgerId
    ) -> None:
        """`Malformed` unless the proof holds of the block with this header and digest, by the set
        that has to certify it.
        """
        validators = self.of_block(header)
        check_commit_proof(proof, link_to(header, digest), ledger_id, validators, link_of)

    def check_next(self, header: BlockHeader) -> None:
        """`Malformed` unless the header names the set that is decided for the epoch after its own.
        Only the sets as of the block before it can say so.
        """
        number = self.epoch_at(header.height) + 1
        if header.next_validator_set_hash != self.of(number).hash:
            raise Malformed(
                f"block {header.height}: it names another validator set for epoch {number} than "
                "the one that was decided"
            )

    def after(
        self, height: int, control: Iterable[bytes], kept_max: int = SETS_KEPT_MAX
    ) -> ValidatorSets:
        """The sets once the block of `height` is committed, with its control records in order; the
        newest `kept_max` of them.

        Of two changes in one epoch the later one counts. Taking the same blocks again changes
        nothing in the end. `Malformed` when a record is none, or decides what no set can be.
        """
        sets = self
        for record in control:
            decided, _ = decode_control(record)
            if decided.action == ACTION:
                first = self.epoch_at(height) + EPOCHS_UNTIL
                sets = sets._with(Decided(first, set_of(decided), record))
        return replace(sets, decided=sets.decided[-kept_max:])

    def after_earlier(self, height: int, control: Iterable[bytes]) -> ValidatorSets:
        """As `after`, of a block that comes after later ones, the nearest first: what a later one
        of its epoch decided stays.
        """
        first = self.epoch_at(height) + EPOCHS_UNTIL
        known = any(one.first_epoch == first for one in self.decided)
        return self if known else self.after(height, control)

    def proved(self, first_epoch: int, validators: ValidatorSet) -> ValidatorSets:
        """The sets with one whose hash the last block before `first_epoch` names."""
        return self._with(Decided(first_epoch, validators))

    def known_after(self, height: int) -> tuple[tuple[Epoch, ValidatorSet], ...]:
        """The epoch of the block after `height` and the one after that, with their sets: both are
        decided by then, and no later one is.
        """
        number = self.epoch_at(height + 1)
        return tuple((Epoch(0, one), self.of(one)) for one in (number, number + 1))

    def decided_at(self, height: int) -> tuple[Epoch, ValidatorSet] | None:
        """What the block of `height` has settled when it is its epoch's last one, these being the
        sets after it: the epoch after the next, and its set. None for any other block: until then
        another control record may still decide otherwise.
        """
        if not self.is_end(height):
            return None
        number = self.epoch_at(height) + EPOCHS_UNTIL
        return Epoch(0, number), self.of(number)

    def changes_before(self, height: int) -> list[tuple[int, tuple[Key, ...]]]:
        """The epochs' ends below `height` at which the validators change: the height of the epoch's
        last block, which names those of the next epoch, and their keys.
        """
        return [
            (one.first_epoch * self.epoch_length, one.validators.keys)
            for before, one in pairwise(self.decided)
            if one.validators.hash != before.validators.hash
            and one.first_epoch * self.epoch_length < height
        ]

    def members(self, founding: Sequence[Member]) -> tuple[Member, ...]:
        """The validators of the newest set with their proofs of possession; `founding` are those of
        genesis. What a change begins with.
        """
        return self.decided[-1].members(founding)

    def ahead(self, height: int) -> tuple[Decided, ...]:
        """The set that certifies the block after `height`, then those decided for later epochs: at
        most three, for a set acts two epochs after its decision.
        """
        number = self.epoch_at(height + 1)
        later = tuple(one for one in self.decided if one.first_epoch > number)
        return (self._deciding(number), *later)

    def _with(self, decided: Decided) -> ValidatorSets:
        others = [one for one in self.decided if one.first_epoch != decided.first_epoch]
        ascending = sorted([*others, decided], key=lambda one: one.first_epoch)
        return replace(self, decided=tuple(ascending))

    def encode(self) -> bytes:
        """For each set but genesis's, ascending: u64 first epoch ‖ variable control record."""
        return b"".join(
            [u64(one.first_epoch) + variable(one.record) for one in self.decided if one.record]
        )

    def decoded(self, data: bytes) -> ValidatorSets:
        """These founding sets and what `encode` gave; `Malformed` on anything else."""
        decided = list(self.decided)
        at = 0
        while at < len(data):
            first = int.from_bytes(data[at : at + 8], "big")
            end = at + 12 + int.from_bytes(data[at + 8 : at + 12], "big")
            record = data[at + 12 : end]
            if first <= decided[-1].first_epoch:
                raise Malformed(f"validator sets: epoch {first} after a later one")
            decided.append(Decided(first, set_of(decode_control(record)[0]), record))
            at = end
        found = replace(self, decided=tuple(decided[-SETS_KEPT_MAX:]))
        if found.encode() != data:
            raise Malformed("validator sets: not in their one encoding")
        return found


def epoch_at(epoch_length: int, height: int) -> int:
    """Epoch e has the heights (e·E, (e+1)·E]."""
    return (height - 1) // epoch_length


def acts_from(epoch_length: int, height: int) -> tuple[int, int]:
    """The first epoch, and its first height, of a set that the block at `height` decides."""
    first = epoch_at(epoch_length, height) + EPOCHS_UNTIL
    return first, first * epoch_length + 1


# Control records -------------------------------------------------------------------------------


def set_fields(members: Sequence[Member]) -> AvroRecord:
    """The fields of `ValidatorSetChanged`: all validators of the set, in their order."""
    return {
        "validators": [
            {"key": key_to_avro(key), "possession": signatures_to_avro(possession)}
            for key, possession in members
        ]
    }


def members_of(control: Control) -> tuple[Member, ...]:
    """The validators of a `ValidatorSetChanged`; `Malformed` when it is another action."""
    if control.action != ACTION:
        raise Malformed(f"control: expected {ACTION}, got {control.action}")
    return tuple(
        (key_from_avro(one["key"]), signatures_from_avro(one["possession"]))
        for one in control.fields["validators"]
    )


def changes_validators(record: bytes) -> bool:
    """Whether a control record is a `ValidatorSetChanged`; `Malformed` when it is no record."""
    return decode_control(record)[0].action == ACTION


def set_of(control: Control) -> ValidatorSet:
    """The set that a `ValidatorSetChanged` decides; `Malformed` when it can be none. The proofs of
    possession are not looked at: who certified the record has checked them.
    """
    keys = tuple(key for key, _ in members_of(control))
    check_keys(keys)
    return ValidatorSet.of(keys)


def check_keys(keys: Sequence[Key]) -> None:
    """`Malformed` unless they can be the validators of an epoch: 1 to 31 keys, none twice."""
    if not 1 <= len(keys) <= VALIDATORS_MAX:
        raise Malformed(f"validators: expected 1 to {VALIDATORS_MAX}, got {len(keys)}")
    if not all(map(is_valid_key, keys)):
        raise Malformed("validators: a key is not one")
    if len(set(keys)) != len(keys):
        raise Malformed("validators: a key stands twice")


def check_members(members: Sequence[Member]) -> None:
    """`check_keys`, and each key with the proof of its possession."""
    check_keys([key for key, _ in members])
    for number, (key, possession) in enumerate(members):
        if not verify_possession(key, possession):
            raise Malformed(f"validators: number {number} has no proof of possession of its key")


# What operators may ask for --------------------------------------------------------------------


def with_added(members: Sequence[Member], member: Member) -> tuple[Member, ...]:
    """One validator more, last. `Malformed` when the set cannot be."""
    return _checked((*members, member))


def with_removed(members: Sequence[Member], key: Key) -> tuple[Member, ...]:
    """Without the validator of `key`. `Malformed` when there is none, or none would be left."""
    index = _index_of(members, key)
    return _checked((*members[:index], *members[index + 1 :]))


def with_rotated(members: Sequence[Member], key: Key, member: Member) -> tuple[Member, ...]:
    """With another key in the place of `key`. `Malformed` when there is no such validator."""
    index = _index_of(members, key)
    return _checked((*members[:index], member, *members[index + 1 :]))


def _index_of(members: Sequence[Member], key: Key) -> int:
    for index, (own, _) in enumerate(members):
        if own == key:
            return index
    raise Malformed("validators: none has this key")


def _checked(members: tuple[Member, ...]) -> tuple[Member, ...]:
    check_members(members)
    return members
