"""A validator that ends tells the others: proof as proof, and its own halt as its own word."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.consensus.test_published import chain_of, framed
from tests.unit.consensus.test_published import topic as topic_of

from nocturne.consensus import codec, ending
from nocturne.consensus.chain import Made
from nocturne.consensus.ending import Ending, SaidHalts
from nocturne.core.conflicts import check_conflict
from nocturne.core.errors import Halt
from nocturne.core.keys import Ed25519Signer, Key
from nocturne.core.modes import Cause, Degraded, DegradedFound, LogRewritten

OTHERS = [Ed25519Signer(bytes([number]) * 32).key for number in (1, 2)]


class FakePeers:
    def __init__(self) -> None:
        self.said: list[tuple[Key, codec.Value]] = []

    def connected(self) -> frozenset[Key]:
        return frozenset(OTHERS)

    def send(self, key: Key, value: codec.Value) -> None:
        self.said.append((key, value))


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, ledger: Any, journal: list[Made]) -> None:
        monkeypatch.setattr(ending, "TELL_SECONDS", 0)
        self.peers = FakePeers()
        self.kept: list[Degraded] = []

        async def blocks_after(height: int) -> Iterator[tuple[int, bytes]]:
            return iter([(at, one.encoded) for at, one in enumerate(journal, 1) if at > height])

        self.ending = Ending(ledger.ledger_id, self.peers, blocks_after, self._keep)  # type: ignore[arg-type]

    def _keep(self, degraded: Degraded) -> None:
        assert self.peers.said == [], "kept before anything is said of it"
        self.kept.append(degraded)

    def ends(self, halt: Exception) -> BaseException:
        async def part() -> None:
            raise halt

        with pytest.raises(type(halt) if not isinstance(halt, Halt) else Halt) as found:
            asyncio.run(self.ending.watched(part()))
        return found.value

    def values(self) -> list[codec.Value]:
        assert {key for key, _ in self.peers.said} in ({*OTHERS}, set())
        return [value for _, value in self.peers.said]


def _contradiction(journal: int) -> tuple[Any, list[Made], Halt]:
    ledger, made = chain_of(1)
    _, others = chain_of(1, "x")
    subject = topic_of(ledger)
    subject.committed(made[0], 0, 0)
    with pytest.raises(Halt) as found:
        subject.offer(0, framed(others[0]))
    return ledger, made[:journal], found.value


def test_a_contradiction_in_the_topic_and_the_journals_own_block_are_proof_and_are_kept_and_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger, journal, halt = _contradiction(1)
    world = World(monkeypatch, ledger, journal)
    found = world.ends(halt)
    assert isinstance(found, DegradedFound)
    assert found.degraded.cause is Cause.CONFLICTING_COMMIT_PROOFS
    assert world.kept == [found.degraded]
    conflict = found.degraded.conflict
    assert conflict is not None
    genesis = ledger.genesis
    check_conflict(conflict, ledger.ledger_id, genesis.founding_sets, genesis.authority)
    assert world.values() == [codec.Conflicting(conflict)] * 2


def test_without_its_own_block_in_the_journal_it_halts_as_on_its_own_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger, journal, halt = _contradiction(0)
    world = World(monkeypatch, ledger, journal)
    assert world.ends(halt) is halt
    assert (world.kept, world.values()) == ([], [codec.Halting(False)] * 2)


def test_a_halt_is_said_with_whether_it_read_another_log(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = chain_of(1)
    for halt, rewritten in ((Halt("the journal"), False), (LogRewritten("the log"), True)):
        world = World(monkeypatch, ledger, [])
        assert world.ends(halt) is halt
        assert world.values() == [codec.Halting(rewritten)] * 2


def test_what_is_no_halt_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = chain_of(1)
    world = World(monkeypatch, ledger, [])
    world.ends(ValueError("a bug"))
    assert world.values() == []


def test_who_said_that_it_halts_counts_until_it_votes_again() -> None:
    halts = SaidHalts()
    one, other = OTHERS
    halts.said(one, codec.Halting(True))
    halts.said(other, codec.Halting(False))
    assert halts.saw_another_log((one, other)) == 1
    assert halts.saw_another_log((other,)) == 0
    halts.votes(one)
    assert halts.saw_another_log((one, other)) == 0
