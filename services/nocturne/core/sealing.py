"""Sealed payloads: encrypted by the author before signing, under a key per subject.

Rules: docs/spec/ledger.md, sealed payloads. XChaCha20-Poly1305 alone does not commit to its
key, so the key is bound by a hash of its own: a ciphertext opens under one key only. Destroying the
key erases the payload; every proof over it still verifies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from nocturne.core.commands import ENVELOPE_BYTES_MAX
from nocturne.core.encoding import Codec, domain, sha256, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import is_content_type

SEALING_VERSION: Final = 1
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
SUBJECT_KEY_ID_BYTES: Final = 16

_ENCRYPTION_KEY: Final = domain("nocturne/sealing-key/v1")
_COMMITMENT: Final = domain("nocturne/sealing-commitment/v1")
_ASSOCIATED: Final = domain("nocturne/sealed/v1")
_CODEC: Final = Codec("sealed_payload", ENVELOPE_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Unsealed:
    """What was sealed: the payload and its own content type, which the ledger does not see."""

    content_type: str
    data: bytes


def seal(unsealed: Unsealed, subject_key_id: bytes, key: bytes, nonce: bytes) -> bytes:
    """The payload as carried. `nonce`: 24 random bytes, new for every payload. `ValueError` on a
    length that is not the rule's, or a content type that is none.
    """
    if (len(subject_key_id), len(key), len(nonce)) != (
        SUBJECT_KEY_ID_BYTES,
        KEY_BYTES,
        NONCE_BYTES,
    ):
        raise ValueError("seal: expected a key id of 16, a key of 32 and a nonce of 24 bytes")
    if not is_content_type(unsealed.content_type):
        raise ValueError(f"seal: not a content type: {unsealed.content_type[:140]!r}")
    commitment = sha256(_COMMITMENT + key + nonce)
    plaintext = variable(unsealed.content_type.encode("ascii")) + unsealed.data
    ciphertext = crypto_aead_xchacha20poly1305_ietf_encrypt(
        plaintext,
        _ASSOCIATED + subject_key_id + commitment,
        nonce,
        sha256(_ENCRYPTION_KEY + key + nonce),
    )
    return _CODEC.encode(
        {
            "version": SEALING_VERSION,
            "subjectKey": subject_key_id,
            "nonce": nonce,
            "commitment": commitment,
            "ciphertext": ciphertext,
        }
    )


def subject_key_id_of(sealed: bytes) -> bytes:
    """Which key opens it; `Malformed` when it is no sealed payload."""
    return bytes(_decode(sealed)["subjectKey"])


def unseal(sealed: bytes, key: bytes) -> Unsealed:
    """The payload; `Malformed` when it is none, altered, or sealed under another key."""
    record = _decode(sealed)
    nonce = record["nonce"]
    if sha256(_COMMITMENT + key + nonce) != record["commitment"]:
        raise Malformed("sealed payload: sealed under another key")
    try:
        plaintext = crypto_aead_xchacha20poly1305_ietf_decrypt(
            record["ciphertext"],
            _ASSOCIATED + record["subjectKey"] + record["commitment"],
            nonce,
            sha256(_ENCRYPTION_KEY + key + nonce),
        )
    except (CryptoError, ValueError) as fault:
        raise Malformed("sealed payload: altered") from fault
    length = int.from_bytes(plaintext[:4], "big")
    if len(plaintext) < 4 + length:
        raise Malformed("sealed payload: its content type is cut")
    content_type = plaintext[4 : 4 + length].decode("ascii", "replace")
    if not is_content_type(content_type):
        raise Malformed(f"sealed payload: not a content type: {content_type[:140]!r}")
    return Unsealed(content_type, plaintext[4 + length :])


def _decode(sealed: bytes) -> dict[str, bytes]:
    record = _CODEC.decode(sealed)
    if record["version"] != SEALING_VERSION or len(record["nonce"]) != NONCE_BYTES:
        raise Malformed("sealed payload: expected version 1 and a nonce of 24 bytes")
    return record
