"""members · close: who may write to a session, and its end. Both are acts of an owner."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from nocturne.cli import authors, surroundings
from nocturne.cli.acts import act_command, minted, submit_act
from nocturne.cli.asking import ask, each_within, within
from nocturne.cli.consent import confirm
from nocturne.cli.failures import ExitCode, Failure, bad_use
from nocturne.cli.ledger import Ledger
from nocturne.cli.options import (
    DEADLINE_SECONDS,
    DeadlineOption,
    HomeOption,
    JsonOption,
    SessionArgument,
    session_id,
)
from nocturne.cli.result_view import result_json, result_text
from nocturne.cli.screen import Column, table
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.writing import author_named, until_readable
from nocturne.client.author_keys import AuthorKeys
from nocturne.client.members import (
    ROLE_NAMES,
    Members,
    added_payload,
    closed_payload,
    removed_payload,
)
from nocturne.client.results import Refused, Result, Undecided
from nocturne.core.commands import SignedCommand
from nocturne.core.decide import MEMBER_ADDED, MEMBER_REMOVED, SESSION_CLOSED
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import (
    LEDGER_SESSION,
    AuthorId,
    SessionId,
    format_hash,
    is_reserved_session,
    parse_hash,
)
from nocturne.core.keys import Key, PublicKey, key_id, parse_key
from nocturne.core.receipts import Reason
from nocturne.core.state import Role
from nocturne.embedded.home import Home

_MEMBERS: Final = (
    Column("role", "cyan"),
    Column("author"),
    Column("since event", justify="right"),
    Column("key here", "bold"),
)
_ROLES: Final = {name: role for role, name in ROLE_NAMES.items()}


class MemberAct(StrEnum):
    """What can be done to a member."""

    ADD = "add"
    REMOVE = "remove"


class RoleName(StrEnum):
    """Roles as they are spelled in the ledger."""

    OWNER = "owner"
    WRITER = "writer"
    READER = "reader"


def members(
    context: typer.Context,
    session: SessionArgument,
    act: Annotated[
        MemberAct | None, typer.Argument(metavar="[add|remove]", show_default=False)
    ] = None,
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]",
            help="A key of this home, an author id sha256-…, or a public key ed25519-….",
            show_default=False,
        ),
    ] = None,
    role: Annotated[
        RoleName | None, typer.Option(metavar="ROLE", help="owner, writer or reader.")
    ] = None,
    as_key: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="KEY", help="Sign with this key.", show_default=authors.DEFAULT
        ),
    ] = None,
    deadline: DeadlineOption = DEADLINE_SECONDS,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List the members of a session; add one, give it another role, or remove it."""
    around = surroundings.of(context)
    named = _session(session)
    if act is None:
        _list(around, named, as_json, home)
        return
    if key is None:
        raise bad_use(f"Whom? 'nocturne members {named} {act} KEY'.")
    if (act is MemberAct.ADD) != (role is not None):
        raise bad_use(
            "Say the role with --role owner, writer or reader."
            if act is MemberAct.ADD
            else "--role goes with add: a member that is removed has none."
        )
    place = around.home(home)
    author = author_named(around, home, as_key)

    async def question(ledger: Ledger) -> tuple[SignedCommand, Result, Key]:
        member = await author_meant(ledger, place, key)
        found = await _members_of(ledger, named)
        if act is MemberAct.REMOVE and member not in found.roles:
            raise Failure(
                ExitCode.FAILED,
                f"{format_hash(member)} is no member of {named}: 'nocturne members {named}' "
                "lists them.",
            )
        if role is None:
            event_type, payload = MEMBER_REMOVED, removed_payload(member)
        else:
            event_type, payload = MEMBER_ADDED, added_payload(member, _ROLES[role.value])
        signed = act_command(ledger.ledger_id, named, event_type, payload, author, minted(around))
        return await _submitted(ledger, signed, deadline)

    began = around.now_ms()
    _tell(around, *ask(around, home, question, deadline), as_json, around.now_ms() - began)


def close(
    context: typer.Context,
    session: SessionArgument,
    as_key: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="KEY", help="Sign with this key.", show_default=authors.DEFAULT
        ),
    ] = None,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    deadline: DeadlineOption = DEADLINE_SECONDS,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Close a session: nothing more can be written to it. It cannot be undone."""
    around = surroundings.of(context)
    named = _session(session)
    author = author_named(around, home, as_key)
    confirm(around, f"Nothing can be written to {named} any more, by anybody.", is_sure)

    async def question(ledger: Ledger) -> tuple[SignedCommand, Result, Key]:
        await _members_of(ledger, named)
        signed = act_command(
            ledger.ledger_id, named, SESSION_CLOSED, closed_payload(), author, minted(around)
        )
        return await _submitted(ledger, signed, deadline)

    began = around.now_ms()
    _tell(around, *ask(around, home, question, deadline), as_json, around.now_ms() - began)


async def author_meant(ledger: Ledger, home: Home, text: str) -> AuthorId:
    """The author that KEY stands for. A public key may be one that the author was rotated to."""
    if text.startswith("sha256-"):
        try:
            return AuthorId(parse_hash(text))
        except Malformed as fault:
            raise bad_use(f"KEY is no author id ({fault}).") from fault
    if text.startswith("ed25519-"):
        try:
            key = parse_key(text)
        except Malformed as fault:
            raise bad_use(f"KEY is no public key ({fault}).") from fault
        return _local(home, key) or await _author_of(ledger, (key,))
    return authors.load(home, text).id


def _local(home: Home, key: PublicKey) -> AuthorId | None:
    return next((one.author for one in authors.every(home) if (key,) in one.keys), None)


async def _author_of(ledger: Ledger, key: Key) -> AuthorId:
    """Whose key it is, as the ledger says; else the author whose first key it is."""
    keys = AuthorKeys()
    async with aclosing(ledger.events(LEDGER_SESSION, 1)) as events:
        async for event in each_within(events):
            keys.take(event)
    return keys.author_of(key) or AuthorId(key_id(key))


def _session(text: str) -> SessionId:
    named = session_id(text)
    if is_reserved_session(named):
        raise bad_use(f"{named} is the ledger's own: it has no members, and is never closed.")
    return named


async def _members_of(ledger: Ledger, session: SessionId) -> Members:
    if await within(ledger.session(session)) is None:
        raise Failure(
            ExitCode.FAILED,
            f"There is no session {session} in this ledger: 'nocturne sessions' lists them.",
        )
    found = Members()
    async with aclosing(ledger.events(session, 1)) as events:
        async for event in each_within(events):
            found.take(event)
    return found


def _list(around: Surroundings, session: SessionId, as_json: bool, home: Path | None) -> None:
    async def question(ledger: Ledger) -> Members:
        return await _members_of(ledger, session)

    found = ask(around, home, question)
    here = {one.author: one.name for one in authors.every(around.home(home))}
    rows = sorted(found.roles.items(), key=lambda entry: (entry[1], entry[0]))
    if as_json:
        for author, role in rows:
            around.emit(
                {
                    "sessionId": session,
                    "author": format_hash(author),
                    "role": ROLE_NAMES[role],
                    "sequenceNumber": found.since(author),
                    "name": here.get(author),
                }
            )
        return
    around.out.print(table(_MEMBERS, [_row(found, author, role, here) for author, role in rows]))
    if found.closed:
        around.say(f"{session} is closed: nobody can write to it any more.")


def _row(
    found: Members, author: AuthorId, role: Role, here: Mapping[AuthorId | None, str]
) -> list[str]:
    return [
        ROLE_NAMES[role],
        format_hash(author),
        str(found.since(author)),
        here.get(author, ""),
    ]


async def _submitted(
    ledger: Ledger, signed: SignedCommand, deadline: float
) -> tuple[SignedCommand, Result, Key]:
    result = await submit_act(ledger, signed, deadline)
    await until_readable(ledger, result)
    return signed, result, ledger.genesis.authority


def _tell(
    around: Surroundings,
    signed: SignedCommand,
    result: Result,
    authority: Key,
    as_json: bool,
    took_ms: int,
) -> None:
    if as_json:
        around.emit(result_json(signed, result, authority))
    elif not isinstance(result, Undecided):
        around.out.print(result_text(signed.command.session, result, took_ms))
    match result:
        case Refused(reason=Reason.NOT_A_MEMBER):
            raise Failure(
                ExitCode.FAILED,
                "Only an owner may do this: sign as one with --as KEY, and see "
                f"'nocturne members {signed.command.session}'.",
            )
        case Refused():
            raise typer.Exit(ExitCode.FAILED)
        case Undecided():
            raise Failure(
                ExitCode.UNAVAILABLE,
                "The deadline came before it was decided: run the same again, which does no harm.",
            )
        case _:
            pass
