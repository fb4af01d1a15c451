"""What the business case is made of: commands by departments, each with what must become of it.

Pure. Names of departments stand for keys; who holds which key is `nocturne.embedded.demo.people`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NewType

from nocturne.core.commands import Opening
from nocturne.core.decide import MEMBER_ADDED, SESSION_CLOSED
from nocturne.core.identifiers import AuthorId, SessionId, format_hash
from nocturne.core.receipts import Reason
from nocturne.core.strict_json import JsonValue, canonical_json

Department = NewType("Department", str)

PATCH: Final = "application/merge-patch+json"
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Fact:
    """One event that a command asks for."""

    event_type: str
    content_type: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Step:
    """One command. `at` (ms) places it among all, `occurred_at` (ms) is what its author claims.

    `identity` tells the author's commands of one session apart: two steps with the same one carry
    the same command id. `signed_by` differs from `author` when somebody signs in another's name.
    `refusal` is None when the command must become its facts, else the reason of its receipt.
    """

    at: int
    session: SessionId
    author: Department
    signed_by: Department
    identity: int
    occurred_at: int
    expected_sequence: int | None
    opening: Opening | None
    facts: tuple[Fact, ...]
    refusal: Reason | None


class Script:
    """The steps of one session in their order, with the sequence it stands at after each."""

    def __init__(self, session: SessionId, opening: Opening) -> None:
        self.session = session
        self.steps: list[Step] = []
        self.sequence = 0
        self._opening = opening

    def does(self, at: int, author: Department, *facts: Fact) -> Step:
        """A command that the ledger takes, written by one who knows how the session stands."""
        step = self._add(at, author, self.sequence, facts, None)
        self.sequence += len(facts)
        return step

    def adds(self, at: int, author: Department, *facts: Fact) -> Step:
        """A command that the ledger takes wherever it comes to stand: it expects no sequence."""
        step = self._add(at, author, None, facts, None)
        self.sequence += len(facts)
        return step

    def is_refused(
        self, at: int, author: Department, reason: Reason, *facts: Fact, behind: int = 0
    ) -> None:
        """A command that must become a receipt; `behind` is by how many events its author's
        knowledge of the session is out of date.
        """
        self._add(at, author, self.sequence - behind, facts, reason)

    def opens_wrongly(self, at: int, author: Department, opening: Opening, *facts: Fact) -> None:
        """A command that would open the session with a kind that the ledger lacks."""
        self._add(at, author, 0, facts, Reason.UNKNOWN_KIND)
        self.steps[-1] = replace(self.steps[-1], opening=opening)

    def is_forged(self, at: int, author: Department, forger: Department, *facts: Fact) -> None:
        """A command in the name of `author`, signed by another."""
        self._add(at, author, self.sequence, facts, Reason.SIGNATURE_INVALID)
        self.steps[-1] = replace(self.steps[-1], signed_by=forger)

    def comes_again(self, at: int, step: Step) -> None:
        """The very same command once more, as an impatient sender does."""
        self.steps.append(replace(step, at=at, refusal=Reason.REPEATED))

    def comes_changed(self, at: int, step: Step, *facts: Fact) -> None:
        """Another content under the id of a command that was decided."""
        self.steps.append(replace(step, at=at, facts=facts, refusal=Reason.ID_REUSED))

    def _add(
        self,
        at: int,
        author: Department,
        expected: int | None,
        facts: tuple[Fact, ...],
        refusal: Reason | None,
    ) -> Step:
        step = Step(
            at,
            self.session,
            author,
            author,
            len(self.steps),
            at,
            expected,
            None if self.sequence else self._opening,
            facts,
            refusal,
        )
        self.steps.append(step)
        return step


def patch(event_type: str, **fields: JsonValue) -> Fact:
    """A change of a document, as a JSON merge patch (RFC 7396)."""
    return Fact(event_type, PATCH, canonical_json(fields))


def fact(event_type: str, **fields: JsonValue) -> Fact:
    """A fact with JSON fields."""
    return Fact(event_type, JSON, canonical_json(fields))


def member_added(author: AuthorId) -> Fact:
    """From now on `author` may write in the session."""
    return fact(MEMBER_ADDED, author=format_hash(author), role="writer")


def session_closed() -> Fact:
    """Nothing is written in the session any more."""
    return Fact(SESSION_CLOSED, JSON, b"{}")
