"""What must never be seen: each rule of the protocol, checked on everything that correct nodes say,
write and commit, by one who sees all of them at once.

A certificate can exist only if so many votes were cast; the votes of who may lie are counted as
cast, whatever they are for.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NoReturn

from tests.simulation.log import LEDGER, RECORDS_PER_BLOCK_MAX, opens
from tests.simulation.node import RULES
from tests.simulation.plan import UNBOUND

from nocturne.consensus.quorum.messages import Cast as CastVote
from nocturne.consensus.quorum.messages import Committed, Contents, Message, Offer, Proposal, Vote
from nocturne.core.blocks import BlockHeader, BlockKind, link_of, link_to
from nocturne.core.certificates import Epoch, VoteKind, check_commit_proof, quorum
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash
from nocturne.core.state import LedgerState

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

NONE = Hash(bytes(32))


class Violation(AssertionError):  # noqa: N818
    """A rule does not hold; the message begins with its name."""


class Watch:
    """Of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._said: dict[tuple[int, Epoch, int], dict[VoteKind, set[Hash]]] = {}
        self._proposed: dict[tuple[int, Epoch, int], Hash] = {}
        self._cast: defaultdict[tuple[VoteKind, Epoch, int, Hash], set[int]] = defaultdict(set)
        self._notarized: dict[Epoch, int] = {}
        """The newest view of an epoch that anyone can hold Not of."""

    def violated(self, rule: str) -> NoReturn:
        """End the world."""
        raise Violation(rule)

    # What is said -----------------------------------------------------------------------------

    def sent(self, node: Node, message: Message) -> None:
        """K1 and K3 over all lives of a node. A vote that was neither durable nor sent does not
        bind: what is sent counts.
        """
        if node.unbound:
            return
        match message:
            case CastVote(vote) if vote.validator == node.machine.index:
                self._sent_vote(node, vote)
            case Offer(proposal):
                header = proposal.header
                place = (node.number, header.epoch, header.view)
                if self._proposed.setdefault(place, proposal.digest) != proposal.digest:
                    self.violated(f"K1: node {node.name} proposes twice in view {header.view}")

    def _sent_vote(self, node: Node, vote: Vote) -> None:
        seen = self._said.setdefault((node.number, vote.epoch, vote.view), {})
        seen.setdefault(vote.kind, set()).add(vote.digest)
        if len(seen.get(VoteKind.NOTARIZE, ())) > 1:
            self.violated(f"K1: node {node.name} notarizes two blocks in view {vote.view}")
        if len(seen.get(VoteKind.FINALIZE, ())) > 1:
            self.violated(f"K3: node {node.name} finalizes two blocks in view {vote.view}")
        if VoteKind.FINALIZE in seen and VoteKind.NULLIFY in seen:
            self.violated(f"K3: node {node.name} finalizes and nullifies view {vote.view}")

    # What is voted for ------------------------------------------------------------------------

    def voted(self, node: Node, vote: Vote) -> None:
        """A node is about to make its vote durable: is it one that the rules allow?"""
        place = (vote.kind, vote.epoch, vote.view, vote.digest)
        if not node.unbound:
            match vote.kind:
                case VoteKind.NOTARIZE:
                    # Its own copy: two liars may sign one block, and not both lead its view.
                    self._notarizes(node, node.blocks[vote.digest])
                case VoteKind.FINALIZE:
                    if not self._certified(VoteKind.NOTARIZE, vote.epoch, vote.view, vote.digest):
                        self.violated(f"K3: node {node.name} finalizes {vote.view} without Not")
                case VoteKind.NULLIFY:
                    pass
        self._cast[place].add(node.number)
        if vote.kind is VoteKind.NOTARIZE and self._certified(*place):
            newest = self._notarized.get(vote.epoch, 0)
            self._notarized[vote.epoch] = max(newest, vote.view)

    def _certified(self, kind: VoteKind, epoch: Epoch, view: int, digest: Hash) -> bool:
        members, may_lie = self._world.members(epoch.number), self._world.liars(epoch.number)
        cast = self._cast[kind, epoch, view, digest]
        return len(may_lie | cast.intersection(members)) >= quorum(len(members))

    def _notarizes(self, node: Node, proposal: Proposal) -> None:
        header = proposal.header
        epoch, view = header.epoch, header.view
        where = f"node {node.name} notarizes {proposal.digest.hex()[:8]} in view {view}"
        members = self._world.members(epoch.number)
        leader = self._world.signing.key_of(members[(view - 1) % len(members)])
        if not node.scheme.proposal_signed(leader, proposal.digest, proposal.signatures):
            self.violated(f"leader: {where}, which its leader did not sign")
        parent = self._parent(header)
        if parent is None:
            self.violated(f"K2: {where}, whose parent is not certified")
        time, height, kind, parent_end = parent
        for between in range(header.parent_view + 1, view):
            if not self._certified(VoteKind.NULLIFY, epoch, between, NONE):
                self.violated(f"K2: {where}, but view {between} is not nullified")
        bound, now = RULES.clock_bound_ms, node.now()
        if not max(time, now - bound) <= header.time <= max(time, now + bound):
            self.violated(f"time: {where} of {header.time}, its parent {time}, now {now}")
        if (header.kind, header.height) != (kind, height):
            self.violated(f"shape: {where}: {header.kind.name} of height {header.height}")
        contents = Contents.of(header)
        if kind is BlockKind.TAIL and not contents.empty:
            self.violated(f"tail: {where}: a tail block with records")
        if contents.empty:
            if self._idle(node, header, parent_end):
                self.violated(f"idle: {where}: an empty block, and nothing to do")
        elif self._world.chains.is_right(proposal, node.copy) is not True:
            self.violated(f"validity: {where}: {contents}")

    def _parent(self, header: BlockHeader) -> tuple[int, int, BlockKind, int] | None:
        """The certified parent's time; height and kind of a child; where its log ends."""
        truth, chains = self._world.truth, self._world.chains
        if header.parent_digest == Hash(LEDGER) and header.parent_view == 0:
            return 0, 1, BlockKind.LEDGER, 0
        parent = chains.proposals.get(header.parent_digest)
        if parent is None:
            return None
        above = parent.header
        end = chains.end_of(parent.digest)
        assert end is not None
        if header.parent_view == 0:
            last = truth[above.height - 1] if above.height <= len(truth) else None
            ends = above.height % RULES.epoch_length == 0
            if last is None or last.proposal.digest != parent.digest or not ends:
                return None
            return above.time, above.height + 1, BlockKind.LEDGER, end
        digest = header.parent_digest
        if not self._certified(VoteKind.NOTARIZE, header.epoch, header.parent_view, digest):
            return None
        if above.height % RULES.epoch_length == 0:
            return above.time, above.height, BlockKind.TAIL, end
        return above.time, above.height + 1, BlockKind.LEDGER, end

    def _idle(self, node: Node, header: BlockHeader, parent_end: int) -> bool:
        """Nothing at all speaks for an empty block here: log, unfinal blocks, epoch."""
        if header.parent_view == 0 and header.height > 1:
            return False
        newest = self._notarized.get(header.epoch, 0)
        # The store and not the machine's `final`: that is already where the whole step led.
        settled = node.committed[-1].proposal.digest if node.committed else Hash(LEDGER)
        return (
            node.delivered <= parent_end
            and node.said != (settled, True)
            and header.parent_digest == settled
            and newest <= header.parent_view
        )

    # What is committed ------------------------------------------------------------------------

    def committed(self, node: Node, block: Committed) -> None:
        """Agreement, order, proof, validity."""
        world, header = self._world, block.proposal.header
        truth, height = world.truth, header.height
        if height != len(node.committed) + 1:
            self.violated(f"order: node {node.name} commits {height} after {len(node.committed)}")
        known = truth[height - 1].proposal.digest if height <= len(truth) else None
        if known is not None and known != block.proposal.digest:
            self.violated(f"agreement: two blocks are committed at height {height}")
        parent = node.committed[-1].proposal.digest if node.committed else Hash(LEDGER)
        if header.parent_digest != parent or header.kind is not BlockKind.LEDGER:
            self.violated(f"links: node {node.name}, height {height}")
        if header.epoch.number != (height - 1) // RULES.epoch_length:
            self.violated(f"epoch: height {height} in epoch {header.epoch.number}")
        self._check_proof(node, block)
        if height > len(truth):
            if world.chains.is_right(block.proposal, world.log.truth) is not True:
                self.violated(f"validity: node {node.name}, height {height}")
            assert header.record_count <= RECORDS_PER_BLOCK_MAX
            truth.append(block)
            if opens(block.proposal):
                world.reopened((world.chains.end_of(block.proposal.digest) or 0) - 1)
            world.grown()

    def joined(self, node: Node, block: Committed, state: LedgerState) -> None:
        """A snapshot that a node goes on from is the state after a committed block."""
        world, height = self._world, block.proposal.header.height
        where = f"node {node.name} goes on from a snapshot of {height}"
        truth = world.truth[height - 1] if height <= len(world.truth) else None
        if truth is None or truth.proposal.digest != block.proposal.digest:
            self.violated(f"joining: {where}, a block that is not committed")
        if state.root_hash != truth.proposal.header.state_root:
            self.violated(f"joining: {where}, another state than the one after it")
        self._check_proof(node, block)

    def _check_proof(self, node: Node, block: Committed) -> None:
        header = block.proposal.header
        fin = block.proof.finalization
        try:
            check_commit_proof(
                block.proof,
                link_to(header, block.proposal.digest),
                LEDGER,
                self._world.true_set_of(header.epoch.number),
                link_of,
                node.scheme.vote_signed,
            )
        except Malformed as fault:
            self.violated(f"proof: node {node.name}, height {header.height}: {fault}")
        if not self._certified(VoteKind.FINALIZE, fin.epoch, fin.view, fin.digest):
            self.violated(f"proof: height {header.height} by votes that nobody cast")

    def accused(self, node: Node, validator: int) -> None:
        """Nobody is accused but who may lie."""
        self._world.counted["accused"] += 1
        number = node.addressed[validator]
        self._world.note(f"{node.name} accuses {number}")
        if node.unbound:
            return
        if self._world.faults.get(number) not in UNBOUND:
            self.violated(f"evidence: node {node.name} accuses correct node {number}")

    def ended_without_log(self) -> None:
        """The log lost certified records: whoever knows them as certified halted and says why."""
        world = self._world
        for node in world.correct():
            newest = node.committed[-1].proposal.digest if node.committed else Hash(LEDGER)
            if (world.chains.end_of(newest) or 0) > world.lost_from and not node.halted:
                self.violated(f"log: node {node.name} goes on over records that the log lost")

    def only_empty_blocks_lack(self) -> bool:
        """Whether somebody correct has all records, and lacks empty blocks that come after them.

        A liar may show the vote that finalizes those to others alone. Who has all of the log and
        nothing to finalize sees no reason to ask: the next record brings them.
        """
        world = self._world
        lacking = [
            block.proposal.header
            for node in world.correct()
            if not node.machine.busy
            for block in world.truth[len(node.committed) :]
        ]
        return bool(lacking) and all(Contents.of(header).empty for header in lacking)

    def ended(self) -> None:
        """All is silent: everyone correct has everything."""
        world = self._world
        late = [one.number for one in world.correct() if len(one.committed) != len(world.truth)]
        if late:
            self.violated(f"progress: {late} are behind when all is silent: {world.standing()}")
        end = world.chains.end_of(world.truth[-1].proposal.digest) if world.truth else 0
        if end != len(world.log):
            self.violated(f"progress: silent at {end} of {len(world.log)} records")
        if world.truth and len(world.truth) % RULES.epoch_length == 0:
            self.violated("progress: silent at an epoch's end, and nothing of the next is final")
