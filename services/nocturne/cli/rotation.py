"""Rotate and revoke an author's key: acts in `~ledger`, and what the home keeps of them.

Rules: docs/spec/ledger.md §6, author keys. The order of a rotation: the new key is on the disk,
then the id of the command that asks for it, then the command goes out, then, once it is certified,
the home switches. Ended anywhere, the same command run again asks the same and finishes: what the
ledger says of a key that is here decides, for a copy of a rotation that was certified is refused
with `UNKNOWN_AUTHOR`, its old key not being the author's any more.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace

from nocturne.cli import authors
from nocturne.cli.acts import act_command, minted, submit_act
from nocturne.cli.asking import each_within, within
from nocturne.cli.author_state import AuthorState
from nocturne.cli.failures import ExitCode, Failure
from nocturne.cli.ledger import Ledger
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.words import refusal
from nocturne.cli.writing import is_readable
from nocturne.client.author_keys import AuthorKeys
from nocturne.client.building import Author
from nocturne.client.results import Committed, Refused, Result
from nocturne.core.author_keys import (
    AUTHOR_KEY_REVOKED,
    AUTHOR_KEY_ROTATED,
    revoked_payload,
    rotated_payload,
)
from nocturne.core.commands import SignedCommand
from nocturne.core.identifiers import LEDGER_SESSION
from nocturne.core.keys import Key
from nocturne.core.receipts import Reason
from nocturne.embedded.home import Home
from nocturne.runtime.home import held_alone


@dataclass(frozen=True, slots=True)
class Rotated:
    """The author, the key that signed until now and the one that signs from now on."""

    author: Author
    before: Key
    height: int


async def rotate(
    around: Surroundings, ledger: Ledger, home: Home, name: str, deadline_seconds: float
) -> Rotated:
    """Give the author under `name` a new key, or finish what an earlier run began."""
    authors.load(home, name)
    with held_alone(authors.rotation_folder(home, name)):
        return await _rotate(around, ledger, home, name, deadline_seconds)


async def _rotate(
    around: Surroundings, ledger: Ledger, home: Home, name: str, deadline_seconds: float
) -> Rotated:
    state = authors.state_of(home, name)
    if state.revoked:
        raise _revoked(name)
    author = authors.load(home, name)
    done = await _switched(ledger, home, name)
    if done is not None:
        return done
    fresh = authors.next_key(home, name, state)
    identity = state.pending or minted(around)
    if state.pending is None:
        state = replace(state, pending=identity)
        authors.keep_state(home, name, state)
    payload = rotated_payload(author.id, fresh)
    signed = act_command(
        ledger.ledger_id, LEDGER_SESSION, AUTHOR_KEY_ROTATED, payload, author, identity
    )
    result = await _decided(ledger, signed, deadline_seconds)
    match result:
        case Committed(place=place):
            # Certified in block h, it counts from block h + 1 on, and what is sent from here on
            # stands behind the records of block h: every command the new key signs is after it.
            return _switch(home, name, state, place.height)
        case Refused():
            done = await _switched(ledger, home, name)
            if done is not None:
                # An earlier copy of it was certified, and its answer lost on its way.
                return done
            # Its id is used up; a next run asks under a new one, for the same new key.
            authors.keep_state(home, name, replace(state, pending=None))
            raise await _refused(ledger, name, author, result)
        case _:
            raise Failure(
                ExitCode.UNAVAILABLE,
                f"The deadline came before it was decided: run 'nocturne keys rotate {name}' "
                "again, which asks for the same and finishes it. Until then the old key signs.",
            )


async def revoke(
    around: Surroundings, ledger: Ledger, home: Home, name: str, deadline_seconds: float
) -> int:
    """Say in the ledger that no key signs for the author any more; the block's height."""
    with held_alone(authors.rotation_folder(home, name)):
        state = authors.state_of(home, name)
        if state.revoked:
            raise _revoked(name)
        await _switched(ledger, home, name)
        author, result = await _revoke_once(around, ledger, home, name, deadline_seconds)
        if isinstance(result, Refused) and await _switched(ledger, home, name) is not None:
            # A rotation on its way came before: the key it brought signs, and asks again.
            author, result = await _revoke_once(around, ledger, home, name, deadline_seconds)
        state = authors.state_of(home, name)
        match result:
            case Committed(place=place):
                authors.keep_state(home, name, replace(state, revoked=True))
                return place.height
            case Refused():
                fault = await _refused(ledger, name, author, result)
                if await _has_revoked_itself(ledger, author):
                    # An earlier run's answer was lost on its way.
                    authors.keep_state(home, name, replace(state, revoked=True))
                    raise _revoked(name)
                raise fault
            case _:
                raise Failure(
                    ExitCode.UNAVAILABLE,
                    "The deadline came before it was decided: run the same again, which does no "
                    "harm.",
                )


async def _revoke_once(
    around: Surroundings, ledger: Ledger, home: Home, name: str, deadline_seconds: float
) -> tuple[Author, Result]:
    author = authors.load(home, name)
    payload = revoked_payload(author.id)
    signed = act_command(
        ledger.ledger_id, LEDGER_SESSION, AUTHOR_KEY_REVOKED, payload, author, minted(around)
    )
    return author, await _decided(ledger, signed, deadline_seconds)


async def _decided(ledger: Ledger, signed: SignedCommand, deadline_seconds: float) -> Result:
    """The first outcome, also where this very command was decided before. After a refusal, what
    the read side says is as new as the refusal.
    """
    result = await submit_act(ledger, signed, deadline_seconds)
    if not isinstance(result, Refused):
        return result
    if not await is_readable(ledger, result.place.height):
        raise Failure(
            ExitCode.UNAVAILABLE,
            f"It was refused in block {result.place.height}, and what was decided before cannot be "
            "read yet: run the same again, which asks for the same and finishes it.",
        )
    first = await within(ledger.outcome(signed))
    return result if first is None else first


async def _switched(ledger: Ledger, home: Home, name: str) -> Rotated | None:
    """Switch to the key that is kept beside the state, if the ledger has it as the author's."""
    state = authors.state_of(home, name)
    fresh = authors.waiting_key(home, name, state)
    if fresh is None:
        return None
    author = authors.load(home, name)
    height = 0
    keys = AuthorKeys()
    async with aclosing(ledger.events(LEDGER_SESSION, 1)) as events:
        async for event in each_within(events):
            keys.take(event)
            if height == 0 and keys.current(author.id) == fresh.key:
                height = event.height
    return _switch(home, name, state, height) if keys.current(author.id) == fresh.key else None


def _switch(home: Home, name: str, state: AuthorState, height: int) -> Rotated:
    before = authors.load(home, name).signer.key
    authors.keep_state(home, name, replace(state, current=state.current + 1, pending=None))
    return Rotated(authors.load(home, name), before, height)


async def _refused(ledger: Ledger, name: str, author: Author, refused: Refused) -> Failure:
    why = refusal(refused.header)
    if refused.reason is Reason.UNKNOWN_AUTHOR:
        why = (
            "it was revoked"
            if await _has_revoked_itself(ledger, author)
            else "it was revoked, or rotated from another home: use the key that signs now there"
        )
        why = f"the key of {name} is not the author's any more; {why}"
    return Failure(ExitCode.FAILED, f"The ledger refused it: {why}.")


async def _has_revoked_itself(ledger: Ledger, author: Author) -> bool:
    keys = AuthorKeys()
    async with aclosing(ledger.events(LEDGER_SESSION, 1)) as events:
        async for event in each_within(events):
            keys.take(event)
    return keys.has_revoked_itself(author.id)


def _revoked(name: str) -> Failure:
    return Failure(
        ExitCode.FAILED,
        f"The author {name} is revoked, for good: 'nocturne keys new' makes another one.",
    )
