"""The shell of one validator: brings what happens to the replica, and carries out what it says.

Rules: docs/spec/consensus.md, docs/spec/quorum.md. These run side by side:

    gather    records from the log, prepared (their authors' signatures checked)
    peers     what other validators say
    write     what has to be durable becomes so, one fsync for all that waits; then what had to wait
              for it leaves: messages to validators, blocks to the topic
    publisher the broker's acknowledgements; the blocks topic as others fill it

Bounds: the log is not read on while too many records or unpublished blocks wait; what a peer may
say waits for the replica, which does one thing at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never

import structlog

from nocturne.consensus import codec
from nocturne.consensus.accusations import evidence_of
from nocturne.consensus.asking_votes import AskingVotes
from nocturne.consensus.chain import Chain, Executed
from nocturne.consensus.commands_log import (
    RecordsGone,
    check_log,
    log_record_of,
    offset_of,
    partition_of,
)
from nocturne.consensus.control_servicer import ControlDesk
from nocturne.consensus.ending import Ending, SaidHalts
from nocturne.consensus.gathering import LogLost
from nocturne.consensus.joining import Joining
from nocturne.consensus.log_reading import LogReading
from nocturne.consensus.measures import Measures
from nocturne.consensus.offers import AskPart, AskSnapshot, Part, SnapshotOffer
from nocturne.consensus.own_votes import HeardVotes
from nocturne.consensus.peers import Peers, PeerStatus
from nocturne.consensus.published import Found
from nocturne.consensus.publisher import CONSUMER_GROUP, Publisher, Publishing
from nocturne.consensus.quorum.leaders import RoundRobin
from nocturne.consensus.quorum.machine import Machine
from nocturne.consensus.quorum.messages import Cast, Committed, Offer, Rules, Suites, Vote
from nocturne.consensus.quorum.messages import Message as QuorumMessage
from nocturne.consensus.quorum.pacing import Doubling
from nocturne.consensus.replica import (
    UNFINISHED_MAX,
    Action,
    Ask,
    AskBody,
    Dismiss,
    Keep,
    Look,
    Publish,
    Refuse,
    Replica,
    Report,
    Say,
    Stand,
    Wake,
)
from nocturne.consensus.reporting import Noticed, Standing, place_of, report_of
from nocturne.consensus.serving import Serving
from nocturne.consensus.snapshots import Snapshots
from nocturne.consensus.store import Heard, Kept, Recovered, Store
from nocturne.consensus.traces import RecordTraces
from nocturne.consensus.validator_servicer import PeerReport, ValidatorReport
from nocturne.core import topics
from nocturne.core.blocks import Block, hash_record, headers_bytes
from nocturne.core.certificates import Certificate, ValidatorSet
from nocturne.core.conflicts import Conflict, check_conflict
from nocturne.core.errors import Halt, Malformed, PeerFault, Unavailable
from nocturne.core.evidence import name_of
from nocturne.core.identifiers import format_hash
from nocturne.core.intake import prepare
from nocturne.core.keys import Key, Signer, key_id
from nocturne.core.modes import Degraded, DegradedFound
from nocturne.runtime.clock import now_ms
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.degraded import LedgerMode
from nocturne.runtime.kafka import BatchConsumer
from nocturne.runtime.kinds import InstalledKinds
from nocturne.runtime.lifecycle import Lifecycle
from nocturne.runtime.registry import schema_ids
from nocturne.runtime.rpc import RpcServer
from nocturne.runtime.settings import Founding
from nocturne.runtime.ticks import next_tick

if TYPE_CHECKING:
    from confluent_kafka import Message

PREPARE_RECORDS: Final = 32
"""Prepared in one go, about 4 ms, before other parts get their turn."""
VIEW_MS: Final = 500
"""A view without a certificate is given up after so long: a leader that dies costs this much once
in n views. Under full load a block takes 50 to 200 ms here."""
OUTBOX_MAX: Final = 1024
"""What is said and waits for the disk; past it peers are not heard."""
AHEAD_MAX: Final = 64
"""Committed blocks that stand in the topic before the one that is next."""
WATCH_SECONDS: Final = 1.0
ASKS_VOTES: Final = "asks the others for the newest votes of its own"

Result = TypeVar("Result")
log = structlog.get_logger()


class Validator:
    """One running validator, or an observer whose key is not in the set."""

    def __init__(
        self,
        cluster: Cluster,
        registry_url: str | None,
        lifecycle: Lifecycle,
        founding: Founding,
        kinds: InstalledKinds,
        signer: Signer,
        store: Store,
        peers: Peers,
        heard: HeardVotes,
        desk: ControlDesk,
        measures: Measures,
        mode: LedgerMode,
    ) -> None:
        """`heard` is what `peers` answer from before this one votes."""
        self._cluster = cluster
        self._registry_url = registry_url
        self._lifecycle = lifecycle
        self._founding = founding
        self._kinds = kinds
        self._signer = signer
        self._store = store
        self._peers = peers
        self._heard = heard
        self._desk = desk
        self._measures = measures
        self._members = founding.genesis.validator_set.keys
        self._asking = AskingVotes(founding.ledger_id, signer.key, peers.send)
        self._tracer = lifecycle.tracer
        self._traces = RecordTraces(lifecycle.tracer)
        self._disk = ThreadPoolExecutor(1, "journal")
        self._noticed = Noticed()
        self._said_halts = SaidHalts()
        self._ending = Ending(
            founding.ledger_id,
            peers,
            lambda height: self._on_disk(lambda: islice(store.blocks_after(height), 1)),
            mode.keep,
        )
        self._started: Replica | None = None
        self._outbox: deque[Keep | Say | Report | Publishing] = deque()
        self._outbox_filled = asyncio.Event()
        self._outbox_emptied = asyncio.Event()
        self._heard_more: list[Kept] = []
        self._finished = asyncio.Event()
        self._changed = asyncio.Event()
        self._ahead: dict[int, Found] = {}
        self._room = asyncio.Event()
        self._first_arrival: float | None = None
        self._wake: asyncio.TimerHandle | None = None
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._replica: Replica
        self._reading: LogReading
        self._publisher: Publisher
        self._snapshots = Snapshots(
            store, self._on_disk, lambda: self._replica.live_records(), measures
        )
        self._height = 0
        self._serving = Serving(
            lambda: store.snapshot,
            lambda: self._height if self._started is None else self._started.chain.tip.height,
            self._make_snapshot,
            lambda digest: None if self._started is None else self._started.body(digest),
            peers.send,
            peers.waiting_bytes,
            measures,
        )
        self._joining = Joining(
            founding, kinds.registry, store, peers.connected, peers.send, self._on_disk, measures
        )

    @property
    def members(self) -> tuple[Key, ...]:
        """Who may be talked to: the validators of this epoch, of the next, and of the newest set
        that was decided.
        """
        return self._members

    async def run(self, server: RpcServer) -> None:
        """Recover, publish what is not, then certify until told to stop."""
        recovered = await self._on_disk(self._recover)
        self._members = _members_of(recovered.chain)
        # Others that start may ask at once, and an answer without them would count as one.
        self._hold_heard(recovered)
        # A registry without its schemas is said first: it is the deployment that is not done.
        ids = await asyncio.to_thread(schema_ids, self._registry_url)
        talking = asyncio.ensure_future(self._talk())
        try:
            begun = await self._until_begun(self._begin(recovered), talking)
            if begun is not None:
                await self._run(server, talking, begun, ids)
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)

    async def _talk(self) -> None:
        await asyncio.gather(self._peers.run(), self._serving.run())

    async def _until_begun(
        self, beginning: Coroutine[Any, Any, Recovered], talking: asyncio.Future[None]
    ) -> Recovered | None:
        """What `beginning` gives; None when the process is told to stop before."""
        begin = asyncio.ensure_future(beginning)
        stop = asyncio.ensure_future(self._lifecycle.stopping.wait())
        try:
            awaited: set[asyncio.Future[Any]] = {begin, talking, stop}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if talking.done():
                talking.result()
            return begin.result() if begin.done() else None
        finally:
            for one in (begin, stop):
                one.cancel()
            await asyncio.gather(begin, stop, return_exceptions=True)

    async def _begin(self, recovered: Recovered) -> Recovered:
        """Where to go on: from the own chain, or from a snapshot of others where that saves much,
        or where the log no longer has what comes after the own chain.
        """
        looked = False
        while True:
            chain = recovered.chain
            if self._members == (self._signer.key,):
                return recovered
            urgent = await self._lacks_records(chain)
            if looked and not urgent:
                return recovered
            looked = True
            validators = chain.sets.known_after(chain.tip.height)[0][1]
            height = recovered.committed_height
            if not await self._joining.run(height, validators, self._signer.key, urgent):
                return recovered
            recovered = await self._on_disk(self._recover)
            self._members = _members_of(recovered.chain)
            self._hold_heard(recovered)

    async def _lacks_records(self, chain: Chain) -> bool:
        """Whether the log begins beyond what is certified here. Whatever else is wrong with it
        shows when it is read.
        """
        positions = chain.state.positions
        try:
            await asyncio.to_thread(check_log, self._cluster, len(positions), positions)
        except RecordsGone as gone:
            log.warning("records_gone", cause=str(gone))
            return True
        except LogLost:
            return False
        return False

    async def _run(
        self,
        server: RpcServer,
        talking: asyncio.Future[None],
        recovered: Recovered,
        ids: Mapping[str, int],
    ) -> None:
        chain = recovered.chain
        self._measures.height.set(chain.tip.height)
        self._measures.last_block.set(chain.tip.time / 1000)
        self._reading = LogReading(
            self._cluster,
            CONSUMER_GROUP,
            chain,
            recovered.ranges,
            lambda: self._publisher.check_topic(),
            lambda: self._replica.turn,
        )
        await self._reading.begin()
        self._replica = Replica(
            self._machine_on(chain), chain, self._reading.gathering, recovered.newest
        )
        self._publisher = Publisher(
            self._cluster, self._founding, ids, self._measures, self._on_published
        )
        try:
            await self._ending.watched(
                self._publisher.begin(
                    recovered,
                    lambda height: self._on_disk(lambda: list(self._store.blocks_after(height))),
                )
            )
            self._started = self._replica
            await self._lifecycle.until_stopped(
                _ended(talking),
                self._ending.watched(self._certify(recovered, server)),
                self._write(),
                self._publisher.confirm(),
                self._publisher.publish_evidence(),
                self._watch(),
                self._ending.watched(self._faults()),
                server.served(),
            )
        finally:
            await self._close()

    def report(self) -> ValidatorReport:
        """What this one says of itself now."""
        return report_of(
            self._founding.ledger_id,
            self._signer.key,
            self._founding.genesis.validator_set,
            self._peer_reports(),
            self._noticed,
            self._standing(),
            "",
            self._said_halts.saw_another_log,
        )

    def _standing(self) -> Standing | None:
        replica = self._started
        if replica is None:
            return None
        published = self._publisher.topic.published
        return Standing(
            replica.machine,
            RoundRobin(),
            None if self._asking.is_cleared else ASKS_VOTES,
            self._reading.cause,
            replica.height,
            0 if published is None else published.height,
            self._store.journal_bytes,
        )

    def _peer_reports(self) -> list[PeerReport]:
        validators = (
            self._started.machine.validators
            if self._started
            else self._founding.genesis.validator_set
        )
        return peer_reports(self._peers.statuses(), validators)

    # Starting -----------------------------------------------------------------------------

    def _recover(self) -> Recovered:
        started = time.monotonic()
        recovered = self._store.recover(self._founding.data, self._kinds.registry)
        self._height = recovered.chain.tip.height
        log.info(
            "recovered",
            height=recovered.chain.tip.height,
            replayed_blocks=recovered.replayed,
            torn_bytes=recovered.torn_bytes,
            seconds=round(time.monotonic() - started, 3),
        )
        return recovered

    def _machine_on(self, chain: Chain) -> Machine:
        genesis = self._founding.genesis
        return Machine(
            Rules(self._founding.ledger_id, genesis.epoch_length, genesis.limits.clock_bound_ms),
            chain.sets.known_after(chain.tip.height),
            Suites(self._signer),
            RoundRobin(),
            Doubling(VIEW_MS),
            self._signer.key,
            chain.newest,
        )

    def _hold_heard(self, recovered: Recovered) -> None:
        for vote in recovered.heard:
            self._heard.take_of(recovered.chain.sets, vote)

    async def _certify(self, recovered: Recovered, server: RpcServer) -> None:
        """Vote, once it is sure that the journal is no older copy."""
        own_votes = [one for one in recovered.records if isinstance(one, Vote)]
        if self._signer.key in self._members:
            await self._asking.ask(self._replica, own_votes)
        chain = self._replica.chain
        self._desk.open(
            chain,
            self._bring_control,
            lambda: self._signer.key in self._replica.validators.keys,
            self._reading.state,
        )
        self._do(self._replica.restore(recovered.records, now_ms()))
        self._asking.clear()
        await server.set_serving(True)
        validators = self._replica.validators.keys
        log.info("certifying", height=chain.tip.height, validators=len(validators))
        await asyncio.gather(
            self._reading.run(self._gather),
            self._follow(),
            self._asking.ask_once_admitted(self._replica, own_votes),
        )

    async def _follow(self) -> None:
        """Read what others publish, from when there are others."""
        while self._replica.validators.keys == (self._signer.key,):
            self._changed.clear()
            await self._changed.wait()
        await self._publisher.follow(self._take_published)

    # Peers --------------------------------------------------------------------------------

    async def hear(self, sender: Key, value: codec.Value) -> None:
        """Another validator says something."""
        if isinstance(value, codec.NewestVotes):
            self._hear_own_votes(sender, value)
            return
        if isinstance(value, AskSnapshot | AskPart):
            self._serving.hear(sender, value)
            return
        if isinstance(value, SnapshotOffer) or (isinstance(value, Part) and not self._started):
            self._joining.hear(sender, value)
            return
        if not self._asking.is_cleared:
            # Not before it may vote: whoever needs an answer says it again.
            return
        match value:
            case codec.Fetch(digest):
                found = self._replica.proposal(digest)
                if found is not None:
                    self._peers.send(sender, codec.Fetched(found))
            case Part():
                self._step(partial(self._replica.given, sender, value))
            case codec.Fetched(proposal):
                self._step(partial(self._replica.fetched, proposal))
            case codec.Control(record):
                self._step(partial(self._replica.add_control, record))
            case codec.Conflicting(conflict):
                self._hear_conflict(conflict)
            case codec.Halting():
                self._said_halts.said(sender, value)
            case Offer() | Cast() | Certificate() | Committed():
                self._note_vote(sender, value)
                while len(self._outbox) > OUTBOX_MAX:
                    self._outbox_emptied.clear()
                    await self._outbox_emptied.wait()
                self._step(partial(self._hear, sender, value))
            case _:
                self._measures.refused.inc()

    def _hear(self, sender: Key | None, message: QuorumMessage, now: int) -> list[Action]:
        try:
            return self._replica.hear(sender, message, now)
        except PeerFault as fault:
            self._measures.refused.inc()
            log.debug("peer_refused", cause=str(fault))
            return self._replica.look(now)

    def _hear_own_votes(self, sender: Key, newest: codec.NewestVotes) -> None:
        try:
            self._asking.hear(sender, newest.votes)
        except Halt as halt:
            self._fail(halt)

    def _hear_conflict(self, conflict: Conflict) -> None:
        """Proof is proof, whoever brings it."""
        sets, founding = self._replica.chain.sets, self._founding
        try:
            check_conflict(conflict, founding.ledger_id, sets, founding.genesis.authority)
        except Malformed as fault:
            self._measures.refused.inc()
            log.warning("peer_refused", cause=str(fault))
            return
        self._fail(DegradedFound(Degraded.by(conflict)))

    def _note_vote(self, sender: Key, message: QuorumMessage) -> None:
        """Hold the newest votes of each, for when it asks."""
        if not isinstance(message, Cast):
            return
        self._said_halts.votes(sender)
        keys, vote = self._replica.validators.keys, message.vote
        is_own = vote.validator < len(keys) and keys[vote.validator] == sender
        is_of_now = vote.epoch == self._replica.machine.epoch
        if is_own and is_of_now and self._heard.take(sender, vote):
            self._heard_more.append(Heard(vote))

    # Carrying out -------------------------------------------------------------------------

    def _step(self, happen: Callable[[int], list[Action]]) -> None:
        """Let something happen to the replica, from a callback of the loop."""
        try:
            started = time.monotonic()
            actions = happen(now_ms())
            if any(isinstance(one, Keep) and isinstance(one.record, Executed) for one in actions):
                self._measures.execute_seconds.observe(time.monotonic() - started)
            self._do(actions)
        except Exception as fault:
            self._fail(fault)

    def _fail(self, fault: Exception) -> None:
        if not self._fault.done():
            self._fault.set_exception(fault)

    async def _faults(self) -> None:
        """Ends with what went wrong in a callback."""
        await self._fault

    def _do(self, actions: Sequence[Action]) -> None:
        """In their order; what must not leave before something is durable waits for it."""
        loop = asyncio.get_running_loop()
        for action in actions:
            match action:
                case Keep(record):
                    self._noticed.kept(record)
                    self._outbox.append(action)
                case Say() | Report():
                    self._outbox.append(action)
                case Publish():
                    self._outbox.append(self._taken(action))
                case Wake(timer, delay_ms):
                    if self._wake is not None:
                        self._wake.cancel()
                    self._wake = loop.call_later(
                        delay_ms / 1000, self._step, partial(self._replica.fired, timer)
                    )
                case Look(delay_ms):
                    loop.call_later(delay_ms / 1000, self._step, self._replica.look)
                case Ask(digest):
                    for key in self._peers.connected():
                        self._peers.send(key, codec.Fetch(digest))
                case AskBody(to, part):
                    self._peers.send(to, part)
                case Refuse(giver, cause):
                    self._measures.blocks_refused.inc()
                    name = format_hash(key_id(giver))
                    log.warning("block_bytes_refused", key=name, cause=cause)
                case Dismiss(record, fault):
                    self._desk.refuse(record, fault)
                case Stand(lost):
                    self._reading.lose(lost)
                case unreachable:
                    assert_never(unreachable)
        if self._outbox:
            self._outbox_filled.set()
        if self._replica.wants_records:
            self._room.set()

    def _taken(self, publish: Publish) -> Publishing:
        """A block is committed and executed."""
        self._finished.set()
        self._changed.set()
        self._room.set()
        block = publish.made.block
        self._store.note_block(publish.made.committed, self._replica.chain.sets)
        if block.control or self._replica.chain.sets.is_end(block.header.height):
            self._members = _members_of(self._replica.chain)
            self._reading.opened()
            self._asking.executed(self._replica.chain.sets, block.header.height)
        since = self._first_arrival or time.monotonic()
        if not self._replica.gathering.has_offsets:
            self._first_arrival = None
        self._measures.made(block)
        if not publish.is_own:
            self._measures.blocks_fetched.inc()
        traces = self._traces.taken(block, time.time_ns()) if self._tracer.on else None
        return Publishing(publish, since, traces)

    async def _write(self) -> None:
        """What waits becomes durable together; then what waited for it leaves, in order."""
        while True:
            await self._outbox_filled.wait()
            self._outbox_filled.clear()
            leaving, self._outbox = self._outbox, deque()
            self._outbox_emptied.set()
            kept: list[Kept] = [one.record for one in leaving if isinstance(one, Keep)]
            if kept:
                started, started_ns = time.monotonic(), time.time_ns()
                await self._on_disk(partial(self._store.keep, [*kept, *self._heard_by(kept)]))
                self._measures.fsync_seconds.observe(time.monotonic() - started)
                for waited in leaving:
                    if isinstance(waited, Publishing) and waited.traces is not None:
                        waited.traces.durable(started_ns)
            for one in leaving:
                self._let_go(one)
            self._publisher.look()

    def _let_go(self, one: Keep | Say | Report | Publishing) -> None:
        """What was kept before it is durable."""
        match one:
            case Publishing():
                self._publisher.take(one)
            case Say(to, message):
                for key in to:
                    self._peers.send(key, message)
            case Report(accusation, validators):
                evidence = evidence_of(accusation, self._founding.ledger_id, validators)
                self._measures.evidence.inc()
                self._noticed.accused(accusation)
                log.warning("equivocation", evidence=name_of(evidence))
                self._publisher.show(evidence)
            case Keep():
                pass
            case unreachable:
                assert_never(unreachable)

    def _heard_by(self, kept: Sequence[Kept]) -> list[Kept]:
        """What others voted and was not written yet: it needs no sync of its own."""
        heard, self._heard_more = self._heard_more, []
        for one in kept:
            if isinstance(one, Certificate):
                sets = self._replica.chain.sets
                heard += map(Heard, self._heard.take_certificate(sets, one))
        return heard

    def _on_published(self, block: Block) -> None:
        """The topic has one more block of the chain."""
        topic = self._publisher.topic
        if topic.published is not None and topic.published.offset >= 0:
            self._store.note_published(topic.published)
        self._desk.published(block)
        self._room.set()
        self._snapshots.look(topic.newest, topic.published)

    def _make_snapshot(self) -> None:
        """Another validator cannot go on without one."""
        if self._started is None:
            return
        topic, chain = self._publisher.topic, self._started.chain
        height = 0 if topic.published is None else topic.published.height
        if topic.newest is not None:
            self._snapshots.asked(topic.newest.committed, topic.newest.state, topic.published)
        elif chain.newest is not None and height >= chain.tip.height:
            # Nothing was committed since this process began.
            self._snapshots.asked(chain.newest, chain.state, topic.published)

    async def _take_published(self, found: Found) -> None:
        """A block that the topic has and the chain lacks, in its turn."""
        committed = found.committed
        height = committed.proposal.header.height
        if height <= self._replica.height:
            self._bring_body_of(found)
        if height > self._replica.height + 1 and not self._is_proved(committed):
            # Held until those below it came; strangers would fill the place.
            self._measures.ignored.inc()
            return
        self._ahead[height] = found
        for below in [one for one in self._ahead if one <= self._replica.height]:
            del self._ahead[below]
        if len(self._ahead) > AHEAD_MAX:
            raise Unavailable(
                f"the blocks topic lacks block {self._replica.height + 1} and has {AHEAD_MAX} "
                "after it: it is read again from the start"
            )
        while (following := self._ahead.pop(self._replica.height + 1, None)) is not None:
            while self._replica.unfinished >= UNFINISHED_MAX or self._replica.is_behind:
                self._finished.clear()
                await self._finished.wait()
            await self._asking.until_cleared()
            self._do(self._hear(None, following.committed, now_ms()))
            self._bring_body_of(following)

    def _bring_body_of(self, found: Found) -> None:
        """Who was away when the operators brought a record takes it from the block that has it; who
        has no log, its records too.
        """
        if found.block.control or self._replica.gathering.stands:
            self._do(self._replica.bring_body(found.committed, found.block, now_ms()))

    def _is_proved(self, committed: Committed) -> bool:
        proposal = committed.proposal
        sets, ledger_id = self._replica.chain.sets, self._founding.ledger_id
        try:
            sets.check_proof(committed.proof, proposal.header, proposal.digest, ledger_id)
        except Malformed:
            return False
        return True

    # The log ------------------------------------------------------------------------------

    async def _gather(self, consumer: BatchConsumer) -> None:
        """Until a log epoch is opened: from then on this consumer's records are of no block."""
        gathering = self._replica.gathering
        generation = gathering.generation
        while True:
            while self._publisher.topic.is_full or gathering.is_full(self._replica.wants_records):
                self._room.clear()
                await self._room.wait()
            messages = await consumer.batch()
            arrived = time.monotonic()
            for start in range(0, len(messages), PREPARE_RECORDS):
                if gathering.generation != generation:
                    return
                self._take(messages[start : start + PREPARE_RECORDS])
                self._look(arrived)
                await asyncio.sleep(0)
            if gathering.generation != generation:
                return
            for partition in gathering.starts:
                following = consumer.next_offset(topics.COMMANDS, partition)
                gathering.reach(partition, following)
            self._look(arrived)

    def _look(self, arrived: float) -> None:
        if self._replica.gathering.has_offsets:
            self._first_arrival = self._first_arrival or arrived
        self._step(self._replica.look)

    def _take(self, messages: Sequence[Message]) -> None:
        context = self._replica.chain.context
        gathering = self._replica.gathering
        for message in messages:
            partition, offset = partition_of(message), offset_of(message)
            record = log_record_of(message)
            if gathering.is_certified(partition, offset):
                record_hash = hash_record(record.key, record.value, headers_bytes(record.headers))
                gathering.compare(partition, offset, record_hash)
            else:
                gathering.admit(partition, offset, prepare(context, partition, record))
                if self._tracer.on:
                    self._traces.arrived(partition, offset, record.headers)

    def _bring_control(self, record: bytes) -> bool:
        """A control record from an operator: any validator may propose it."""
        if not self._replica.has_room_for_control:
            return False
        for key in self._peers.connected():
            self._peers.send(key, codec.Control(record))
        self._step(partial(self._replica.add_control, record))
        return True

    # Watching, ending ---------------------------------------------------------------------

    async def _watch(self) -> None:
        gathering = self._replica.gathering
        while True:
            self._measures.lag.set(self._reading.lag() + gathering.waiting)
            self._measures.intake_stands.set(gathering.stands)
            if gathering.stands:
                for key in self._peers.connected():
                    self._peers.send(key, codec.Halting(True))
            for (_, partition), lag in self._reading.lags().items():
                waiting = gathering.waiting_in(partition)
                self._measures.partition_lag.labels(str(partition)).set(lag + waiting)
            self._measures.journal_bytes.set(self._store.bytes_since_snapshot)
            self._measures.validator.set(self.report())
            self._snapshots.check()
            await next_tick(WATCH_SECONDS)

    async def _close(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
        await self._publisher.close()
        await self._snapshots.close()
        await asyncio.to_thread(self._disk.shutdown, wait=True)
        self._store.close()

    async def _on_disk(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function)


async def _ended(part: asyncio.Future[None]) -> None:
    await part


def _members_of(chain: Chain) -> tuple[Key, ...]:
    known = [found for _, found in chain.sets.known_after(chain.tip.height)]
    return tuple(dict.fromkeys(key for one in (*known, chain.sets.newest) for key in one.keys))


def peer_reports(statuses: Sequence[PeerStatus], validators: ValidatorSet) -> list[PeerReport]:
    """How one stands with the others, by their places in the set."""
    return [
        PeerReport(
            place_of(validators, one.key),
            None if one.key is None else key_id(one.key),
            one.address or "",
            one.connected,
            one.rtt_ms,
            one.sent,
            one.received,
            one.dropped,
            one.error or "",
        )
        for one in statuses
    ]
