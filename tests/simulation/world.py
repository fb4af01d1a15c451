"""A world for the production machine: network, disks, clocks, a log, liars; one seed replays it.

Everything that happens comes from one `Random`. Faults are active until enough blocks are
committed; after that every message arrives, nobody crashes, and what was appended to the log has
to be committed by everyone correct; then there has to be silence.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from random import Random

from tests.simulation.dice import Dice
from tests.simulation.joining import LedgerStates
from tests.simulation.liars import Liar
from tests.simulation.log import HASHED_STATES, LOSSES, Chains, Log, Showing
from tests.simulation.network import Network
from tests.simulation.node import VIEW_MS, Node
from tests.simulation.plan import UNBOUND, Fault, Plan
from tests.simulation.signing import KeyedHashes, Signing
from tests.simulation.store import height_of, newest
from tests.simulation.variant import PRODUCTION, Variant
from tests.simulation.watch import Watch

from nocturne.consensus.quorum.messages import Committed
from nocturne.core.certificates import ValidatorSet
from nocturne.core.keys import Key

HEAL_VIEWS_MAX = 60
"""After the world is healed everything appended is committed within so many full views of each
validator in turn, and all is silent.
"""
CALM_MS_MAX = 90_000
"""Within so long, with mild faults, the wanted heights are committed."""
CONTROL_MS_MAX = 300
"""Within so long the operators bring their record to every validator."""
LOST_MS = 5_000
"""So long after it lost certified records everyone has looked at the log, and halted."""
LYING_MS = 3_000
"""So long after the healing liars go on."""
EVENTS_MAX = 200_000
"""Of up to seven validators, and for each pair of them: a world that goes on after so many has
something that never ends.
"""
HEIGHTS_BETWEEN_LOSSES = 10
BACKLOG_MAX = 40
NEVER_MS = 1 << 62
LINES_AT_ONCE = 500
"""Lines of the trace that are hashed together."""


class World:
    """Nodes and what is between them."""

    def __init__(
        self,
        plan: Plan,
        variant: Variant = PRODUCTION,
        tell: Callable[[str], None] | None = None,
        events_max: int | None = None,
        signing: Signing | None = None,
        ledger: LedgerStates | None = None,
    ) -> None:
        self.plan = plan
        self.variant = variant
        self.dice = Dice(f"world/{plan.seed}")
        self.counted: Counter[str] = Counter()
        self.now = 0
        self.calm = False
        """Faults that may keep blocks from being committed are over."""
        self.healed = False
        """No fault is active any more."""
        self._healed_at = NEVER_MS
        self.log = Log()
        self.ledger = ledger
        """In worlds where somebody joins by a snapshot; else states are hashes."""
        self.chains = Chains(HASHED_STATES if ledger is None else ledger)
        self.operators = bool(plan.operators_ms)
        """Somebody decides how it goes on after the log lost certified records."""
        self.decided = 1
        """The newest log epoch that there is a record of the operators for."""
        self._lost_at = 0
        self.lost_from = 0
        """Where the records begin that the log lost."""
        self.claimed = 0
        """No block ends later in the log, made or about to be made."""
        self.truth: list[Committed] = []
        """What is committed, by whoever was first."""
        self.watch = Watch(self)
        self.network = Network(self)
        self.signing = signing or KeyedHashes(variant.certificates.sign_vote)
        everyone = range(plan.n + plan.spares)
        self.faults = self._faults()
        self.members = cache(self._members)
        self.liars = cache(self._liars)
        self.set_of = cache(self._set_of)
        self.true_set_of = cache(self._true_set_of)
        self.nodes = [self._node(number) for number in everyone]
        self.twins = {
            number: Node(self, number, fault)
            for number, fault in self.faults.items()
            if fault is Fault.TWIN
        }
        self._tell = tell
        self._events_max = events_max or EVENTS_MAX * max(49, plan.n**2) // 49
        self._trace = hashlib.sha256()
        self._lines: list[str] = []
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0

    def _faults(self) -> Mapping[int, Fault]:
        """Which of the first set are faulty, and how."""
        chosen = self.dice.sample(range(self.plan.n), len(self.plan.faulty))
        return dict(zip(chosen, self.plan.faulty, strict=True))

    def _node(self, number: int) -> Node:
        fault = self.faults.get(number)
        return (Liar if fault is Fault.LIAR else Node)(self, number, fault)

    # Sets --------------------------------------------------------------------------------------

    def _members(self, number: int) -> Sequence[int]:
        """The nodes of an epoch's set: a spare comes in for a correct one, and leaves again."""
        members = list(range(self.plan.n))
        if number >= 2:
            dice = Random(f"set/{self.plan.seed}/{number}")
            correct = [one for one in members if one not in self.faults]
            for spare in range(self.plan.n, self.plan.n + self.plan.spares):
                if dice.random() < 0.5 and correct:
                    self.counted["set change"] += 1
                    out = correct.pop(dice.randrange(len(correct)))
                    members[members.index(out)] = spare
        return tuple(members)

    def _liars(self, number: int) -> frozenset[int]:
        """The nodes of an epoch's set that may break K1 to K3."""
        return frozenset(one for one in self.members(number) if self.faults.get(one) in UNBOUND)

    def _set_of(self, number: int) -> ValidatorSet:
        kind: type[ValidatorSet] = self.variant.certificates.ValidatorSet
        return kind.of(self._keys_of(number))

    def _true_set_of(self, number: int) -> ValidatorSet:
        return ValidatorSet.of(self._keys_of(number))

    def _keys_of(self, number: int) -> tuple[Key, ...]:
        return tuple(self.signing.key_of(one) for one in self.members(number))

    def correct(self) -> list[Node]:
        """Everyone who is not one of the f."""
        return [node for node in self.nodes if node.fault is None]

    def reached(self, sender: Node, to: int) -> Node:
        """Which of two twins hears it."""
        twin = self.twins.get(to)
        if twin is not None and twin.half is not None and sender.number in twin.half:
            return twin
        return self.nodes[to]

    # Time --------------------------------------------------------------------------------------

    @property
    def lying(self) -> bool:
        """Liars still lie."""
        return self.now < self._healed_at + LYING_MS

    def after(self, delay: int, what: Callable[[], None]) -> None:
        """Let it happen `delay` ms from now."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay, self._sequence, what))

    def soon(self, node: Node, what: Callable[[], None], delay: int = 0) -> None:
        """The same, if the node's life lasts so long."""
        life = node.life
        self.after(delay, lambda: what() if node.life == life else None)

    def note(self, line: str) -> None:
        """One line of the trace."""
        text = f"{self.now:>7} {line}"
        self._lines.append(text)
        if len(self._lines) == LINES_AT_ONCE:
            self._hash_lines()
        if self._tell is not None:
            self._tell(text)

    def _hash_lines(self) -> None:
        self._trace.update("".join([f"{line}\n" for line in self._lines]).encode())
        self._lines.clear()

    @property
    def trace(self) -> str:
        """SHA-256 of every line, for people: `sha256-` and hex."""
        self._hash_lines()
        return f"sha256-{self._trace.hexdigest()}"

    def may_crash(self, node: Node) -> bool:
        """Before an effect."""
        if not self.plan.crash or node.fault is Fault.LIAR:
            return False
        return self.dice.random() < self.plan.crash

    def may_be_full(self, node: Node) -> bool:
        """At an append to a disk."""
        if not self.plan.full or node.fault is Fault.LIAR:
            return False
        return self.dice.random() < self.plan.full

    def take_back(self, node: Node) -> bool:
        """Whether somebody restores the old copy of the node's disk now."""
        if self.healed or self.dice.random() < 0.5:
            return False
        self.counted["rollback"] += 1
        self.note(f"{node.name} is restored from an old copy")
        return True

    # Running -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Until everything is committed and silent; `Violation` when a rule or progress fails."""
        self._plan_events()
        self._go()
        if self.log.before is None:
            if self.watch.only_empty_blocks_lack():
                self.counted["one lacks an empty block"] += 1
                self.append(1)
                self._go()
            self.watch.ended()
        elif self.plan.operators_ms:
            self.watch.violated(f"progress: no log epoch was opened: {self.standing()}")
        else:
            self.watch.ended_without_log()
        self.note(repr(sorted(self.counted.items())))

    def _plan_events(self) -> None:
        plan, dice = self.plan, self.dice
        for node in self.nodes:
            node.clock = dice.randint(-plan.clock_ms, plan.clock_ms)
            self.after(dice.randint(0, 30), node.start)
            self._prepare(node)
        for node in dice.sample(self.nodes, min(plan.slow_nodes, len(self.nodes))):
            self.counted["slow node"] += 1
            node.slow_ms = plan.slow_ms
        self.after(0, self._append_some)
        self.after(plan.faults_max_ms, self._calm)
        if plan.partitions:
            self.after(dice.randint(0, 300), self.network.part)
        for what, wanted in (
            (self._jump, plan.clock_jumps),
            (self._truncate, plan.truncation),
            (self._withhold, plan.withheld),
        ):
            if wanted:
                self.after(dice.randint(100, 3_000), what)

    def _go(self) -> None:
        heap, pop, events_max = self._heap, heapq.heappop, self._events_max
        # Faults end within `faults_max_ms`.
        settling_ms = LYING_MS + HEAL_VIEWS_MAX * (self.plan.n + 2) * VIEW_MS
        settling_ms += CALM_MS_MAX * len(self.plan.operators_ms)
        end_ms = self.plan.faults_max_ms + CALM_MS_MAX + settling_ms
        events = 0
        while heap:
            self.now, _, what = pop(heap)
            events += 1
            if self.now > end_ms:
                self.watch.violated(f"progress or silence: {self.standing()}")
            if events > events_max:
                self.watch.violated(f"silence: {events} events, {self.standing()}")
            what()

    def _prepare(self, node: Node) -> None:
        """What will befall a faulty node."""
        dice = self.dice
        within = self.plan.heights * self.plan.append_gap_ms
        match node.fault:
            case Fault.TWIN:
                self.after(dice.randint(30, within), lambda: self._divide(node))
            case Fault.ROT:
                self.after(dice.randint(30, within), lambda: self.rot(node))
            case Fault.ROLLBACK:
                first = dice.randint(30, within)
                self.after(first, lambda: self._copy(node))
                for _ in range(4):
                    self.after(first + dice.randint(20, within), node.crash)
            case Fault.MISLED:
                how = dice.choice(tuple(Showing))
                first = 0 if how is Showing.OTHER else dice.randint(30, within)
                self.after(first, lambda: self.mislead(node, how))
            case _:
                pass

    def mislead(self, node: Node, how: Showing) -> None:
        """From now on its broker shows it something else than the others."""
        self.counted[f"misled: {how.value}"] += 1
        self.note(f"{node.name} is misled: {how.value}")
        match how:
            case Showing.OTHER:
                node.misled_at = self.dice.randint(0, self.plan.heights)
            case Showing.WITHHELD:
                node.misled_at = node.delivered
            case _:
                node.misled_at = self.dice.randint(0, node.delivered)
        node.showing = how

    def _divide(self, node: Node) -> None:
        """From now on the identity runs twice, from one disk; each talks with its half."""
        if self.healed:
            return
        others = [one.number for one in self.nodes if one.number != node.number]
        half = frozenset(one for one in others if self.dice.random() < 0.5)
        self.divide(node, half)
        self.after(self.dice.randint(200, 3_000), lambda: self._divide(node))

    def divide(self, node: Node, half: frozenset[int]) -> None:
        """Of two twins one talks with `half`, the other with the rest."""
        twin = self.twins[node.number]
        node.half = frozenset(range(len(self.nodes))) - half - {node.number}
        twin.half = half
        if not twin.life:
            self.counted["twins"] += 1
            twin.disk = node.disk.copy()
            twin.committed = list(node.committed[: height_of(newest(node.disk.synced))])
            twin.copy = list(node.copy)
            twin.topic, twin.stands = node.topic, node.stands
            twin.controls = node.controls
            twin.clock = node.clock
            twin.start()

    def rot(self, node: Node) -> None:
        """Its disk loses bits, and it starts from it."""
        self.counted["bit rot"] += 1
        node.disk.rotten = True
        node.crash()

    def _copy(self, node: Node) -> None:
        node.disk.old = list(node.disk.synced)

    def _append_some(self) -> None:
        if self.healed:
            return
        full = len(self.log) >= self.claimed + BACKLOG_MAX
        self.append(0 if full else self.dice.choice((1, 1, 1, 2, 7)))
        gap = self.plan.append_gap_ms
        self.after(self.dice.choice((1, gap, gap, 3 * gap)), self._append_some)

    def append(self, records: int) -> None:
        """New records in the log; everyone's consumer looks at it."""
        for _ in range(records):
            self.log.append()
        for node in self._running():
            self._show(node, self.dice.randint(0, self.plan.lag_ms))

    def _running(self) -> list[Node]:
        return [one for one in (*self.nodes, *self.twins.values()) if one.alive]

    def _show(self, node: Node, delay: int) -> None:
        self.soon(node, node.look_at_log, delay)

    def _truncate(self) -> None:
        """Lose records that no block has, and tell every consumer."""
        if self.calm:
            return
        end = self.dice.randint(self.claimed, max(self.claimed, len(self.log)))
        if end < len(self.log) and not (self.operators and self.log.before is not None):
            self.counted["log truncated"] += 1
            self.note(f"the log is truncated to {end}")
            self.log.truncate(end)
            for node in self._running():
                node.look_at_log()
        self.after(self.dice.randint(100, 3_000), self._truncate)

    def _withhold(self) -> None:
        """One node, now this and now that, sees nothing new in the log."""
        for node in self.nodes:
            node.withheld = False
            if node.alive:
                self._show(node, 0)
        if not self.calm:
            self.counted["log withheld"] += 1
            self.dice.choice(self.nodes).withheld = True
            self.after(self.dice.randint(100, 3_000), self._withhold)

    def _jump(self) -> None:
        """A clock is set, by up to twice what the time rule bears."""
        if not self.calm:
            self.counted["clock jump"] += 1
            self.dice.choice(self.nodes).clock = self.dice.randint(-10_000, 10_000)
            self.after(self.dice.randint(100, 3_000), self._jump)

    def grown(self) -> None:
        """A block more is committed."""
        opened, how = self.log.log_epoch - 1, self.plan.loss_of_log
        if len(self.truth) >= self.plan.heights + opened * HEIGHTS_BETWEEN_LOSSES:
            if how is None or 0 < len(self.plan.operators_ms) <= opened:
                self._heal()
            elif self.log.before is None:
                self.lose_log(self.dice.choice(LOSSES) if opened else how)
        for node in self._running():
            node.read_soon()

    def _calm(self) -> None:
        if self.calm:
            return
        self.note("calm")
        self.calm = True
        self.plan = self.plan.calm
        self.network.heal()
        for node in self.nodes:
            node.slow_ms = 0
            node.clock = self.dice.randint(-self.plan.clock_ms, self.plan.clock_ms)
        self.after(CALM_MS_MAX, self._be_late)

    def _be_late(self) -> None:
        if self.healed or (self.log.before is not None and not self.operators):
            return
        if self.operators and self.now < self._lost_at + CALM_MS_MAX:
            self.after(self._lost_at + CALM_MS_MAX - self.now, self._be_late)
            return
        self.watch.violated(f"progress: slow when all is calm: {self.standing()}")

    def lose_log(self, how: Showing, newest: int | None = None) -> None:
        """The broker loses certified records, and goes on as if nothing had been; of those the
        newest so many, or from somewhere on.
        """
        certified = self.chains.end_of(self.truth[-1].proposal.digest) or 1
        self.lost_from = self.dice.randint(0, certified - 1) if how is not Showing.RECREATED else 0
        if newest is not None:
            self.lost_from = certified - newest
        self.counted[f"log lost: {how.value}"] += 1
        self.note(f"the log is {how.value} from {self.lost_from} on")
        self.log.lose(how, self.lost_from)
        self._lost_at = self.now
        if not self.operators:
            self.counted["heights with faults"] += len(self.truth)
            self.after(LOST_MS, self._heap.clear)
        elif self.plan.operators_ms:
            ms = self.plan.operators_ms[self.log.log_epoch - 1]
            self.after(ms, lambda: self.decide_log_epoch(CONTROL_MS_MAX))

    def decide_log_epoch(self, late_ms: int) -> None:
        """The operators' record comes to everyone, to each when it does: the next log epoch begins
        with what is in the log now.
        """
        self.decided += 1
        self.note(f"the operators open log epoch {self.decided}")
        for node in (*self.nodes, *self.twins.values()):
            give = partial(node.take_control, self.decided)
            self.after(self.dice.randint(0, late_ms), give)

    def reopened(self, end: int) -> None:
        """A log epoch is open behind the first `end` places of the log."""
        self.counted["log epoch opened"] += 1
        self.note(f"a log epoch is open behind {end}")
        self.log.reopen(end)
        self.claimed = end + 1

    def _heal(self) -> None:
        if self.healed or self.log.before is not None:
            return
        self.note("healed")
        self.counted["heights with faults"] += len(self.truth)
        self.calm = self.healed = True
        self.plan = self.plan.calm
        self._healed_at = self.now
        self.network.heal()
        for node in self.nodes:
            node.slow_ms = 0
            node.withheld = False
            node.clock = self.dice.randint(-self.plan.clock_ms, self.plan.clock_ms)
            self._show(node, 0)
        for number, twin in self.twins.items():
            # A half that talks with a half only would never be silent.
            self.after(LYING_MS, twin.stop)
            self.after(LYING_MS, self.nodes[number].stop)

    def standing(self) -> str:
        """Where everyone is, for people."""
        return (
            "; ".join(
                f"{node.name}: e{node.machine.epoch.number} "
                f"v{node.machine.view} h{len(node.committed)} log {node.delivered}"
                f"{'' if node.alive else ' dead'}"
                f"{' busy' if node.alive and node.machine.busy else ''}"
                for node in self.nodes
            )
            + f" of {len(self.log)} records, {len(self.truth)} blocks"
        )
