"""Names of a source as session ids, reversibly. Pure.

Rules: docs/guides/importing.md, names. A session id may hold fewer characters than a name. What it
may not hold, and `@` itself, is written as `@` and two hex digits for each byte of its UTF-8:
`Case 4/a` becomes `Case@204@2fa`. `/` stands between parts, so inside a part it is written so too.
"""

from __future__ import annotations

import re
from typing import Final

from nocturne.core.encoding import sha256
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import SessionId, is_session_id

SESSION_ID_CHARACTERS_MAX: Final = 128
PREFIX_CHARACTERS_MAX: Final = 100
"""Leaves room for the mark of a name that was cut."""
NAME_CHARACTERS_MAX: Final = 64 * 1024

_CUT: Final = "@-"
"""Ends what is left of a name that is too long; 16 digits of the whole name's SHA-256 follow."""
_DIGITS: Final = 16
_NUMBERED: Final = "@:"
"""Begins the name of what has none: its number in the source follows."""
_ESCAPED: Final = re.compile(rb"@([0-9a-f]{2})")
_ESCAPED_FORM: Final = re.compile(r"(?:[A-Za-z0-9._:/-]|@[0-9a-f]{2})*\Z")
_PLAIN_IN_PART: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"
)
_PLAIN: Final = _PLAIN_IN_PART | frozenset(b"/")
_CUT_ESCAPE: Final = re.compile(r"@[0-9a-f]?\Z")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._:/@-]*\Z")


def escaped(name: str, *, is_part: bool = True) -> str:
    """`name` in the characters of a session id; `/` stays unless it `is_part`."""
    plain = _PLAIN_IN_PART if is_part else _PLAIN
    return "".join(
        chr(byte) if byte in plain else f"@{byte:02x}"
        for byte in name.encode("utf-8", "surrogateescape")
    )


def unescaped(text: str) -> str:
    """The reverse of `escaped`; `Malformed` for what it would not write."""
    if len(text) > 6 * NAME_CHARACTERS_MAX or _ESCAPED_FORM.match(text) is None:
        raise Malformed(f"name: expected one written by an import, got {text[:80]!r}")
    data = _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode("ascii"))
    return data.decode("utf-8", "surrogateescape")


def numbered(number: int) -> str:
    """What stands for the name of the source's nameless thing `number`, already escaped."""
    return f"{_NUMBERED}{number}"


def is_prefix(text: str) -> bool:
    """Session ids may begin with this."""
    return len(text) <= PREFIX_CHARACTERS_MAX and _PREFIX.match(text) is not None


def session_of(prefix: str, name: str) -> SessionId:
    """The session of a name that is escaped already; cut, and told apart by its hash, if it does
    not fit."""
    text = prefix + cut(name, SESSION_ID_CHARACTERS_MAX - len(prefix))
    assert is_session_id(text), text
    return SessionId(text)


def prefix_of(kind: str, name: str) -> str:
    """`<kind>/<name>/`, the name escaped and cut to what a prefix may have."""
    room = PREFIX_CHARACTERS_MAX - len(kind) - 2
    return f"{kind}/{cut(escaped(name), room)}/"


def cut(name: str, room: int) -> str:
    """An escaped name within `room` characters, at least 18: cut, it carries its hash."""
    if len(name) <= room:
        return name
    digits = sha256(name.encode("ascii")).hex()[:_DIGITS]
    kept = _CUT_ESCAPE.sub("", name[: room - len(_CUT) - _DIGITS])
    return f"{kept}{_CUT}{digits}"
