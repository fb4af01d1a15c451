"""The liar that the tests of the quorum put in a validator's place: it does lie, in each way, and
what it signs twice is evidence.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.e2e.liar import LyingPeers, Way
from tests.ledger_factory import VALIDATORS, Ledger

from nocturne.consensus import codec
from nocturne.consensus.accusations import evidence_of
from nocturne.consensus.peers import Peers
from nocturne.consensus.quorum.messages import Accuse, Cast, Offer, Proposal, Vote
from nocturne.core.blocks import sign_proposal
from nocturne.core.certificates import Ballot, VoteKind, sign_vote
from nocturne.core.errors import Malformed
from nocturne.core.evidence import Offence, check_evidence
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Key
from nocturne.runtime.telemetry import Metrics

SIGNERS = VALIDATORS[:4]
TICKS = 200


class Setting:
    """A liar, what its honest machine wants to say, and what others get of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, way: Way | None) -> None:
        self.ledger = Ledger(validators=SIGNERS)
        (folder / "genesis.avro").write_bytes(self.ledger.genesis_bytes)
        self.ways = folder / "ways"
        self.ways.write_text("" if way is None else way.name)
        self.values: list[codec.Value] = []
        self.data: list[bytes] = []
        monkeypatch.setattr(LyingPeers, "ways_file", self.ways, raising=False)
        monkeypatch.setattr(Peers, "send", lambda _, key, value: self.values.append(value))
        self.liar: Any = LyingPeers(
            self.ledger.ledger_id,
            SIGNERS[3],
            (),
            lambda: self.ledger.validators.keys,
            self._hear,
            cast(
                "Any",
                SimpleNamespace(
                    genesis_file=folder / "genesis.avro", peers_ca_file=None, peers_file=None
                ),
            ),
            Metrics("consensus"),
        )
        wake = SimpleNamespace(set=lambda: None)
        outgoing = SimpleNamespace(add=lambda data, _: self.data.append(data))
        peer = SimpleNamespace(speaks_over=SimpleNamespace(wake=wake), outgoing=outgoing)
        monkeypatch.setattr(self.liar, "_peer", lambda key: peer)

    async def _hear(self, sender: Key, value: codec.Value) -> None:
        pass

    def say(self) -> tuple[codec.Value, ...]:
        """What its machine says in one view, to all."""
        block = self.ledger.commit()
        # A validator offers its own proposals alone.
        signed = sign_proposal(SIGNERS[3], block.digest)
        proposal = Proposal(block.header, block.header_bytes, block.digest, signed)
        said: list[codec.Value] = [Offer(proposal, ())]
        for kind in VoteKind:
            digest = Hash(bytes(32)) if kind is VoteKind.NULLIFY else block.digest
            said.append(Cast(self.vote(block.header, kind, digest), False))
        said.append(self.ledger.certificate(block.header, block.digest, VoteKind.NOTARIZE))
        for value in said:
            for key in self.ledger.validators.keys[:3]:
                self.liar.send(key, value)
        return tuple(said)

    def vote(self, header: Any, kind: VoteKind, digest: Hash) -> Vote:
        ballot = Ballot(
            kind,
            self.ledger.ledger_id,
            header.epoch,
            header.validator_set_hash,
            header.view,
            digest,
        )
        return Vote(3, kind, header.epoch, header.view, digest, sign_vote(SIGNERS[3], ballot))

    def lie(self) -> None:
        """Let it lie of its own accord for some ticks, as fast as it can."""

        async def ticks() -> None:
            lying = asyncio.ensure_future(self.liar._lie_for_ever())
            while self.liar._silent_at < TICKS:
                await asyncio.sleep(0)
                assert not lying.done()
            lying.cancel()

        asyncio.run(ticks())


@pytest.mark.parametrize("way", Way, ids=lambda way: way.name.lower())
def test_a_liar_lies_in_the_way_it_is_told_and_what_it_says_can_be_sent(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.e2e.liar.TICK_SECONDS", 0)
    setting = Setting(tmp_path, monkeypatch, way)
    setting.liar._ways = frozenset([way])
    said = setting.say()
    setting.lie()
    assert setting.liar._told[way] > 0
    assert setting.values != [value for value in said for _ in range(3)] or setting.data
    for value in setting.values:
        codec.encode(value)


def test_a_liar_that_is_told_no_way_is_honest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.e2e.liar.TICK_SECONDS", 0)
    setting = Setting(tmp_path, monkeypatch, None)
    said = setting.say()
    setting.lie()
    assert setting.values == [value for value in said for _ in range(3)]
    assert setting.data == []


@pytest.mark.parametrize(
    "way, offence",
    [
        (Way.EQUIVOCATION, Offence.TWO_PROPOSALS),
        (Way.VOTES, Offence.TWO_NOTARIZATIONS),
        (Way.VOTES, Offence.TWO_FINALIZATIONS),
        (Way.VOTES, Offence.FINALIZED_AND_NULLIFIED),
    ],
)
def test_what_a_liar_signs_twice_is_evidence(
    way: Way, offence: Offence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(tmp_path, monkeypatch, way)
    setting.liar._ways = frozenset([way])
    # It votes twice to notarize in every other view, and in the views between otherwise.
    setting.say()
    setting.say()
    said = [
        one.proposal if isinstance(one, Offer) else one.vote
        for one in setting.values
        if isinstance(one, Offer | Cast)
    ]
    found: set[Offence] = set()
    for one in said:
        for other in said:
            accusation = Accuse(3, one, other)
            ledger_id, validators = setting.ledger.ledger_id, setting.ledger.validators
            try:
                piece = evidence_of(accusation, ledger_id, validators)
                found.add(check_evidence(piece, ledger_id, validators))
            except Malformed:
                continue
    assert offence in found
