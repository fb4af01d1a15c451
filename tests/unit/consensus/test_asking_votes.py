"""Who asks the others for its own votes, and what waits for the answers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.consensus.committees import Committee
from tests.unit.consensus.ledgers import signer
from tests.unit.consensus.test_own_votes import vote

from nocturne.consensus import codec
from nocturne.consensus.asking_votes import AskingVotes
from nocturne.core.certificates import Ballot, Epoch, ValidatorSet, VoteKind, sign_vote
from nocturne.core.errors import Halt
from nocturne.core.keys import Key

ADMITTED = signer(60)


def decided(*keys: Key, number: int = 2) -> Any:
    """The sets after an epoch's last block, as far as they are asked for."""
    found = None if not keys else (Epoch(0, number), ValidatorSet.of(keys))
    return cast("Any", SimpleNamespace(decided_at=lambda height: found))


def asking(committee: Committee, key: Key) -> tuple[AskingVotes, list[Key]]:
    asked: list[Key] = []

    def send(to: Key, value: codec.Value) -> None:
        assert value == codec.AskVotes()
        asked.append(to)

    return AskingVotes(committee.ledger.ledger_id, key, send), asked


def test_an_observer_asks_once_a_set_has_its_key_and_goes_on_when_a_quorum_has_answered() -> None:
    committee = Committee(4)
    replica, others = committee.members[0].replica, [one.key for one in committee.signers]
    subject, asked = asking(committee, ADMITTED.key)

    async def test() -> None:
        waiting = asyncio.ensure_future(subject.ask_once_admitted(replica, ()))
        subject.clear()
        subject.executed(decided(), 1)
        subject.executed(decided(*others), 7)
        await asyncio.sleep(0)
        assert (subject.is_cleared, asked) == (True, [])
        subject.executed(decided(*others, ADMITTED.key), 14)
        assert not subject.is_cleared
        cleared = asyncio.ensure_future(subject.until_cleared())
        await asyncio.sleep(0)
        assert set(asked) == set(others)
        for one in others[:2]:
            subject.hear(one, ())
        await asyncio.sleep(0)
        assert not cleared.done()
        subject.hear(others[2], ())
        async with asyncio.timeout(60):
            await asyncio.gather(waiting, cleared)
        # It has asked: other sets that have its key change nothing.
        subject.executed(decided(*others[:3], ADMITTED.key, number=3), 21)
        assert subject.is_cleared

    asyncio.run(test())


def test_who_is_admitted_by_what_its_own_journal_has_asks_before_it_is_cleared() -> None:
    committee = Committee(4)
    others = [one.key for one in committee.signers]
    subject, asked = asking(committee, ADMITTED.key)

    async def test() -> None:
        # While the journal is restored, before all else is ready.
        subject.executed(decided(*others, ADMITTED.key), 7)
        subject.clear()
        assert not subject.is_cleared
        waiting = asyncio.ensure_future(subject.ask_once_admitted(committee.members[0].replica, ()))
        await asyncio.sleep(0)
        assert set(asked) == set(others)
        for one in others[:3]:
            subject.hear(one, ())
        async with asyncio.timeout(60):
            await waiting
        assert subject.is_cleared

    asyncio.run(test())


def test_a_vote_of_an_epoch_that_the_journal_does_not_know_halts_when_its_set_is_decided() -> None:
    committee = Committee(4)
    own, *others = committee.signers
    changed = ValidatorSet.of(tuple(one.key for one in (own, *others[:2], ADMITTED)))
    ballot = Ballot(
        VoteKind.NOTARIZE, committee.ledger.ledger_id, Epoch(0, 2), changed.hash, 1, vote(1).digest
    )
    held = vote(1, epoch=2)
    held = held.__class__(0, held.kind, held.epoch, held.view, held.digest, sign_vote(own, ballot))
    subject, _ = asking(committee, own.key)

    async def test() -> None:
        waiting = asyncio.ensure_future(subject.ask(committee.members[0].replica, ()))
        await asyncio.sleep(0)
        subject.hear(others[0].key, (held,))
        subject.hear(others[1].key, ())
        async with asyncio.timeout(60):
            await waiting
        with pytest.raises(Halt, match="epoch 2 that its journal lacks"):
            subject.executed(decided(*changed.keys), 7)

    asyncio.run(test())
