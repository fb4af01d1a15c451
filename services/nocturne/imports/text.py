"""A recorded writing of one text as records: one record a transaction. Pure.

Rules: docs/guides/importing.md, import text. The file is one JSON object:
{"startContent":"","endContent":"Night","txns":[{"time":"2026-11-21T09:00:00Z",
 "patches":[[0,0,"Nigth"],[3,2,"ht"]]}]}
A patch is [position, deleted, inserted], in Unicode code points; patches apply one after another.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Final

from nocturne.core.errors import Malformed
from nocturne.core.identifiers import AuthorId, SessionId
from nocturne.core.kinds import Kind
from nocturne.core.strict_json import JsonValue, canonical_json, parse_json
from nocturne.imports import times
from nocturne.imports.records import CONTENT_TYPE, Record, SourceFault

EVENT_TYPE: Final = "TextPatched"
KIND: Final = "text"
FILE_BYTES_MAX: Final = 64 * 1024 * 1024
"""One JSON value is read whole; two people writing for a month stay below 8 MB."""
DEPTH_MAX: Final = 8

_MEMBERS: Final = frozenset({"startContent", "endContent", "txns"})
_TRANSACTION_MEMBERS: Final = frozenset({"patches", "time"})
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Writing:
    """A recorded writing, read and checked; `end` is None where the file does not say it."""

    start: str
    end: str | None
    transactions: tuple[JsonValue, ...]


def parse_writing(data: bytes) -> Writing:
    """The writing in a file's content; `SourceFault` for anything else."""
    try:
        value = parse_json(data, FILE_BYTES_MAX, DEPTH_MAX)
    except Malformed as fault:
        raise SourceFault("", f"{fault}.") from fault
    if not isinstance(value, dict):
        raise SourceFault("", "expected a JSON object with startContent, endContent and txns.")
    unknown = sorted(value.keys() - _MEMBERS)
    if unknown:
        raise SourceFault(
            "", f"expected only {', '.join(sorted(_MEMBERS))}, got {_shown(unknown)}."
        )
    start, end = value.get("startContent", ""), value.get("endContent")
    transactions = value.get("txns")
    if not isinstance(start, str) or not (end is None or isinstance(end, str)):
        raise SourceFault("", "expected startContent and endContent to be texts.")
    if not isinstance(transactions, list):
        raise SourceFault("", "expected txns to be a list of transactions.")
    return Writing(start, end, tuple(transactions))


def records(writing: Writing, session: SessionId) -> Generator[Record, None, None]:
    """A record for the text at the beginning, unless that is empty, and one a transaction."""
    if writing.start:
        payload = canonical_json({"patches": [[0, 0, writing.start]]})
        yield Record(session, EVENT_TYPE, payload, 0, "startContent")
    for number, transaction in enumerate(writing.transactions, start=1):
        place = f"transaction {number}"
        patches, time = _transaction(transaction, place)
        payload = canonical_json({"patches": patches})
        yield Record(session, EVENT_TYPE, payload, time, place)


def folded(kind: Kind, made: Iterable[Record], author: AuthorId) -> str | None:
    """The text that readers of these records see; None if the kind's state has none."""
    state = kind.initial()
    for sequence, record in enumerate(made, start=1):
        state = kind.fold(state, record.event_type, CONTENT_TYPE, record.payload, author, sequence)
    text = state.get("text") if isinstance(state, dict) else None
    return text if isinstance(text, str) else None


def _transaction(value: JsonValue, place: str) -> tuple[list[JsonValue], int]:
    if not isinstance(value, dict):
        raise SourceFault(place, "expected an object with patches.")
    unknown = sorted(value.keys() - _TRANSACTION_MEMBERS)
    if unknown:
        # A recording of concurrent writing names parents: its patches are no sequence.
        raise SourceFault(
            place, f"expected only patches and time, got {_shown(unknown)}: is it one sequence?"
        )
    patches = value.get("patches")
    if not isinstance(patches, list) or not all(map(_is_patch, patches)):
        raise SourceFault(place, "expected patches as [position, deleted, inserted].")
    time = value.get("time")
    try:
        occurred = times.occurred_at(str(time)) if isinstance(time, (str, int)) else 0
    except Malformed as fault:
        raise SourceFault(place, f"{fault}.") from fault
    return patches, occurred


def _is_patch(value: JsonValue) -> bool:
    match value:
        case [int(position), int(deleted), str()]:
            return (
                not isinstance(position, bool)
                and not isinstance(deleted, bool)
                and position >= 0
                and deleted >= 0
            )
    return False


def _shown(unknown: list[str]) -> str:
    return ascii(", ".join(unknown))[:_SHOWN]
