"""A shared subject key opens for its reader alone, and is refused with anything in it altered."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.client.sealing import make_subject_key
from nocturne.client.sharing import (
    SHARE_BYTES_MAX,
    make_share,
    open_share,
    parse_share,
    print_share,
)
from nocturne.core.errors import Malformed
from nocturne.core.keys import ED25519, Ed25519Signer, PublicKey
from nocturne.core.strict_json import canonical_json

READER_SEED = bytes(range(32))
READER = Ed25519Signer(READER_SEED)
GIVER = Ed25519Signer(bytes(range(1, 33)))
KEY = make_subject_key(bytes(range(48)))
SHARE = make_share(KEY, READER.key[0], GIVER)
PRINTED = print_share(SHARE)


@given(st.binary(min_size=48, max_size=48), st.binary(min_size=32, max_size=32))
def test_what_is_shared_is_printed_read_back_and_opened(random: bytes, seed: bytes) -> None:
    key = make_subject_key(random)
    share = make_share(key, Ed25519Signer(seed).key[0], GIVER)
    assert parse_share(print_share(share)) == share
    assert open_share(share, seed) == key


def test_nothing_of_the_key_shows_outside() -> None:
    assert KEY.key.hex().encode() not in PRINTED
    assert KEY.key not in SHARE.box


def test_another_reader_cannot_open_it() -> None:
    with pytest.raises(Malformed, match="it is for the key ed25519-"):
        open_share(SHARE, bytes(32))


@given(st.integers(0, len(PRINTED) - 1), st.integers(1, 255))
def test_a_share_with_any_byte_altered_is_refused(at: int, change: int) -> None:
    altered = bytearray(PRINTED)
    altered[at] ^= change
    with pytest.raises(Malformed):
        parse_share(bytes(altered))


def test_a_share_that_another_signed_is_refused() -> None:
    fields = json.loads(PRINTED)
    fields["from"] = f"ed25519-{READER.key[0].data.hex()}"
    with pytest.raises(Malformed, match="not signed by"):
        parse_share(canonical_json(fields) + b"\n")


def test_a_box_for_another_subject_key_is_refused() -> None:
    other = make_subject_key(bytes(range(1, 49)))
    box = make_share(other, READER.key[0], GIVER).box
    share = type(SHARE)(SHARE.subject_key_id, SHARE.reader, SHARE.giver, box, SHARE.signature)
    with pytest.raises(Malformed, match="something else"):
        open_share(share, READER_SEED)


@pytest.mark.parametrize("data", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31)])
def test_a_key_that_nothing_can_be_encrypted_to_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match="is no key"):
        make_share(KEY, PublicKey(ED25519, data), GIVER)


def test_a_file_longer_than_a_share_is_not_looked_into() -> None:
    with pytest.raises(Malformed):
        parse_share(PRINTED + b" " * SHARE_BYTES_MAX)
