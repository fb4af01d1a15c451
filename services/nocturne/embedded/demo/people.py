"""The departments' keys, and their commands signed with them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from nocturne.core.commands import (
    Command,
    EventDraft,
    Opening,
    Payload,
    SignedCommand,
    payload_hash,
    sign_command,
)
from nocturne.core.encoding import domain, sha256, u32, u64, variable
from nocturne.core.identifiers import AuthorId, CommandId, LedgerId, SessionId
from nocturne.core.keys import Signer, key_id
from nocturne.embedded.demo.steps import Department, Fact, Step

_IDENTITY: Final = domain("nocturne/demo-identity/v1")
_SALT: Final = domain("nocturne/demo-salt/v1")
_UUID_VERSION: Final = 0x7000
_UUID_VARIANT: Final = 0x8000_0000_0000_0000


def author_of(signer: Signer) -> AuthorId:
    """The author whose first key this is."""
    return AuthorId(key_id(signer.key))


@dataclass(frozen=True, slots=True)
class People:
    """Who can sign. `secret` (32 random bytes) makes salts that nobody can guess from the seed of
    the business case.
    """

    ledger_id: LedgerId
    signers: Mapping[Department, Signer]
    secret: bytes

    @property
    def authors(self) -> Mapping[Department, AuthorId]:
        """Each department's author id."""
        return {name: author_of(signer) for name, signer in self.signers.items()}

    def signed(self, step: Step) -> SignedCommand:
        """The command of a step; of the same step always the same bytes."""
        place = variable(step.session.encode("ascii")) + u64(step.identity)
        payloads = tuple(
            Payload(sha256(_SALT + self.secret + place + u32(index) + fact.payload), fact.payload)
            for index, fact in enumerate(step.facts)
        )
        author = self.signers[step.author]
        command = Command(
            self.ledger_id,
            step.session,
            author_of(author),
            author.key,
            _command_id(step.occurred_at, sha256(_IDENTITY + self.secret + place)),
            step.expected_sequence,
            step.opening,
            step.occurred_at,
            _drafts(step.facts, payloads),
        )
        return sign_command(command, payloads, self.signers[step.signed_by])


def command_of(
    ledger_id: LedgerId,
    session: SessionId,
    signer: Signer,
    facts: tuple[Fact, ...],
    *,
    at: int,
    dice: bytes,
    expected: int | None = None,
    opening: Opening | None = None,
) -> SignedCommand:
    """A command outside the plan: `at` in ms, `dice` are 32 random bytes for its id and salts."""
    payloads = tuple(
        Payload(sha256(_SALT + dice + u32(index)), fact.payload) for index, fact in enumerate(facts)
    )
    command = Command(
        ledger_id,
        session,
        author_of(signer),
        signer.key,
        _command_id(at, sha256(_IDENTITY + dice)),
        expected,
        opening,
        at,
        _drafts(facts, payloads),
    )
    return sign_command(command, payloads, signer)


def in_the_name_of(signed: SignedCommand, author: Signer, forger: Signer) -> SignedCommand:
    """The same command as if `author` had given it, signed by one who does not hold the key."""
    command = replace(signed.command, author=author_of(author), key=author.key)
    return sign_command(command, signed.payloads, forger)


def _drafts(facts: tuple[Fact, ...], payloads: tuple[Payload, ...]) -> tuple[EventDraft, ...]:
    return tuple(
        EventDraft(fact.event_type, fact.content_type, payload_hash(payload))
        for fact, payload in zip(facts, payloads, strict=True)
    )


def _command_id(at: int, dice: bytes) -> CommandId:
    """UUIDv7 (RFC 9562 §5.7) of a time in ms: rising with it."""
    head = (at << 16) | _UUID_VERSION | (int.from_bytes(dice[:2], "big") & 0x0FFF)
    tail = _UUID_VARIANT | (int.from_bytes(dice[2:10], "big") & 0x3FFF_FFFF_FFFF_FFFF)
    return CommandId(u64(head) + u64(tail))
