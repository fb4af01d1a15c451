"""What is between the nodes: every message may be lost, doubled, late, and overtaken by others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

from nocturne.consensus.quorum.messages import (
    Cast,
    Committed,
    Fetched,
    Message,
    Offer,
    Received,
)
from nocturne.core.certificates import Certificate
from nocturne.core.identifiers import Hash

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

DELAY_MS = 20
CATCH_UP_BLOCKS = 20
PARTITIONS: Final = ("none", "halves", "one way", "deaf", "pairs")
"""One way: one side is not heard by the other. Deaf: one hears nobody. Pairs: single ways."""


class Network:
    """Of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cut: set[tuple[int, int]] = set()
        self.sent: Counter[str] = Counter()
        self.last_sent_ms = 0

    def send(self, sender: Node, to: Iterable[int], message: Message) -> None:
        """On its way to each of these nodes, or lost."""
        if sender.half is not None:
            to = [one for one in to if one in sender.half]
        world = self._world
        parcel = Parcel(world, sender, message)
        sent = posted = late = 0
        counted, healed = world.counted, world.healed
        plan, dice, nodes = world.plan, world.dice, world.nodes
        number, cut, loss, duplication = sender.number, self._cut, plan.loss, plan.duplication
        # A third of a world's time is spent from here to `deliver`: what the loop asks is at hand.
        random, below, after, slow = dice.random, dice.below, world.after, plan.slow_messages
        for one in to:
            sent += 1
            times = factor = 1
            if not healed:
                if cut and (number, one) in cut:
                    counted["cut off"] += 1
                    continue
                if loss and random() < loss:
                    counted["lost"] += 1
                    continue
                if duplication and random() < duplication:
                    counted["duplicated"] += 1
                    times = 2
            for _ in range(times):
                if not healed:
                    factor = slow[below(len(slow))]
                    late += factor > 1
                delay = 1 + below(DELAY_MS * factor) + nodes[one].slow_ms
                after(delay, partial(parcel.deliver, one))
            posted += times
        if posted:
            counted["late"] += late
        if sent:
            world.watch.sent(sender, message)
            self.sent[type(message).__name__] += sent
            self.last_sent_ms = world.now
            if isinstance(message, Offer):
                world.chains.know(message.proposal)

    def fetch(self, node: Node, digest: Hash) -> None:
        """A block from any peer that has it."""
        world = self._world
        world.counted["fetch"] += 1
        others = [one for one in world.nodes if one.alive and digest in one.blocks]
        if others and (world.healed or world.dice.random() >= world.plan.loss):
            world.counted["fetched"] += 1
            found = world.dice.choice(others).blocks[digest]
            node.after(world.dice.randint(1, DELAY_MS), Fetched(found))

    def catch_up(self, node: Node, height: int) -> None:
        """Committed blocks from any peer that has them."""
        world = self._world
        world.counted["catch up"] += 1
        others = [one for one in world.nodes if one.alive and len(one.committed) >= height]
        if others and (world.healed or world.dice.random() >= world.plan.loss):
            peer = world.dice.choice(others)
            for block in peer.committed[height - 1 : height - 1 + CATCH_UP_BLOCKS]:
                node.after(DELAY_MS, Received(None, block))

    def part(self) -> None:
        """Draw a new partition, and again after a while."""
        self._cut.clear()
        world, dice = self._world, self._world.dice
        if world.calm:
            return
        numbers = range(len(world.nodes))
        one_side = {number for number in numbers if dice.random() < 0.5}
        across = {(one, other) for one in numbers for other in numbers if one != other}
        kind = dice.choice(PARTITIONS)
        match kind:
            case "halves":
                cut = {(a, b) for a, b in across if (a in one_side) != (b in one_side)}
            case "one way":
                cut = {(a, b) for a, b in across if a in one_side and b not in one_side}
            case "deaf":
                deaf = dice.choice(numbers)
                cut = {(a, b) for a, b in across if b == deaf}
            case "pairs":
                cut = {pair for pair in sorted(across) if dice.random() < 0.3}
            case _:
                cut = set()
        self._cut = cut
        world.counted[f"partition: {kind}"] += 1
        world.note(f"partition: {kind}")
        world.after(dice.randint(50, 1_500), self.part)

    def cut(self, pairs: Iterable[tuple[int, int]]) -> None:
        """What one says the other does not hear."""
        self._cut = set(pairs)

    def heal(self) -> None:
        """Everything arrives from now on."""
        self._cut.clear()


class Parcel:
    """One message on its way to some nodes."""

    __slots__ = ("_described", "_event", "_message", "_sender", "_world")

    def __init__(self, world: World, sender: Node, message: Message) -> None:
        self._world = world
        self._sender = sender
        self._message = message
        self._described = ""
        self._event: Received | None = None

    def deliver(self, to: int) -> None:
        """One of them hears it, if it lives."""
        world, sender, event = self._world, self._sender, self._event
        node = world.reached(sender, to) if world.twins else world.nodes[to]
        if not node.alive:
            return
        self._described = self._described or describe(self._message)
        world.note(f"{sender.name} -> {node.name}: {self._described}")
        index = node.indexes().get(sender.number)
        if event is None or event.sender != index:
            # The nodes that hear it are mostly in one epoch.
            event = self._event = Received(index, self._message)
        node.hear(event)


def describe(message: Message) -> str:
    """A message in one line."""
    match message:
        case Offer(proposal, grounds):
            header = proposal.header
            return (
                f"offer e{header.epoch.number} v{header.view} h{header.height} {header.kind.name} "
                f"{_short(proposal.digest)} on {_short(header.parent_digest)}, "
                f"{len(grounds)} grounds"
            )
        case Cast(vote, again):
            return (
                f"{vote.kind.name} e{vote.epoch.number} v{vote.view} of {vote.validator} "
                f"{_short(vote.digest)}{' again' if again else ''}"
            )
        case Certificate():
            return (
                f"certificate {message.kind.name} e{message.epoch.number} v{message.view} "
                f"{_short(message.digest)}"
            )
        case Committed(proposal):
            return f"committed h{proposal.header.height} {_short(proposal.digest)}"
        case unreachable:
            assert_never(unreachable)


def _short(digest: Hash) -> str:
    return digest.hex()[:6]
