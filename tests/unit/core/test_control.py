"""Control records: every action is read as signed, and only a threshold of operators signs."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import ALICE, OPERATORS, VALIDATORS, signer
from tests.mutation import mutated

from nocturne.core.control import ACTIONS, Control, decode_control, operators_signed, sign_control
from nocturne.core.encoding import AvroRecord
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import (
    Ed25519Signer,
    Signatures,
    key_to_avro,
    prove_possession,
    signatures_to_avro,
)

reproducible = settings(derandomize=True, deadline=None, max_examples=300, print_blob=True)

KEYS = tuple(one.key for one in OPERATORS)
LEDGER_ID = LedgerId(bytes(range(32)))


def validator(one: Ed25519Signer) -> AvroRecord:
    return {
        "key": key_to_avro(one.key),
        "possession": signatures_to_avro(prove_possession(one)),
    }


FIELDS: dict[str, AvroRecord] = {
    "LogEpochOpened": {"partition": 3, "logEpoch": 2, "topicUuid": bytes(16), "from": 17},
    "Recovery": {
        "recovery": 1,
        "height": 7,
        "digest": bytes(32),
        "validators": [validator(VALIDATORS[0])],
    },
    "ValidatorSetChanged": {"validators": [validator(one) for one in VALIDATORS[:4]]},
    "AuthorityKeyChanged": validator(ALICE),
    "OpenPolicyChanged": {
        "rules": [
            {"author": None, "kind": "", "prefix": "a/"},
            {"author": bytes(32), "kind": "facts", "prefix": ""},
        ]
    },
    "KindsChanged": {"kinds": [{"kind": "facts", "version": 1, "codeHash": bytes(32)}]},
    "EpochEnded": {},
    "FinalityPolicyChanged": {
        "checkpoint": True,
        "witnesses": [key_to_avro(ALICE.key)],
        "witnessThreshold": 1,
        "stores": ["s3"],
        "strict": False,
    },
}


def control(action: str = "EpochEnded", number: int = 1) -> Control:
    return Control(LEDGER_ID, number, 100, action, FIELDS[action])


def test_every_action_has_an_example() -> None:
    assert tuple(FIELDS) == ACTIONS


@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_comes_back_as_it_was_signed(action: str) -> None:
    signed = control(action)
    back, signatures = decode_control(sign_control(signed, OPERATORS[:2]))
    assert back == signed
    assert operators_signed(back, signatures, KEYS, 2)


@pytest.mark.parametrize(
    "action, fields",
    [
        ("ValidatorSetChanged", {"validators": []}),
        ("OpenPolicyChanged", {"rules": []}),
        ("KindsChanged", {"kinds": []}),
    ],
)
def test_actions_of_the_same_form_are_told_apart(action: str, fields: AvroRecord) -> None:
    signed = Control(LEDGER_ID, 1, 100, action, fields)
    back, signatures = decode_control(sign_control(signed, OPERATORS))
    assert back == signed
    assert operators_signed(back, signatures, KEYS, 3)


@given(number=st.integers(-(2**63), 2**63 - 1), height=st.integers(-(2**63), 2**63 - 1))
@reproducible
def test_numbers_of_every_length_come_back(number: int, height: int) -> None:
    signed = replace(control("KindsChanged"), number=number, last_valid_height=height)
    back, signatures = decode_control(sign_control(signed, OPERATORS[:1]))
    assert back == signed
    assert operators_signed(back, signatures, KEYS, 1)


# Signatures -------------------------------------------------------------------------------------


def signatures_of(signed: Control, signers: tuple[Ed25519Signer, ...]) -> Signatures:
    return decode_control(sign_control(signed, signers))[1]


def test_any_threshold_of_operators_is_enough_and_fewer_are_not() -> None:
    signed = control()
    for size in (1, 2, 3):
        for chosen in combinations(OPERATORS, size):
            signatures = signatures_of(signed, chosen)
            for threshold in (1, 2, 3):
                assert operators_signed(signed, signatures, KEYS, threshold) == (size >= threshold)
    assert not operators_signed(signed, (), KEYS, 1)


def test_the_order_in_which_operators_sign_does_not_show() -> None:
    records = {sign_control(control(), chosen) for chosen in permutations(OPERATORS)}
    assert len(records) == 1


def test_one_operator_twice_is_not_two() -> None:
    signed = control()
    (one,) = signatures_of(signed, OPERATORS[:1])
    assert not operators_signed(signed, (one, one), KEYS, 2)
    assert not operators_signed(signed, (one, one), KEYS, 1)
    pair = signatures_of(signed, OPERATORS[:2])
    assert not operators_signed(signed, (pair[0], *pair), KEYS, 2)


def test_signatures_out_of_order_are_refused() -> None:
    signed = control()
    signatures = signatures_of(signed, OPERATORS)
    assert operators_signed(signed, signatures, KEYS, 3)
    for order in permutations(signatures):
        assert operators_signed(signed, order, KEYS, 3) == (order == signatures)


def test_a_stranger_beside_the_operators_spoils_the_record() -> None:
    signed = control()
    assert not operators_signed(signed, signatures_of(signed, (*OPERATORS, ALICE)), KEYS, 2)
    assert not operators_signed(signed, signatures_of(signed, (ALICE, signer(99))), KEYS, 1)


def test_a_broken_signature_beside_enough_good_ones_spoils_the_record() -> None:
    signed = control()
    signatures = list(signatures_of(signed, OPERATORS))
    signatures[1] = replace(signatures[1], data=bytes(64))
    assert not operators_signed(signed, tuple(signatures), KEYS, 2)


@pytest.mark.parametrize(
    "other",
    [
        replace(control(), number=2),
        replace(control(), last_valid_height=101),
        replace(control(), ledger_id=LedgerId(bytes(32))),
        replace(control(), action="KindsChanged", fields={"kinds": []}),
    ],
    ids=lambda one: one.action,
)
def test_signatures_of_one_record_do_not_stand_under_another(other: Control) -> None:
    signatures = signatures_of(control(), OPERATORS)
    assert not operators_signed(other, signatures, KEYS, 1)


def test_signatures_of_one_action_do_not_stand_under_another_of_the_same_bytes() -> None:
    empty = Control(LEDGER_ID, 1, 100, "ValidatorSetChanged", {"validators": []})
    renamed = Control(LEDGER_ID, 1, 100, "KindsChanged", {"kinds": []})
    signatures = signatures_of(empty, OPERATORS)
    assert operators_signed(empty, signatures, KEYS, 3)
    assert not operators_signed(renamed, signatures, KEYS, 1)


# Bytes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_no_byte_can_be_changed_without_the_record_being_refused(action: str) -> None:
    data = sign_control(control(action), OPERATORS[:2])
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1
        try:
            back, signatures = decode_control(bytes(damaged))
        except Malformed:
            continue
        assert not operators_signed(back, signatures, KEYS, 1), at


@given(st.sampled_from(ACTIONS), st.integers(0, 2**32), st.integers(1, 5))
@reproducible
def test_damaged_records_are_malformed_or_not_signed(action: str, seed: int, edits: int) -> None:
    data = sign_control(control(action), OPERATORS[:2])
    damaged = mutated(Random(seed), data, edits)
    if damaged == data:
        return
    try:
        back, signatures = decode_control(damaged)
    except Malformed:
        return
    assert not operators_signed(back, signatures, KEYS, 1)


@given(st.binary(max_size=200))
@reproducible
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_control(data)
