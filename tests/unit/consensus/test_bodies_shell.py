"""The shells of two validators: what one lacks goes over the wire from the other."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.consensus.committees import Committee, Member

from nocturne.consensus import bodies, codec, replica
from nocturne.consensus.measures import Measures
from nocturne.consensus.offers import AskPart, Part
from nocturne.consensus.validator import Validator
from nocturne.core.keys import Key
from nocturne.runtime.settings import Founding
from nocturne.runtime.telemetry import Metrics

SECONDS_MAX = 30.0


class Wire:
    """What validators say to each other, encoded and decoded."""

    def __init__(self, committee: Committee) -> None:
        self.committee = committee
        self.ends: dict[Key, Validator] = {}
        self.metrics: dict[Key, Metrics] = {}
        self.said: deque[tuple[Key, Key, bytes]] = deque()

    def add(self, member: Member) -> Validator:
        """The shell of a member, which does not go on by itself."""
        ledger, own = self.committee.ledger, member.signer.key
        metrics = self.metrics[own] = Metrics(f"shell{len(self.metrics)}")
        peers = SimpleNamespace(
            send=lambda to, value: self.said.append((own, to, codec.encode(value))),
            waiting_bytes=lambda to: 0,
            connected=lambda: frozenset(self.ends),
        )
        made = Validator(
            cast("Any", None),
            None,
            cast("Any", SimpleNamespace(tracer=SimpleNamespace(on=False))),
            Founding(ledger.data, ledger.genesis, ledger.ledger_id),
            cast("Any", SimpleNamespace(registry=None)),
            member.signer,
            cast("Any", SimpleNamespace(note_block=lambda block, sets: None, snapshot=None)),
            cast("Any", peers),
            cast("Any", None),
            cast("Any", None),
            Measures(metrics),
            cast("Any", SimpleNamespace(keep=None)),
        )
        made._replica = made._started = member.replica
        made._asking.clear()
        self.ends[own] = made
        return made

    async def carry(self) -> None:
        """Everything that was said arrives, but what is said to strangers."""
        while self.said:
            sender, to, data = self.said.popleft()
            value = codec.decode(data)
            if to in self.ends and isinstance(value, AskPart | Part):
                await self.ends[to].hear(sender, value)

    def count(self, member: Member, name: str) -> float | None:
        registry = self.metrics[member.signer.key].registry
        return registry.get_sample_value(next(one for one in self._names(member) if name in one))

    def _names(self, member: Member) -> list[str]:
        registry = self.metrics[member.signer.key].registry
        return [sample.name for one in registry.collect() for sample in one.samples]


def test_a_validator_asks_and_takes_and_the_other_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PART_BYTES", 512)
    monkeypatch.setattr(bodies, "PART_MS_MAX", 100)
    monkeypatch.setattr(bodies, "AGAIN_MS", 100)
    monkeypatch.setattr(replica, "LATE_MS", 0)
    committee = Committee(4)
    committee.tell = lambda made: None  # type: ignore[method-assign]
    committee.tampers = lambda giver, part: None
    committee.members[3].withheld = True
    committee.write("a", "b", "c")
    committee.run(1_000)
    giver, lacking = committee.members[0], committee.members[3]
    (made,) = giver.published[:1]
    assert lacking.replica.unfinished > 0

    async def talk() -> None:
        wire = Wire(committee)
        other, subject = wire.add(giver), wire.add(lacking)
        giving = asyncio.ensure_future(other._serving.run())
        try:
            async with asyncio.timeout(SECONDS_MAX):
                while lacking.replica.unfinished:
                    subject._step(subject._replica.look)
                    await wire.carry()
                    await asyncio.sleep(0.01)
        finally:
            giving.cancel()
            await asyncio.gather(giving, return_exceptions=True)
            subject._disk.shutdown()
            other._disk.shutdown()
        assert not subject._fault.done()
        assert lacking.replica.chain.tip.digest == giver.replica.chain.tip.digest
        assert lacking.replica.chain.tip.digest == made.block.digest
        assert wire.count(lacking, "blocks_fetched_total") == 1
        given = wire.count(giver, "block_given_bytes_total")
        assert given is not None
        assert given >= len(made.block.header_bytes)

    asyncio.run(talk())
