"""A subject key handed to one reader: a file that only the holder of the reader's key can open.

Rules: docs/spec/ledger.md §7. `box` is a libsodium sealed box (X25519, XSalsa20-Poly1305) for the
reader's Ed25519 key, `signature` is the giver's over all of it. As JSON (RFC 8785) on one line:

{"box":"…","for":"ed25519-…","format":"nocturne/subject-key/v1","from":"ed25519-…",
 "signature":"ed25519-…","subjectKey":"9f1c…-…"}

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nacl.bindings import (
    crypto_box_seal,
    crypto_box_seal_open,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from nocturne.client.sealing import SubjectKey
from nocturne.core.encoding import domain, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import format_id, parse_id
from nocturne.core.json_fields import Fields, base64_text
from nocturne.core.keys import (
    ED25519,
    Key,
    PublicKey,
    Signature,
    Signer,
    format_key,
    key_bytes,
    key_id,
    parse_key,
    verify,
)
from nocturne.core.sealing import KEY_BYTES, SUBJECT_KEY_ID_BYTES
from nocturne.core.strict_json import canonical_json, parse_json

SHARE_BYTES_MAX: Final = 4096
"""A share has about 600."""
FORMAT: Final = "nocturne/subject-key/v1"

_CONTENT: Final = domain("nocturne/subject-key/v1")
_SIGNATURE: Final = domain("nocturne/subject-key-signature/v1")
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Share:
    """What the file says; nothing of it is secret."""

    subject_key_id: bytes
    reader: PublicKey
    giver: PublicKey
    box: bytes
    signature: bytes


def make_share(subject_key: SubjectKey, reader: PublicKey, giver: Signer) -> Share:
    """A share for `reader`. `Malformed` when its key can encrypt nothing."""
    content = _CONTENT + subject_key.id + subject_key.key
    box = crypto_box_seal(content, _encryption_key(reader))
    signed = giver.sign(_SIGNATURE, _message(subject_key.id, reader, box))
    return Share(subject_key.id, reader, giver.key[0], box, signed[0].data)


def open_share(share: Share, seed: bytes) -> SubjectKey:
    """The key, for the reader whose Ed25519 seed this is. `Malformed` when it is another one's, or
    does not hold what it says.
    """
    public, secret = crypto_sign_seed_keypair(seed)
    if PublicKey(ED25519, public) != share.reader:
        raise Malformed(f"subject key: it is for the key {format_key(share.reader)}")
    try:
        content = crypto_box_seal_open(
            share.box,
            crypto_sign_ed25519_pk_to_curve25519(public),
            crypto_sign_ed25519_sk_to_curve25519(secret),
        )
    except (CryptoError, ValueError) as fault:
        raise Malformed("subject key: its box does not open") from fault
    expected = _CONTENT + share.subject_key_id
    if len(content) != len(expected) + KEY_BYTES or not content.startswith(expected):
        raise Malformed("subject key: its box holds something else")
    return SubjectKey(share.subject_key_id, content[len(expected) :])


def print_share(share: Share) -> bytes:
    """The file's bytes."""
    return (
        canonical_json(
            {
                "box": base64_text(share.box),
                "for": format_key(share.reader),
                "format": FORMAT,
                "from": format_key(share.giver),
                "signature": f"ed25519-{share.signature.hex()}",
                "subjectKey": format_id(share.subject_key_id),
            }
        )
        + b"\n"
    )


def parse_share(data: bytes) -> Share:
    """The reverse of `print_share`; `Malformed` on anything it would not write, and when the giver
    did not sign it.
    """
    fields = Fields.of(parse_json(data, SHARE_BYTES_MAX, 2), "subject key")
    if fields.text("format") != FORMAT:
        raise Malformed(f"subject key: expected the format {FORMAT}")
    share = Share(
        parse_id(fields.text("subjectKey")),
        parse_key(fields.text("for")),
        parse_key(fields.text("from")),
        fields.data("box"),
        _signature_from(fields.text("signature")),
    )
    if print_share(share) != data:
        raise Malformed("subject key: it is not as it was written")
    signer: Key = (share.giver,)
    signature = Signature(share.giver.suite, key_id(signer), share.signature)
    message = _message(share.subject_key_id, share.reader, share.box)
    if not verify(signer, _SIGNATURE, message, (signature,)):
        raise Malformed("subject key: not signed by the one it says it is from")
    return share


def _message(subject_key_id: bytes, reader: PublicKey, box: bytes) -> bytes:
    assert len(subject_key_id) == SUBJECT_KEY_ID_BYTES
    return subject_key_id + variable(key_bytes((reader,))) + variable(box)


def _encryption_key(reader: PublicKey) -> bytes:
    """The X25519 key of the same secret: https://doc.libsodium.org, Ed25519 to Curve25519."""
    if reader.suite != ED25519:
        raise Malformed("subject key: only an Ed25519 key can be encrypted to")
    try:
        found: bytes = crypto_sign_ed25519_pk_to_curve25519(reader.data)
    except (CryptoError, RuntimeError, ValueError) as fault:
        raise Malformed(f"subject key: {format_key(reader)} is no key") from fault
    return found


def _signature_from(text: str) -> bytes:
    name, _, digits = text.partition("-")
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        data = b""
    if name != "ed25519" or len(data) != _SIGNATURE_BYTES:
        raise Malformed(f"signature: expected ed25519- and hex, got {text[:80]!r}")
    return data
