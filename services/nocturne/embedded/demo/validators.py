"""Attacks on the quorum: one validator is killed, another lies with its own key.

As in `attacks`: nothing here knows beforehand that an attack fails. These need the validators'
processes and keys, so they are made on a ledger of this machine alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from confluent_kafka import Consumer, TopicPartition

from nocturne.client import Committed
from nocturne.client.validators import Validator, ask_validator
from nocturne.consensus import codec
from nocturne.consensus.peers import Peers
from nocturne.consensus.quorum.messages import Cast, Vote
from nocturne.core.certificates import Ballot, Epoch, VoteKind, sign_vote
from nocturne.core.commands import Opening
from nocturne.core.errors import Malformed, NocturneError, Unavailable
from nocturne.core.evidence import check_evidence, decode_evidence
from nocturne.core.genesis import decode_genesis
from nocturne.core.identifiers import Hash, SessionId, format_hash
from nocturne.core.keys import Ed25519Signer, Key, Signer, key_id
from nocturne.core.topics import EVIDENCE, unframe
from nocturne.embedded import ceremony
from nocturne.embedded import status as statuses
from nocturne.embedded.demo.findings import Verdict
from nocturne.embedded.demo.people import command_of
from nocturne.embedded.demo.stage import LOOK_SECONDS, SETTLED_SECONDS_MAX, Stage
from nocturne.embedded.demo.steps import fact
from nocturne.embedded.home import Home
from nocturne.embedded.status import ServiceStatus
from nocturne.runtime.keys import load_signer
from nocturne.runtime.settings import PeerSettings
from nocturne.runtime.telemetry import Metrics

COUNT: Final = 2
"""Verdicts of this file."""
NEEDED: Final = 4
"""Validators of which one may fail."""
COMMANDS: Final = 12
ANSWER_SECONDS_MAX: Final = 2.0
_DURING_ABSENCE: Final = SessionId("doors/vault")
_DURING_LIE: Final = SessionId("doors/cellar")


@dataclass(frozen=True, slots=True)
class Quorum:
    """The validators of a home, each a process of this machine."""

    home: Home

    @property
    def members(self) -> tuple[ServiceStatus, ...]:
        """Their processes now."""
        status = statuses.read(self.home.status)
        return tuple(status.service(name) for name in statuses.validators_in(status))

    def address(self, name: str) -> str:
        """Where one answers."""
        return statuses.read(self.home.status).address(name)

    async def ask(self, name: str) -> Validator | None:
        """What one says of itself; None when it says nothing."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return await ask_validator(self.address(name), ANSWER_SECONDS_MAX)
        except (NocturneError, TimeoutError):
            return None


async def killed_validator(stage: Stage, quorum: Quorum) -> Verdict:
    """A validator dies in the middle of the work, as by a power failure."""
    victim = quorum.members[1]
    assert victim.pid is not None
    keeper = Ed25519Signer(stage.dice.randbytes(32))
    seconds: list[float] = []
    committed = 0
    for number in range(COMMANDS):
        if number == COMMANDS // 3:
            os.kill(victim.pid, signal.SIGKILL)
        began = time.monotonic()
        committed += await _written(stage, keeper, _DURING_ABSENCE, number)
        seconds.append(time.monotonic() - began)
    back = await _back(quorum, victim)
    return Verdict(
        "A killed validator",
        f"{victim.name} was killed with kill -9 while commands came.",
        committed == COMMANDS and back is not None,
        "the other validators",
        f"{committed} of {COMMANDS} commands were signed and readable, the slowest after "
        f"{max(seconds) * 1000:.0f} ms; "
        + ("it did not come back" if back is None else f"it is back, at block {back.height}"),
    )


async def _written(stage: Stage, keeper: Ed25519Signer, session: SessionId, number: int) -> bool:
    """One more command of a door's session; whether it became an event."""
    command = command_of(
        stage.people.ledger_id,
        session,
        keeper,
        (fact("Opened", number=number),),
        at=stage.now_ms(),
        dice=stage.dice.randbytes(32),
        opening=Opening("facts", 1) if number == 0 else None,
    )
    result = await stage.client.submit(command)
    if not isinstance(result, Committed):
        return False
    # What comes after counts what can be read.
    await stage.readable(result.place.height)
    return True


async def _back(quorum: Quorum, victim: ServiceStatus) -> Validator | None:
    """What the victim says once it is another process that stands where the others stand."""
    deadline = time.monotonic() + SETTLED_SECONDS_MAX
    while time.monotonic() < deadline:
        now = next(one for one in quorum.members if one.name == victim.name)
        said = None if now.pid in (None, victim.pid) else await quorum.ask(victim.name)
        others = [one for one in quorum.members if one.name != victim.name]
        heights = [one.height for one in [await quorum.ask(one.name) for one in others] if one]
        if said is not None and heights and said.height >= max(heights):
            return said
        await asyncio.sleep(LOOK_SECONDS)
    return None


async def lying_validator(stage: Stage, quorum: Quorum) -> Verdict:
    """Whoever has a validator's key votes for two blocks at once, to make two histories of one."""
    liar = quorum.members[-1]
    assert liar.pid is not None
    genesis = decode_genesis(stage.genesis_bytes)
    validators = genesis.validator_set
    signer = load_signer(ceremony.validator_key(quorum.home, len(quorum.members) - 1))
    witness = await quorum.ask(quorum.members[0].name)
    if witness is None:
        raise Unavailable(f"{quorum.members[0].name} does not answer")
    epoch, view = Epoch(witness.recovery, witness.epoch), witness.view + 1
    index = validators.keys.index(signer.key)
    with _paused(liar.pid):
        async with _speaking_as(stage, quorum, signer, liar) as peers:
            for _ in range(2):
                digest = Hash(stage.dice.randbytes(32))
                ballot = Ballot(
                    VoteKind.NOTARIZE,
                    stage.people.ledger_id,
                    epoch,
                    validators.hash,
                    view,
                    digest,
                )
                vote = Vote(index, ballot.kind, epoch, view, digest, sign_vote(signer, ballot))
                for key in peers.connected():
                    peers.send(key, Cast(vote, again=False))
            found = await asyncio.to_thread(_evidence_of, stage, index)
        keeper = Ed25519Signer(stage.dice.randbytes(32))
        went_on = await _written(stage, keeper, _DURING_LIE, 0)
    return Verdict(
        "A lying validator",
        f"The key of {liar.name} voted for two blocks in view {view}.",
        found is not None and went_on,
        "the other validators",
        ("there is no evidence" if found is None else f"evidence in the topic: {found}")
        + ("; the ledger went on" if went_on else "; the ledger stood still"),
    )


@asynccontextmanager
async def _speaking_as(
    stage: Stage, quorum: Quorum, signer: Signer, liar: ServiceStatus
) -> AsyncIterator[Peers]:
    """Streams to the other validators, opened with the liar's key."""
    keys = decode_genesis(stage.genesis_bytes).validator_set.keys
    others = [quorum.address(one.name) for one in quorum.members if one.name != liar.name]
    settings = PeerSettings.model_validate(
        {
            "home_dir": quorum.home.root,
            "genesis_file": quorum.home.root / "genesis.avro",
            "listen": "127.0.0.1:0",
        }
    )
    # What this process logs of its streams is not for the screen.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    peers = Peers(
        stage.people.ledger_id, signer, others, lambda: keys, _hear, settings, Metrics("demo")
    )
    running = asyncio.ensure_future(peers.run())
    try:
        await _met(peers, len(others))
        yield peers
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _met(peers: Peers, count: int) -> None:
    """Wait for a stream to each of the others."""
    deadline = time.monotonic() + SETTLED_SECONDS_MAX
    while len(peers.connected()) < count:
        if time.monotonic() > deadline:
            raise Unavailable(f"{count} validators were to be met, {len(peers.connected())} were")
        await asyncio.sleep(LOOK_SECONDS)


async def _hear(_: Key, __: codec.Value) -> None:
    """A liar does not listen."""


@contextmanager
def _paused(pid: int) -> Iterator[None]:
    """The true process says nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _evidence_of(stage: Stage, index: int) -> str | None:
    """What the evidence topic proves of a validator, in words; None when it proves nothing."""
    validators = decode_genesis(stage.genesis_bytes).validator_set
    config: Mapping[str, object] = {**stage.kafka, "group.id": "demo", "log_level": 0}
    consumer = Consumer(dict(config))
    deadline = time.monotonic() + SETTLED_SECONDS_MAX
    try:
        consumer.assign([TopicPartition(EVIDENCE, 0, 0)])
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None or message.error() is not None:
                continue
            try:
                evidence = decode_evidence(unframe(message.value()))
                offence = check_evidence(evidence, stage.people.ledger_id, validators)
            except Malformed:
                continue
            if evidence.validator == index:
                key = format_hash(key_id(validators.keys[index]))
                return f"{offence.name.lower().replace('_', ' ')}, signed by {key[:19]}…"
    finally:
        consumer.close()
    return None
