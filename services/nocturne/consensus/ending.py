"""The end of a validator that halts or finds the ledger DEGRADED: the others hear of it first.

Rules: docs/spec/modes.md §5. What convinces anybody is sent as it is; what does not is said, and
nobody halts on that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog

from nocturne.consensus import codec
from nocturne.consensus.peers import Peers
from nocturne.consensus.published import Contradicted
from nocturne.core.blocks import decode_block
from nocturne.core.certificates import CommitProof
from nocturne.core.conflicts import Certified, conflicting_blocks
from nocturne.core.errors import Halt
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import Key
from nocturne.core.modes import Degraded, DegradedFound, LogRewritten

TELL_SECONDS: Final = 0.5
"""Given to the streams to take what is said last; who does not hear it knows nothing else."""

Result = TypeVar("Result")
log = structlog.get_logger()


@dataclass
class SaidHalts:
    """Which validators have said that they halt, or take no records, and not voted since: their own
    word.
    """

    rewritten: dict[Key, bool] = field(default_factory=dict)

    def said(self, sender: Key, halting: codec.Halting) -> None:
        """Its newest word; there are as many as members. Whose intake stands says it again and
        again, for it votes.
        """
        if self.rewritten.get(sender) != halting.log_rewritten:
            log.warning("validator_halts", log_rewritten=halting.log_rewritten)
        self.rewritten[sender] = halting.log_rewritten

    def votes(self, sender: Key) -> None:
        """It is back."""
        self.rewritten.pop(sender, None)

    def saw_another_log(self, keys: tuple[Key, ...]) -> int:
        """How many of these halted because they read other bytes than a quorum certified."""
        return sum(self.rewritten.get(key, False) for key in keys)


class Ending:
    """Watches the parts of a validator for their halt."""

    def __init__(
        self,
        ledger_id: LedgerId,
        peers: Peers,
        blocks_after: Callable[[int], Awaitable[Iterator[tuple[int, bytes]]]],
        keep: Callable[[Degraded], None],
    ) -> None:
        """`blocks_after` as `Store.blocks_after`, in the disk's thread; `keep` writes down why the
        ledger is DEGRADED.
        """
        self._keep = keep
        self._ledger_id = ledger_id
        self._peers = peers
        self._blocks_after = blocks_after

    async def watched(self, part: Awaitable[Result]) -> Result:
        """The part's own end, and its halt once it is told."""
        try:
            return await part
        except Halt as halt:
            ends = await self._with_proof(halt) if isinstance(halt, Contradicted) else halt
            if isinstance(ends, DegradedFound):
                self._keep(ends.degraded)
            await self._tell(ends)
            raise ends from halt

    async def _with_proof(self, halt: Contradicted) -> Halt:
        """With the own half of the proof, if the journal still has it."""
        height = halt.other.header.height
        for found, data in await self._blocks_after(height - 1):
            block = decode_block(data)
            if found == height and isinstance(block.proof, CommitProof):
                own = Certified(block.header_bytes, block.proof)
                conflict = conflicting_blocks(self._ledger_id, own, halt.other)
                return DegradedFound(Degraded.by(conflict))
        return halt

    async def _tell(self, halt: Halt) -> None:
        value: codec.Value
        if isinstance(halt, DegradedFound) and halt.degraded.conflict is not None:
            value = codec.Conflicting(halt.degraded.conflict)
        else:
            value = codec.Halting(isinstance(halt, LogRewritten))
        connected = self._peers.connected()
        for key in connected:
            self._peers.send(key, value)
        if connected:
            await asyncio.sleep(TELL_SECONDS)
