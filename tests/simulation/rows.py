"""Which rows of the transition table a step was: the table of `consensus/quorum/machine.py`, and of
docs/spec/quorum.md what it has besides. `make sim` counts them, and none may be zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from nocturne.consensus.quorum.leaders import EVERYONE_MAX
from nocturne.consensus.quorum.messages import (
    Accuse,
    Build,
    Built,
    Cast,
    CatchUp,
    Check,
    Checked,
    Commit,
    Committed,
    Effect,
    Event,
    Fetch,
    Fired,
    Message,
    Offer,
    Persist,
    Received,
    Record,
    Send,
    Vote,
)
from nocturne.core.blocks import BlockKind
from nocturne.core.certificates import Certificate, Epoch, VoteKind

ROWS: Final = tuple(
    f"row: {name}"
    for name in (
        "the leader's turn: Build",
        "Built: Offer",
        "an offer of the view: Check",
        "Checked: notarize",
        "a quorum notarizes: Not",
        "a quorum notarizes: finalize",
        "a quorum nullifies: Nul",
        "a quorum finalizes: Commit",
        "a quorum finalizes an epoch's last block: the next epoch",
        "a quorum finalizes an unknown block: Fetch",
        "a wait is over: votes again",
        "a wait is over: offer again",
        "a wait is over: what is held again",
        "a wait is over: Build of an empty block",
        "past an epoch's last block: tail block",
        "the second wait is over: nullify",
        "the second wait is over: nullify what was jumped over",
        "a vote again: its view's certificate",
        "a vote again: the base",
        "of an earlier epoch: Committed",
        "of a later epoch: CatchUp",
        "a second vote: Accuse",
        "a second proposal: Accuse",
        "many validators: a certificate to all",
        "many validators: a vote again to all",
    )
)


def rows(
    event: Event, effects: Sequence[Effect], before: Epoch, after: Epoch, view: int, n: int
) -> Iterator[str]:
    """Of a step among `n` from the epoch `before` to the epoch `after`, now in `view`."""
    for effect in effects:
        match effect:
            case Persist(record):
                yield from _persisted(event, record, view)
            case Send(to, message):
                yield from _sent(event, to, message, before, n)
            case Build(_, _, empty):
                yield "row: the leader's turn: Build"
                if empty and isinstance(event, Fired):
                    yield "row: a wait is over: Build of an empty block"
            case Check():
                yield "row: an offer of the view: Check"
            case Commit():
                yield "row: a quorum finalizes: Commit"
                if after != before:
                    yield "row: a quorum finalizes an epoch's last block: the next epoch"
            case Fetch():
                yield "row: a quorum finalizes an unknown block: Fetch"
            case CatchUp() if isinstance(event, Received):
                yield "row: of a later epoch: CatchUp"
            case Accuse(_, Vote()):
                yield "row: a second vote: Accuse"
            case Accuse():
                yield "row: a second proposal: Accuse"
            case _:
                pass


def _persisted(event: Event, record: Record, view: int) -> Iterator[str]:
    match record:
        case Certificate(VoteKind.NOTARIZE):
            yield "row: a quorum notarizes: Not"
        case Certificate(VoteKind.NULLIFY):
            yield "row: a quorum nullifies: Nul"
        case Vote(_, VoteKind.FINALIZE):
            yield "row: a quorum notarizes: finalize"
        case Vote(_, VoteKind.NOTARIZE) if isinstance(event, Checked):
            yield "row: Checked: notarize"
        case Vote(_, VoteKind.NULLIFY, _, of) if of < view:
            yield "row: the second wait is over: nullify what was jumped over"
        case Vote(_, VoteKind.NULLIFY):
            yield "row: the second wait is over: nullify"
        case _:
            pass


def _sent(
    event: Event, to: Sequence[int], message: Message, before: Epoch, n: int
) -> Iterator[str]:
    large, to_all = n > EVERYONE_MAX, len(to) == n - 1
    match event, message:
        case Built(), Offer():
            yield "row: Built: Offer"
        case Fired(), Offer():
            yield "row: a wait is over: offer again"
        case Fired(), Cast():
            yield "row: a wait is over: votes again"
            if large and to_all:
                yield "row: many validators: a vote again to all"
        case Fired(), Certificate():
            yield "row: a wait is over: what is held again"
        case Received(_, Cast(_, True)), Certificate() if len(to) == 1:
            yield "row: a vote again: its view's certificate"
        case Received(_, Cast(vote, True)), Committed() if vote.epoch == before:
            yield "row: a vote again: the base"
        case Received(), Committed():
            yield "row: of an earlier epoch: Committed"
        case Received(_, Cast()), Certificate() if large and to_all:
            yield "row: many validators: a certificate to all"
        case _:
            pass
    if isinstance(message, Offer) and message.proposal.header.kind is BlockKind.TAIL:
        yield "row: past an epoch's last block: tail block"
