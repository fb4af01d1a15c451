"""A ledger for the command line that lives in memory, and surroundings to run command lines in.

It decides with the real core (`tests.ledger_factory`): receipts, hashes, proofs and exports are
real ones, and only processes, network and time are left out.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from tests import ledger_factory
from tests.ledger_factory import AUTHORITY

from nocturne.audit.verify import Verdict, verify_export
from nocturne.cli.line import run
from nocturne.cli.surroundings import Progress, Surroundings
from nocturne.cli.validators_view import Asked, Seen
from nocturne.client.operating import (
    DecidedSet,
    Governance,
    Governed,
    LogPartition,
    LogStands,
)
from nocturne.client.results import (
    AppliedThrough,
    Committed,
    Level,
    Place,
    Refused,
    Result,
    Session,
    State,
    Status,
    Undecided,
)
from nocturne.core import merkle
from nocturne.core.blocks import Block, check_body, positions_of
from nocturne.core.certificates import CommitProof
from nocturne.core.commands import SignedCommand
from nocturne.core.errors import Unavailable
from nocturne.core.events import (
    Event,
    decode_event,
    encode_event,
    hash_event,
    sign_event,
)
from nocturne.core.execution import execute
from nocturne.core.exports import (
    Placement,
    block_line,
    disposition_line,
    export_line,
    receipts_line,
    state_line,
)
from nocturne.core.genesis import Genesis
from nocturne.core.governing import ControlBatch, control_number
from nocturne.core.identifiers import Hash, LedgerId, SessionId, session_key
from nocturne.core.intake import command_hash_of_value, signed_command_of
from nocturne.core.receipts import (
    Receipt,
    decode_receipt,
    decode_receipt_header,
    encode_receipt,
    hash_receipt,
    sign_receipt,
)
from nocturne.embedded.home import Home
from nocturne.embedded.status import NOTHING, Health, ServiceStatus
from nocturne.embedded.status import Status as MachineStatus


class MemoryLedger:
    """Each command becomes a block of its own. `trouble` lists what goes wrong, once each."""

    def __init__(self, genesis: Genesis | None = None) -> None:
        self.inner = ledger_factory.Ledger(genesis)
        self.events_of: dict[str, list[Event]] = {}
        self.all_receipts: list[Receipt] = []
        self.results: dict[Hash, Committed | Refused] = {}
        self.commands: list[SignedCommand] = []
        self.level = Level.SIGNED
        self.unavailable: str | None = None
        self.refused_records: dict[str, int] = {}
        self.lose_before: int | None = None
        """The publication, counted from 0, that gets lost on its way."""
        self.cut_after: int | None = None
        """After so many outcomes the connection breaks."""

    @property
    def ledger_id(self) -> LedgerId:
        return self.inner.ledger_id

    @property
    def genesis(self) -> Genesis:
        return self.inner.genesis

    async def submit(self, signed: SignedCommand, wait: Level, deadline_seconds: float) -> Result:
        self._check()
        self.commands.append(signed)
        result = self._decide(signed)
        if self.level < Level.CERTIFIED:
            return Undecided(signed.command_hash, self.level)
        return result

    async def submit_all(
        self, commands: Iterable[SignedCommand], in_flight_max: int
    ) -> AsyncGenerator[Result, None]:
        answered = 0
        waiting: list[Result] = []
        # What was published is decided, whether or not anybody still waits for the answer.
        for signed in commands:
            self._check()
            number = len(self.commands)
            self.commands.append(signed)
            if number == self.lose_before:
                continue
            waiting.append(self._decide(signed))
            if self.level < Level.CERTIFIED:
                waiting[-1] = Undecided(signed.command_hash, self.level)
            if len(waiting) == in_flight_max:
                yield waiting.pop(0)
                answered += 1
                if answered == self.cut_after:
                    raise Unavailable("The command service went away.")
        for result in waiting:
            yield result

    async def outcome(self, signed: SignedCommand) -> Result | None:
        self._check()
        first = self.results.get(signed.command_hash)
        return None if first is None else replace(first, repeated=True)

    async def submit_many(
        self, commands: AsyncIterator[SignedCommand], in_flight_max: int
    ) -> AsyncGenerator[tuple[SignedCommand, Result], None]:
        answered = 0
        waiting: list[tuple[SignedCommand, Result]] = []
        async for signed in commands:
            self._check()
            number = len(self.commands)
            self.commands.append(signed)
            if number == self.lose_before:
                continue
            result: Result = self._decide(signed)
            if self.level < Level.CERTIFIED:
                result = Undecided(signed.command_hash, self.level)
            waiting.append((signed, result))
            if len(waiting) == min(in_flight_max, self.genesis.limits.id_window - 1):
                yield waiting.pop(0)
                answered += 1
                if answered == self.cut_after:
                    self.cut_after = None
                    raise Unavailable("The command service went away.")
        for one in waiting:
            yield one

    async def session(self, session: SessionId) -> Session | None:
        self._check()
        return self._session(session)

    async def sessions(self, limit: int) -> AsyncGenerator[Session, None]:
        self._check()
        for name in sorted(self.events_of)[:limit]:
            found = self._session(SessionId(name))
            assert found is not None
            yield found

    async def events(
        self, session: SessionId, from_sequence: int, follow: bool = False
    ) -> AsyncGenerator[Event, None]:
        for event in self.events_of.get(session, [])[max(0, from_sequence - 1) :]:
            yield event
        if follow:
            raise KeyboardInterrupt

    async def receipts(
        self, session: SessionId | None, claimed: bool
    ) -> AsyncGenerator[Receipt, None]:
        self._check()
        for receipt in self.all_receipts:
            if session in (None, receipt.header.session) and receipt.header.claimed == claimed:
                yield receipt

    async def state(self, session: SessionId, at_sequence: int | None) -> State | None:
        found = self._session(session)
        assert found is not None
        kind = self.inner.registry.get(found.kind, 1)
        assert kind is not None
        value = kind.initial()
        events = self.events_of[session][: at_sequence or None]
        for event in events:
            header = event.header
            value = kind.fold(
                value,
                header.event_type,
                header.content_type,
                event.payload.data,
                header.author,
                header.sequence,
            )
        head = events[-1]
        return State(session, head.header.sequence, head.event_hash, value, self._applied())

    async def export(self, session: SessionId, file: Path) -> Verdict:
        return self._write_export(session, file)

    async def status(self) -> Status:
        self._check()
        return Status(
            self._applied(),
            len(self.events_of),
            sum(map(len, self.events_of.values())),
            len(self.all_receipts),
            sum(len(block.records) for block in self.inner.blocks),
            tuple(self.refused_records.items()),
        )

    # How it is done ----------------------------------------------------------------------------

    def _check(self) -> None:
        if self.unavailable is not None:
            raise Unavailable(self.unavailable)

    def _applied(self) -> AppliedThrough:
        if not self.inner.blocks:
            return AppliedThrough(0, Hash(b""), 0)
        block = self.inner.blocks[-1]
        return AppliedThrough(block.header.height, block.digest, block.header.time)

    def _decide(self, signed: SignedCommand) -> Committed | Refused:
        first = self.results.get(signed.command_hash)
        result = self._result(signed)
        if first is not None:
            # The SDK answers a repetition with the first outcome.
            return replace(first, repeated=True)
        self.results[signed.command_hash] = result
        return result

    def _result(self, signed: SignedCommand) -> Committed | Refused:
        position = self.inner.append(signed)
        block = self.inner.commit()
        record = block.records[positions_of(block.header).index(position)]
        height, time = block.header.height, block.header.time
        place = Place(position, height, time, block.digest)
        if record.receipt is not None:
            signatures = sign_receipt(AUTHORITY, hash_receipt(record.receipt), time, height)
            receipt = decode_receipt(encode_receipt(record.receipt, signatures, height, time))
            self.all_receipts.append(receipt)
            return Refused(
                signed.command_hash, Level.SIGNED, place, receipt.header, receipt, False, b""
            )
        events: list[Event] = []
        for index, header_bytes in enumerate(record.events):
            signatures = sign_event(AUTHORITY, hash_event(header_bytes), time, height)
            data = encode_event(header_bytes, signatures, height, time, signed, index)
            events.append(decode_event(data))
        self.events_of.setdefault(signed.command.session, []).extend(events)
        headers = tuple(event.header for event in events)
        return Committed(signed.command_hash, Level.SIGNED, place, headers, False, b"")

    def _session(self, session: SessionId) -> Session | None:
        state = self.inner.state.session(session)
        events = self.events_of.get(session)
        if state is None or not events:
            return None
        return Session(
            session,
            state.kind,
            state.kind_version,
            state.sequence,
            state.head_hash,
            sum(receipt.header.session == session for receipt in self.all_receipts),
            state.closed,
            events[0].timestamp,
            events[-1].timestamp,
        )

    def _write_export(self, session: SessionId, file: Path) -> Verdict:
        lines = list(self._export(session))
        file.write_bytes(b"".join(lines))
        return verify_export(lines, self.ledger_id)

    def _export(self, session: SessionId) -> Iterator[bytes]:
        height = len(self.inner.blocks)
        yield export_line(self.inner.genesis_bytes, session, height)
        hashes: list[Hash] = []
        last_block = 0
        for block in self.inner.blocks:
            lines = list(self._lines_of(block, session, hashes))
            if lines:
                last_block = block.header.height
                yield self._block_line(block)
                yield from lines
        if last_block != height:
            yield self._block_line(self.inner.blocks[-1])
        if hashes:
            yield receipts_line(1, hashes)
        key = session_key(self.ledger_id, session)
        yield state_line(session, height, key, self.inner.state.tree.prove(key))

    def _lines_of(self, block: Block, session: str, hashes: list[Hash]) -> Iterator[bytes]:
        _, leaves = check_body(block, [command_hash_of_value(one) for one in block.records])
        header = block.header
        for index, (position, record) in enumerate(
            zip(positions_of(header), block.records, strict=True)
        ):
            signed = signed_command_of(record)
            if signed is None or signed.command.session != session:
                continue
            path = merkle.inclusion_path(leaves, index)
            place = Placement(header.height, header.time, position, index, path)
            if record.receipt is not None:
                if decode_receipt_header(record.receipt).claimed:
                    continue
                hashes.append(hash_receipt(record.receipt))
                signatures = [sign_receipt(AUTHORITY, hashes[-1], header.time, header.height)]
            else:
                signatures = [
                    sign_event(AUTHORITY, hash_event(one), header.time, header.height)
                    for one in record.events
                ]
            yield disposition_line(place, record, AUTHORITY.key, signatures)

    @staticmethod
    def _block_line(block: Block) -> bytes:
        assert isinstance(block.proof, CommitProof)
        return block_line(block.header_bytes, block.proof)


class FakeMachine:
    """An embedded runtime that starts nothing."""

    def __init__(self) -> None:
        self.now = NOTHING
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.rebuild_says: list[dict[str, Any]] = []
        self.rebuild_code = 0
        self.validators: int | None = None

    def up(
        self, home: Path | None, detach: bool, validators: int | None, progress: Progress
    ) -> MachineStatus:
        self.validators = validators
        self.asked.append("up --detach" if detach else "up")
        if self.failure is not None:
            raise self.failure
        progress(1_500_000, 54_000_000, "kafka-clients.jar")
        self.now = running_status()
        return self.now

    def down(self, home: Path | None) -> bool:
        self.asked.append("down")
        ran = self.now.supervisor is not None
        self.now = NOTHING
        return ran

    def status(self, home: Path | None) -> MachineStatus:
        return self.now

    def rebuild(
        self, home: Path | None, arguments: Sequence[str], hear: Callable[[dict[str, Any]], None]
    ) -> int:
        self.asked.append(" ".join(("rebuild", *arguments)))
        for line in self.rebuild_says:
            hear(line)
        return self.rebuild_code


def running_status(health: Health = Health.HEALTHY) -> MachineStatus:
    """Two of the processes of a running home."""
    return MachineStatus(
        supervisor=4711,
        ready=health is Health.HEALTHY,
        error=None if health is Health.HEALTHY else "signing was given up: see its log.",
        details=() if health is Health.HEALTHY else ("last line of the log",),
        services=(
            ServiceStatus("consensus-0", 4712, 1, 17410, Health.HEALTHY, 0),
            ServiceStatus("signing", 4713, 1, 17420, health, 2),
        ),
    )


@dataclass
class MemoryOperators:
    """A validator that takes what operators sign, by the rules of the core."""

    ledger: ledger_factory.Ledger = field(default_factory=ledger_factory.Ledger)
    cause: str = ""
    held: int = 0
    first_offset: int = 0

    async def governance(self) -> Governance:
        view = self.ledger.state.view
        return Governance(
            view.ledger_id,
            len(self.ledger.blocks),
            control_number(view.items),
            view.open_policy,
            tuple(sorted(view.operators)),
            view.genesis.operator_threshold,
            view.genesis.epoch_length,
            tuple(
                DecidedSet(one.first_epoch, one.members(view.genesis.validators))
                for one in view.validator_sets.ahead(len(self.ledger.blocks))
            ),
        )

    async def agreed_governance(self) -> Governance:
        return await self.governance()

    async def log(self) -> LogStands:
        """As if the broker had the ledger's log."""
        topic = self.ledger.topics[0]
        partitions = tuple(
            LogPartition(
                one.partition,
                one.log_epoch,
                one.topic_uuid,
                one.next_offset,
                self.held,
                self.first_offset,
                len(self.ledger.log[one.partition]),
            )
            for one in self.ledger.state.positions
        )
        return LogStands(len(self.ledger.blocks), self.cause, topic, partitions)

    async def submit(self, signed_control: bytes) -> Governed:
        height = len(self.ledger.blocks) + 1
        batch = ControlBatch(height, (signed_control,))
        done = execute(self.ledger.state, self.ledger.waiting(), batch)
        block = self.ledger.block_of(done)
        self.ledger.blocks.append(block)
        self.ledger.state = done.state
        return Governed(height, block.digest)


@dataclass
class Shell:
    """Runs command lines and keeps what they print."""

    home: Path
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    machine: FakeMachine = field(default_factory=FakeMachine)
    operators: MemoryOperators = field(default_factory=MemoryOperators)
    lag: dict[str, int] = field(default_factory=dict)
    asked_validators: tuple[Asked, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    says: str | None = None
    questions: list[str] = field(default_factory=list)
    out: str = ""
    err: str = ""
    clock: Iterator[int] = field(default_factory=lambda: itertools.count(1_800_000_000_000))

    def run(self, *arguments: str, terminal: bool = False, width: int = 200) -> int:
        """Run one command line; `out` and `err` hold what it printed."""
        out, err = io.StringIO(), io.StringIO()
        dice = itertools.count(1)
        code = run(
            arguments,
            Surroundings(
                environment={"NOCTURNE_HOME": str(self.home), **self.environment},
                out=_console(out, terminal, width),
                err=_console(err, terminal, width),
                stdin=lambda bytes_max: self.stdin[:bytes_max],
                now_ms=lambda: next(self.clock),
                random=lambda count: next(dice).to_bytes(count, "big"),
                machine=lambda: self.machine,
                connect=self._connect,
                lag=self._lag,
                validators=self._validators,
                operate=self._operate,
                answer=self._answer,
            ),
        )
        self.out, self.err = out.getvalue(), err.getvalue()
        return code

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run with --json, and read the one object that it prints."""
        assert self.run(*arguments, "--json") == code, self.err
        return json.loads(self.out)

    def json_lines(self, *arguments: str) -> list[Any]:
        """Run with --json, and read an object from each line."""
        assert self.run(*arguments, "--json") == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]

    @asynccontextmanager
    async def _connect(
        self, home: Home, deadline_seconds: float
    ) -> AsyncGenerator[MemoryLedger, None]:
        yield self.ledger

    @asynccontextmanager
    async def _operate(self, home: Home) -> AsyncGenerator[MemoryOperators, None]:
        yield self.operators

    def _answer(self, question: str) -> str | None:
        self.questions.append(question)
        return self.says

    def _validators(self, home: Home, seconds_max: float) -> Seen:
        return Seen(home.root, self.ledger.ledger_id, self.asked_validators)

    def _lag(self, home: Home) -> Mapping[str, int]:
        return self.lag


def _console(file: io.StringIO, terminal: bool, width: int) -> Console:
    return Console(
        file=file,
        width=width,
        force_terminal=terminal,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        _environ={},
    )
