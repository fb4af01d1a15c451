"""Receipts, levels and times in words. Pure."""

from __future__ import annotations

from typing import Final

from nocturne.cli.screen import plain, short_hash
from nocturne.core.encoding import TIME_MAX
from nocturne.core.json_fields import format_time
from nocturne.core.receipts import Head, Reason, ReceiptHeader

_ALWAYS: Final = {
    Reason.MALFORMED: "the record is no well-formed command of this ledger",
    Reason.TOO_LARGE: "the command is larger than the ledger's genesis allows",
    Reason.WRONG_PARTITION: "the record stands in a partition that is not its session's",
    Reason.SIGNATURE_INVALID: "the author's signature does not hold",
    Reason.UNKNOWN_AUTHOR: "the key is not the author's current one",
    Reason.SESSION_CLOSED: "the session is closed",
    Reason.UNKNOWN_KIND: "the ledger's genesis has no session kind of that name and version",
    Reason.NOT_PERMITTED_TO_OPEN: "the author may not open this session",
    Reason.NOT_A_MEMBER: "the session was never opened, or the author is no writer of it",
    Reason.ID_REUSED: "the command id was used before, for something else",
    Reason.STALE_ID: "the command id is older than those the session remembers of its author",
}

_INVARIANTS: Final = {
    "payload.plain": "the ledger has to read this payload, because the session's kind or the act "
    "depends on it, so it takes no sealed one: leave --seal away, or use a kind that reads none, "
    "such as 'document' or 'facts'",
    "members.owner_remains": "a session keeps at least one owner: add another one first",
    "author_key.own": "only the author itself says what its keys are",
    "author_key.revoked": "the author was revoked, and stays so",
}
"""What can be done about some of them; their own names say the rest."""


def refusal(header: ReceiptHeader) -> str:
    """Why a command was refused, as one clause without a full stop."""
    match header.reason:
        case Reason.DUPLICATE_SEQ:
            return _wrong_sequence(header.attempted_sequence, header.head)
        case Reason.REPEATED:
            first = header.first_position
            place = "" if first is None else f" at {first.partition}/{first.offset}"
            return f"the same command was decided before{place}"
        case Reason.INVARIANT_VIOLATION if header.violated_invariant in _INVARIANTS:
            return f"{header.violated_invariant}: {_INVARIANTS[header.violated_invariant]}"
        case Reason.INVARIANT_VIOLATION:
            return f"the invariant {plain(header.violated_invariant)} would not hold"
        case reason:
            return _ALWAYS[reason]


def _wrong_sequence(attempted: int | None, head: Head | None) -> str:
    stands = "the session is not open"
    if head is not None:
        stands = f"the session stands at event {head.sequence} ({short_hash(head.hash)})"
    return stands if attempted is None else f"event {attempted} was asked for, but {stands}"


def time_text(ms: int) -> str:
    """RFC 3339 without the T; a time that no calendar has as its number of ms."""
    if not 0 <= ms <= TIME_MAX:
        return f"{ms} ms"
    return format_time(ms).replace("T", " ")


def count_text(count: int, one: str, many: str | None = None) -> str:
    """`1 event`, `5 000 events`."""
    return f"{count:,}".replace(",", " ") + " " + (one if count == 1 else many or f"{one}s")
