"""Asking the other validators for the newest votes of one's own before the first vote in a set.

Rules: docs/spec/quorum.md §9. The shell of `own_votes`. Until it is `cleared` a validator neither
votes nor takes what would lead it to: blocks that begin an epoch, and what others say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from nocturne.consensus import codec
from nocturne.consensus.own_votes import VoteCheck
from nocturne.consensus.quorum.messages import Vote
from nocturne.consensus.replica import Replica
from nocturne.core.certificates import Epoch
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import Key
from nocturne.core.validator_sets import ValidatorSets

ASK_SECONDS: Final = 0.2
"""To the next time that those are asked who have not answered."""

log = structlog.get_logger()


class AskingVotes:
    """One process's; it asks once. Nothing is cleared at first."""

    def __init__(
        self, ledger_id: LedgerId, own_key: Key, send: Callable[[Key, codec.Value], None]
    ) -> None:
        self._ledger_id = ledger_id
        self._own_key = own_key
        self._send = send
        self._check: VoteCheck | None = None
        self._admitted = asyncio.Event()
        self._clearing = asyncio.Event()

    @property
    def is_cleared(self) -> bool:
        """Whether it may vote, as far as its journal is concerned."""
        return self._clearing.is_set()

    async def until_cleared(self) -> None:
        """Wait for that."""
        await self._clearing.wait()

    def clear(self) -> None:
        """All else is ready to vote, or to observe. Who was admitted meanwhile asks first."""
        if self._check is not None or not self._admitted.is_set():
            self._clearing.set()

    async def ask(self, replica: Replica, own_votes: Sequence[Vote]) -> None:
        """Until a quorum has answered. `own_votes` are those that the journal had at the start,
        above the newest block.
        """
        chain = replica.chain
        settled = (Epoch(0, 0), 0)
        if chain.newest is not None:
            header = chain.newest.proposal.header
            settled = (header.epoch, header.view)
        later = tuple(one.validators for one in chain.sets.decided)
        check = self._check = VoteCheck(
            self._ledger_id, replica.validators, self._own_key, settled, own_votes, later
        )
        told = False
        while not check.is_done:
            for key in check.missing:
                self._send(key, codec.AskVotes())
            await asyncio.sleep(ASK_SECONDS)
            if not told and not check.is_done:
                told = True
                log.info("asking_for_own_votes", missing=len(check.missing))

    async def ask_once_admitted(self, replica: Replica, own_votes: Sequence[Vote]) -> None:
        """For an observer: its journal may be an older copy too, of before the set that has its
        key. It asks an epoch before that set's first one.
        """
        await self._admitted.wait()
        await self.ask(replica, own_votes)
        self.clear()

    def hear(self, sender: Key, votes: Sequence[Vote]) -> None:
        """An answer. `Halt` when it has a vote that the journal lacks."""
        if self._check is not None and not self._check.is_done:
            self._check.answered(sender, votes)

    def executed(self, sets: ValidatorSets, height: int) -> None:
        """The block of `height` is, and `sets` are those after it: an epoch's last one decides the
        set of a later epoch. `Halt` when an answer has a vote of that epoch.
        """
        decided = sets.decided_at(height)
        if decided is None:
            return
        _, validators = decided
        if self._check is not None:
            self._check.decided(validators)
        elif self._own_key in validators.keys:
            self._clearing.clear()
            self._admitted.set()
