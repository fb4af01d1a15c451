"""What became of a command, for people and for programs. Pure."""

from __future__ import annotations

from rich.text import Text

from nocturne.cli.screen import short_hash
from nocturne.cli.words import refusal
from nocturne.client.results import Committed, Refused, Result, Undecided
from nocturne.core.commands import SignedCommand
from nocturne.core.events import EventHeader, encode_event_header, hash_event
from nocturne.core.identifiers import SessionId, format_hash, format_id
from nocturne.core.json_fields import JsonObject, format_time
from nocturne.core.json_forms import position_json, receipt_json
from nocturne.core.keys import Key
from nocturne.core.receipts import Receipt, encode_receipt_header, hash_receipt


def result_text(session: SessionId, result: Committed | Refused, took_ms: int) -> Text:
    """`✓ signed  event 3 of orders/17  28367ec411e6  block 7  31 ms`; a refusal says why."""
    tail = f"  block {result.place.height}  {took_ms} ms"
    tail += "  (decided before)" if result.repeated else ""
    if isinstance(result, Refused):
        return Text.assemble(
            ("✗ refused", "red"),
            (f"  {result.reason.name}", "yellow"),
            f"  {refusal(result.header)}",
            (f"\n  receipt {short_hash(_receipt(result).receipt_hash)}{tail}", "dim"),
        )
    first = result.events[0]
    return Text.assemble(
        (f"✓ {result.level.name.lower()}", "green"),
        "  event ",
        (str(first.sequence), "bold"),
        " of ",
        (session, "bold"),
        (f"  {short_hash(hash_event(encode_event_header(first)))}{tail}", "dim"),
    )


def result_json(signed: SignedCommand, result: Result, authority: Key) -> JsonObject:
    """One object with the same members whatever the result; what is not known is null."""
    place = None if isinstance(result, Undecided) else result.place
    return {
        "sessionId": signed.command.session,
        "commandId": format_id(signed.command.command_id),
        "commandHash": format_hash(signed.command_hash),
        "level": result.level.name.lower(),
        "decided": place is not None,
        "repeated": not isinstance(result, Undecided) and result.repeated,
        "position": None if place is None else position_json(place.position),
        "height": None if place is None else place.height,
        "timestamp": None if place is None else format_time(place.timestamp),
        "events": [_event_json(one) for one in result.events]
        if isinstance(result, Committed)
        else [],
        "receipt": receipt_json(_receipt(result), authority)
        if isinstance(result, Refused)
        else None,
    }


def _event_json(header: EventHeader) -> JsonObject:
    return {
        "eventId": format_id(header.event_id),
        "sequenceNumber": header.sequence,
        "eventHash": format_hash(hash_event(encode_event_header(header))),
    }


def _receipt(refused: Refused) -> Receipt:
    """The signed receipt; as long as it is not signed, its content."""
    if refused.receipt is not None:
        return refused.receipt
    data = encode_receipt_header(refused.header)
    place = refused.place
    return Receipt(refused.header, (), place.height, place.timestamp, data, hash_receipt(data))
