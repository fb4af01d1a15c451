"""What the nodes of a world sign with: keyed hashes, forty times as fast as Ed25519, or Ed25519.

What is signed is what production signs: domain and ballot, from `core.certificates` and
`core.blocks`. Whoever has the public key could make a keyed hash, as no liar of a world does for
another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from nocturne.consensus.quorum.messages import Scheme, Suites
from nocturne.core.blocks import sign_proposal
from nocturne.core.certificates import Ballot
from nocturne.core.identifiers import Hash, KeyId
from nocturne.core.keys import Ed25519Signer, Key, PublicKey, Signature, Signatures, Signer

SignVote = Callable[[Signer, Ballot], Signatures]


def digest_of(*parts: bytes) -> bytes:
    """32 bytes that stand for `parts`."""
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


class Signing(Protocol):
    """The keys of a world's nodes, and how they sign."""

    def key_of(self, number: int) -> Key:
        """The public key of the node `number`."""

    def scheme_of(self, number: int) -> Scheme:
        """What its machine signs and checks with."""


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


class KeyedHashes:
    """A signature is made once: it follows from what is signed, and is checked by everyone, that of
    a vote alone and in each certificate.
    """

    def __init__(self, sign_vote: SignVote) -> None:
        """`sign_vote` is `core.certificates`' encoder, or one with a bug."""
        self._sign_vote = sign_vote
        self._votes: dict[tuple[bytes, Ballot], Signatures] = {}
        self._proposals: dict[tuple[bytes, Hash], Signatures] = {}

    def key_of(self, number: int) -> Key:
        """As `Signing` says."""
        return (PublicKey(1, digest_of(b"key", number.to_bytes(4, "big"))),)

    def scheme_of(self, number: int) -> Scheme:
        """As `Signing` says."""
        return Keyed(self.key_of(number), self)

    def vote(self, key: Key, ballot: Ballot) -> Signatures:
        """Of `ballot`, by the holder of `key`."""
        place = (key[0].data, ballot)
        found = self._votes.get(place)
        if found is None:
            found = self._votes[place] = self._sign_vote(KeyedSigner(key), ballot)
        return found

    def vote_signed(self, key: Key, ballot: Ballot, signatures: Signatures) -> bool:
        """Whether the holder of `key` cast it: sign again and compare."""
        return signatures == self.vote(key, ballot)

    def proposal(self, key: Key, digest: Hash) -> Signatures:
        """Of the block `digest`, by the holder of `key`."""
        place = (key[0].data, digest)
        found = self._proposals.get(place)
        if found is None:
            found = self._proposals[place] = sign_proposal(KeyedSigner(key), digest)
        return found

    def proposal_signed(self, key: Key, digest: Hash, signatures: Signatures) -> bool:
        """Whether the leader with `key` proposed the block."""
        return signatures == self.proposal(key, digest)


class Keyed:
    """The machine's `Scheme`, of one node."""

    def __init__(self, key: Key, hashes: KeyedHashes) -> None:
        self._key = key
        self._hashes = hashes
        self.vote_signed = hashes.vote_signed
        self.proposal_signed = hashes.proposal_signed

    def sign_vote(self, ballot: Ballot) -> Signatures:
        """By this node."""
        return self._hashes.vote(self._key, ballot)

    def sign_proposal(self, digest: Hash) -> Signatures:
        """By this node."""
        return self._hashes.proposal(self._key, digest)


class Ed25519Keys:
    """What production runs: every signature is made and checked."""

    def key_of(self, number: int) -> Key:
        """As `Signing` says."""
        return signer_of(number).key

    def scheme_of(self, number: int) -> Scheme:
        """As `Signing` says."""
        return Suites(signer_of(number))


def signer_of(number: int) -> Ed25519Signer:
    """Of the node with this number."""
    return Ed25519Signer(digest_of(b"seed", number.to_bytes(4, "big")))
