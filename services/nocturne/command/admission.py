"""Admit a command: is it one at all. Pure.

Rules: docs/spec/services.md, command. Refused here is only what is not a command yet; whatever is
well-formed is published and gets its disposition from the validators, good or bad.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from nocturne.core.commands import (
    EXPECTED_SEQUENCE_MAX,
    KIND_VERSION_MAX,
    decode_signed_command,
    hash_command,
)
from nocturne.core.encoding import TIME_MAX
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import CommandId, Hash, is_content_type, is_type_name
from nocturne.core.topics import PREFIX_BYTES


@dataclass(slots=True)
class Admitted:
    """What publishing needs of a well-formed command."""

    session: bytes
    command_id: CommandId
    command_hash: Hash
    opener: bytes | None
    """Who says to open the session, when the command does."""


def admit(data: bytes, record_bytes_max: int) -> Admitted:
    """The command in `data`; `Malformed` when it is none, or larger than any record may be."""
    if len(data) + PREFIX_BYTES > record_bytes_max:
        raise Malformed(
            f"signed command: expected at most {record_bytes_max - PREFIX_BYTES} bytes, "
            f"got {len(data)}"
        )
    common = _scan(data)
    if common is not None:
        return common
    signed = decode_signed_command(data)
    command = signed.command
    return Admitted(
        command.session.encode("ascii"),
        command.command_id,
        signed.command_hash,
        None if command.opening is None else command.author,
    )


# The common shape, without building records ----------------------------------------------------
#
# One Ed25519 key, one signature: a third of the cost of decoding. Whatever else there is goes the
# long way, so that this decides nothing: what it accepts, `decode_signed_command` accepts.

_SESSION: Final = re.compile(rb"[A-Za-z0-9._:/@~-]{1,128}\Z")
# One key: array of one, suite 1, 32 bytes; then the end of the array.
_KEY_HEAD: Final = b"\x02\x02\x40"
# One signature: array of one, suite 1; key id; 64 bytes; then the end of the array.
_SIGNATURES_HEAD: Final = b"\x02\x02"
_SIGNATURE_LENGTH: Final = b"\x80\x01"
_SIGNATURES_BYTES: Final = 2 + 32 + 2 + 64 + 1
_DRAFTS_KNOWN_MAX: Final = 1024
_drafts_known: dict[bytes, None] = {}
"""Event type and content type, as encoded, that were found well-formed: there are few."""


def _scan(data: bytes) -> Admitted | None:
    """The command in `data` if it has the common shape and is well-formed, else None."""
    try:
        return _scan_whole(data)
    except IndexError:
        return None


def _scan_whole(data: bytes) -> Admitted | None:
    length, at = _natural(data, 32)
    session = data[at : at + length]
    author_at = at + length
    at = author_at + 32
    if len(session) != length or not _SESSION.match(session):
        return None
    if data[at : at + 3] != _KEY_HEAD or data[at + 35] != 0:
        return None
    at += 36
    command_id = data[at : at + 16]
    expected: int | None = None
    branch = data[at + 16]
    at += 17
    if branch == 2:
        expected, at = _natural(data, at)
    elif branch != 0:
        return None
    opener: bytes | None = None
    branch = data[at]
    at += 1
    if branch == 2:
        at = _scan_opening(data, at, expected)
        opener = data[author_at : author_at + 32]
    elif branch != 0:
        return None
    if at < 0 or (expected or 0) > EXPECTED_SEQUENCE_MAX:
        return None
    occurred_at, at = _natural(data, at)
    if occurred_at > TIME_MAX:
        return None
    count, at = _natural(data, at)
    at = _scan_drafts(data, at, count)
    if at < 0:
        return None
    end = _scan_rest(data, at, count)
    if end != len(data):
        return None
    return Admitted(session, CommandId(command_id), hash_command(data[:at]), opener)


def _scan_opening(data: bytes, at: int, expected: int | None) -> int:
    length, at = _natural(data, at)
    kind = data[at : at + length]
    version, at = _natural(data, at + length)
    fits = 1 <= version <= KIND_VERSION_MAX and expected in (None, 0)
    return at if fits and is_type_name(kind.decode("latin-1")) else -1


def _scan_drafts(data: bytes, at: int, count: int) -> int:
    if count < 1:
        return -1
    for _ in range(count):
        start = at
        length, at = _natural(data, at)
        middle = at + length
        length, at = _natural(data, middle)
        end = at + length
        draft = data[start:end]
        if draft not in _drafts_known and not _note_draft(draft, middle - start, at - start):
            return -1
        at = end + 32
    return at + 1 if data[at] == 0 else -1


def _note_draft(draft: bytes, middle: int, second: int) -> bool:
    """Whether the names are well-formed: `middle` ends the event type, `second` begins the content
    type.
    """
    _, first = _natural(draft, 0)
    event_type, content_type = draft[first:middle], draft[second:]
    if not is_type_name(event_type.decode("latin-1")):
        return False
    if not is_content_type(content_type.decode("latin-1")):
        return False
    if len(_drafts_known) >= _DRAFTS_KNOWN_MAX:
        _drafts_known.clear()
    _drafts_known[draft] = None
    return True


def _scan_rest(data: bytes, at: int, events: int) -> int:
    """Where the one signature and the payloads end; -1 if they have another shape."""
    if (
        data[at : at + 2] != _SIGNATURES_HEAD
        or data[at + 34 : at + 36] != _SIGNATURE_LENGTH
        or data[at + _SIGNATURES_BYTES - 1] != 0
    ):
        return -1
    count, at = _natural(data, at + _SIGNATURES_BYTES)
    if count != events:
        return -1
    for _ in range(count):
        length, at = _natural(data, at + 32)
        at += length
    return at + 1 if data[at] == 0 else -1


def _natural(data: bytes, at: int) -> tuple[int, int]:
    """A number of 0 or more in Avro's shortest form, and where it ends.

    `IndexError` on anything else, as at the end of the data: the long way will say what it is.
    """
    byte = data[at]
    if byte < 0x80:
        if byte & 1:
            raise IndexError
        return byte >> 1, at + 1
    zigzag = byte & 0x7F
    shift = 7
    while True:
        at += 1
        byte = data[at]
        zigzag |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 56:
            raise IndexError
    if byte == 0 or zigzag & 1:
        raise IndexError
    return zigzag >> 1, at + 1
