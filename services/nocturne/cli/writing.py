"""submit: sign one event and bring it into a session. A refusal is shown with its receipt."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from nocturne.cli import authors, command_ids, payloads, surroundings
from nocturne.cli.asking import ask, each_within, within
from nocturne.cli.failures import ExitCode, Failure, bad_use
from nocturne.cli.ledger import REACHABLE, Ledger
from nocturne.cli.options import (
    DEADLINE_SECONDS,
    DeadlineOption,
    HomeOption,
    JsonOption,
    SessionArgument,
    session_id,
)
from nocturne.cli.result_view import result_json, result_text
from nocturne.cli.subject_keys import key_for
from nocturne.cli.surroundings import Surroundings
from nocturne.client.building import Author, Draft
from nocturne.client.results import Level, Refused, Result, Session, Undecided
from nocturne.client.sealing import SubjectKey, check_sealed_size, sealed_draft
from nocturne.core.commands import (
    EXPECTED_SEQUENCE_MAX,
    Command,
    EventDraft,
    Opening,
    Payload,
    SignedCommand,
    payload_hash,
    sign_command,
)
from nocturne.core.errors import Unavailable
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import (
    CommandId,
    SessionId,
    format_id,
    is_type_name,
)
from nocturne.core.keys import Key
from nocturne.core.receipts import (
    Reason,
)

DEFAULT_KIND: Final = "facts"
SILENCE_SECONDS: Final = 2.0
READABLE_LOOKS_MAX: Final = 100
READABLE_LOOK_SECONDS: Final = 0.01
READABLE_LOOK_SECONDS_MAX: Final = 1.0
"""A reader trails by milliseconds; what comes after a submit should find its event."""


class WaitFor(StrEnum):
    """Finality levels as they are spelled on the command line."""

    ACCEPTED = "accepted"
    CERTIFIED = "certified"
    SIGNED = "signed"
    LOGGED = "logged"
    WITNESSED = "witnessed"
    ANCHORED = "anchored"

    @property
    def level(self) -> Level:
        """The level of this name."""
        return Level[self.name]


# submit ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for, read and checked as far as that goes without a ledger."""

    session: SessionId
    event_type: str
    payload: bytes
    kind: str | None
    expected: int | None
    wait: Level
    deadline_seconds: float
    command_id: CommandId
    is_repetition: bool
    seal: SubjectKey | None


def submit(
    context: typer.Context,
    session: SessionArgument,
    event_type: Annotated[str, typer.Argument(metavar="TYPE", show_default=False)],
    payload: Annotated[
        str,
        typer.Argument(
            metavar="PAYLOAD", help="JSON text, @FILE, or - for stdin.", show_default=False
        ),
    ],
    as_key: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="KEY", help="Sign with this key.", show_default=authors.DEFAULT
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="What a new session is.", show_default=DEFAULT_KIND),
    ] = None,
    expect: Annotated[
        int | None,
        typer.Option(
            metavar="SEQ",
            min=0,
            max=EXPECTED_SEQUENCE_MAX,
            help="Refuse unless the session stands at this event (0: not opened).",
        ),
    ] = None,
    wait: Annotated[
        WaitFor, typer.Option(metavar="LEVEL", help="accepted, certified or signed.")
    ] = WaitFor.SIGNED,
    deadline: DeadlineOption = DEADLINE_SECONDS,
    repeat: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="Repeat the command of this id; safe, and tells its outcome."
        ),
    ] = None,
    seal: Annotated[
        str | None,
        typer.Option(
            metavar="SUBJECT",
            help="Seal the payload with this subject's key, which is made if there is none.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Sign an event and bring it into a session, which is opened if it does not exist."""
    around = surroundings.of(context)
    wish = Wish(
        session_id(session),
        _type_name(event_type),
        payloads.canonical(payloads.read(payload, around.stdin)),
        kind,
        expect,
        _reachable(wait),
        deadline,
        _command_id(around, repeat),
        repeat is not None,
        None if seal is None else key_for(around, home, seal),
    )
    author = author_named(around, home, as_key)
    began = around.now_ms()

    async def question(ledger: Ledger) -> tuple[SignedCommand, Result, Key]:
        signed, result = await _submit(around, ledger, wish, author)
        await until_readable(ledger, result)
        return signed, result, ledger.genesis.authority

    signed, result, authority = ask(around, home, question, deadline)
    if as_json:
        around.emit(result_json(signed, result, authority))
    elif not isinstance(result, Undecided):
        around.out.print(result_text(wish.session, result, around.now_ms() - began))
    _exit_as(wish, signed, result)


def _type_name(text: str) -> str:
    if not is_type_name(text):
        raise bad_use(
            f"{text[:140]!r} is no event type: use 1 to 128 letters, digits and . _ : / -."
        )
    return text


def _reachable(wait: WaitFor) -> Level:
    if wait.level not in REACHABLE:
        names = ", ".join(level.name.lower() for level in REACHABLE)
        raise bad_use(f"This ledger has no level {wait.value} configured: --wait takes {names}.")
    return wait.level


def _command_id(around: Surroundings, repeat: str | None) -> CommandId:
    if repeat is not None:
        return command_ids.parse(repeat)
    return command_ids.mint(around.now_ms(), around.random(command_ids.RANDOM_BYTES))


def author_named(around: Surroundings, home: Path | None, name: str | None) -> Author:
    place = around.home(home)
    if name is not None:
        return authors.load(place, name)
    author, made = authors.load_default(place)
    if made is not None:
        around.say(f"Made the key {made.name} in {made.file}: it signs what names no other key.")
    return author


async def _submit(
    around: Surroundings, ledger: Ledger, wish: Wish, author: Author
) -> tuple[SignedCommand, Result]:
    """Ask once; once more without the opening if another command opened the session meanwhile."""
    existing = await within(ledger.session(wish.session))
    if existing is not None and wish.kind not in (None, existing.kind):
        raise bad_use(
            f"{wish.session} is open already, and of kind {existing.kind}: leave --kind away."
        )
    opening = await _opening(ledger, wish, existing)
    signed = _command(ledger, wish, opening, author)
    result = await _ask_once(ledger, signed, wish)
    overtaken = isinstance(result, Refused) and result.reason is Reason.DUPLICATE_SEQ
    if not overtaken or opening is None or wish.expected is not None:
        return signed, result
    around.say("Another command opened the session meanwhile: asking again, without opening it.")
    again = command_ids.mint(around.now_ms(), around.random(command_ids.RANDOM_BYTES))
    signed = _command(ledger, replace(wish, command_id=again), None, author)
    return signed, await _ask_once(ledger, signed, wish)


async def _ask_once(ledger: Ledger, signed: SignedCommand, wish: Wish) -> Result:
    # The service answers at the deadline with the level reached; this is for one that is silent.
    patience = wish.deadline_seconds + SILENCE_SECONDS
    return await within(ledger.submit(signed, wish.wait, wish.deadline_seconds), patience)


async def _opening(ledger: Ledger, wish: Wish, existing: Session | None) -> Opening | None:
    if existing is None:
        # Expecting an event of a session that is not open is for the ledger to refuse.
        return _kind(ledger.genesis, wish.kind) if wish.expected in (None, 0) else None
    if wish.is_repetition:
        # The first run may have been what opened it, and a repetition says the same again.
        async with aclosing(ledger.events(wish.session, 1, follow=False)) as events:
            async for first in each_within(events):
                if first.command.command_id == wish.command_id:
                    return first.command.opening
                break
    return None


def _kind(genesis: Genesis, name: str | None) -> Opening:
    wanted = name or DEFAULT_KIND
    versions = [entry.version for entry in genesis.kinds if entry.name == wanted]
    if not versions:
        known = ", ".join(sorted({entry.name for entry in genesis.kinds}))
        raise bad_use(f"This ledger has no session kind {wanted!r}: --kind takes {known}.")
    return Opening(wanted, max(versions))


def _command(ledger: Ledger, wish: Wish, opening: Opening | None, author: Author) -> SignedCommand:
    draft = _draft(wish, author)
    payload = draft.payload
    command = Command(
        ledger.ledger_id,
        wish.session,
        author.id,
        author.signer.key,
        wish.command_id,
        wish.expected,
        opening,
        command_ids.minted_at(wish.command_id),
        (EventDraft(draft.event_type, draft.content_type, payload_hash(payload)),),
    )
    signed = sign_command(command, (payload,), author.signer)
    if wish.seal is not None:
        check_sealed_size(signed, ledger.genesis.limits)
    return signed


def _draft(wish: Wish, author: Author) -> Draft:
    place = (wish.command_id, wish.session, wish.payload)
    if wish.seal is None:
        salt = command_ids.salt(*place, author.signer)
        return Draft(wish.event_type, Payload(salt, wish.payload), payloads.CONTENT_TYPE)
    salt = command_ids.sealed_salt(*place, wish.seal)
    draft = Draft(wish.event_type, Payload(salt, wish.payload), payloads.CONTENT_TYPE)
    return sealed_draft(draft, wish.seal, command_ids.sealed_nonce(*place, wish.seal))


async def until_readable(ledger: Ledger, result: Result) -> None:
    """Wait a moment for the projection, so that the next command line finds what this one wrote."""
    if not isinstance(result, Undecided):
        # The command is decided, whether or not anybody can read it just now.
        await is_readable(ledger, result.place.height)


async def is_readable(ledger: Ledger, height: int) -> bool:
    """Wait a moment for the projection to hold a block; whether it does."""
    try:
        for _ in range(READABLE_LOOKS_MAX):
            status = await within(ledger.status(), READABLE_LOOK_SECONDS_MAX)
            if status.applied_through.height >= height:
                return True
            await asyncio.sleep(READABLE_LOOK_SECONDS)
    except (Unavailable, Failure):
        return False
    return False


def _exit_as(wish: Wish, signed: SignedCommand, result: Result) -> None:
    if isinstance(result, Refused):
        raise typer.Exit(ExitCode.FAILED)
    if result.level < wish.wait:
        identity = format_id(signed.command.command_id)
        reached = "before the log had the command"
        if result.level is not Level.UNKNOWN:
            reached = f"at level {result.level.name.lower()}, before {wish.wait.name.lower()}"
        raise Failure(
            ExitCode.UNAVAILABLE,
            f"The deadline of {wish.deadline_seconds:g} s came {reached}: run the same again "
            f"with --id {identity}, which is safe and tells what became of it.",
        )
