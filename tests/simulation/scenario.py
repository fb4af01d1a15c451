"""A world by hand: what befalls whom and when, and what must come of it.

`tests/simulation/scenarios` has one in each file, and the file's name is the property. The rules of
`Watch` are asked in each besides: K1 to K3, agreement, validity, and at the end that everyone
correct has everything and is silent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.simulation.joining import Gift, LedgerStates
from tests.simulation.liars import Liar, Way
from tests.simulation.log import Showing
from tests.simulation.node import RULES, Node
from tests.simulation.plan import Fault, Plan
from tests.simulation.signing import Ed25519Keys, signer_of
from tests.simulation.variant import PRODUCTION, Variant
from tests.simulation.watch import Watch
from tests.simulation.world import World

from nocturne.consensus.quorum.messages import Vote

HEIGHTS_WITHOUT_END = 10**9

Act = Callable[["Scripted"], None]
Check = Callable[["Scripted"], str | None]
"""What is wrong, or None."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Times are ms. Messages take up to 20 ms, a view is given up after 200 ms.

    Before `heal_ms` acts may do harm; from then on every message arrives.
    """

    n: int
    timeline: Sequence[tuple[int, Act]]
    expected: Sequence[Check]
    faults: Mapping[int, Fault] = field(default_factory=dict)
    ways: frozenset[Way] = frozenset()
    """How liars lie."""
    sets: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Of epochs from 2 on whose validators are others than 0 … n-1, with `spares` after those. An
    epoch has 7 heights.
    """
    spares: int = 0
    heal_ms: int = 10_000
    gifts: Mapping[int, Gift] = field(default_factory=dict)
    """How they lie to who asks for a snapshot."""
    has_ledger: bool = False
    """States are true ones, and signatures Ed25519: whoever has to may join by a snapshot."""
    operators: bool = False
    """Whoever finds that the log lost certified records waits for their word, and votes."""


class Scripted(World):
    """The world of a scenario; chance has only the delays of messages and what liars say."""

    def __init__(self, scenario: Scenario, seed: int, variant: Variant = PRODUCTION) -> None:
        self._scenario = scenario
        self.restored: set[int] = set()
        self.commit_times: list[int] = []
        """When each height was first committed."""
        self.votes: defaultdict[int, list[tuple[int, Vote]]] = defaultdict(list)
        """Of each node, and when it cast them."""
        plan = replace(
            Plan.quiet(scenario.n, HEIGHTS_WITHOUT_END),
            seed=seed,
            faulty=tuple(scenario.faults.values()),
            spares=scenario.spares,
            faults_max_ms=scenario.heal_ms,
        )
        ledger = None
        if scenario.has_ledger:
            founding = [signer_of(number) for number in range(scenario.n)]
            later = {
                epoch: [signer_of(number) for number in members]
                for epoch, members in scenario.sets.items()
                if members != scenario.sets.get(epoch - 1)
            }
            ledger = LedgerStates(founding, RULES.epoch_length, later)
        signing = Ed25519Keys() if scenario.has_ledger else None
        super().__init__(plan, variant, signing=signing, ledger=ledger)
        for number, gift in scenario.gifts.items():
            self.nodes[number].giving.gift = gift
        self.operators = scenario.operators
        self.watch = _Recorder(self)
        for node in self.nodes:
            if isinstance(node, Liar):
                node.ways = scenario.ways

    def _faults(self) -> Mapping[int, Fault]:
        return self._scenario.faults

    def _members(self, number: int) -> Sequence[int]:
        return self._scenario.sets.get(number, tuple(range(self.plan.n)))

    def _plan_events(self) -> None:
        for node in self.nodes:
            self.after(0, node.start)
        for ms, act in self._scenario.timeline:
            self.after(ms, lambda act=act: act(self))  # type: ignore[misc]
        self.after(self._scenario.heal_ms, self._heal)

    def take_back(self, node: Node) -> bool:
        """When the scenario says so."""
        if node.number not in self.restored:
            return False
        self.restored.discard(node.number)
        self.note(f"{node.name} is restored from an old copy")
        return True

    def grown(self) -> None:
        """A block more is committed."""
        self.commit_times.append(self.now)
        super().grown()

    def check(self) -> list[str]:
        """Run, and say what is not as expected."""
        self.run()
        found = [check(self) for check in self._scenario.expected]
        return [one for one in found if one is not None]


class _Recorder(Watch):
    """Remembers votes."""

    def __init__(self, world: Scripted) -> None:
        super().__init__(world)
        self._votes = world.votes

    def voted(self, node: Node, vote: Vote) -> None:
        """As `Watch` does."""
        super().voted(node, vote)
        self._votes[node.number].append((node.world.now, vote))


# What befalls --------------------------------------------------------------------------------


def append(records: int) -> Act:
    """New records."""
    return lambda world: world.append(records)


def load(from_ms: int, to_ms: int, every_ms: int = 50) -> list[tuple[int, Act]]:
    """A record now and then."""
    return [(ms, append(1)) for ms in range(from_ms, to_ms, every_ms)]


def groups(*heard: Sequence[int]) -> Act:
    """Nobody hears who is not in its group."""

    def act(world: Scripted) -> None:
        of = {one: number for number, group in enumerate(heard) for one in group}
        everyone = range(len(world.nodes))
        world.network.cut((a, b) for a in everyone for b in everyone if of.get(a) != of.get(b))

    return act


def deaf(*numbers: int) -> Act:
    """These hear nobody, and are heard."""

    def act(world: Scripted) -> None:
        everyone = range(len(world.nodes))
        world.network.cut((a, b) for a in everyone for b in numbers)

    return act


def joined(world: Scripted) -> None:
    """Everyone hears everyone again."""
    world.network.heal()


def down(*numbers: int) -> Act:
    """They lose power, and stay so."""

    def act(world: Scripted) -> None:
        for number in numbers:
            node = world.nodes[number]
            node.disk.lose_tail(world.dice, 0.0)
            node.alive = False
            node.life += 1

    return act


def up(*numbers: int) -> Act:
    """They start, from their disks."""

    def act(world: Scripted) -> None:
        for number in numbers:
            world.nodes[number].start()

    return act


def crash(number: int) -> Act:
    """It ends, and starts again soon."""
    return lambda world: world.nodes[number].crash()


def rot(number: int) -> Act:
    """Its disk loses bits, and it starts from it."""
    return lambda world: world.rot(world.nodes[number])


def copied(number: int) -> Act:
    """Somebody copies its disk."""

    def act(world: Scripted) -> None:
        disk = world.nodes[number].disk
        disk.old = list(disk.synced)

    return act


def restored(number: int) -> Act:
    """It starts from the copy."""

    def act(world: Scripted) -> None:
        world.restored.add(number)
        world.nodes[number].crash()

    return act


def divided(number: int, *half: int) -> Act:
    """It runs twice: one talks with `half`, the other with the rest."""
    return lambda world: world.divide(world.nodes[number], frozenset(half))


def misled(number: int, how: Showing) -> Act:
    """Its broker shows it something else than the others."""
    return lambda world: world.mislead(world.nodes[number], how)


def log_lost(how: Showing) -> Act:
    """The broker loses certified records."""
    return lambda world: world.lose_log(how)


def log_cut_short(records: int) -> Act:
    """The broker loses the newest certified records, so many."""
    return lambda world: world.lose_log(Showing.TRUNCATED, records)


def withheld(number: int) -> Act:
    """It sees nothing new in the log."""

    def act(world: Scripted) -> None:
        world.nodes[number].withheld = True

    return act


def shown_again(number: int) -> Act:
    """It sees what is there."""

    def act(world: Scripted) -> None:
        world.nodes[number].withheld = False
        world.nodes[number].look_at_log()

    return act


def old_records_gone(world: Scripted) -> None:
    """The broker drops all records that are certified by now: their time is over."""
    world.log.kept_from = world.chains.end_of(world.truth[-1].proposal.digest) or 0


def log_epoch_decided(world: Scripted) -> None:
    """The operators' record comes to everyone: the next log epoch begins with what is there now."""
    world.decide_log_epoch(20)


# What is expected ----------------------------------------------------------------------------


def blocks_at_least(wanted: int) -> Check:
    """Everyone correct has so many; `Watch` asks that they have the same, and all of the log."""

    def check(world: Scripted) -> str | None:
        found = len(world.truth)
        return None if found >= wanted else f"expected {wanted} blocks, got {found}"

    return check


def committed_between(from_ms: int, to_ms: int) -> Check:
    """At least one block was."""

    def check(world: Scripted) -> str | None:
        if any(from_ms <= ms <= to_ms for ms in world.commit_times):
            return None
        return f"nothing was committed between {from_ms} and {to_ms}: {world.commit_times}"

    return check


def nothing_committed_between(from_ms: int, to_ms: int) -> Check:
    """No block was."""

    def check(world: Scripted) -> str | None:
        found = [ms for ms in world.commit_times if from_ms <= ms <= to_ms]
        return f"committed at {found}" if found else None

    return check


def silent_after(ms: int) -> Check:
    """Nobody said anything later."""

    def check(world: Scripted) -> str | None:
        return (
            None if world.network.last_sent_ms <= ms else f"spoke at {world.network.last_sent_ms}"
        )

    return check


def counted(name: str, at_least: int = 1) -> Check:
    """As the simulator counts (`make sim` lists the names)."""

    def check(world: Scripted) -> str | None:
        found = world.counted[name]
        return None if found >= at_least else f"expected {at_least} × {name!r}, got {found}"

    return check


def never(name: str) -> Check:
    """Not once."""

    def check(world: Scripted) -> str | None:
        return f"{world.counted[name]} × {name!r}" if world.counted[name] else None

    return check


def halted(*numbers: int) -> Check:
    """These halted, and nobody else."""

    def check(world: Scripted) -> str | None:
        found = tuple(node.number for node in world.nodes if node.halted)
        return None if found == numbers else f"expected {numbers} to halt, got {found}"

    return check


def kept_its_votes(number: int, until_ms: int) -> Check:
    """What it voted before `until_ms` is in its log still, and it voted later, too."""

    def check(world: Scripted) -> str | None:
        cast = world.votes[number]
        times = [ms for ms, _ in cast]
        held = {record for record in world.nodes[number].disk.synced if isinstance(record, Vote)}
        lost = [vote for _, vote in cast if vote not in held]
        if lost:
            return f"node {number} lost {len(lost)} votes"
        if not any(ms < until_ms for ms in times) or not any(ms > until_ms for ms in times):
            return f"node {number} did not vote before and after {until_ms}: {times}"
        return None

    return check
