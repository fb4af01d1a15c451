"""A small ledger for tests of the validator: keys, genesis, commands, and records of the log."""

from __future__ import annotations

from dataclasses import dataclass, field

from nocturne.consensus.chain import Chain, Made
from nocturne.consensus.gathering import Gathering
from nocturne.consensus.quorum.leaders import RoundRobin
from nocturne.consensus.quorum.machine import Machine
from nocturne.consensus.quorum.messages import Rules, Suites
from nocturne.consensus.quorum.pacing import Doubling
from nocturne.consensus.replica import Action, Keep, Publish, Replica
from nocturne.consensus.store import Kept
from nocturne.core import topics
from nocturne.core.blocks import LogRecord
from nocturne.core.certificates import ValidatorSet
from nocturne.core.commands import (
    Command,
    EventDraft,
    Opening,
    Payload,
    encode_signed_command,
    payload_hash,
    sign_command,
)
from nocturne.core.genesis import (
    FinalityPolicy,
    Genesis,
    Limits,
    OpenRule,
    encode_genesis,
    ledger_id_of,
)
from nocturne.core.identifiers import AuthorId, CommandId, LedgerId, SessionId
from nocturne.core.intake import IntakeContext, Prepared, prepare
from nocturne.core.keys import Ed25519Signer, key_id, prove_possession
from nocturne.core.state import LedgerState
from nocturne.runtime.kinds import builtin_entries

TOPIC = bytes(range(16))
PARTITIONS = 2
NOW = 1_700_000_000_000


def signer(number: int) -> Ed25519Signer:
    """A key, the same for the same number."""
    return Ed25519Signer(number.to_bytes(32, "big"))


VALIDATOR, AUTHORITY, OPERATOR, AUTHOR = signer(1), signer(2), signer(3), signer(10)


def genesis(
    epoch_length: int = 1000,
    limits: Limits | None = None,
    validators: tuple[Ed25519Signer, ...] = (VALIDATOR,),
) -> bytes:
    """A genesis with one validator, or with these."""
    return encode_genesis(
        Genesis(
            1,
            1,
            bytes(32),
            PARTITIONS,
            epoch_length,
            limits or Limits(),
            tuple((one.key, prove_possession(one)) for one in validators),
            AUTHORITY.key,
            prove_possession(AUTHORITY),
            (),
            (OPERATOR.key,),
            1,
            builtin_entries(),
            (OpenRule(None, "", ""),),
            FinalityPolicy(),
        )
    )


def machine_on(chain: Chain, key: Ed25519Signer) -> Machine:
    """The machine of a validator whose newest block is the chain's."""
    genesis = chain.state.view.genesis
    return Machine(
        Rules(chain.state.ledger_id, genesis.epoch_length, genesis.limits.clock_bound_ms),
        chain.sets.known_after(chain.tip.height),
        Suites(key),
        RoundRobin(),
        Doubling(200),
        key.key,
        chain.newest,
    )


@dataclass
class Ledger:
    """A chain, and a log whose records go to it."""

    data: bytes = field(default_factory=genesis)

    def __post_init__(self) -> None:
        self.founding = LedgerState.founding(self.data)
        self.ledger_id: LedgerId = ledger_id_of(self.data)
        self.genesis = self.founding.view.genesis
        self.validators: ValidatorSet = self.genesis.validator_set
        self.chain = self.fresh_chain()
        self.context = IntakeContext.of(self.ledger_id, self.genesis)
        self.gathering = Gathering(TOPIC, self.chain.state.positions, {}, {})
        self.replica = Replica(machine_on(self.chain, VALIDATOR), self.chain, self.gathering)
        self.records: list[tuple[int, int, Prepared]] = []
        """All of the log: partition, offset, record."""
        self.kept: list[Kept] = []
        """What the replica wanted kept since the last `extend`."""
        self.now = NOW
        self.ends = [0] * PARTITIONS
        self._number = 0
        self._opened: set[str] = set()

    def fresh_chain(self) -> Chain:
        return Chain(self.founding, None)

    def extend(self) -> Made:
        """The next block over what gathered."""
        # Past the pause after the last one.
        self.now += 100
        made = self.take(self.replica.look(self.now))
        assert len(made) == 1, "one vote is the quorum, one block comes of what gathered"
        return made[0]

    def take(self, actions: list[Action]) -> list[Made]:
        """The blocks that are published; what is to be kept goes to `kept`."""
        self.kept = [one.record for one in actions if isinstance(one, Keep)]
        return [one.made for one in actions if isinstance(one, Publish)]

    def record(
        self,
        session: str,
        *,
        expected: int | None = None,
        events: int = 1,
        headers: tuple[tuple[str, bytes | None], ...] = (),
    ) -> tuple[int, LogRecord]:
        """(partition, record) with the next command for a session, which it opens if need be."""
        self._number += 1
        payloads = tuple(
            Payload(bytes(31) + bytes([index]), b"%d" % self._number) for index in range(events)
        )
        opening = None if session in self._opened else Opening("facts", 1)
        self._opened.add(session)
        command = Command(
            self.ledger_id,
            SessionId(session),
            AuthorId(key_id(AUTHOR.key)),
            AUTHOR.key,
            CommandId(self._number.to_bytes(16, "big")),
            expected,
            opening,
            NOW + self._number,
            tuple(EventDraft("Seen", "text/plain", payload_hash(one)) for one in payloads),
        )
        signed = sign_command(command, payloads, AUTHOR)
        key = session.encode()
        value = topics.frame(1, encode_signed_command(signed))
        return topics.partition_of(key, PARTITIONS), LogRecord(key, value, headers)

    def log(self, partition: int, record: LogRecord, gap: int = 0) -> tuple[int, Prepared]:
        """Append to the log, behind `gap` control markers, and let the validator gather it."""
        offset = self.ends[partition] + gap
        self.ends[partition] = offset + 1
        prepared = prepare(self.context, partition, record)
        self.gathering.admit(partition, offset, prepared)
        self.records.append((partition, offset, prepared))
        return offset, prepared

    def write(self, *sessions: str) -> None:
        """One command for each of these sessions."""
        for session in sessions:
            self.log(*self.record(session))
