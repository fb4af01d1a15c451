"""What callers may ask, checked and bounded; page tokens. Pure.

A page token is opaque to callers: base64url of a letter and where the next page begins. It is as
good as any text that a stranger sends, and is read no less strictly than the rest.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Final

from nocturne.core.encoding import INTEGER_MAX
from nocturne.core.events import Position
from nocturne.core.identifiers import SessionId, is_session_id
from nocturne.query.refusals import invalid

PAGE_SIZE: Final = 100
PAGE_SIZE_MAX: Final = 1000
TOKEN_CHARACTERS_MAX: Final = 256
INT4_MAX: Final = 2**31 - 1

_SESSION_PAGE: Final = b"s"
_RECEIPT_PAGE: Final = b"r"
_POSITION: Final = struct.Struct(">IIQ")


def session_of(text: str) -> SessionId:
    """A session id of the request."""
    if not is_session_id(text):
        raise invalid("session_id", "expected 1 to 128 of A-Z a-z 0-9 . _ : / @ ~ -")
    return SessionId(text)


def optional_session_of(text: str) -> SessionId | None:
    """As `session_of`; empty is none."""
    return session_of(text) if text else None


def prefix_of(text: str) -> str:
    """The beginning of session ids."""
    if text and not is_session_id(text):
        raise invalid("prefix", "expected up to 128 of A-Z a-z 0-9 . _ : / @ ~ -")
    return text


def natural(field: str, number: int) -> int:
    """A number from 0 to 2^53 - 1."""
    if not 0 <= number <= INTEGER_MAX:
        raise invalid(field, f"expected 0 to 2^53 - 1, got {number}")
    return number


def page_size_of(number: int) -> int:
    """1 to 1 000; 0 asks for 100."""
    if not 0 <= number <= PAGE_SIZE_MAX:
        raise invalid("page_size", f"expected 0 to {PAGE_SIZE_MAX}, got {number}")
    return number or PAGE_SIZE


def position_of(log_epoch: int, partition: int, offset: int) -> Position:
    """A position of the request."""
    if not (0 <= log_epoch <= INT4_MAX and 0 <= partition <= INT4_MAX):
        raise invalid("position", "expected a log epoch and a partition from 0 to 2^31 - 1")
    return Position(log_epoch, partition, natural("position.offset", offset))


def exactly(field: str, data: bytes, length: int) -> bytes:
    """A hash or an id of the request."""
    if len(data) != length:
        raise invalid(field, f"expected {length} bytes, got {len(data)}")
    return data


def session_token(last: SessionId) -> str:
    """The token of the page after the session `last`."""
    return _print(_SESSION_PAGE + last.encode("ascii"))


def session_after(token: str, prefix: str) -> str:
    """The session that the page follows, empty for the first page."""
    if not token:
        return ""
    data = _parse(token, _SESSION_PAGE)
    text = data.decode("ascii", "replace")
    if not is_session_id(text) or not text.startswith(prefix):
        raise invalid("page_token", "expected the next_page_token of the page before")
    return text


def receipt_token(last: Position) -> str:
    """The token of the page after the receipt at `last`."""
    return _print(_RECEIPT_PAGE + _POSITION.pack(last.log_epoch, last.partition, last.offset))


def receipt_after(token: str) -> Position:
    """The position that the page follows, before all for the first page."""
    if not token:
        return Position(-1, -1, -1)
    data = _parse(token, _RECEIPT_PAGE)
    if len(data) != _POSITION.size:
        raise invalid("page_token", "expected the next_page_token of the page before")
    return position_of(*_POSITION.unpack(data))


def _print(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _parse(token: str, letter: bytes) -> bytes:
    refused = invalid("page_token", "expected the next_page_token of the page before")
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise refused
    try:
        encoded = token.encode("ascii")
        data = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as fault:
        raise refused from fault
    if not data.startswith(letter) or _print(data) != token:
        raise refused
    return data[len(letter) :]
