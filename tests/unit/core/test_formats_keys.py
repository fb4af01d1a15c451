"""Keys and signatures: domain, suite set, key id and one Ed25519 rule decide who signed what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.vectors.synthetic import signer_of

from nocturne.core.encoding import domain
from nocturne.core.errors import Malformed
from nocturne.core.keys import (
    Ed25519Signer,
    PublicKey,
    Signature,
    format_key,
    is_valid_key,
    key_id,
    parse_key,
    prove_possession,
    signatures_from_avro,
    signatures_to_avro,
    signed_bytes,
    verify,
    verify_possession,
)

TAG = domain("nocturne/vote/v1")
OTHER_TAG = domain("nocturne/seal/v1")
ORDER = 2**252 + 27742317777372353535851937790883648493
ALICE = signer_of("alice")
MALLORY = signer_of("mallory")
SIGNED = ALICE.sign(TAG, b"message")

# Points of small order, canonical and not (libsodium's own list).
SMALL_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]


def test_what_a_key_signed_verifies() -> None:
    assert verify(ALICE.key, TAG, b"message", SIGNED)


def test_another_key_domain_message_or_suite_set_does_not() -> None:
    assert not verify(MALLORY.key, TAG, b"message", SIGNED)
    assert not verify(ALICE.key, OTHER_TAG, b"message", SIGNED)
    assert not verify(ALICE.key, TAG, b"messagf", SIGNED)
    assert not verify(ALICE.key, TAG, b"", SIGNED)
    assert signed_bytes(TAG, b"\x01", b"m") != signed_bytes(TAG, b"\x01\x02", b"m")


def test_no_list_but_the_keys_own_verifies() -> None:
    (one,) = SIGNED
    for bad in (
        (),
        (one, one),
        (replace(one, suite=2),),
        (replace(one, key_id=key_id(MALLORY.key)),),
        (replace(one, data=one.data[:-1]),),
        (replace(one, data=one.data + b"\x00"),),
        (replace(one, data=b""),),
    ):
        assert not verify(ALICE.key, TAG, b"message", bad)


def test_a_signature_of_one_suite_does_not_stand_for_a_key_of_two() -> None:
    both = (*ALICE.key, PublicKey(2, bytes(1312)))
    assert not is_valid_key(both)
    assert not verify(both, TAG, b"message", SIGNED)
    padded = (*SIGNED, Signature(2, key_id(both), bytes(2420)))
    assert not verify(both, TAG, b"message", padded)


def test_a_signature_with_a_large_s_is_refused() -> None:
    """RFC 8032 §5.1.7: S is below the group order, so a signature has one form."""
    (one,) = SIGNED
    s = int.from_bytes(one.data[32:], "little") + ORDER
    malleable = replace(one, data=one.data[:32] + s.to_bytes(32, "little"))
    assert not verify(ALICE.key, TAG, b"message", (malleable,))


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_keys_and_commitments_of_small_order_are_refused(point: str) -> None:
    data = bytes.fromhex(point)
    key = (PublicKey(1, data),)
    identity = key_id(key)
    # With a key of small order R = S·B − h·A can hold for S = 0 and some R of small order.
    for commitment in SMALL_ORDER:
        forged = Signature(1, identity, bytes.fromhex(commitment) + bytes(32))
        assert not verify(key, TAG, b"message", (forged,))
    (one,) = SIGNED
    assert not verify(ALICE.key, TAG, b"message", (replace(one, data=data + one.data[32:]),))


@given(st.binary(max_size=70), st.binary(max_size=70))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_any_bytes_as_key_or_signature_are_answered(key: bytes, data: bytes) -> None:
    part = (PublicKey(1, key),)
    assert not verify(part, TAG, b"message", (Signature(1, key_id(part), data),))
    assert not verify(ALICE.key, TAG, b"message", (Signature(1, key_id(ALICE.key), data),))


def test_a_key_has_known_suites_ascending_each_of_its_length() -> None:
    (one,) = ALICE.key
    assert is_valid_key(ALICE.key)
    for bad in ((), (one, one), (PublicKey(1, one.data[:31]),), (PublicKey(3, one.data),)):
        assert not is_valid_key(bad)


def test_possession_is_of_this_key_and_for_nothing_else() -> None:
    proof = prove_possession(ALICE)
    assert verify_possession(ALICE.key, proof)
    assert not verify_possession(MALLORY.key, proof)
    assert not verify_possession((), ())
    assert not verify_possession(ALICE.key, ALICE.sign(TAG, key_id(ALICE.key)))


def test_the_same_seed_is_the_same_key_and_another_is_not() -> None:
    assert Ed25519Signer(bytes(32)).key == Ed25519Signer(bytes(32)).key
    assert key_id(ALICE.key) != key_id(MALLORY.key)
    assert key_id(ALICE.key) == key_id(signer_of("alice").key)


def test_a_key_is_printed_and_read_back() -> None:
    (one,) = ALICE.key
    assert parse_key(format_key(one)) == one
    text = format_key(one)
    for bad in ("", text[:-1], text + "0", text.upper(), "ed25519:" + text[8:], "rsa-" + text[8:]):
        with pytest.raises(Malformed):
            parse_key(bad)


def test_signatures_are_read_back_from_records() -> None:
    assert signatures_from_avro(signatures_to_avro(SIGNED)) == SIGNED
