"""Sealed payloads open under their key, whole, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from nocturne.core.encoding import Codec, domain, sha256, u32, variable
from nocturne.core.errors import Malformed
from nocturne.core.sealing import Unsealed, seal, subject_key_id_of, unseal

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
SUBJECT = b"subject-key-0001"
NONCE = bytes(range(100, 124))
PLAIN = Unsealed("application/json", b'{"name":"Ada"}')
SEALED = seal(PLAIN, SUBJECT, KEY, NONCE)

reproducible = settings(derandomize=True, deadline=None, max_examples=200, print_blob=True)


@given(
    data=st.binary(max_size=300),
    content_type=st.from_regex(r"[a-z]{1,20}/[a-z.+-]{1,40}", fullmatch=True),
    subject=st.binary(min_size=16, max_size=16),
    key=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=24, max_size=24),
)
@reproducible
def test_what_was_sealed_comes_out(
    data: bytes, content_type: str, subject: bytes, key: bytes, nonce: bytes
) -> None:
    sealed = seal(Unsealed(content_type, data), subject, key, nonce)
    assert unseal(sealed, key) == Unsealed(content_type, data)
    assert subject_key_id_of(sealed) == subject


def test_nothing_of_payload_or_key_shows_outside() -> None:
    for secret in (PLAIN.data, PLAIN.content_type.encode(), KEY, sha256(KEY)):
        assert secret not in SEALED


def test_two_nonces_make_two_commitments_of_one_key() -> None:
    """Two payloads under one key cannot be told to belong together but by the subject key id."""
    other = seal(PLAIN, SUBJECT, KEY, NONCE[::-1])
    parts = [other[at : at + 32] for at in range(len(other) - 31)]
    shared = [part for part in parts if part in SEALED]
    assert all(SUBJECT in part or part.strip(b"\x00") == b"" for part in shared)


@pytest.mark.parametrize("key", [OTHER, KEY[:-1], KEY + b"\x00", b""], ids=len)
def test_another_key_does_not_open_it(key: bytes) -> None:
    with pytest.raises(Malformed, match="another key"):
        unseal(SEALED, key)


def test_every_byte_counts() -> None:
    for at in range(len(SEALED)):
        for mask in (1, 0x80, 0xFF):
            damaged = bytearray(SEALED)
            damaged[at] ^= mask
            with pytest.raises(Malformed):
                unseal(bytes(damaged), KEY)


def test_every_cut_and_every_continuation_is_malformed() -> None:
    for end in range(len(SEALED)):
        with pytest.raises(Malformed):
            unseal(SEALED[:end], KEY)
    with pytest.raises(Malformed):
        unseal(SEALED + b"\x00", KEY)


@given(st.binary(max_size=200))
@reproducible
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        unseal(data, KEY)
    with pytest.raises(Malformed):
        subject_key_id_of(data)


def record(ciphertext: bytes, commitment: bytes, **changes: object) -> bytes:
    fields = {
        "version": 1,
        "subjectKey": SUBJECT,
        "nonce": NONCE,
        "commitment": commitment,
        "ciphertext": ciphertext,
    }
    return Codec("sealed_payload", 1 << 20).encode({**fields, **changes})


def encrypted(plaintext: bytes, key: bytes, commitment: bytes) -> bytes:
    return crypto_aead_xchacha20poly1305_ietf_encrypt(
        plaintext,
        domain("nocturne/sealed/v1") + SUBJECT + commitment,
        NONCE,
        sha256(domain("nocturne/sealing-key/v1") + key + NONCE),
    )


def commitment_of(key: bytes) -> bytes:
    return sha256(domain("nocturne/sealing-commitment/v1") + key + NONCE)


def test_a_ciphertext_committed_to_one_key_does_not_open_under_another() -> None:
    """The AEAD alone would let an author make one ciphertext for two keys: neither opens here."""
    plaintext = variable(b"text/plain") + b"x"
    for encrypting, committed in ((KEY, OTHER), (OTHER, KEY)):
        commitment = commitment_of(committed)
        forged = record(encrypted(plaintext, encrypting, commitment), commitment)
        for key in (KEY, OTHER):
            with pytest.raises(Malformed):
                unseal(forged, key)
    commitment = commitment_of(KEY)
    assert unseal(record(encrypted(plaintext, KEY, commitment), commitment), KEY).data == b"x"


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_ciphertext_too_short_for_its_tag_is_malformed(length: int) -> None:
    with pytest.raises(Malformed, match="altered"):
        unseal(record(bytes(length), commitment_of(KEY)), KEY)


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\x00\x00\x00",
        u32(5) + b"text",
        u32(2**32 - 1) + b"text/plain",
        u32(0) + b"x",
        variable("téxt/plain".encode()) + b"x",
        variable(b" text/plain") + b"x",
        variable(b"t" * 129) + b"x",
    ],
)
def test_what_an_author_sealed_without_a_content_type_is_malformed(plaintext: bytes) -> None:
    commitment = commitment_of(KEY)
    with pytest.raises(Malformed, match="content type"):
        unseal(record(encrypted(plaintext, KEY, commitment), commitment), KEY)


@pytest.mark.parametrize(
    "changes", [{"version": 2}, {"nonce": NONCE[:-1]}, {"nonce": b""}], ids=str
)
def test_another_version_or_nonce_length_is_malformed(changes: dict[str, object]) -> None:
    commitment = commitment_of(KEY)
    ciphertext = encrypted(variable(b"text/plain"), KEY, commitment)
    with pytest.raises(Malformed, match="version 1 and a nonce of 24"):
        unseal(record(ciphertext, commitment, **changes), KEY)


@pytest.mark.parametrize(
    "unsealed, subject, key, nonce",
    [
        (PLAIN, SUBJECT[:-1], KEY, NONCE),
        (PLAIN, SUBJECT, KEY[:-1], NONCE),
        (PLAIN, SUBJECT, KEY, NONCE + b"\x00"),
        (replace(PLAIN, content_type=""), SUBJECT, KEY, NONCE),
        (replace(PLAIN, content_type="téxt"), SUBJECT, KEY, NONCE),
    ],
)
def test_sealing_with_wrong_parts_is_an_error(
    unsealed: Unsealed, subject: bytes, key: bytes, nonce: bytes
) -> None:
    with pytest.raises(ValueError, match="seal"):
        seal(unsealed, subject, key, nonce)
