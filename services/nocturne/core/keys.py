"""Keys, signatures and suites. A key is one public key per suite; a signature list has one each.

Rules: docs/spec/encoding.md §5. Ed25519 is verified by libsodium on every path: canonical S and
points, none of small order, no cofactor; vectors hold its versions to that. Pure: private keys are
arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

from nocturne.core.encoding import (
    array_to_avro,
    bytes_to_avro,
    domain,
    long_to_avro,
    sha256,
    u8,
    variable,
)
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import KeyId

ED25519: Final = 1
ML_DSA_44: Final = 2
SUITE_NAMES: Final = {ED25519: "ed25519", ML_DSA_44: "mldsa44"}
_PUBLIC_BYTES: Final = {ED25519: 32}
_SIGNATURE_BYTES: Final = {ED25519: 64}

_KEY: Final = domain("nocturne/key/v1")
_POSSESSION: Final = domain("nocturne/possession/v1")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public key of one suite."""

    suite: int
    data: bytes


Key = tuple[PublicKey, ...]
"""One public key per suite, suites ascending."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of one suite under the key `key_id`."""

    suite: int
    key_id: KeyId
    data: bytes


Signatures = tuple[Signature, ...]


class Signer(Protocol):
    """Holds a private key: a file here, PKCS#11 or a KMS later."""

    @property
    def key(self) -> Key:
        """The public key."""

    def sign(self, domain_tag: bytes, message: bytes) -> Signatures:
        """Sign `signed_bytes(domain_tag, suites, message)` with every suite of the key."""


def key_bytes(key: Key) -> bytes:
    """Suite byte and variable public key, for each suite."""
    return b"".join([u8(part.suite) + variable(part.data) for part in key])


def key_from_bytes(data: bytes) -> Key:
    """The reverse of `key_bytes`; `Malformed` unless it is a key of known suites."""
    parts, at = [], 0
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
        parts.append(PublicKey(data[at], data[at + 5 : end]))
        at = end
    key = tuple(parts)
    if at != len(data) or not is_valid_key(key):
        raise Malformed("key: expected a public key of each known suite")
    return key


def key_id(key: Key) -> KeyId:
    """SHA-256 of the domain and the key's bytes; of an author's first key: the author id."""
    return KeyId(sha256(_KEY + key_bytes(key)))


def suite_set(key: Key) -> bytes:
    """One byte per suite, ascending."""
    return bytes([part.suite for part in key])


def is_valid_key(key: Key) -> bool:
    """At least one suite, known suites only, strictly ascending, each of its suite's length."""
    last = 0
    for part in key:
        if part.suite <= last or _PUBLIC_BYTES.get(part.suite) != len(part.data):
            return False
        last = part.suite
    return last > 0


def signed_bytes(domain_tag: bytes, suites: bytes, message: bytes) -> bytes:
    """domain ‖ variable(suite set) ‖ message: a signature of one suite cannot stand for a set."""
    return domain_tag + variable(suites) + message


def verify(key: Key, domain_tag: bytes, message: bytes, signatures: Signatures) -> bool:
    """Every suite of `key` signed, in order, and nothing else did."""
    if len(signatures) != len(key):
        return False
    signed = signed_bytes(domain_tag, suite_set(key), message)
    identity = key_id(key)
    for part, given in zip(key, signatures, strict=True):
        if given.suite != part.suite or given.key_id != identity:
            return False
        if not _verify_one(part, signed, given):
            return False
    return True


def verify_possession(key: Key, signatures: Signatures) -> bool:
    """The holder of `key` signed its own key id: no key is taken into a set without its holder."""
    return is_valid_key(key) and verify(key, _POSSESSION, key_id(key), signatures)


def prove_possession(signer: Signer) -> Signatures:
    """What `verify_possession` accepts."""
    return signer.sign(_POSSESSION, key_id(signer.key))


def _verify_one(part: PublicKey, signed: bytes, signature: Signature) -> bool:
    if part.suite != ED25519 or len(signature.data) != _SIGNATURE_BYTES[ED25519]:
        return False
    try:
        crypto_sign_open(signature.data + signed, part.data)
    except (CryptoError, ValueError):
        return False
    return True


class Ed25519Signer:
    """A key of the one suite Ed25519, from its 32-byte seed (RFC 8032)."""

    __slots__ = ("_key", "_key_id", "_secret")

    def __init__(self, seed: bytes) -> None:
        public, secret = crypto_sign_seed_keypair(seed)
        self._secret = secret
        self._key: Key = (PublicKey(ED25519, public),)
        self._key_id = key_id(self._key)

    @property
    def key(self) -> Key:
        """The public key."""
        return self._key

    def sign(self, domain_tag: bytes, message: bytes) -> Signatures:
        """One Ed25519 signature of `signed_bytes`."""
        signed = signed_bytes(domain_tag, b"\x01", message)
        return (Signature(ED25519, self._key_id, crypto_sign(signed, self._secret)[:64]),)


# Avro records and back -----------------------------------------------------------------------


def key_to_avro(key: Key) -> list[dict[str, Any]]:
    """`PublicKey` records."""
    return [{"suite": part.suite, "bytes": part.data} for part in key]


def key_from_avro(records: list[dict[str, Any]]) -> Key:
    """The reverse of `key_to_avro`."""
    return tuple([PublicKey(record["suite"], record["bytes"]) for record in records])


def encode_key(key: Key) -> bytes:
    """The Avro array of `PublicKey` records."""
    return array_to_avro([long_to_avro(part.suite) + bytes_to_avro(part.data) for part in key])


def encode_signatures(signatures: Signatures) -> bytes:
    """The Avro array of `Signature` records."""
    return array_to_avro(
        [long_to_avro(one.suite) + one.key_id + bytes_to_avro(one.data) for one in signatures]
    )


def signatures_to_avro(signatures: Signatures) -> list[dict[str, Any]]:
    """`Signature` records."""
    return [{"suite": s.suite, "keyId": s.key_id, "bytes": s.data} for s in signatures]


def signatures_from_avro(records: list[dict[str, Any]]) -> Signatures:
    """The reverse of `signatures_to_avro`."""
    return tuple([Signature(r["suite"], KeyId(r["keyId"]), r["bytes"]) for r in records])


def one_ed25519_from_avro(data: bytes, at: int) -> Signatures | None:
    """The list of one Ed25519 signature whose Avro bytes begin at `at`; None when another list, or
    none, begins there. Nearly every list is such a one: 02 02, key id, 80 01, 64 bytes, 00.
    """
    if (
        data[at : at + 2] == b"\x02\x02"
        and data[at + 34 : at + 36] == b"\x80\x01"
        and data[at + 100 : at + 101] == b"\x00"
    ):
        key_id_bytes = KeyId(data[at + 2 : at + 34])
        return (Signature(ED25519, key_id_bytes, data[at + 36 : at + 100]),)
    return None


def signatures_bytes(signatures: Signatures) -> bytes:
    """The hashed form of a list: suite, key id, variable signature, for each. `Malformed` for a
    suite that is no byte.
    """
    if not all(0 <= s.suite <= 255 for s in signatures):
        raise Malformed("signatures: expected suites of one byte")
    return b"".join([u8(s.suite) + s.key_id + variable(s.data) for s in signatures])


def signatures_from_bytes(data: bytes) -> Signatures:
    """The reverse of `signatures_bytes`; `Malformed` on a broken length."""
    signatures = []
    while data:
        length = int.from_bytes(data[33:37], "big")
        if len(data) < 37 + length:
            raise Malformed(f"signatures: expected {37 + length} bytes, got {len(data)}")
        signatures.append(Signature(data[0], KeyId(data[1:33]), data[37 : 37 + length]))
        data = data[37 + length :]
    return tuple(signatures)


# Printed forms -------------------------------------------------------------------------------


def format_key(part: PublicKey) -> str:
    """`ed25519-` and lower-case hex."""
    return f"{SUITE_NAMES[part.suite]}-{part.data.hex()}"


def parse_key(text: str) -> PublicKey:
    """The reverse of `format_key`; `Malformed` on anything it would not write."""
    name, _, digits = text.partition("-")
    suite = next((number for number, known in SUITE_NAMES.items() if known == name), None)
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        data = b""
    if suite is None or data.hex() != digits or _PUBLIC_BYTES.get(suite) != len(data):
        raise Malformed(f"key: expected ed25519- and 64 lower-case hex digits, got {text[:80]!r}")
    return PublicKey(suite, data)
