"""The ledger's own acts: commands with one plain event that the ledger itself reads."""

from __future__ import annotations

from nocturne.cli import command_ids
from nocturne.cli.asking import within
from nocturne.cli.ledger import Ledger
from nocturne.cli.payloads import CONTENT_TYPE
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.writing import SILENCE_SECONDS
from nocturne.client.building import Author
from nocturne.client.results import Level, Result
from nocturne.core.commands import (
    Command,
    EventDraft,
    Payload,
    SignedCommand,
    payload_hash,
    sign_command,
)
from nocturne.core.identifiers import CommandId, LedgerId, SessionId


def minted(around: Surroundings) -> CommandId:
    """A new command id."""
    return command_ids.mint(around.now_ms(), around.random(command_ids.RANDOM_BYTES))


def act_command(
    ledger_id: LedgerId,
    session: SessionId,
    event_type: str,
    data: bytes,
    author: Author,
    identity: CommandId,
) -> SignedCommand:
    """The command of one act; a function of what it is given, so that it can be asked for again."""
    payload = Payload(command_ids.salt(identity, session, data, author.signer), data)
    command = Command(
        ledger_id,
        session,
        author.id,
        author.signer.key,
        identity,
        None,
        None,
        command_ids.minted_at(identity),
        (EventDraft(event_type, CONTENT_TYPE, payload_hash(payload)),),
    )
    return sign_command(command, (payload,), author.signer)


async def submit_act(ledger: Ledger, signed: SignedCommand, deadline_seconds: float) -> Result:
    """What became of it, signed by the authority, or as far as it came."""
    patience = deadline_seconds + SILENCE_SECONDS
    return await within(ledger.submit(signed, Level.SIGNED, deadline_seconds), patience)
