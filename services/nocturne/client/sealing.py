"""Sealed payloads for authors and readers: seal before signing, open what one has the key of. Pure.

Rules: docs/spec/ledger.md §7. A subject is whoever or whatever a payload is about. It has a key of
its own, so that destroying the key erases what is about it, and nothing else. No service of the
ledger ever has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from nocturne.client.building import Draft
from nocturne.core.commands import (
    SEALED_CONTENT_TYPE,
    Payload,
    SignedCommand,
    encode_signed_command,
)
from nocturne.core.errors import Malformed, NocturneError
from nocturne.core.events import Event
from nocturne.core.genesis import Limits
from nocturne.core.sealing import (
    KEY_BYTES,
    SUBJECT_KEY_ID_BYTES,
    Unsealed,
    seal,
    subject_key_id_of,
    unseal,
)
from nocturne.core.topics import PREFIX_BYTES

SUBJECT_RANDOM_BYTES: Final = SUBJECT_KEY_ID_BYTES + KEY_BYTES


class TooLarge(NocturneError):  # noqa: N818
    """A command with sealed payloads is larger than the ledger takes."""


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """The key of one subject, and the id by which sealed payloads name it."""

    id: bytes
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if (len(self.id), len(self.key)) != (SUBJECT_KEY_ID_BYTES, KEY_BYTES):
            raise ValueError("subject key: expected an id of 16 bytes and a key of 32")


def make_subject_key(random: bytes) -> SubjectKey:
    """A new key from 48 random bytes; its id is a UUIDv4 (RFC 9562 §5.4)."""
    if len(random) != SUBJECT_RANDOM_BYTES:
        raise ValueError(f"random: expected {SUBJECT_RANDOM_BYTES} bytes, got {len(random)}")
    identity = bytearray(random[:SUBJECT_KEY_ID_BYTES])
    identity[6] = (identity[6] & 0x0F) | 0x40
    identity[8] = (identity[8] & 0x3F) | 0x80
    return SubjectKey(bytes(identity), random[SUBJECT_KEY_ID_BYTES:])


class SubjectKeys(Protocol):
    """The subject keys that a reader has."""

    def keys_of(self, subject_key_id: bytes) -> Sequence[SubjectKey]:
        """Those under an id; more than one where a stranger gave out another key under it."""

    def was_destroyed(self, subject_key_id: bytes) -> bool:
        """A key of this id was here, and was destroyed."""


class KeyRing:
    """Subject keys in memory."""

    def __init__(self, keys: Iterable[SubjectKey] = ()) -> None:
        self._keys: dict[bytes, list[SubjectKey]] = {}
        for one in keys:
            self._keys.setdefault(one.id, []).append(one)

    def keys_of(self, subject_key_id: bytes) -> Sequence[SubjectKey]:
        """See `SubjectKeys`."""
        return self._keys.get(subject_key_id, ())

    def was_destroyed(self, subject_key_id: bytes) -> bool:
        """Memory remembers no destroyed keys."""
        return False


# Writing ---------------------------------------------------------------------------------------


def sealed_draft(draft: Draft, key: SubjectKey, nonce: bytes) -> Draft:
    """`draft` with its payload and content type sealed. The event type stays readable. `nonce` is
    24 random bytes, new for every payload.
    """
    sealed = seal(Unsealed(draft.content_type, draft.payload.data), key.id, key.key, nonce)
    return Draft(draft.event_type, Payload(draft.payload.salt, sealed), SEALED_CONTENT_TYPE)


def check_sealed_size(signed: SignedCommand, limits: Limits) -> None:
    """`TooLarge` unless the ledger takes a command of this size; sealing makes it larger."""
    size = PREFIX_BYTES + len(encode_signed_command(signed))
    if size > limits.command_bytes_max:
        raise TooLarge(
            f"sealed payload: its command has {size} bytes once it is sealed, and this ledger "
            f"takes {limits.command_bytes_max}: make the payload smaller, or split it"
        )


# Reading ---------------------------------------------------------------------------------------


class Why(Enum):
    """Why a payload cannot be read."""

    SEALED = "sealed"
    ERASED = "erased"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Opened:
    """A payload and its content type; `subject_key` opened it, None when it was never sealed."""

    content_type: str
    data: bytes
    subject_key: bytes | None


@dataclass(frozen=True, slots=True)
class Closed:
    """SEALED: no key of it is here. ERASED: its key was destroyed here. BROKEN: it is no sealed
    payload, whatever its content type says, and nobody can open it.
    """

    why: Why
    subject_key: bytes | None


def payload_of(event: Event, keys: SubjectKeys) -> Opened | Closed:
    """The payload of an event, as one with these keys reads it."""
    header, data = event.header, event.payload.data
    if header.content_type != SEALED_CONTENT_TYPE:
        return Opened(header.content_type, data, None)
    try:
        identity = subject_key_id_of(data)
    except Malformed:
        return Closed(Why.BROKEN, None)
    for one in keys.keys_of(identity):
        try:
            found = unseal(data, one.key)
        except Malformed:
            # Sealed under another key of this id, or altered before its author signed it.
            continue
        return Opened(found.content_type, found.data, identity)
    return Closed(Why.ERASED if keys.was_destroyed(identity) else Why.SEALED, identity)
