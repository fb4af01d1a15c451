"""How two validators prove to each other who they are, and how they know it of all that follows.

Rules: docs/spec/peers.md §2, §3. Pure: who uses it brings 32 secret random bytes for each stream.

The caller says Hello (its key, a fresh X25519 share), the called answers with its own and signs
both, the caller signs both back. Each signature covers the ledger, the signer's role, both keys and
both shares, so it is of no other stream, end or ledger. From the shares both derive a key for each
direction, and every envelope after carries its number and a MAC under it.

What that gives. *Without TLS*: whoever stands between can read all of it, hold it back and cut the
stream, and pass a whole handshake on; but it has neither share's secret, so it can say nothing in
either's name, alter nothing, repeat nothing and leave nothing out in the middle unseen. *With TLS*
nobody between can read it either, and who calls knows that the address it called is of an
authority it trusts. Votes, proposals and certificates are signed beside all this.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from hmac import compare_digest
from typing import Final

from google.protobuf.message import DecodeError
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from nocturne.core.encoding import domain, sha256, u8, u64, variable
from nocturne.core.errors import Malformed, PeerFault
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import (
    Key,
    Signatures,
    Signer,
    key_bytes,
    key_from_bytes,
    signatures_bytes,
    signatures_from_bytes,
    verify,
)
from nocturne.wire.consensus.v1 import exchange_pb2

SHARE_BYTES: Final = 32
SECRET_BYTES: Final = 32
HANDSHAKE_BYTES_MAX: Final = 16 * 1024
"""Of one message: a key of two suites and its signatures are 6 kB."""
VALUES_MAX: Final = 512
"""Of one envelope."""

_HANDSHAKE: Final = domain("nocturne/peer-handshake/v1")
_KEYS: Final = domain("nocturne/peer-keys/v1")
_ENVELOPE: Final = domain("nocturne/peer-envelope/v1")


class Role(IntEnum):
    """An end of a stream, as it stands in what is signed."""

    CALLER = 1
    CALLED = 2


@dataclass(frozen=True, slots=True)
class End:
    """What an end says of itself: believed only once it is signed."""

    key: Key
    share: bytes


class Calling:
    """The caller's side: `hello`, then `hear_hello`, then `proof`, then `seals`."""

    def __init__(self, ledger_id: LedgerId, signer: Signer, secret: bytes) -> None:
        self._ledger_id = ledger_id
        self._signer = signer
        self._secret = secret
        self.own = End(signer.key, crypto_scalarmult_base(secret))

    def hello(self) -> bytes:
        """The first message."""
        return _hello(self._ledger_id, self.own, ())

    def hear_hello(self, data: bytes) -> Key:
        """The called's key, proved; `PeerFault` when it is not, or is the caller's own."""
        other, signatures = _read_hello(self._ledger_id, data)
        if other.key == self.own.key:
            raise PeerFault("peer: answers with the key of the one who calls")
        self._statement = _statement(self._ledger_id, self.own, other)
        self._other = other
        _check(other.key, Role.CALLED, self._statement, signatures)
        return other.key

    def proof(self) -> bytes:
        """The last message of the handshake."""
        signatures = self._signer.sign(_HANDSHAKE, _of(Role.CALLER, self._statement))
        return _proof(signatures)

    def seals(self) -> tuple[Sealer, Opener]:
        """For what is said and what is heard."""
        return _seals(Role.CALLER, self._secret, self._other.share, self._statement)


class Called:
    """The called's side: `hear_hello`, then `hello`, then `hear_proof`, then `seals`. It signs
    nothing before its host has looked at the key that the caller says it has.
    """

    def __init__(self, ledger_id: LedgerId, signer: Signer, secret: bytes) -> None:
        self._ledger_id = ledger_id
        self._signer = signer
        self._secret = secret
        self._own = End(signer.key, crypto_scalarmult_base(secret))

    def hear_hello(self, data: bytes) -> End:
        """Who the caller says it is; not proved yet. `PeerFault` when it is no Hello of a caller
        on this ledger.
        """
        other, signatures = _read_hello(self._ledger_id, data)
        if signatures:
            raise PeerFault("peer hello: expected no signature from the caller")
        self._other = other
        self._statement = _statement(self._ledger_id, other, self._own)
        return other

    def hello(self) -> bytes:
        """The answer, with the proof of one's own key."""
        signatures = self._signer.sign(_HANDSHAKE, _of(Role.CALLED, self._statement))
        return _hello(self._ledger_id, self._own, signatures)

    def hear_proof(self, data: bytes) -> None:
        """`PeerFault` unless the caller has the key that it said."""
        envelope = _read(data, HANDSHAKE_BYTES_MAX)
        if envelope.WhichOneof("part") != "proof":
            raise PeerFault("peer: expected a proof")
        signatures = signatures_from_bytes(envelope.proof.signatures)
        _check(self._other.key, Role.CALLER, self._statement, signatures)

    def seals(self) -> tuple[Sealer, Opener]:
        """For what is said and what is heard."""
        return _seals(Role.CALLED, self._secret, self._other.share, self._statement)


class Sealer:
    """Makes the envelopes of one direction."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def seal(self, content: exchange_pb2.Content) -> bytes:
        """The next envelope."""
        data = content.SerializeToString()
        self._number += 1
        mac = _mac(self._key, self._number, data)
        sealed = exchange_pb2.Sealed(content=data, mac=mac)
        return exchange_pb2.Envelope(sealed=sealed).SerializeToString()


class Opener:
    """Reads the envelopes of one direction."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def open(self, data: bytes) -> exchange_pb2.Content:
        """What the next envelope holds; `PeerFault` when it is not the next one of the peer, and
        then the stream is worth nothing any more.
        """
        envelope = _read(data, None)
        if envelope.WhichOneof("part") != "sealed":
            raise PeerFault("peer: expected a sealed envelope")
        content = envelope.sealed.content
        expected = _mac(self._key, self._number + 1, content)
        if not compare_digest(expected, envelope.sealed.mac):
            raise PeerFault(f"peer: envelope {self._number + 1} is not sealed by the peer")
        self._number += 1
        found = exchange_pb2.Content()
        try:
            found.ParseFromString(content)
        except DecodeError as fault:
            raise Malformed(f"peer content: {fault}") from fault
        if len(found.values) > VALUES_MAX:
            raise Malformed(
                f"peer content: expected at most {VALUES_MAX} values, got {len(found.values)}"
            )
        return found


# What is signed, and what follows from it ------------------------------------------------------


def _statement(ledger_id: LedgerId, caller: End, called: End) -> bytes:
    """The same for both ends."""
    return (
        ledger_id
        + variable(key_bytes(caller.key))
        + variable(key_bytes(called.key))
        + caller.share
        + called.share
    )


def _of(role: Role, statement: bytes) -> bytes:
    return u8(role) + statement


def _check(key: Key, role: Role, statement: bytes, signatures: Signatures) -> None:
    if not verify(key, _HANDSHAKE, _of(role, statement), signatures):
        raise PeerFault("peer: its key did not sign this handshake")


def _seals(role: Role, secret: bytes, share: bytes, statement: bytes) -> tuple[Sealer, Opener]:
    try:
        common = crypto_scalarmult(secret, share)
    except CryptoError as fault:
        # Of small order: the common secret would be nobody's (RFC 7748 §6.1).
        raise PeerFault("peer: its share is no good") from fault
    own, other = [
        sha256(_KEYS + u8(one) + variable(common) + variable(statement))
        for one in (role, _other(role))
    ]
    return Sealer(own), Opener(other)


def _other(role: Role) -> Role:
    return Role.CALLED if role is Role.CALLER else Role.CALLER


def _mac(key: bytes, number: int, content: bytes) -> bytes:
    return hashlib.blake2b(_ENVELOPE + u64(number) + content, key=key, digest_size=32).digest()


# Messages --------------------------------------------------------------------------------------


def _hello(ledger_id: LedgerId, end: End, signatures: Signatures) -> bytes:
    hello = exchange_pb2.Hello(
        ledger_id=ledger_id,
        key=key_bytes(end.key),
        share=end.share,
        signatures=signatures_bytes(signatures),
    )
    return exchange_pb2.Envelope(hello=hello).SerializeToString()


def _proof(signatures: Signatures) -> bytes:
    proof = exchange_pb2.Proof(signatures=signatures_bytes(signatures))
    return exchange_pb2.Envelope(proof=proof).SerializeToString()


def _read_hello(ledger_id: LedgerId, data: bytes) -> tuple[End, Signatures]:
    envelope = _read(data, HANDSHAKE_BYTES_MAX)
    if envelope.WhichOneof("part") != "hello":
        raise PeerFault("peer: expected a hello")
    hello = envelope.hello
    if hello.ledger_id != ledger_id:
        raise PeerFault("peer: is of another ledger")
    if len(hello.share) != SHARE_BYTES:
        raise Malformed(f"peer share: expected {SHARE_BYTES} bytes, got {len(hello.share)}")
    return End(key_from_bytes(hello.key), hello.share), signatures_from_bytes(hello.signatures)


def _read(data: bytes, bytes_max: int | None) -> exchange_pb2.Envelope:
    if bytes_max is not None and len(data) > bytes_max:
        raise Malformed(f"peer handshake: expected at most {bytes_max} bytes, got {len(data)}")
    envelope = exchange_pb2.Envelope()
    try:
        envelope.ParseFromString(data)
    except DecodeError as fault:
        raise Malformed(f"peer envelope: {fault}") from fault
    return envelope
