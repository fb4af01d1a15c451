"""Rows of CSV and of JSON lines as records, by a mapping of columns. Pure.

Rules: docs/guides/importing.md, import csv and jsonl. Each row is one record; rows of one session
keep the order of the file, and sessions may interleave.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from nocturne.core.decide import ACT_PREFIX
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import SessionId, is_type_name
from nocturne.core.strict_json import JsonValue, canonical_json, parse_json
from nocturne.imports import names, times
from nocturne.imports.records import Record, SourceFault

KIND: Final = "facts"
EVENT_TYPE: Final = "RowRecorded"
COLUMNS_MAX: Final = 4096
ROW_CHARACTERS_MAX: Final = 1024 * 1024
"""Four times what the largest event of a usual ledger takes; a field may have 131 072 (Python's
own bound)."""
DEPTH_MAX: Final = 64
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column says what: by its name in the header, or in JSON by a key or a JSON pointer
    (RFC 6901). `payload` None means all columns that say nothing else.
    """

    session: str
    event_type: str | None = None
    type_name: str = EVENT_TYPE
    time: str | None = None
    payload: tuple[str, ...] | None = None
    session_prefix: str = ""

    @property
    def spoken_for(self) -> frozenset[str]:
        """The columns that are no payload unless asked for."""
        named = (self.session, self.event_type, self.time)
        return frozenset(name for name in named if name is not None)

    @property
    def needed(self) -> tuple[str, ...]:
        """All columns that must be there."""
        return (*sorted(self.spoken_for), *(self.payload or ()))


def csv_records(
    lines: Iterable[str], columns: Columns, delimiter: str = ","
) -> Generator[Record, None, None]:
    """A record for each row after the header. `lines` keep what ends them."""
    counted = _CountedLines(lines)
    rows = _rows(counted, delimiter)
    header = next(rows, None)
    if header is None:
        raise SourceFault("line 1", "expected a header with the columns' names, got an empty file.")
    _check_header(header[1], columns)
    for place, row in rows:
        if len(row) != len(header[1]):
            raise SourceFault(
                place, f"expected {len(header[1])} fields as in the header, got {len(row)}."
            )
        cells = dict(zip(header[1], row, strict=True))
        payload: JsonValue = {
            name: text
            for name, text in cells.items()
            if (name in columns.payload if columns.payload else name not in columns.spoken_for)
        }
        yield _record(
            place,
            columns,
            cells[columns.session],
            None if columns.event_type is None else cells[columns.event_type],
            None if columns.time is None else cells[columns.time],
            payload,
        )


def jsonl_records(
    lines: Iterable[tuple[int, bytes]], columns: Columns, bytes_max: int
) -> Generator[Record, None, None]:
    """A record for each line that is not blank."""
    number = 0
    for number, line in lines:
        place = f"line {number}"
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            value = parse_json(line, bytes_max, DEPTH_MAX)
        except Malformed as fault:
            raise SourceFault(place, f"{fault}.") from fault
        if not isinstance(value, dict):
            raise SourceFault(place, "expected a JSON object.")
        payload: JsonValue
        if columns.payload is None:
            payload = {k: v for k, v in value.items() if k not in columns.spoken_for}
        else:
            payload = {name: _found(value, name, place) for name in columns.payload}
        yield _record(
            place,
            columns,
            _text(value, columns.session, place),
            None if columns.event_type is None else _text(value, columns.event_type, place),
            None if columns.time is None else _text(value, columns.time, place),
            payload,
        )
    if number == 0:
        raise SourceFault("line 1", "expected a JSON object, got an empty file.")


def _record(
    place: str,
    columns: Columns,
    session: str,
    event_type: str | None,
    time: str | None,
    payload: JsonValue,
) -> Record:
    if not session:
        raise SourceFault(place, f"the session's column {columns.session!r} is empty.")
    named = columns.type_name if event_type is None else event_type
    if not is_event_type(named):
        raise SourceFault(
            place,
            f"{named[:_SHOWN]!a} is no event type: use 1 to 128 letters, digits and "
            f". _ : / -, not beginning with {ACT_PREFIX}, or give all rows one with --type.",
        )
    try:
        occurred = 0 if time is None else times.occurred_at(time)
        data = canonical_json(payload)
    except Malformed as fault:
        raise SourceFault(place, f"{fault}.") from fault
    return Record(_session(columns.session_prefix, session), named, data, occurred, place)


def is_event_type(name: str) -> bool:
    """An event may have this type; those of the ledger's own acts are no rows of a table."""
    return is_type_name(name) and not name.startswith(ACT_PREFIX)


def _session(prefix: str, name: str) -> SessionId:
    return names.session_of(prefix, names.escaped(name, is_part=False))


# CSV ---------------------------------------------------------------------------------------------


class _CountedLines:
    """Lines for Python's reader, with a bound for all that one row takes."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.count = 0
        self.row_characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.count += 1
        self.row_characters += len(line)
        if "\0" in line:
            raise SourceFault(
                f"line {self.count}", "a NUL in text: is it UTF-16? Say so with --encoding."
            )
        if self.row_characters > ROW_CHARACTERS_MAX:
            raise SourceFault(
                f"line {self.count}",
                f"one row takes more than {ROW_CHARACTERS_MAX} characters: is a quote not closed?",
            )
        return line


def _rows(lines: _CountedLines, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Each row that is not blank, with the line at which it begins."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        began = lines.count + 1
        lines.row_characters = 0
        try:
            row = next(reader, None)
        except csv.Error as fault:
            raise SourceFault(f"line {began}", f"this is no CSV: {fault}.") from fault
        if row is None:
            return
        if row:
            yield f"line {began}", row


def _check_header(header: list[str], columns: Columns) -> None:
    if len(header) > COLUMNS_MAX:
        raise SourceFault("line 1", f"expected at most {COLUMNS_MAX} columns, got {len(header)}.")
    seen: set[str] = set()
    for name in header:
        if name in seen:
            raise SourceFault("line 1", f"expected each column once, got {name[:_SHOWN]!a} again.")
        seen.add(name)
    missing = next((name for name in columns.needed if name not in seen), None)
    if missing is not None:
        known = ", ".join(header)[:200]
        raise SourceFault(
            "line 1", f"there is no column {missing[:_SHOWN]!a}; the header has {known!r}."
        )


# JSON --------------------------------------------------------------------------------------------


def _found(value: JsonValue, name: str, place: str) -> JsonValue:
    """What a key or a JSON pointer names; RFC 6901 §4."""
    tokens = [name]
    if name.startswith("/"):
        tokens = [part.replace("~1", "/").replace("~0", "~") for part in name[1:].split("/")]
    for token in tokens:
        match value:
            case dict() if token in value:
                value = value[token]
            case list() if token.isdecimal() and token.isascii() and _is_index(token, len(value)):
                value = value[int(token)]
            case _:
                raise SourceFault(place, f"there is no {name[:_SHOWN]!a}.")
    return value


def _is_index(token: str, length: int) -> bool:
    return len(token) <= 9 and str(int(token)) == token and int(token) < length


def _text(value: JsonValue, name: str, place: str) -> str:
    match _found(value, name, place):
        case str(text):
            return text
        case int(number) if not isinstance(number, bool):
            return str(number)
    raise SourceFault(place, f"expected {name[:_SHOWN]!a} to be a text or a whole number.")
