"""Drafts: what a source says about one event, and the command that asks for it. Pure.

Rules: docs/guides/importing.md, run again. The command is a function of the draft, the session and
the author's key alone, so the same source always asks with the same bytes: whatever of an earlier,
interrupted run is still on its way meets its twin as REPEATED, and nothing doubles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nocturne.client.building import Author
from nocturne.core.commands import (
    Command,
    EventDraft,
    Opening,
    Payload,
    SignedCommand,
    payload_hash,
    sign_command,
)
from nocturne.core.encoding import domain, sha256, u64, variable
from nocturne.core.genesis import Limits
from nocturne.core.identifiers import CommandId, LedgerId, SessionId
from nocturne.core.keys import Signer, signatures_bytes

IDENTITY_BYTES: Final = 8
"""The second half of the command id."""
NUMBERS_END: Final = 2**48
ATTEMPTS_END: Final = 2**16
"""An attempt is a round of an import in which the ledger refused; one run makes a handful."""
COMMAND_OVERHEAD_BYTES_MAX: Final = 1024
"""Everything in a signed command of one event but its payload; measured, about 600."""

_SALT: Final = domain("nocturne/import-salt/v1")


@dataclass(frozen=True, slots=True)
class Draft:
    """One event to be. `number` counts from 1 and is the sequence the event will have; `source` is
    the source's own name for it, at least 8 bytes.
    """

    number: int
    source: bytes
    event_type: str
    content_type: str
    payload: bytes
    occurred_at: int


def command_id(draft: Draft, attempt: int = 0) -> CommandId:
    """u16 attempt ‖ u48 number ‖ the first 8 bytes of the source's name.

    A refused command keeps its id. When one was refused because the one before it got lost, the
    next attempt asks under another id, and under one above all of the attempt before: those that
    were refused behind the lost one fill the ledger's window of ids, and would make it stale.
    """
    assert len(draft.source) >= IDENTITY_BYTES
    assert 0 <= attempt < ATTEMPTS_END
    assert 0 < draft.number < NUMBERS_END
    return CommandId(u64(attempt * NUMBERS_END + draft.number) + draft.source[:IDENTITY_BYTES])


def attempt_of(identity: CommandId) -> int:
    """The attempt that a command id of an import was made for."""
    return int.from_bytes(identity[:2], "big")


def payload_bytes_max(limits: Limits) -> int:
    """The largest payload that a ledger with these limits takes from an import, in bytes."""
    return limits.command_bytes_max - COMMAND_OVERHEAD_BYTES_MAX


def command_of(
    draft: Draft,
    ledger_id: LedgerId,
    session: SessionId,
    opening: Opening,
    author: Author,
    attempt: int = 0,
) -> SignedCommand:
    """The one signed command that asks for `draft` at its place; the first opens the session."""
    identity = command_id(draft, attempt)
    place = ledger_id + variable(session.encode("ascii")) + identity
    payload = Payload(_salt(place, draft.payload, author.signer), draft.payload)
    command = Command(
        ledger_id,
        session,
        author.id,
        author.signer.key,
        identity,
        draft.number - 1,
        opening if draft.number == 1 else None,
        draft.occurred_at,
        (EventDraft(draft.event_type, draft.content_type, payload_hash(payload)),),
    )
    return sign_command(command, (payload,), author.signer)


def _salt(place: bytes, payload: bytes, signer: Signer) -> bytes:
    """A salt that only the author can make, and makes the same every time.

    From a signature nobody sees: a salt from public things alone would not hide an erased payload.
    """
    return sha256(_SALT + signatures_bytes(signer.sign(_SALT, place + sha256(payload))))
