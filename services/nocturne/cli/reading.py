"""sessions · events · receipts · state · export: what a ledger holds, and none of it changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from errno import EISDIR
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.highlighter import JSONHighlighter
from rich.text import Text

from nocturne.audit.verify import Verdict
from nocturne.cli import surroundings
from nocturne.cli.asking import ask, each_within, within
from nocturne.cli.failures import ExitCode, Failure
from nocturne.cli.ledger import Ledger
from nocturne.cli.options import HomeOption, JsonOption, SessionArgument, session_id
from nocturne.cli.screen import (
    Cell,
    Column,
    bytes_text,
    heading,
    pretty_json,
    row,
    short_hash,
    table,
)
from nocturne.cli.sealed_view import payload_text, sealed_json
from nocturne.cli.subject_keys import looked_into
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.words import count_text, refusal, time_text
from nocturne.client.folding import Folded, Folding
from nocturne.client.results import Session
from nocturne.client.sealing import SubjectKeys
from nocturne.client.subject_store import SubjectStore
from nocturne.core.events import Event
from nocturne.core.identifiers import Hash, SessionId, format_hash
from nocturne.core.json_fields import JsonObject, format_time
from nocturne.core.json_forms import event_json, receipt_json
from nocturne.core.receipts import Receipt
from nocturne.core.strict_json import JsonValue
from nocturne.runtime.kinds import installed_kinds

SESSIONS_LIMIT: Final = 100

_SESSIONS: Final = (
    Column("session"),
    Column("kind", "cyan"),
    Column("events", justify="right"),
    Column("receipts", justify="right"),
    Column("head", "dim"),
    Column("last event"),
)
_EVENTS: Final = (
    Column("seq", "bold", "right", 6),
    Column("time", "dim", width_min=24),
    Column("type", "cyan", width_min=16),
    Column("author", "magenta", width_min=12),
    Column("hash", "dim", width_min=12),
    Column("payload"),
)
_RECEIPTS: Final = (
    Column("time", "dim", width_min=24),
    Column("session", width_min=16),
    Column("reason", "yellow", width_min=19),
    Column("at", "dim", "right", 8),
    Column("in words"),
)


def sessions(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = SESSIONS_LIMIT,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List sessions, in the order of their ids."""
    around = surroundings.of(context)

    async def question(ledger: Ledger) -> list[Session]:
        async with aclosing(ledger.sessions(limit)) as found:
            return [one async for one in each_within(found)]

    found = ask(around, home, question)
    if as_json:
        for one in found:
            around.emit(_session_json(one))
    elif found:
        around.out.print(table(_SESSIONS, map(_session_row, found)))
        if len(found) == limit:
            around.say(f"The first {count_text(limit, 'session')}: --limit shows more.")
    else:
        around.say("No session yet: 'nocturne submit SESSION TYPE PAYLOAD' opens one.")


def events(
    context: typer.Context,
    session: SessionArgument,
    from_sequence: Annotated[
        int, typer.Option("--from", metavar="SEQ", min=1, help="Begin at this sequence.")
    ] = 1,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay, and print what comes, until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List a session's events, and follow it live."""
    around = surroundings.of(context)
    named = session_id(session)
    keys = looked_into(around, around.home(home))

    async def question(ledger: Ledger) -> int:
        count = 0
        await _existing(ledger, named)
        async with aclosing(ledger.events(named, from_sequence, follow)) as found:
            bounded = found if follow else each_within(found)
            async for event in bounded:
                if as_json:
                    told = event_json(event, ledger.genesis.authority)
                    around.emit({**told, **sealed_json(event, keys)})
                else:
                    if count == 0:
                        around.out.print(heading(_EVENTS))
                    around.out.print(row(_EVENTS, _event_row(event, keys), around.out.width))
                count += 1
        return count

    count = _until_interrupted(around, home, question) if follow else ask(around, home, question)
    if count == 0 and not as_json and not follow:
        around.say(f"No event of {named} from sequence {from_sequence} on.")


def receipts(
    context: typer.Context,
    session: Annotated[str | None, typer.Argument(metavar="[SESSION]", show_default=False)] = None,
    claimed: Annotated[
        bool,
        typer.Option(
            "--claimed",
            help="Those instead whose author is not proved: anybody may name a session.",
        ),
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List refused commands of proved authors: of one session, or of the whole ledger."""
    around = surroundings.of(context)
    named = None if session is None else session_id(session)

    async def question(ledger: Ledger) -> int:
        count = 0
        async with aclosing(ledger.receipts(named, claimed)) as found:
            async for receipt in each_within(found):
                if as_json:
                    around.emit(receipt_json(receipt, ledger.genesis.authority))
                else:
                    if count == 0:
                        around.out.print(heading(_RECEIPTS))
                    around.out.print(row(_RECEIPTS, _receipt_row(receipt), None))
                count += 1
        return count

    if ask(around, home, question) == 0 and not as_json:
        around.say(_none_refused(named, claimed))


def _none_refused(session: SessionId | None, claimed: bool) -> str:
    what = "No command of an unproved author was refused" if claimed else "No command was refused"
    where = "" if session is None else f" in {session}"
    way_on = "" if claimed else " Those whose author is not proved are listed by --claimed."
    return f"{what}{where}.{way_on}"


def state(
    context: typer.Context,
    session: SessionArgument,
    at: Annotated[
        int | None,
        typer.Option("--at", metavar="SEQ", min=1, help="As of this event.", show_default="head"),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show a session's state, now or as of any event. What subject keys of this home open is folded
    here.
    """
    around = surroundings.of(context)
    named = session_id(session)
    keys = looked_into(around, around.home(home))

    async def question(ledger: Ledger) -> Shown:
        existing = await _existing(ledger, named)
        head = existing.sequence
        if at is not None and at > head:
            raise Failure(
                ExitCode.FAILED, f"{named} stands at event {head}: there is no event {at} yet."
            )
        here = await _folded_here(ledger, existing, at or head, keys)
        if here is not None:
            return here
        found = await within(ledger.state(named, at))
        if found is None:
            raise _missing(named)
        return Shown(named, found.sequence, found.head_hash, found.value, None)

    found = ask(around, home, question)
    if as_json:
        around.emit(_state_json(found))
        return
    around.out.print(
        Text.assemble(
            (found.session, "bold"),
            (f"  as of event {found.sequence}  {short_hash(found.head_hash)}", "dim"),
        )
    )
    around.out.print(JSONHighlighter()(Text(pretty_json(found.value))))
    if found.here is not None:
        left = f", {count_text(found.here.sealed, 'other')} not" if found.here.sealed else ""
        around.say(
            f"Folded here, from the session's checked events: "
            f"{count_text(found.here.unsealed, 'sealed payload')} opened{left}. Who has no "
            "key, the query service among them, sees another state."
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """A state, and the fold of this home if it was not the query service's."""

    session: SessionId
    sequence: int
    head_hash: Hash
    value: JsonValue
    here: Folded | None


async def _folded_here(
    ledger: Ledger, session: Session, at: int, keys: SubjectStore
) -> Shown | None:
    """The fold with this home's subject keys, if they open anything of the session."""
    if not keys.every():
        return None
    kind = installed_kinds().registry.get(session.kind, session.kind_version)
    if kind is None or kind.reads_payloads:
        # Of a kind that reads payloads nothing is sealed.
        return None
    folding = Folding(kind, keys)
    async with aclosing(ledger.events(session.session, 1)) as found:
        async for event in each_within(found):
            folding.take(event)
            if event.header.sequence == at:
                break
    here = folding.folded
    if not here.unsealed:
        return None
    return Shown(session.session, here.sequence, here.head_hash, here.value, here)


def export(
    context: typer.Context,
    session: SessionArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write a session with all its proofs into FILE, to be verified anywhere, offline."""
    around = surroundings.of(context)
    named = session_id(session)
    if file.is_dir():
        raise IsADirectoryError(EISDIR, "Is a directory", str(file))

    async def question(ledger: Ledger) -> Verdict:
        await _existing(ledger, named)
        return await ledger.export(named, file)

    verdict = ask(around, home, question)
    size = file.stat().st_size
    if as_json:
        around.emit(
            {
                "sessionId": named,
                "file": str(file),
                "bytes": size,
                "height": verdict.height,
                "events": verdict.events,
                "receipts": verdict.receipts,
            }
        )
        return
    around.out.print(
        Text.assemble(
            ("✓ ", "green"),
            (named, "bold"),
            f"  {count_text(verdict.events, 'event')} and "
            f"{count_text(verdict.receipts, 'receipt')} as of block {verdict.height}",
            (f"  {bytes_text(size)}", "dim"),
        )
    )
    around.say(f"Check it anywhere, offline: nocturne verify {file} --trust LEDGER_ID")


async def _existing(ledger: Ledger, session: SessionId) -> Session:
    found = await within(ledger.session(session))
    if found is None:
        raise _missing(session)
    return found


def _missing(session: SessionId) -> Failure:
    return Failure(
        ExitCode.FAILED,
        f"There is no session {session} in this ledger: 'nocturne sessions' lists them.",
    )


# JSON forms and rows ---------------------------------------------------------------------------


def _session_json(one: Session) -> JsonObject:
    return {
        "sessionId": one.session,
        "kind": one.kind,
        "kindVersion": one.kind_version,
        "sequenceNumber": one.sequence,
        "headHash": format_hash(one.head_hash),
        "receiptCount": one.receipt_count,
        "closed": one.closed,
        "openedAt": format_time(one.opened_at),
        "updatedAt": format_time(one.updated_at),
    }


def _state_json(found: Shown) -> JsonObject:
    return {
        "sessionId": found.session,
        "sequenceNumber": found.sequence,
        "headHash": format_hash(found.head_hash),
        "state": found.value,
        "foldedHere": found.here is not None,
        "unsealedPayloads": 0 if found.here is None else found.here.unsealed,
    }


def _session_row(one: Session) -> list[str | Cell]:
    return [
        Cell(one.session, "dim strike" if one.closed else "bold"),
        one.kind if one.kind_version == 1 else f"{one.kind} v{one.kind_version}",
        str(one.sequence),
        Cell(str(one.receipt_count), "yellow" if one.receipt_count else "dim"),
        short_hash(one.head_hash),
        time_text(one.updated_at),
    ]


def _event_row(event: Event, keys: SubjectKeys) -> list[str | Cell]:
    header = event.header
    return [
        str(header.sequence),
        time_text(event.timestamp),
        header.event_type,
        short_hash(header.author),
        short_hash(event.event_hash),
        payload_text(event, keys),
    ]


def _receipt_row(receipt: Receipt) -> list[str | Cell]:
    header = receipt.header
    return [
        time_text(receipt.timestamp),
        Cell(header.session or "(none)", "dim" if header.claimed else ""),
        header.reason.name,
        f"{header.position.partition}/{header.position.offset}",
        refusal(header) + (" (session as claimed)" if header.claimed and header.session else ""),
    ]


def _until_interrupted(
    around: Surroundings, home: Path | None, question: Callable[[Ledger], Awaitable[int]]
) -> int:
    """Ctrl-C is how following ends, not a failure."""
    try:
        return ask(around, home, question)
    except KeyboardInterrupt:
        return 0
