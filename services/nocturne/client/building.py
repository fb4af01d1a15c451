"""Put commands together: ids that rise, salted payloads, signatures. Pure.

Rules: docs/spec/ledger.md §2. Time and randomness are arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nocturne.core.commands import (
    Command,
    EventDraft,
    Opening,
    Payload,
    SignedCommand,
    payload_hash,
    sign_command,
)
from nocturne.core.identifiers import AuthorId, CommandId, LedgerId, SessionId
from nocturne.core.keys import Signer, key_id
from nocturne.core.strict_json import JsonValue, canonical_json

SALT_BYTES: Final = 32
ID_RANDOM_BYTES: Final = 10
JSON: Final = "application/json"

_LOW_BITS: Final = 62
_MIDDLE_BITS: Final = 12
_RANDOM_BITS: Final = _LOW_BITS + _MIDDLE_BITS


@dataclass(frozen=True, slots=True)
class Author:
    """Who signs: the id of the author's first key, for ever, and the key that signs now."""

    id: AuthorId
    signer: Signer

    @staticmethod
    def of(signer: Signer) -> Author:
        """The author whose first key this is."""
        return Author(AuthorId(key_id(signer.key)), signer)


@dataclass(frozen=True, slots=True)
class Draft:
    """An event to append: its type, and its payload with salt."""

    event_type: str
    payload: Payload
    content_type: str = JSON


def json_payload(value: JsonValue, salt: bytes) -> Payload:
    """`value` in RFC 8785 form, salted. The salt is 32 random bytes, never used twice: with it
    published, erasing the payload later would not keep it from being guessed.
    """
    return data_payload(canonical_json(value), salt)


def data_payload(data: bytes, salt: bytes) -> Payload:
    """`data` as it is, salted as `json_payload`."""
    if len(salt) != SALT_BYTES:
        raise ValueError(f"salt: expected {SALT_BYTES} bytes, got {len(salt)}")
    return Payload(salt, data)


class IdMint:
    """UUIDv7 ids (RFC 9562 §5.7), each above the last one, whatever the clock does.

    A ledger keeps the largest ids of a (session, author): an id that is not above the others can be
    too old to be looked at.
    """

    def __init__(self) -> None:
        self._last = 0

    def mint(self, now_ms: int, random: bytes) -> CommandId:
        """The next id, from ms since 1970 UTC and 10 random bytes."""
        if len(random) != ID_RANDOM_BYTES:
            raise ValueError(f"random: expected {ID_RANDOM_BYTES} bytes, got {len(random)}")
        drawn = int.from_bytes(random, "big") >> (8 * ID_RANDOM_BYTES - _RANDOM_BITS)
        self._last = max(now_ms << _RANDOM_BITS | drawn, self._last + 1)
        return CommandId(_uuid(self._last))


def _uuid(number: int) -> bytes:
    """122 bits with version 7 and variant 10 put between them."""
    low = number & ((1 << _LOW_BITS) - 1)
    middle = number >> _LOW_BITS & ((1 << _MIDDLE_BITS) - 1)
    time = number >> _RANDOM_BITS
    return (time << 80 | 7 << 76 | middle << 64 | 2 << 62 | low).to_bytes(16, "big")


def build(
    ledger_id: LedgerId,
    author: Author,
    session: str,
    drafts: Sequence[Draft],
    command_id: CommandId,
    occurred_at: int,
    *,
    opening: Opening | None = None,
    expected_sequence: int | None = None,
) -> SignedCommand:
    """A signed command. What is not well-formed is refused by the ledger, with a receipt or before
    it.
    """
    command = Command(
        ledger_id,
        SessionId(session),
        author.id,
        author.signer.key,
        command_id,
        expected_sequence,
        opening,
        occurred_at,
        tuple(EventDraft(d.event_type, d.content_type, payload_hash(d.payload)) for d in drafts),
    )
    return sign_command(command, tuple(draft.payload for draft in drafts), author.signer)
