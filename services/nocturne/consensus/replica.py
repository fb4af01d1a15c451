"""One validator without its I/O: the quorum's machine, the chain that it certifies, and the log.

Rules: docs/spec/quorum.md §2 (what the machine asks of its host), docs/spec/consensus.md. Pure:
whatever happens comes in through a method and gives actions, which the shell carries out in their
order: a `Keep` is durable before any later `Say` or `Publish` is carried out.

    the log            records gather; the machine is told whether its next block has something
    Build              the beginning of what gathered is executed on the parent
    Check              the records of the proposal's ranges are executed once all of them came
    Commit             blocks wait for their records likewise, in height order, then are published

Records that do not come from the own log come from other validators (`bodies`): those of committed
blocks, and of notarized ones that blocks to come stand on. What was executed from these alone is
never voted for.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

from nocturne.consensus.bodies import BLOCKS_MAX, Bodies, Newest, Wanted
from nocturne.consensus.chain import Chain, Executed, Made, check_control_on
from nocturne.consensus.gathering import Gathering, LogLost
from nocturne.consensus.offers import AskPart, Part
from nocturne.consensus.quorum import messages as quorum
from nocturne.consensus.quorum.machine import Machine
from nocturne.consensus.quorum.messages import Committed, Message, Proposal, Record, Vote
from nocturne.core.blocks import Block, BlockHeader, BlockKind, hash_control
from nocturne.core.certificates import Certificate, Epoch, ValidatorSet
from nocturne.core.errors import Malformed, PeerFault
from nocturne.core.execution import PartitionBatch
from nocturne.core.governing import ControlBatch
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Key
from nocturne.core.log_epochs import openings_of
from nocturne.core.recent import Recent
from nocturne.core.state import LedgerState

UNCHECKED_MAX: Final = 64
"""Proposals that wait for their records or their parent; past them the lowest view goes."""
PROPOSALS_KNOWN_MAX: Final = 1024
PROPOSALS_KNOWN_BYTES_MAX: Final = 8 * 1024 * 1024
"""Headers that are held for whoever asks for them by digest; past either the oldest goes."""
CONTROLS_MAX: Final = 16
"""Control records that wait for a block."""
BODIES_MAX: Final = 8
"""Published bodies that are held for committed blocks whose records the log has lost: each is taken
in its turn, and none is longer than 12 MiB."""
BODY_COPIES_MAX: Final = 4
"""Of one block, the newest: anybody may publish a body that is not the log's under its header."""
LATE_MS: Final = 2_000
"""After so long without its records a block's bytes are asked of others. At once where the log is
lost: it brings none."""
UNFINISHED_MAX: Final = 256
"""Committed blocks whose records have not come; past them no more are taken from elsewhere."""
PAUSE_MS_PER_RECORD: Final = 0.5
PAUSE_MS_PER_VALIDATOR: Final = 10.0
PAUSE_MS_MAX: Final = 50.0
"""After a block of r records by one of n validators the next one waits r half milliseconds, at
least 10 · n and at most 50: a command that comes alone waits for nothing, and under load blocks
grow. Whatever is in it, a block costs each validator some 2 ms of a core for each one of the set
(signatures, fsyncs), and the other services some 25 ms: with four on two cores, 28 blocks a second
filled both, and at 50 commands a second the median waited over 100 ms; at 22 blocks it waits 55.
The longest pause is reached only above 2 000 commands a second."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Make it durable: a vote, a certificate, a commit; or a block with its records."""

    record: Record | Executed


@dataclass(frozen=True, slots=True)
class Say:
    """Send to these validators, once."""

    to: tuple[Key, ...]
    message: Message


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `fired` with this timer after so long; the newest alone counts."""

    timer: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Look:
    """Call `look` after so long."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask all for the block with this digest."""

    digest: Hash


@dataclass(frozen=True, slots=True)
class AskBody:
    """Ask this one for a part of a block's bytes."""

    to: Key
    part: AskPart


@dataclass(frozen=True, slots=True)
class Refuse:
    """What this one gave is not the block that it was asked for."""

    giver: Key
    cause: str


@dataclass(frozen=True, slots=True)
class Publish:
    """The next committed block, for the blocks topic. `rank` is how many validators come before
    this one in publishing it: 0 for its leader, None for who is no validator. `is_own`: the own log
    brought its records.
    """

    made: Made
    rank: int | None
    is_own: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What one validator of this set signed and no correct one does."""

    accusation: quorum.Accuse
    validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class Dismiss:
    """A control record that no block can carry any more."""

    record: bytes
    cause: Malformed


@dataclass(frozen=True, slots=True)
class Stand:
    """The intake stands: the log that is read is not the one that a committed block is of."""

    lost: LogLost


Action = Stand | Keep | Say | Wake | Look | Ask | AskBody | Refuse | Publish | Report | Dismiss


class Replica:
    """One validator, or an observer."""

    def __init__(
        self,
        machine: Machine,
        chain: Chain,
        gathering: Gathering,
        newest: Newest | None = None,
    ) -> None:
        """`chain` stands on the block that the machine began with; `newest` are blocks up to it."""
        self._machine = machine
        self._chain = chain
        self._gathering = gathering
        self._actions: list[Action] = []
        self._events: deque[quorum.Event] = deque()
        self._building: quorum.Build | None = None
        self._unchecked: dict[Hash, Proposal] = {}
        self._unfinished: deque[Committed] = deque()
        self._proposals: Recent[Hash, Proposal] = Recent(
            lambda one: len(one.header_bytes), PROPOSALS_KNOWN_BYTES_MAX, PROPOSALS_KNOWN_MAX
        )
        self._controls: OrderedDict[Hash, bytes] = OrderedDict()
        self._brought: dict[Hash, tuple[int, tuple[bytes, ...]]] = {}
        self._bodies: dict[Hash, list[tuple[Key | None, Block]]] = {}
        """With who gave each; None: the topic."""
        self._fetches = Bodies()
        self._not_own: dict[Hash, int] = {}
        """Heights of blocks that were executed from what others gave alone: none of them is voted
        for."""
        self._newest = newest or Newest()
        self._of_others: Recent[Hash, None] = Recent(lambda _: 1, UNCHECKED_MAX)
        """Blocks that what was gathered is not the records of, as executing them shows: it is not
        done again."""
        self._kept: dict[Hash, int] = {}
        self._live: list[Proposal | Vote | Certificate] = []
        self._said: tuple[Hash, bool] | None = None
        self._not_before = 0.0
        self._looking_at = 0.0
        self._asking_at = 0
        self._since: dict[Hash, int] = {}
        """When each block that is committed or notarized and not executed became so, in ms."""

    # What the shell asks --------------------------------------------------------------------------

    @property
    def machine(self) -> Machine:
        """For reports; only this class steps it."""
        return self._machine

    @property
    def validators(self) -> ValidatorSet:
        """Of the current epoch."""
        return self._machine.validators

    @property
    def chain(self) -> Chain:
        """The committed state that was executed."""
        return self._chain

    @property
    def gathering(self) -> Gathering:
        """Where the shell brings the log's records, and then calls `look`."""
        return self._gathering

    @property
    def height(self) -> int:
        """Of the newest committed block, executed or not."""
        final = self._machine.final
        return 0 if final is None else final.proposal.header.height

    @property
    def turn(self) -> int:
        """How many validators come before this one where one of them is enough: an observer is
        last.
        """
        index = self._machine.index
        return len(self.validators.keys) if index is None else index

    @property
    def unfinished(self) -> int:
        """Committed blocks whose records have not come."""
        return len(self._unfinished)

    @property
    def is_behind(self) -> bool:
        """Whether an epoch's end is committed and not executed. Until it is, the validators of the
        epoch after the machine's own may not be known here, so nothing more is heard.
        """
        return self._machine.epoch.number > self._chain.sets.epoch_at(self._chain.tip.height + 1)

    @property
    def wants_records(self) -> bool:
        """Whether a block waits for records: then more are brought, however many wait."""
        return bool(self._unfinished or self._unchecked)

    def proposal(self, digest: Hash) -> Proposal | None:
        """A block by its digest, for a peer that lacks it."""
        return self._proposals.get(digest)

    def body(self, digest: Hash) -> bytes | None:
        """The record of a block that was executed here, above the committed one or among the newest
        committed ones, for a peer that lacks its records; with a pointer to itself for a proof.
        """
        found = self._chain.executed(digest)
        return self._newest.get(digest) if found is None else found.encoded

    def is_own(self, digest: Hash) -> bool:
        """Whether the own log brought the records of this executed block."""
        return digest not in self._not_own

    def live_records(self) -> tuple[Record, ...]:
        """What a later start needs of the votes and certificates above the newest committed block,
        for a journal that is to forget what it has of them.
        """
        return tuple(self._live)

    # What happens ---------------------------------------------------------------------------------

    def restore(self, records: Sequence[Record], now: int) -> list[Action]:
        """Take up what the journal has above the chain's newest block; once, before all else. The
        proposals among it are executed already, as far as the journal has their parents.
        """
        for record in records:
            if isinstance(record, Proposal):
                self._know(record)
                if record.header.kind is BlockKind.LEDGER:
                    self._kept[record.digest] = record.header.height
                    if self._chain.executed(record.digest) is None:
                        self._unchecked[record.digest] = record
                    else:
                        self._events.append(quorum.Checked(record.digest, True))
            self._note(record)
        for effect in self._machine.restore(records):
            self._take(effect, self._machine.validators)
        return self._run(now)

    def hear(self, sender: Key | None, message: Message, now: int) -> list[Action]:
        """A message came. `PeerFault` when no correct validator sends it."""
        if self.is_behind:
            return self._run(now)
        keys = self._machine.validators.keys
        index = keys.index(sender) if sender in keys else None
        self._step(quorum.Received(index, message), now)
        if isinstance(message, quorum.Offer) and self._machine.holds(message.proposal):
            # Others may certify it before it was looked at here, and the next one stands on it.
            # What the machine does not take is anybody's, and would fill the room of the others.
            self._know(message.proposal)
            self._want(message.proposal)
        return self._run(now)

    def fetched(self, proposal: Proposal, now: int) -> list[Action]:
        """A block came that was asked for by its digest."""
        if self._machine.awaits(proposal.digest):
            # It is certified, or the parent of one that is: the next one stands on it.
            self._know(proposal)
            self._want(proposal)
            self._events.append(quorum.Fetched(proposal))
        return self._run(now)

    def fired(self, timer: int, now: int) -> list[Action]:
        """A timer's time is over."""
        self._events.append(quorum.Fired(timer))
        return self._run(now)

    def look(self, now: int) -> list[Action]:
        """Records gathered, or it is time to look again."""
        return self._run(now)

    @property
    def has_room_for_control(self) -> bool:
        """Whether one more control record may wait."""
        return len(self._controls) < CONTROLS_MAX

    def add_control(self, record: bytes, now: int) -> list[Action]:
        """A control record for a block to come, if there is room. Other validators bring them too:
        what the operators did not sign would keep theirs out.
        """
        key = hash_control((record,))
        if self.has_room_for_control and key not in self._controls:
            try:
                self._chain.check_later_control(record)
            except Malformed as fault:
                self._actions.append(Dismiss(record, fault))
            else:
                self._controls[key] = record
        return self._run(now)

    def bring_body(self, committed: Committed, block: Block, now: int) -> list[Action]:
        """The body that a published block has: whoever was away when its control records were
        brought has them from there, and whose intake stands its records. Only what a block waits
        for is taken, and only if it is the block's own.
        """
        header, digest = committed.proposal.header, committed.proposal.digest
        waits = any(one.proposal.digest == digest for one in self._unfinished)
        if waits and hash_control(block.control) == header.control_hash:
            self._brought[header.control_hash] = (header.height, block.control)
        has_room = digest in self._bodies or len(self._bodies) < BODIES_MAX
        if waits and self._gathering.stands and has_room:
            copies = self._bodies.setdefault(digest, [])
            copies.append((None, block))
            published = [one for one in copies if one[0] is None]
            if len(published) > BODY_COPIES_MAX:
                copies.remove(published[0])
        return self._run(now)

    def given(self, sender: Key, part: Part, now: int) -> list[Action]:
        """Another validator gives a part of the bytes of a block."""
        try:
            block = self._fetches.take(sender, part)
        except PeerFault as fault:
            self._actions.append(Refuse(sender, str(fault)))
        else:
            if block is None:
                pass
            elif block.digest in self._bodies or len(self._bodies) < BODIES_MAX + BLOCKS_MAX:
                self._bodies.setdefault(block.digest, []).append((sender, block))
            else:
                self._fetches.lose(block.digest)
        return self._run(now)

    # One step -------------------------------------------------------------------------------------

    def _run(self, now: int) -> list[Action]:
        while True:
            # An epoch's end is executed, and the set that it decided told, before the machine hears
            # anything more.
            self._finish(now)
            while self._events:
                self._step(self._events.popleft(), now)
                self._finish(now)
            self._check(now)
            self._take_given(now)
            self._build(now)
            self._tell()
            if not self._events:
                break
        self._fetch(now)
        actions, self._actions = self._actions, []
        return actions

    def _step(self, event: quorum.Event, now: int) -> None:
        validators = self._machine.validators
        for effect in self._machine.step(event, now):
            self._take(effect, validators)

    def _take(self, effect: quorum.Effect, validators: ValidatorSet) -> None:
        """`validators` are those of the epoch in which the step began."""
        match effect:
            case quorum.Persist(Committed()):
                # Kept with all that is committed with it: the same step's Commit ends with it.
                pass
            case quorum.Persist(record):
                self._persist(record)
            case quorum.Send(to, message):
                keys = tuple([validators.keys[index] for index in to])
                self._actions.append(Say(keys, message))
            case quorum.SetTimer(timer, delay):
                self._actions.append(Wake(timer, delay))
            case quorum.Build():
                self._building = effect
            case quorum.Check(proposal):
                self._know(proposal)
                if self._has_executed_own(proposal.digest):
                    self._events.append(quorum.Checked(proposal.digest, True))
                else:
                    self._want(proposal)
            case quorum.Fetch(digest):
                known = self._proposals.get(digest)
                if known is None:
                    self._actions.append(Ask(digest))
                else:
                    self._events.append(quorum.Fetched(known))
            case quorum.CatchUp():
                # Published blocks are followed all the time: they bring what is missing.
                pass
            case quorum.Commit(blocks):
                for one in blocks:
                    # The machine needs the last alone; here each one's proof is published.
                    self._actions.append(Keep(one))
                    self._note(one)
                self._unfinished.extend(blocks)
            case quorum.Accuse():
                self._actions.append(Report(effect, validators))
            case unreachable:
                assert_never(unreachable)

    def _persist(self, record: Record) -> None:
        if isinstance(record, Proposal):
            self._know(record)
            if record.header.kind is BlockKind.LEDGER:
                if record.digest not in self._kept:
                    found = self._chain.claim(record)
                    assert found is not None, "what is voted for was executed"
                    assert self.is_own(record.digest), "and from records of the own log"
                    self._keep_executed(found)
                return
        self._actions.append(Keep(record))
        self._note(record)

    def _note(self, record: Record) -> None:
        """What outlives the journal's older part, until a committed block settles it."""
        if isinstance(record, Committed):
            header = record.proposal.header
            self._live = [one for one in self._live if _place_of(one) > (header.epoch, header.view)]
        elif not (isinstance(record, Proposal) and record.header.kind is BlockKind.LEDGER):
            self._live.append(record)

    def _keep_executed(self, found: Executed) -> None:
        if found.proposal.digest not in self._kept:
            self._kept[found.proposal.digest] = found.block.header.height
            self._actions.append(Keep(found))

    def _know(self, proposal: Proposal) -> None:
        """Hold it for whoever asks."""
        self._proposals.add(proposal.digest, proposal)

    def _want(self, proposal: Proposal) -> None:
        """Execute it as soon as its records and its parent are here."""
        header = proposal.header
        if header.kind is not BlockKind.LEDGER or header.height <= self._chain.tip.height:
            return
        if not self._has_executed_own(proposal.digest):
            self._unchecked[proposal.digest] = proposal
        if len(self._unchecked) > UNCHECKED_MAX:
            lowest = min(self._unchecked.values(), key=lambda one: one.header.view)
            del self._unchecked[lowest.digest]

    def _has_executed_own(self, digest: Hash) -> bool:
        """Whether it was executed from the records of the own log: then it may be voted for."""
        return self._chain.executed(digest) is not None and self.is_own(digest)

    # Executing ------------------------------------------------------------------------------------

    def _finish(self, now: int) -> None:
        """Execute committed blocks whose records are here, and hand them over."""
        while self._unfinished:
            committed = self._unfinished[0]
            proposal = committed.proposal
            if self._chain.executed(proposal.digest) is None:
                if not self._has_executed_committed(proposal):
                    return
                self._pause(proposal, now)
            found = self._chain.executed(proposal.digest)
            assert found is not None
            is_own = self.is_own(proposal.digest)
            if not is_own:
                if not self._gathering.stands:
                    self._or_stand(partial(self._gathering.check_gathered, found.block))
                self._gathering.expect(found.block)
            self._know(proposal)
            self._keep_executed(found)
            self._unfinished.popleft()
            self._newest.add(proposal.digest, found.encoded)
            made = self._chain.commit(committed)
            header = made.block.header
            decided = self._chain.sets.decided_at(header.height)
            if decided is not None:
                self._events.appendleft(quorum.SetDecided(*decided))
            self._gathering.taken(header.ranges)
            for opening in openings_of(made.block.control):
                self._gathering.reopen(made.state.positions[opening.partition])
            for record in made.block.control:
                self._controls.pop(hash_control((record,)), None)
            self._brought = {
                one: (at, control)
                for one, (at, control) in self._brought.items()
                if at > header.height
            }
            self._bodies = {
                one: found
                for one, found in self._bodies.items()
                if found[0][1].header.height > header.height
            }
            self._not_own = {one: at for one, at in self._not_own.items() if at > header.height}
            self._kept = {one: at for one, at in self._kept.items() if at > header.height}
            # Above it in both: the height is what its leader says, and may be a liar's.
            self._unchecked = {
                digest: one
                for digest, one in self._unchecked.items()
                if one.header.height > header.height
                and _place_of(one) > (header.epoch, header.view)
            }
            self._actions.append(Publish(made, self._rank(header), is_own))

    def _has_executed_committed(self, proposal: Proposal) -> bool:
        """Execute a committed block. Its records are the own log's; of a lost log some may have
        been gathered, and the others come from the topic, where anybody writes, or from other
        validators.
        """
        digest = proposal.digest
        batches, control = self._records_of(proposal), self._control_of(proposal)
        if batches is not None and control is not None:
            if not self._gathering.stands:
                if self._or_stand(partial(self._chain.confirm, proposal, batches, control)):
                    return True
                self._of_others.add(digest, None)
            elif digest not in self._of_others:
                if self._chain.check(proposal, batches, control):
                    self._not_own.pop(digest, None)
                    return True
                self._of_others.add(digest, None)
        return self._executed_of_bodies(proposal)

    def _or_stand(self, compare: Callable[[], None]) -> bool:
        """Whether the log that is read is the quorum's, as `compare` shows. If it is not, the
        intake stands, and what blocks have of the log comes from others from now on.
        """
        try:
            compare()
        except LogLost as lost:
            self._gathering.stand()
            self._actions.append(Stand(lost))
            return False
        return True

    def _executed_of_bodies(self, proposal: Proposal) -> bool:
        """Execute the block from the bytes that others gave, if they are its own: what does not
        give the header's log hashes and roots is not.
        """
        digest = proposal.digest
        for giver, block in self._bodies.pop(digest, []):
            if hash_control(block.control) == proposal.header.control_hash:
                batches = self._chain.batches_in(block)
                if batches is not None and self._chain.check(proposal, batches, block.control):
                    self._not_own[digest] = proposal.header.height
                    return True
            if giver is not None:
                self._fetches.refuse(digest, giver)
                cause = (
                    f"bytes of block {proposal.header.height}: they are not what its header says"
                )
                self._actions.append(Refuse(giver, cause))
        return False

    # What others give -----------------------------------------------------------------------------

    def _notarized(self) -> list[Proposal]:
        """The blocks above the committed one that the next one stands on and that are not executed
        here, lowest first; as far down as their headers are known.
        """
        found: list[Proposal] = []
        digest = self._machine.parent
        while len(found) < UNCHECKED_MAX and self._chain.state_after(digest) is None:
            proposal = self._proposals.get(digest)
            if proposal is None:
                break
            if proposal.header.kind is BlockKind.LEDGER:
                found.append(proposal)
            digest = proposal.header.parent_digest
        return found[::-1]

    def _take_given(self, now: int) -> None:
        """Execute notarized blocks from what others gave of them: those that stand on them can be
        executed then.
        """
        if not self._bodies or self._unfinished:
            return
        for proposal in self._notarized():
            if self._chain.executed(proposal.digest) is not None:
                continue
            if self._chain.state_after(proposal.header.parent_digest) is None:
                return
            if not self._executed_of_bodies(proposal):
                return
            self._pause(proposal, now)
            # Those that stand on it.
            self._check(now)

    def _lacking(self, now: int) -> list[Wanted]:
        """Blocks whose bytes are missing here, lowest first."""
        blocks = [one.proposal for one in self._unfinished] or self._notarized()
        self._since = {one.digest: min(now, self._since.get(one.digest, now)) for one in blocks}
        wait = 0 if self._gathering.stands else LATE_MS
        return [
            Wanted(
                one.digest,
                one.header.height,
                self._givers(one.header),
                self._since[one.digest] + wait,
            )
            for one in blocks[:BLOCKS_MAX]
            if self._lacks(one)
        ]

    def _lacks(self, proposal: Proposal) -> bool:
        if self._chain.executed(proposal.digest) is not None:
            return False
        return (
            proposal.digest in self._of_others
            or self._gathering.lacks(proposal.header.ranges)
            or self._control_of(proposal) is None
        )

    def _givers(self, header: BlockHeader) -> tuple[Key, ...]:
        """Whoever led the block's view first, then those after it."""
        keys = self._machine.validators.keys
        first = (header.view - 1) % len(keys)
        own = self._machine.own_key
        return tuple([one for one in (*keys[first:], *keys[:first]) if one != own])

    def _fetch(self, now: int) -> None:
        """Ask others for the bytes that are missing, and look again when it is time to ask on."""
        self._fetches.want(self._lacking(now), self._chain.tip.height, now)
        self._actions += [AskBody(key, part) for key, part in self._fetches.asks(now)]
        following = self._fetches.next_at()
        if following is not None and not now < self._asking_at <= following:
            self._asking_at = following
            self._actions.append(Look(max(1, following - now)))

    def _rank(self, header: BlockHeader) -> int | None:
        """Among the validators of the block's own epoch, which may be over by now: the leader of
        its view first, then the others after it, in their order.
        """
        keys, own = self._chain.sets.of_block(header).keys, self._machine.own_key
        return None if own not in keys else (keys.index(own) - (header.view - 1)) % len(keys)

    def _check(self, now: int) -> None:
        for proposal in self._notarized():
            # Of some of these the headers alone were brought.
            if proposal.digest not in self._of_others:
                self._want(proposal)
        for proposal in sorted(self._unchecked.values(), key=lambda one: one.header.view):
            if self._chain.state_after(proposal.header.parent_digest) is None:
                continue
            if self._has_executed_own(proposal.digest):
                del self._unchecked[proposal.digest]
                self._events.append(quorum.Checked(proposal.digest, True))
                continue
            batches = self._records_of(proposal)
            control = self._control_of(proposal)
            if batches is None or control is None:
                continue
            del self._unchecked[proposal.digest]
            valid = self._chain.check(proposal, batches, control)
            if valid:
                self._not_own.pop(proposal.digest, None)
            else:
                self._of_others.add(proposal.digest, None)
            self._pause(proposal, now)
            self._events.append(quorum.Checked(proposal.digest, valid))

    def _records_of(self, proposal: Proposal) -> list[PartitionBatch] | None:
        """The offsets that a block has, None until all of them came."""
        return self._gathering.batches_of(proposal.header.ranges)

    def _control_of(self, proposal: Proposal) -> tuple[bytes, ...] | None:
        """The control records that a block has, None until they are here."""
        wanted = proposal.header.control_hash
        if wanted == bytes(32):
            return ()
        found = self._controls.get(wanted)
        if found is not None:
            return (found,)
        brought = self._brought.get(wanted)
        return None if brought is None else brought[1]

    def _build(self, now: int) -> None:
        """Answer the newest Build once there is what it asks for, and the last block is some time
        ago.
        """
        build = self._building
        if build is None:
            return
        state = self._chain.state_after(build.parent)
        if state is None:
            return
        control = self._next_control(state, build.parent)
        if not build.empty and not control.records and not self._has_after(state):
            return
        wait = self._not_before - now
        if 0 < wait <= PAUSE_MS_MAX and not build.empty:
            if self._looking_at < self._not_before:
                self._looking_at = self._not_before
                self._actions.append(Look(int(wait) + 1))
            return
        self._building = None
        batches = self._gathering.batches_after(state.positions)
        contents = self._chain.build(build.parent, batches, control)
        self._not_before = now + self._pause_ms(contents.record_count)
        self._events.append(quorum.Built(build.view, build.parent, contents))

    def _next_control(self, state: LedgerState, parent: Hash) -> ControlBatch:
        """The first control record here that a block on `parent` may carry; one is enough."""
        height = self._chain.height_of(parent) + 1
        for key, record in list(self._controls.items()):
            try:
                check_control_on(state, height, record)
            except Malformed as fault:
                if parent == self._chain.tip.digest:
                    # It cannot stand on any later block either: its number or its time is over.
                    del self._controls[key]
                    self._actions.append(Dismiss(record, fault))
                continue
            return ControlBatch(height, (record,))
        return ControlBatch(height, ())

    def _has_after(self, state: LedgerState) -> bool:
        return self._gathering.has_after(state.positions)

    def _tell(self) -> None:
        """Say whether the log has something past the machine's parent, if that is news."""
        parent = self._machine.parent
        state = self._chain.state_after(parent)
        has_more = state is not None and (
            self._has_after(state) or bool(self._next_control(state, parent).records)
        )
        said = (parent, has_more)
        if said != self._said:
            self._said = said
            self._events.append(quorum.LogStands(parent, has_more))

    def _pause(self, proposal: Proposal, now: int) -> None:
        self._not_before = now + self._pause_ms(proposal.header.record_count)

    def _pause_ms(self, records: int) -> float:
        least = PAUSE_MS_PER_VALIDATOR * len(self._machine.validators.keys)
        return min(PAUSE_MS_MAX, max(least, records * PAUSE_MS_PER_RECORD))


def _place_of(record: Proposal | Vote | Certificate) -> tuple[Epoch, int]:
    """Epoch and view of a vote, a certificate, or a tail block."""
    held = record.header if isinstance(record, Proposal) else record
    return held.epoch, held.view
