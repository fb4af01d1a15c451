"""What the operators have decided, as items of `~ledger`: the open policy, the validator sets, and
the control number. Log epochs that they opened stand in the log positions (`log_epochs`).

Rules: docs/spec/blocks.md §8. A control record is checked against the state before it; `Malformed`
makes the block that carries it invalid. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nocturne.core.control import Control, decode_control, operators_signed
from nocturne.core.encoding import AvroRecord, domain, sha256, u64
from nocturne.core.errors import Malformed
from nocturne.core.genesis import Genesis, OpenRule
from nocturne.core.identifiers import LedgerId, is_session_id, is_type_name
from nocturne.core.kinds import KindItems
from nocturne.core.log_epochs import opening_of
from nocturne.core.validator_sets import ValidatorSets, check_members, members_of

CONTROL_RECORDS_MAX: Final = 16
"""In one block: the operators decide rarely, and a block's room is for the log."""
CONTROL_OVERHEAD_BYTES: Final = 64
"""Counted for each in a block's body beside its own length."""
OPEN_RULES_MAX: Final = 1024
"""Every opening of a session is compared with each rule in turn."""
GOVERNING_BYTES_MAX: Final = 384 * 1024
"""Of one control record: holds the longest policy, signed by many; checked before it is read."""
EXECUTED_ACTIONS: Final = ("LogEpochOpened", "ValidatorSetChanged", "OpenPolicyChanged")
"""Actions that this version of the rules executes; a block with another one is invalid."""

_NUMBER_ITEM: Final = sha256(domain("nocturne/control-number/v1"))
_POLICY_ITEM: Final = sha256(domain("nocturne/open-policy/v1"))
_SETS_ITEM: Final = sha256(domain("nocturne/validator-sets/v1"))


@dataclass(frozen=True, slots=True)
class ControlBatch:
    """Signed control records for the block at `height`, in order."""

    height: int
    records: tuple[bytes, ...]


NO_CONTROL: Final = ControlBatch(0, ())


def control_number(items: KindItems) -> int:
    """The number of the newest control record, 0 before the first. `items` of `~ledger`."""
    return int.from_bytes(items.get(_NUMBER_ITEM) or b"", "big")


def open_policy(items: KindItems, genesis: Genesis) -> tuple[OpenRule, ...]:
    """The newest policy that the operators decided, before the first the one of the genesis."""
    record = items.get(_POLICY_ITEM)
    return genesis.open_policy if record is None else policy_of(decode_control(record)[0])


def validator_sets(items: KindItems, genesis: Genesis) -> ValidatorSets:
    """Genesis's validators and those that the operators decided, the newest 64 sets."""
    data = items.get(_SETS_ITEM)
    founding = genesis.founding_sets
    return founding if data is None else founding.decoded(data)


def apply_control(
    items: KindItems, ledger_id: LedgerId, genesis: Genesis, batch: ControlBatch
) -> dict[bytes, bytes | None]:
    """What the records change in the items of `~ledger`. `Malformed` when one is not the next one,
    not of this ledger, too late, not signed by the operators, or not executed by these rules.
    """
    if len(batch.records) > CONTROL_RECORDS_MAX:
        raise Malformed(
            f"control: expected at most {CONTROL_RECORDS_MAX} records in a block, "
            f"got {len(batch.records)}"
        )
    size = sum([len(record) + CONTROL_OVERHEAD_BYTES for record in batch.records])
    if size > genesis.limits.block_bytes_max:
        raise Malformed(
            f"control: expected at most {genesis.limits.block_bytes_max} bytes in a block, "
            f"got {size}"
        )
    number = control_number(items)
    changes: dict[bytes, bytes | None] = {}
    for record in batch.records:
        number += 1
        control = check_control(record, ledger_id, genesis, number, batch.height)
        changes[_NUMBER_ITEM] = u64(number)
        if control.action == "OpenPolicyChanged":
            changes[_POLICY_ITEM] = record
    sets = validator_sets(items, genesis)
    after = sets.after(batch.height, batch.records)
    if after != sets:
        changes[_SETS_ITEM] = after.encode()
    return changes


def check_control(
    record: bytes, ledger_id: LedgerId, genesis: Genesis, number: int, height: int
) -> Control:
    """The control record of `record` if it may be number `number` at `height`, else `Malformed`."""
    if len(record) > GOVERNING_BYTES_MAX:
        raise Malformed(f"control: expected at most {GOVERNING_BYTES_MAX} bytes, got {len(record)}")
    control, signatures = decode_control(record)
    if control.ledger_id != ledger_id:
        raise Malformed("control: it is of another ledger")
    if control.number != number:
        raise Malformed(f"control: expected number {number}, got {control.number}")
    if height > control.last_valid_height:
        raise Malformed(
            f"control: it was valid up to height {control.last_valid_height}, this is {height}"
        )
    if control.action not in EXECUTED_ACTIONS:
        raise Malformed(f"control: {control.action} is not executed by rules version 1")
    if not operators_signed(control, signatures, genesis.operators, genesis.operator_threshold):
        raise Malformed(
            f"control: expected the signatures of {genesis.operator_threshold} of "
            f"{len(genesis.operators)} operators, and of nobody else"
        )
    match control.action:
        case "OpenPolicyChanged":
            _check_rules(policy_of(control))
        case "ValidatorSetChanged":
            check_members(members_of(control))
        case "LogEpochOpened":
            opening_of(control)
        case other:
            raise AssertionError(f"{other} is executed and not checked")
    return control


def policy_fields(rules: Sequence[OpenRule]) -> AvroRecord:
    """The fields of `OpenPolicyChanged`."""
    return {
        "rules": [{"author": one.author, "kind": one.kind, "prefix": one.prefix} for one in rules]
    }


def policy_of(control: Control) -> tuple[OpenRule, ...]:
    """The rules of an `OpenPolicyChanged`; `Malformed` when it is another action."""
    if control.action != "OpenPolicyChanged":
        raise Malformed(f"control: expected OpenPolicyChanged, got {control.action}")
    return tuple(
        OpenRule(one["author"], one["kind"], one["prefix"]) for one in control.fields["rules"]
    )


def _check_rules(rules: Sequence[OpenRule]) -> None:
    if len(rules) > OPEN_RULES_MAX:
        raise Malformed(f"open policy: expected at most {OPEN_RULES_MAX} rules, got {len(rules)}")
    for rule in rules:
        if rule.kind and not is_type_name(rule.kind):
            raise Malformed(f"open policy: not a kind: {rule.kind[:140]!r}")
        if rule.prefix and not is_session_id(rule.prefix):
            raise Malformed(
                f"open policy: not the beginning of a session id: {rule.prefix[:140]!r}"
            )
