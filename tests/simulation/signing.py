"""Signatures by keyed hashes, behind the production encoders: forty times as fast as Ed25519.

Whoever has the public key could make them, as no liar of this world does for another's. What is
signed is what production signs: domain and ballot, from `core.certificates` and `core.blocks`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from nocturne.core.blocks import sign_proposal
from nocturne.core.certificates import Ballot
from nocturne.core.identifiers import Hash, KeyId
from nocturne.core.keys import Key, PublicKey, Signature, Signatures, Signer

SignVote = Callable[[Signer, Ballot], Signatures]


def digest_of(*parts: bytes) -> bytes:
    """32 bytes that stand for `parts`."""
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


def key_of(number: int) -> Key:
    """The key of the node `number`."""
    return (PublicKey(1, digest_of(b"key", number.to_bytes(4, "big"))),)


class KeyedSigner:
    """A `core.keys.Signer` whose signatures are keyed hashes."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._secret = key[0].data
        self._id = KeyId(self._secret)

    @property
    def key(self) -> Key:
        """The public key, and the secret."""
        return self._key

    def sign(self, domain_tag: bytes, message: bytes) -> Signatures:
        """One signature of `domain_tag` ‖ `message`."""
        return (Signature(1, self._id, digest_of(self._secret, domain_tag, message)),)


class Keyed:
    """The machine's `Scheme`."""

    def __init__(self, key: Key, sign_vote: SignVote) -> None:
        self._signer = KeyedSigner(key)
        self._sign_vote = sign_vote

    def sign_vote(self, ballot: Ballot) -> Signatures:
        """By this node."""
        return self._sign_vote(self._signer, ballot)

    def sign_proposal(self, digest: Hash) -> Signatures:
        """By this node."""
        return sign_proposal(self._signer, digest)

    @property
    def vote_signed(self) -> Callable[[Key, Ballot, Signatures], bool]:
        """Sign again and compare."""
        return self._vote_signed

    @property
    def proposal_signed(self) -> Callable[[Key, Hash, Signatures], bool]:
        """Sign again and compare."""
        return proposal_signed

    def _vote_signed(self, key: Key, ballot: Ballot, signatures: Signatures) -> bool:
        return signatures == self._sign_vote(KeyedSigner(key), ballot)


def proposal_signed(key: Key, digest: Hash, signatures: Signatures) -> bool:
    """Whether the leader with `key` proposed the block."""
    return signatures == sign_proposal(KeyedSigner(key), digest)
