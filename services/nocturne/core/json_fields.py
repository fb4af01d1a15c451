"""Read the members of JSON objects, each as what it must be, and say in words what is not.

`Malformed` names the member by its path: `line.events.sequenceNumber: expected an integer …`.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from nocturne.core.encoding import INTEGER_MAX, TIME_MAX
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, SessionId, is_session_id, parse_hash
from nocturne.core.strict_json import JsonValue

JsonObject: TypeAlias = dict[str, JsonValue]

_SHOWN_MAX: Final = 80
_BEFORE: Final = 16
"""Characters of what is alike, before what differs."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z\Z", re.ASCII)


def format_time(ms: int) -> str:
    """RFC 3339, UTC, milliseconds: `2026-11-21T08:59:00.000Z`; `Malformed` outside 1970 to 9999."""
    if not 0 <= ms <= TIME_MAX:
        raise Malformed(f"time: expected 0 to {TIME_MAX} ms, got {ms}")
    moment = _EPOCH + timedelta(milliseconds=ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def parse_time(text: str) -> int:
    """The reverse of `format_time`, ms since 1970; `Malformed` on anything it would not write."""
    found = _TIME.match(text)
    if found is None:
        raise Malformed(f"time: expected like 2026-11-21T08:59:00.000Z, got {text[:_SHOWN_MAX]!r}")
    try:
        moment = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    except ValueError as fault:
        raise Malformed(f"time: no such date: {text!r}") from fault
    ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    if ms < 0:
        raise Malformed(f"time: expected one since 1970, got {text!r}")
    return ms


def base64_text(data: bytes) -> str:
    """Base64 with padding. RFC 4648 §4."""
    return base64.b64encode(data).decode("ascii")


class Fields:
    """The members of one JSON object, each read as what it must be; `Malformed` names it."""

    __slots__ = ("_members", "_where")

    def __init__(self, members: JsonObject, where: str) -> None:
        self._members = members
        self._where = where

    @staticmethod
    def of(value: JsonValue, where: str) -> Fields:
        """The object `value`."""
        if not isinstance(value, dict):
            raise Malformed(f"{where}: expected an object, got {shown(value)}")
        return Fields(value, where)

    def only(self, *names: str) -> None:
        """There is no member but these."""
        others = sorted(self._members.keys() - set(names))
        if others:
            raise Malformed(f"{self._where}: expected no member {shown(others[0])}")

    @property
    def names(self) -> frozenset[str]:
        """Of all members."""
        return frozenset(self._members)

    def has(self, name: str) -> bool:
        """There is such a member."""
        return name in self._members

    def value(self, name: str) -> JsonValue:
        """Any value."""
        if name not in self._members:
            raise Malformed(f"{self._where}: expected a member {name}, got none")
        return self._members[name]

    def text(self, name: str) -> str:
        """A string."""
        value = self.value(name)
        if not isinstance(value, str):
            raise self._unexpected(name, "a string", value)
        return value

    def natural(self, name: str) -> int:
        """An integer, 0 to 2^53 - 1."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INTEGER_MAX:
            raise self._unexpected(name, "an integer from 0 to 2^53 - 1", value)
        return value

    def optional_natural(self, name: str) -> int | None:
        """An integer or null."""
        return None if self.value(name) is None else self.natural(name)

    def boolean(self, name: str) -> bool:
        """true or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self._unexpected(name, "true or false", value)
        return value

    def hash(self, name: str) -> Hash:
        """A hash as `format_hash` prints it."""
        return parse_hash(self.text(name))

    def time(self, name: str) -> int:
        """A time as `format_time` prints it, ms."""
        return parse_time(self.text(name))

    def session(self, name: str) -> SessionId:
        """A session id."""
        text = self.text(name)
        if not is_session_id(text):
            raise self._unexpected(name, "a session id", text)
        return SessionId(text)

    def data(self, name: str) -> bytes:
        """Bytes in base64 (RFC 4648 §4, with padding)."""
        text = self.text(name)
        try:
            return base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError) as fault:
            raise self._unexpected(name, "base64", text) from fault

    def optional_data(self, name: str) -> bytes | None:
        """Bytes or null."""
        return None if self.value(name) is None else self.data(name)

    def object(self, name: str) -> Fields:
        """An object."""
        return Fields.of(self.value(name), f"{self._where}.{name}")

    def optional_object(self, name: str) -> Fields | None:
        """An object or null."""
        return None if self.value(name) is None else self.object(name)

    def objects(self, name: str, count_max: int | None) -> list[Fields]:
        """A list of objects."""
        where = f"{self._where}.{name}"
        return [Fields.of(one, where) for one in self._list(name, count_max)]

    def texts(self, name: str, count_max: int) -> list[str]:
        """A list of strings."""
        texts = []
        for one in self._list(name, count_max):
            if not isinstance(one, str):
                raise self._unexpected(name, "strings", one)
            texts.append(one)
        return texts

    def hashes(self, name: str, count_max: int) -> tuple[Hash, ...]:
        """A list of hashes."""
        return tuple(map(parse_hash, self.texts(name, count_max)))

    def _list(self, name: str, count_max: int | None) -> list[JsonValue]:
        value = self.value(name)
        if not isinstance(value, list):
            raise self._unexpected(name, "a list", value)
        if count_max is not None and len(value) > count_max:
            raise Malformed(f"{self._where}.{name}: expected at most {count_max}, got {len(value)}")
        return value

    def _unexpected(self, name: str, expected: str, value: JsonValue) -> Malformed:
        return Malformed(f"{self._where}.{name}: expected {expected}, got {shown(value)}")


def shown(value: JsonValue) -> str:
    """A value's beginning, for a message."""
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def shown_apart(one: JsonValue, other: JsonValue) -> tuple[str, str]:
    """The beginnings of two different values, for a message; of such as begin alike, from shortly
    before they differ.
    """
    if isinstance(one, list) and isinstance(other, list):
        return f"a list of {len(one)}", f"a list of {len(other)}"
    if isinstance(one, str) and isinstance(other, str) and shown(one) == shown(other):
        same = next(
            (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
            min(len(one), len(other)),
        )
        start = max(0, same - _BEFORE)
        return f"…{shown(one[start:])}", f"…{shown(other[start:])}"
    return shown(one), shown(other)


def difference(where: str, given: JsonValue, printed: JsonValue) -> str | None:
    """The first place where the line differs from what its own fields make it, in words."""
    if isinstance(given, dict) and isinstance(printed, dict):
        for name in sorted(given.keys() | printed.keys()):
            path = f"{where}.{name}" if where else name
            if name not in printed:
                return f"{path}: expected no such member"
            if name not in given:
                return f"{path}: expected this member, got none"
            found = difference(path, given[name], printed[name])
            if found is not None:
                return found
        return None
    if isinstance(given, list) and isinstance(printed, list) and len(given) == len(printed):
        for index, (one, other) in enumerate(zip(given, printed, strict=True)):
            found = difference(f"{where}[{index}]", one, other)
            if found is not None:
                return found
        return None
    if type(given) is type(printed) and given == printed:
        return None
    expected, got = shown_apart(printed, given)
    return f"{where}: expected {expected} by the rest of its line, got {got}"
