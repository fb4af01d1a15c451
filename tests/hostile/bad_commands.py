"""Well-formed commands that a ledger must not carry out: every reason for a receipt, by kind.

They pass admission: names, numbers and encoding are right. `Wrongs.next` draws one; each says
whether a receipt must come of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from tests.e2e.driver import Author
from tests.hostile.inputs import BOMBS, NUMBERS, hostile_json

from nocturne.core.commands import Opening, Payload, SignedCommand
from nocturne.core.encoding import INTEGER_MAX
from nocturne.core.identifiers import LEDGER_SESSION, AuthorId, LedgerId

PAYLOAD_BYTES_MAX: Final = 2048
HONEST: Final = "hostile/honest"
EVENTS_TOO_MANY: Final = 300

Made = tuple[SignedCommand, bool]


@dataclass
class Wrongs:
    """Draws wrong commands against the session that `openings` opens; `kind` guards its events."""

    ledger_id: LedgerId
    dice: Random
    kind: Opening

    def __post_init__(self) -> None:
        self.owner = Author(self.ledger_id, self.dice)
        self.stranger = Author(self.ledger_id, self.dice)
        self._accepted: list[SignedCommand] = []
        self._makers: tuple[Callable[[], Made], ...] = (
            self._forged,
            self._of_another_ledger,
            self._in_anothers_name,
            self._of_no_member,
            self._never_opened,
            self._of_unknown_kind,
            self._opened_again,
            self._out_of_turn,
            self._repeated,
            self._reused,
            self._other_payload,
            self._too_many,
            self._member_of_nothing,
            self._guarded,
            self._governing,
        )

    def openings(self) -> list[SignedCommand]:
        """What must be accepted first."""
        self._accepted = [self.owner.command(HONEST, opening=Opening("facts", 1))]
        return self._accepted

    def next(self) -> Made:
        """A command, and whether a receipt must come of it (else: a receipt or events)."""
        return self.dice.choice(self._makers)()

    # Each way to be wrong ----------------------------------------------------------------------

    def _forged(self) -> Made:
        one, other = (author.command(HONEST) for author in (self.owner, self.stranger))
        return replace(one, signatures=other.signatures), True

    def _of_another_ledger(self) -> Made:
        return self.owner.command(HONEST, ledger_id=LedgerId(self.dice.randbytes(32))), True

    def _in_anothers_name(self) -> Made:
        thief = Author(self.ledger_id, self.dice).standing_for(self.owner.id)
        return thief.command(HONEST), True

    def _of_no_member(self) -> Made:
        return self.stranger.command(HONEST), True

    def _never_opened(self) -> Made:
        return self.stranger.command(f"hostile/never/{self.dice.randrange(100)}"), True

    def _of_unknown_kind(self) -> Made:
        kind = Opening(self.dice.choice(("nonsense", "x" * 128)), self.dice.choice((1, 2**31 - 1)))
        return self.stranger.command(f"hostile/{self.dice.random()}", opening=kind), True

    def _opened_again(self) -> Made:
        return self.stranger.command(HONEST, opening=Opening("facts", 1), expected=0), True

    def _out_of_turn(self) -> Made:
        expected = self.dice.choice((INTEGER_MAX - 1, 2**32, 10**6))
        return self.owner.command(HONEST, expected=expected), True

    def _repeated(self) -> Made:
        return self.dice.choice(self._accepted), False

    def _reused(self) -> Made:
        first = self._accepted[0].command
        return self.owner.command(HONEST, command_id=first.command_id), True

    def _other_payload(self) -> Made:
        one = self.owner.command(HONEST)
        return replace(one, payloads=(Payload(bytes(32), self._payload()),)), True

    def _too_many(self) -> Made:
        count = self.dice.choice((EVENTS_TOO_MANY, EVENTS_TOO_MANY * 2))
        return self.stranger.command(HONEST, (b"",) * count), True

    def _member_of_nothing(self) -> Made:
        event = self.dice.choice(("nocturne.MemberAdded", "nocturne.MemberRemoved"))
        return self.owner.command(HONEST, (self._nonsense(),), event_type=event), True

    def _guarded(self) -> Made:
        """An event that a kind's invariant reads, in a session of its own."""
        session = f"hostile/kind/{self.dice.getrandbits(64):x}"
        event = self.dice.choice(("Opened", "Posted", "Transferred", "nocturne.SessionClosed", "X"))
        author = Author(self.ledger_id, self.dice)
        made = author.command(session, (self._nonsense(),), opening=self.kind, event_type=event)
        return made, False

    def _governing(self) -> Made:
        """Acts on keys with whatever payload: nobody's key changes by them."""
        event = self.dice.choice(
            ("nocturne.AuthorKeyRotated", "nocturne.AuthorKeyRevoked", "nocturne.Other")
        )
        author = Author(self.ledger_id, self.dice)
        payload = self.dice.choice(
            (
                self._nonsense(),
                b'{"author":"sha256-%s"}' % bytes(self.owner.id).hex().encode(),
                b'{"author":"sha256-%s","key":[],"possession":[]}'
                % bytes(AuthorId(author.id)).hex().encode(),
            )
        )
        return author.command(LEDGER_SESSION, (payload,), event_type=event), False

    def _payload(self) -> bytes:
        made = (self._nonsense(), self.dice.choice(BOMBS), self.dice.randbytes(64))
        return self.dice.choice(made)[:PAYLOAD_BYTES_MAX]

    def _nonsense(self) -> bytes:
        """JSON that no rule of a payload fits, or no JSON."""
        number = self.dice.choice(NUMBERS)[:400].encode("utf-8")
        made = (
            hostile_json(self.dice),
            b'{"author":%s,"role":%s}' % (hostile_json(self.dice, 1), number),
            b'{"from":"a","to":"b","amount":%s}' % number,
            b'{"order":"1","side":"buy","price":%s,"quantity":%s}' % (number, number),
        )
        return self.dice.choice(made)[:PAYLOAD_BYTES_MAX]
