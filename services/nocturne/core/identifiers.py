"""Names and numbers that identify things, their one printed form, and their limits.

Rules: docs/spec/encoding.md §4.
"""

from __future__ import annotations

import re
from typing import Final, NewType
from uuid import UUID

from nocturne.core.encoding import domain, sha256, u32, variable
from nocturne.core.errors import Malformed

Hash = NewType("Hash", bytes)
LedgerId = NewType("LedgerId", bytes)
AuthorId = NewType("AuthorId", bytes)
KeyId = NewType("KeyId", bytes)
CommandId = NewType("CommandId", bytes)
EventId = NewType("EventId", bytes)
SessionId = NewType("SessionId", str)

LEDGER_SESSION: Final = SessionId("~ledger")
"""The reserved session of ledger-wide state."""

_SESSION: Final = re.compile(r"[A-Za-z0-9._:/@~-]{1,128}\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9._:/-]{1,128}\Z")
_CONTENT_TYPE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,126}[\x21-\x7e])?\Z")
_HASH: Final = re.compile(r"sha256-([0-9a-f]{64})\Z")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")

_SESSION_KEY: Final = domain("nocturne/session/v1")
_EVENT_ID: Final = domain("nocturne/event-id/v1")


def is_session_id(text: str) -> bool:
    """1 to 128 of `[A-Za-z0-9._:/@~-]`; only `~ledger` may exist among those with a `~`."""
    return _SESSION.match(text) is not None


def is_reserved_session(session: str) -> bool:
    """`~` is reserved for the ledger itself."""
    return "~" in session


def is_type_name(text: str) -> bool:
    """Event types, kinds: 1 to 128 of `[A-Za-z0-9._:/-]`."""
    return _NAME.match(text) is not None


def is_content_type(text: str) -> bool:
    """1 to 128 printable ASCII characters, no space at either end."""
    return _CONTENT_TYPE.match(text) is not None


def session_key(ledger_id: LedgerId, session: SessionId) -> Hash:
    """Key of a session in the state tree, and the previousHash of its first event."""
    return Hash(sha256(_SESSION_KEY + ledger_id + variable(session.encode("ascii"))))


def event_id(ledger_id: LedgerId, command_hash: Hash, index: int) -> EventId:
    """UUIDv8 (RFC 9562 §5.8) of the ledger, the command and the event's index in it."""
    digest = bytearray(sha256(_EVENT_ID + ledger_id + command_hash + u32(index))[:16])
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return EventId(bytes(digest))


def format_hash(value: bytes) -> str:
    """`sha256-` and 64 lower-case hex digits."""
    return "sha256-" + value.hex()


def parse_hash(text: str) -> Hash:
    """The reverse of `format_hash`; `Malformed` on anything it would not write."""
    found = _HASH.match(text)
    if found is None:
        raise Malformed(f"hash: expected sha256- and 64 lower-case hex digits, got {text[:80]!r}")
    return Hash(bytes.fromhex(found[1]))


def is_hash(text: str) -> bool:
    """Whether `parse_hash` takes it."""
    return _HASH.match(text) is not None


def format_id(value: bytes) -> str:
    """A 128-bit id in the printed form of RFC 9562."""
    return str(UUID(bytes=value))


def parse_id(text: str) -> bytes:
    """The reverse of `format_id`; `Malformed` on anything it would not write."""
    if _UUID.match(text) is None:
        raise Malformed(f"id: expected a lower-case UUID, got {text[:80]!r}")
    return UUID(text).bytes
