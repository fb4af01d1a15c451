"""A host: the production machine, its disk, its copy of the log, its clock, its block store.

It does what the host's contract asks (docs/spec/quorum.md §3), and crashes wherever it may.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tests.simulation.disk import Disk, DiskFull
from tests.simulation.joining import Giving, Joining
from tests.simulation.log import (
    LEDGER,
    OPENINGS,
    RECORDS_PER_BLOCK_MAX,
    Showing,
    opening_to,
    opens,
)
from tests.simulation.plan import UNBOUND, Fault
from tests.simulation.rows import rows
from tests.simulation.store import height_of, missing, newest
from tests.simulation.variant import HostBug

from nocturne.consensus.quorum.leaders import RoundRobin
from nocturne.consensus.quorum.machine import Machine
from nocturne.consensus.quorum.messages import (
    Accuse,
    Build,
    Built,
    CatchUp,
    Check,
    Checked,
    Commit,
    Committed,
    Effect,
    Event,
    Fetch,
    Fired,
    LogStands,
    Persist,
    Proposal,
    Record,
    Rules,
    Send,
    SetDecided,
    SetTimer,
    Vote,
)
from nocturne.consensus.quorum.pacing import Doubling
from nocturne.core.certificates import Epoch
from nocturne.core.errors import Halt, PeerFault
from nocturne.core.identifiers import Hash
from nocturne.core.log_epochs import LogOpening
from nocturne.core.state import LedgerState

if TYPE_CHECKING:
    from tests.simulation.world import World

RULES = Rules(LEDGER, epoch_length=7, clock_bound_ms=5_000)
VIEW_MS = 200
START_MS = 1_000_000
SYNC_LATE_MS = 20
CONTRADICTED_MAX = 8
"""So many certified blocks are compared with the own records."""
GIVEN_MS = 2_000
"""So long a committed block waits for the own log; then others give its records."""
OF_THE_LOG = "the log"
NUMBERS: Final = re.compile(r"\d+|\[.*\]|'.*'")
"""What differs in the message of one refusal."""


class Node:
    """One running validator or observer; `number` is its key's."""

    def __init__(self, world: World, number: int, fault: Fault | None) -> None:
        self.world = world
        self.number = number
        self.fault = fault
        self.name = f"{number}{f' ({fault.value})' if fault else ''}"
        """For people: the number, and what is wrong with it."""
        self.unbound = fault in UNBOUND
        self._sends_early = HostBug.SENDS_BEFORE_SYNC in world.variant.host
        self._commits_early = HostBug.COMMITS_BEFORE_SYNC in world.variant.host
        self._trusts_log = HostBug.TRUSTS_A_CHANGED_LOG in world.variant.host
        self._takes_others_records = HostBug.NOTARIZES_WHAT_OTHERS_HAVE in world.variant.host
        self._halts = HostBug.HALTS_OVER_OTHER_RECORDS in world.variant.host
        self._mixes_log_epochs = HostBug.MIXES_LOG_EPOCHS in world.variant.host
        self.key = world.signing.key_of(number)
        self.scheme = world.signing.scheme_of(number)
        self.disk = Disk()
        self.half: frozenset[int] | None = None
        """Of a twin: the only ones that it talks with."""
        self.clock = 0
        self.slow_ms = 0
        self.withheld = False
        self.showing: Showing | None = None
        """How its broker misleads it, from which place on."""
        self.misled_at = 0
        self.topic = 0
        """The topic that its copy is of."""
        self.life = 0
        self.alive = False
        self.halted = False
        self.stands = False
        """It takes nothing of the log any more, and votes."""
        self.log_epoch = 1
        """After the newest block that it stored: its copy of the log is of this one."""
        self.controls: set[int] = set()
        """The log epochs that it has the operators' record of."""
        self.reading = False
        self.machine: Machine
        self._epoch: Epoch | None = None
        self._members: Sequence[int] = ()
        self._indexes: Mapping[int, int] = {}
        self.addressed: Sequence[int] = ()
        """The nodes of the set that a step began in: what it says is to them."""
        self.copy = world.log.hashes[:1]
        """Durable: the log hashes of what its own consumer delivered."""
        self.blocks: dict[Hash, Proposal] = {}
        self.committed: list[Committed] = []
        """The block store. A block is stored when its `Commit` comes, after the log is synced."""
        self.waiting: list[Proposal] = []
        self.giving = Giving(self)
        self.building: Build | None = None
        self.said: tuple[Hash, bool] | None = None
        self.later: list[Event] = []
        """What the machine is told as soon as it has said all that it was about to say."""

    @property
    def delivered(self) -> int:
        """Where its copy of the log ends."""
        return len(self.copy) - 1

    # Life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or start again, from the disk."""
        if self.halted:
            return
        self.life += 1
        if self.disk.rotten:
            self.halt("its disk is damaged")
            return
        if self.disk.old is not None and self.world.take_back(self):
            self.disk = Disk(self.disk.old)
            self.committed = self.committed[: height_of(newest(self.disk.synced))]
        if self.delivered < self.world.log.kept_from:
            self.world.note(f"{self.name} asks for a snapshot")
            Joining(self).ask()
            return
        self.world.note(f"{self.name} starts")
        self.alive = True
        self.reading = False
        self.waiting, self.building, self.said, self.later = [], None, None, []
        final = newest(self.disk.synced)
        self.log_epoch = 1 + sum(opens(block.proposal) for block in self.committed)
        self.restore_store(final)
        epoch = height_of(final) // RULES.epoch_length
        sets = [(Epoch(0, one), self.world.set_of(one)) for one in range(epoch + 2)]
        self.machine = self.world.variant.machine(
            RULES, sets, self.scheme, RoundRobin(), Doubling(VIEW_MS), self.key, final
        )
        self.do(self.machine.restore(self.records()))
        if self.alive:
            self.look_at_log()
            self.read_soon()
        if self.alive and self.stands:
            # As production's host does at a start: what is notarized here may await the next block.
            self.say_log()

    def join(self, block: Committed, state: LedgerState) -> None:
        """Go on from a snapshot of others; published blocks bring what came before."""
        self.world.watch.joined(self, block, state)
        height = block.proposal.header.height
        self.committed = [*self.world.truth[: height - 1], block]
        position = state.positions[0]
        self.copy = list(self.world.log.truth[: position.next_offset + 1])
        self.disk.append(block, full=False)
        self.disk.sync()
        self.start()

    def records(self) -> list[Record]:
        """What the write-ahead log holds."""
        if HostBug.FORGETS_VOTES in self.world.variant.host:
            return [record for record in self.disk.synced if not isinstance(record, Vote)]
        return list(self.disk.synced)

    def restore_store(self, final: Committed | None) -> None:
        """A crash between writing a commit and storing its blocks: they follow from the log."""
        height = height_of(final)
        if len(self.committed) > height:
            self.world.watch.violated(
                f"durability: node {self.name} stored block {len(self.committed)}, its log knows "
                f"{height}"
            )
        world = self.world
        for block in missing(final, len(self.committed), world.chains.proposals, world.truth):
            self.commit(block)

    def crash(self) -> None:
        """Whatever was not synced may be gone; it starts again soon."""
        if not self.alive:
            return
        self.world.note(f"{self.name} crashes")
        self.world.counted["crash"] += 1
        kept, lost = self.disk.lose_tail(self.world.dice, self.world.plan.torn)
        if lost:
            self.world.counted["torn write" if kept else "unsynced tail lost"] += 1
        self.alive = False
        self.life += 1
        self.world.after(self.world.dice.randint(1, 800), self.start)

    def halt(self, why: str) -> None:
        """Stop for good. Only one of the f faulty may, or whose log lost certified records."""
        self.world.note(f"{self.name} halts: {why}")
        self.world.counted["halted"] += 1
        lost = self.world.log.before is not None and why.startswith(OF_THE_LOG)
        if self.fault is None and not lost:
            self.world.watch.violated(f"halt: node {self.name}: {why}")
        self.alive = False
        self.halted = True
        self.life += 1

    def lose(self, why: str) -> None:
        """The log is another one: where there are operators, it waits for their word."""
        if not self.world.operators:
            self.halt(f"{OF_THE_LOG}: {why}")
            return
        self.world.note(f"{self.name} takes nothing of the log: {why}")
        self.world.counted["intake stands"] += 1
        log = self.world.log
        if self.fault is None and log.before is None and self.log_epoch == log.log_epoch:
            self.world.watch.violated(f"halt: node {self.name}: {why}")
        self.stands = True
        self.take_bodies()

    def take_bodies(self) -> None:
        """While it stands it has committed blocks' records from what is published."""
        end = self.certified_end()
        certified = list(self.world.log.truth[: end + 1])
        if self.copy[: end + 1] != certified:
            self.copy = certified

    def take_given(self) -> None:
        """Its log has not brought the records of committed blocks: others give them."""
        if not self.stands and self.certified_end() > self.delivered:
            self.world.counted["records given"] += 1
            self.take_bodies()
            self.look_at_log()

    def certified_end(self) -> int:
        """Where the log ends that is committed here."""
        digest = self.committed[-1].proposal.digest if self.committed else Hash(LEDGER)
        end = self.world.chains.end_of(digest)
        assert end is not None
        return end

    def stop(self) -> None:
        """For good, and nothing is wrong."""
        self.alive, self.halted = False, True
        self.life += 1

    def read_blocks(self) -> None:
        """What is published and not committed here; whoever is no validator lives on it."""
        self.reading = False
        if len(self.committed) < len(self.world.truth):
            self.world.network.catch_up(self, len(self.committed) + 1)
            self.read_soon()

    def read_soon(self) -> None:
        """Who is no validator now, or does not know yet that it is none any more; validators get on
        by what they tell each other.
        """
        members = self.world.members(len(self.world.truth) // RULES.epoch_length)
        if self.machine.index is not None and self.number in members:
            return
        if not self.reading:
            self.reading = True
            self.world.soon(self, self.read_blocks, 50 if self.machine.index is None else 2_000)

    def now(self) -> int:
        """By its own clock."""
        return START_MS + self.world.now + self.clock

    def hear(self, event: Event) -> None:
        """One step of the machine and all that follows from it here."""
        if not self.alive:
            return
        machine = self.machine
        before = machine.epoch
        if before is not self._epoch:
            self._look_at_epoch()
        self.addressed = self._members
        try:
            effects = machine.step(event, START_MS + self.world.now + self.clock)
        except PeerFault as fault:
            self.world.counted[f"refused: {NUMBERS.sub('…', str(fault))}"] += 1
            return
        except Halt as halt:
            self.halt(str(halt))
            return
        except (AssertionError, LookupError, TypeError, ValueError) as fault:
            if self.unbound:
                self.halt(repr(fault))
                return
            self.world.watch.violated(f"breaks: node {self.name} by {event!r:.200}: {fault!r}")
        if effects:
            after, n = machine.epoch, len(self.addressed)
            for row in rows(event, effects, before, after, machine.view, n):
                self.world.counted[row] += 1
            self.do(effects)
        # What the effects led to, if they left the node alive.
        if self.alive and self.later:
            self.hear(self.later.pop(0))
        if self.alive:
            self.say_log()

    # Effects ----------------------------------------------------------------------------------

    def do(self, effects: Sequence[Effect]) -> None:
        """In their order; a crash may come before each."""
        crashes = self.world.plan.crash > 0.0
        for effect in effects:
            if crashes and self.world.may_crash(self):
                self.crash()
                return
            try:
                self.do_one(effect)
            except DiskFull:
                self.world.counted["disk full"] += 1
                self.crash()
            if not self.alive:
                return

    def do_one(self, effect: Effect) -> None:
        """One effect."""
        world = self.world
        match effect:
            case Persist(record):
                self.persist(record)
            case Send(to, message):
                if self._sends_early:
                    world.soon(self, self.disk.sync, SYNC_LATE_MS)
                else:
                    self.disk.sync()
                addressed = self.addressed
                world.network.send(self, [addressed[index] for index in to], message)
            case SetTimer(timer, delay):
                self.after(delay, Fired(timer))
            case Build():
                self.building = effect
                self.try_build()
            case Check(proposal):
                self.waiting.append(proposal)
                world.soon(self, self.try_checks)
            case Fetch(digest):
                world.network.fetch(self, digest)
            case CatchUp(height):
                world.network.catch_up(self, height)
            case Commit(blocks):
                if not self._commits_early:
                    self.disk.sync()
                for block in blocks:
                    self.commit(block)
            case Accuse(validator):
                world.watch.accused(self, validator)

    def persist(self, record: Record) -> None:
        """Written now, synced before the next word to anyone."""
        full = self.world.may_be_full(self)
        if full and HostBug.IGNORES_FULL_DISK in self.world.variant.host:
            return
        self.disk.append(record, full)
        match record:
            case Vote():
                self.world.watch.voted(self, record)
            case Proposal():
                self.know(record)

    def members(self) -> Sequence[int]:
        """The nodes of the set that its machine is in."""
        if self.machine.epoch is not self._epoch:
            self._look_at_epoch()
        return self._members

    def indexes(self) -> Mapping[int, int]:
        """The index in that set of each of its nodes."""
        if self.machine.epoch is not self._epoch:
            self._look_at_epoch()
        return self._indexes

    def _look_at_epoch(self) -> None:
        self._epoch = self.machine.epoch
        self._members = self.world.members(self._epoch.number)
        self._indexes = {node: index for index, node in enumerate(self._members)}

    def after(self, delay: int, event: Event) -> None:
        """Bring an event to this life of the node."""
        life = self.life
        self.world.after(delay, lambda: self.hear(event) if self.life == life else None)

    def know(self, proposal: Proposal) -> None:
        """Hold a block for whoever fetches it."""
        self.blocks[proposal.digest] = proposal
        self.world.chains.know(proposal)

    def commit(self, block: Committed) -> None:
        """Store a block, and tell the machine of the set that it decides."""
        self.know(block.proposal)
        self.world.watch.committed(self, block)
        self.committed.append(block)
        self.world.note(f"{self.name} commits {len(self.committed)}")
        if opens(block.proposal):
            self.go_on(block.proposal)
        elif self.stands:
            self.take_bodies()
        elif self.world.operators and self.certified_end() > self.delivered:
            self.world.soon(self, self.take_given, GIVEN_MS)
        height = block.proposal.header.height
        if height % RULES.epoch_length == 0:
            number = height // RULES.epoch_length + 1
            self.world.counted["set decided"] += 1
            self.later.append(SetDecided(Epoch(0, number), self.world.set_of(number)))

    def take_control(self, log_epoch: int) -> None:
        """The operators' record comes to it: it has it from then on, whatever befalls it."""
        self.controls.add(log_epoch)
        if self.alive:
            self.try_checks()
            self.try_build()
            self.say_log()

    def opening_on(self, parent: Hash) -> LogOpening | None:
        """What a block on `parent` opens by the records that it has."""
        world = self.world
        for one in sorted(self.controls):
            if world.chains.may_open(parent, opening_to(one), world.variant.check_opening):
                return opening_to(one)
        return None

    def has_executed(self, digest: Hash) -> bool:
        """Whether it has the records up to this block; behind an opening there are none."""
        chains = self.world.chains
        end = chains.end_of(digest)
        if end is None:
            return False
        if end <= self.delivered:
            return True
        if self.stands and any(one.has_records_to(digest, end) for one in self.world.correct()):
            # Others give the bytes of a notarized block.
            return True
        block = chains.proposals.get(digest)
        if block is None or block.header.ranges:
            return False
        return self.has_executed(block.header.parent_digest)

    def has_records_to(self, digest: Hash, end: int) -> bool:
        """Whether it executed a block from records of its own."""
        return end <= self.delivered and self.copy[end] == self.world.chains.log_of(digest)

    def go_on(self, opening: Proposal) -> None:
        """A log epoch is open: it reads the new log behind what is certified, of which it has its
        own records or those of the published blocks.
        """
        self.world.counted["log epoch taken up"] += 1
        end = self.world.chains.end_of(opening.digest)
        assert end is not None
        self.log_epoch = self.world.chains.log_epoch_of(opening.digest)
        self.copy = list(self.world.log.truth[: end + 1])
        self.topic = self.world.log.opened_topics[self.log_epoch - 1]
        self.stands = False
        self.world.soon(self, self.look_at_log)

    # The log ----------------------------------------------------------------------------------

    def look_at_log(self) -> None:
        """Its consumer brings what has arrived."""
        if self.stands or (self.halted and self.world.operators):
            return
        topic, shown = self.world.log.shown(self.showing, self.misled_at, self.log_epoch)
        if topic != self.topic:
            self.lose("its topic was recreated")
            return
        if self.withheld and not self.world.calm:
            shown = shown[: len(self.copy)]
        if not self.keep_what_is_shown(shown):
            self.lose("records of a certified block are others now, or gone")
            return
        self.copy.extend(shown[len(self.copy) :])
        if self.contradicted():
            return
        self.try_checks()
        self.try_build()
        self.say_log()

    def keep_what_is_shown(self, shown: Sequence[Hash]) -> bool:
        """Drop a tail that is not there any more; no record of a certified block, though."""
        copy = self.copy
        last = min(len(shown), len(copy)) - 1
        while copy[last] != shown[last]:
            last -= 1
        if last + 1 < len(copy):
            held = self.world.chains.end_of(self.machine.parent) or 0
            if last < held and not self._trusts_log:
                return False
            self.world.counted["log tail dropped"] += 1
            del copy[last + 1 :]
        return True

    def contradicted(self) -> bool:
        """Whether it halts, because its own records give other roots than a certified block has."""
        world = self.world
        log = world.log
        is_whole = log.before is None and self.log_epoch == log.log_epoch
        if (self.showing is None and is_whole) or self._trusts_log or self.stands:
            return False
        digest = self.machine.parent
        for _ in range(CONTRADICTED_MAX):
            block = world.chains.proposals.get(digest)
            if block is None:
                return False
            for one in block.header.ranges:
                if one.end < len(self.copy) and self.copy[one.end] != one.log_hash:
                    if self._halts and block.header.height <= len(self.committed):
                        self.halt(f"{OF_THE_LOG} is not that of the quorum")
                    else:
                        self.lose("a certified block is of other records")
                    return True
            digest = block.header.parent_digest
        return False

    def say_log(self) -> None:
        """Tell the machine whether there is something past its parent, if that is news."""
        parent = self.machine.parent
        end = self.world.chains.end_of(parent)
        has_more = end is not None and not self.stands and len(self.copy) - 1 > end
        if self.controls and end is not None:
            has_more = has_more or self.opening_on(parent) is not None
        said = self.said
        if said is None or said[1] is not has_more or said[0] != parent:
            self.said = (parent, has_more)
            self.hear(LogStands(parent, has_more))

    def try_build(self) -> None:
        """Answer `Build` as soon as there is what it asks for."""
        build = self.building
        start = None if build is None else self.world.chains.end_of(build.parent)
        if build is None or start is None or not self.has_executed(build.parent):
            return
        chains, opening = self.world.chains, self.opening_on(build.parent)
        if opening is not None:
            self.building = None
            made = chains.opening_of(start, chains.log_of(build.parent), opening)
            self.after(self.world.dice.randint(0, 3), Built(build.view, build.parent, made))
            return
        is_behind_opening = chains.log_epoch_of(build.parent) != self.log_epoch
        if start > self.delivered or (is_behind_opening and not self._mixes_log_epochs):
            # There are no records for it: behind an opening that is not committed yet, or here.
            if build.empty:
                self.building = None
                made = chains.empty_after(start, chains.log_of(build.parent))
                self.after(self.world.dice.randint(0, 3), Built(build.view, build.parent, made))
            return
        end = start if self.stands else min(self.delivered, start + RECORDS_PER_BLOCK_MAX)
        if end > start or build.empty:
            self.building = None
            self.world.claimed = max(self.world.claimed, end)
            made = chains.contents(self.copy, start, end)
            self.after(self.world.dice.randint(0, 3), Built(build.view, build.parent, made))

    def try_checks(self) -> None:
        """Answer every `Check` whose records are here."""
        if self.contradicted():
            return
        chains = self.world.chains
        height = len(self.committed)
        self.waiting = [one for one in self.waiting if one.header.height > height]
        for proposal in list(self.waiting):
            header = proposal.header
            start = chains.end_of(header.parent_digest)
            end = max((one.end for one in header.ranges), default=0)
            if start is None or (end > self.delivered and not self._takes_others_records):
                continue
            if not self.has_executed(header.parent_digest):
                continue
            if opens(proposal) and not self.has_control(proposal):
                continue
            log_epoch = chains.log_epoch_of(header.parent_digest)
            if header.ranges and log_epoch != self.log_epoch and not self._mixes_log_epochs:
                continue
            self.waiting.remove(proposal)
            variant = self.world.variant
            copy: Sequence[Hash] = self.copy
            if self._takes_others_records:
                copy = self.world.log.truth
            valid = (
                chains.is_empty_right(proposal)
                if start > self.delivered and not header.ranges and not opens(proposal)
                else bool(chains.is_right(proposal, copy, variant.host, variant.check_opening))
            )
            if valid:
                self.know(proposal)
            self.after(0, Checked(proposal.digest, valid))

    def has_control(self, proposal: Proposal) -> bool:
        """Whether it has the operators' record that the block carries."""
        opening = OPENINGS.get(proposal.header.control_hash)
        return opening is not None and opening.log_epoch in self.controls
