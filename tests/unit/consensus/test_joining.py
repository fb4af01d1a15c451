"""A validator that joins by a snapshot of others: whom it believes, and what it does with liars."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from tests.unit.consensus.ledgers import VALIDATOR, Ledger, signer

from nocturne.consensus import (
    codec,
    fetching,
    joining,
    offers,
    serving,
    snapshot_files,
    snapshots,
)
from nocturne.consensus.joining import Joining
from nocturne.consensus.measures import Measures
from nocturne.consensus.offers import AskPart, AskSnapshot, Part, SnapshotOffer
from nocturne.consensus.published import Published
from nocturne.consensus.serving import Serving
from nocturne.consensus.snapshots import Snapshots
from nocturne.consensus.store import Store
from nocturne.core.blocks import encode_block_header, hash_block
from nocturne.core.certificates import ValidatorSet
from nocturne.core.keys import Key
from nocturne.core.kinds import KindRegistry, builtin_kinds
from nocturne.runtime import journal
from nocturne.runtime.settings import Founding
from nocturne.runtime.telemetry import Metrics

KINDS = KindRegistry(builtin_kinds().values())
SECONDS_MAX = 30.0
OWN = signer(50)
Tamper = Callable[[codec.Value], codec.Value | None]


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine."""

    @wraps(test)
    def run(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def store_of(home: Path, ledger: Ledger, key: Key) -> Store:
    home.mkdir()
    label = journal.owner_label(ledger.ledger_id, key)
    journal.create(home / journal.FOLDER, label)
    store = Store(home, label)
    store.recover(ledger.data, KINDS)
    return store


@dataclass
class World:
    """One who joins, and validators that answer; what they say passes `tampers` of each."""

    home: Path
    ledger: Ledger = field(default_factory=Ledger)
    tampers: dict[Key, Tamper] = field(default_factory=dict)
    heard: list[tuple[Key, codec.Value]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = store_of(self.home / "own", self.ledger, OWN.key)
        self.metrics = Metrics(f"joining{id(self)}")
        self.measures = Measures(self.metrics)
        founding = Founding(self.ledger.data, self.ledger.genesis, self.ledger.ledger_id)
        self.joining = Joining(
            founding, KINDS, self.store, self.connected, self.send, self.on_disk, self.measures
        )
        self.serving: dict[Key, Serving] = {}

    def connected(self) -> frozenset[Key]:
        return frozenset(self.serving)

    async def on_disk(self, function: Callable[[], None]) -> None:
        await asyncio.to_thread(function)

    def grow(self, blocks: int) -> None:
        for number in range(blocks):
            self.ledger.write(f"s{number % 7}", f"t{number % 5}")
            self.newest = self.ledger.extend()

    def add(self, key: Key, at: str, *, snapshot: bool = True, height: int | None = None) -> None:
        """A validator with a snapshot of the newest block."""
        store = store_of(self.home / at, self.ledger, key)
        if snapshot:
            made = self.newest
            published = Published(made.block.header.height, 3)
            store.write_snapshot(made.committed, made.state, published, threading.Event())
        own_height = self.ledger.chain.tip.height if height is None else height
        self.serving[key] = Serving(
            lambda: store.snapshot,
            lambda: own_height,
            lambda: self.heard.append((key, AskSnapshot(0, True))),
            lambda digest: None,
            lambda _, value: self.answer(key, value),
            lambda _: 0,
            self.measures,
        )

    def send(self, key: Key, value: codec.Value) -> None:
        """The joiner asks. It goes over the wire, as all does."""
        self.heard.append((key, value))
        asked = codec.decode(codec.encode(value))
        assert isinstance(asked, AskSnapshot | AskPart)
        self.serving[key].hear(OWN.key, asked)

    def answer(self, key: Key, value: codec.Value) -> None:
        tampered = self.tampers.get(key, lambda one: one)(value)
        if tampered is None:
            return
        answer = codec.decode(codec.encode(tampered))
        assert isinstance(answer, SnapshotOffer | Part)
        asyncio.get_running_loop().call_soon(self.joining.hear, key, answer)

    async def joined(self, urgent: bool = True, height: int = 0) -> bool:
        validators = self.ledger.validators
        giving = [asyncio.ensure_future(one.run()) for one in self.serving.values()]
        try:
            async with asyncio.timeout(SECONDS_MAX):
                return await self.joining.run(height, validators, OWN.key, urgent)
        finally:
            for one in giving:
                one.cancel()
            await asyncio.gather(*giving, return_exceptions=True)

    def count(self, name: str, **labels: str) -> float:
        for family in self.metrics.registry.collect():
            for sample in family.samples:
                if sample.name.endswith(name) and sample.labels.items() >= labels.items():
                    return sample.value
        return 0.0

    def parts_asked(self) -> list[tuple[Key, int]]:
        return [(key, one.index) for key, one in self.heard if isinstance(one, AskPart)]

    def check_joined(self) -> None:
        found = self.store.recover(self.ledger.data, KINDS)
        assert found.replayed == 0
        assert found.chain.tip == self.ledger.chain.tip
        assert found.chain.state.root_hash == self.ledger.chain.state.root_hash
        assert not list(self.store.folder.glob("*.parts"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for module in (offers, snapshot_files, codec):
        monkeypatch.setattr(module, "PART_BYTES", 512)
    monkeypatch.setattr(joining, "URGENT_SECONDS", 0.01)
    monkeypatch.setattr(serving, "OFFER_SECONDS", 0.0)
    monkeypatch.setattr(joining, "ALONE_SECONDS_MAX", 0.3)
    monkeypatch.setattr(joining, "ANSWERS_SECONDS_MAX", 0.3)
    monkeypatch.setattr(fetching, "PART_SECONDS_MAX", 0.2)
    made = World(tmp_path)
    made.grow(12)
    return made


LIAR = signer(60).key


@in_a_loop
async def test_it_takes_a_snapshot_and_executes_nothing_before_it(world: World) -> None:
    world.add(VALIDATOR.key, "one")
    assert await world.joined()
    assert len(world.parts_asked()) > 5
    world.check_joined()
    assert world.count("snapshots_joined_total") == 1


@in_a_loop
async def test_without_need_it_takes_none_that_saves_little(world: World) -> None:
    world.add(VALIDATOR.key, "one")
    assert not await world.joined(False)
    assert world.parts_asked() == []


@in_a_loop
async def test_what_was_fetched_and_is_not_wanted_any_more_is_removed(world: World) -> None:
    world.add(VALIDATOR.key, "one")
    left = world.store.folder / f"{bytes(32).hex()}.parts"
    left.write_bytes(b"of another time")
    assert not await world.joined(False)
    assert not left.exists()


@in_a_loop
async def test_a_snapshot_is_written_for_others_now_and_then_and_not_whenever_they_ask(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(snapshots.time, "monotonic", lambda: now[0])
    written = Snapshots(world.store, world.on_disk, lambda: (), world.measures)
    made = world.newest
    world.store.keep(world.ledger.kept)

    async def asked() -> bool:
        before = world.store.snapshot
        written.asked(made.committed, made.state, Published(made.block.header.height, 1))
        if written._writing is not None:
            await written._writing
        written.check()
        return world.store.snapshot is not before

    assert await asked()
    assert not await asked()
    now[0] += snapshots.ASKED_SECONDS
    assert await asked()
    await written.close()


@in_a_loop
async def test_without_need_it_takes_one_that_saves_much(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "JOIN_BLOCKS_MIN", 10)
    world.add(VALIDATOR.key, "one")
    assert await world.joined(False)
    world.check_joined()


@in_a_loop
async def test_without_need_it_waits_for_nobody_who_does_not_answer(world: World) -> None:
    world.add(VALIDATOR.key, "one")
    world.tampers[VALIDATOR.key] = lambda value: None
    assert not await world.joined(False)


def _higher(value: codec.Value) -> codec.Value:
    """A later block, which nobody committed."""
    if isinstance(value, SnapshotOffer) and value.snapshot is not None:
        block = value.snapshot.block
        header = replace(block.proposal.header, height=block.proposal.header.height + 100)
        data = encode_block_header(header)
        proposal = replace(
            block.proposal, header=header, header_bytes=data, digest=hash_block(data)
        )
        return replace(
            value, snapshot=replace(value.snapshot, block=replace(block, proposal=proposal))
        )
    return value


def _other_part(value: codec.Value) -> codec.Value:
    if isinstance(value, Part):
        return replace(value, data=bytes(len(value.data)))
    return value


def _other_state(value: codec.Value) -> codec.Value:
    """A whole content with hashes of its own, under a true header."""
    if isinstance(value, SnapshotOffer) and value.snapshot is not None:
        data = bytes(range(256)) * 4
        cutter = offers.Cutter()
        cutter.update(data)
        return replace(value, snapshot=replace(value.snapshot, manifest=cutter.manifest()))
    return value


@pytest.mark.parametrize(
    "tamper, cause", [(_higher, "claim"), (_other_part, "part"), (lambda one: None, "")]
)
@in_a_loop
async def test_a_liar_is_refused_and_another_one_is_asked(
    world: World, tamper: Tamper, cause: str
) -> None:
    world.add(LIAR, "liar")
    world.add(VALIDATOR.key, "one")
    world.tampers[LIAR] = tamper
    assert await world.joined()
    world.check_joined()
    if cause:
        assert world.count("snapshots_refused_total", cause=cause) == 1


def _small(value: codec.Value) -> codec.Value:
    """A content of one part."""
    if isinstance(value, SnapshotOffer) and value.snapshot is not None:
        cutter = offers.Cutter()
        cutter.update(b"x")
        return replace(value, snapshot=replace(value.snapshot, manifest=cutter.manifest()))
    return value


def _much(value: codec.Value) -> codec.Value:
    """A content of some megabytes."""
    if isinstance(value, SnapshotOffer) and value.snapshot is not None:
        cutter = offers.Cutter()
        cutter.update(b"x" * (4 * 1024 * 1024))
        return replace(value, snapshot=replace(value.snapshot, manifest=cutter.manifest()))
    return value


@in_a_loop
async def test_nobody_is_asked_for_a_part_of_what_is_far_larger_than_a_validators_offer(
    world: World,
) -> None:
    world.add(VALIDATOR.key, "one")
    world.grow(1)
    world.add(LIAR, "liar")
    world.tampers[LIAR] = _much
    assert await world.joined()
    assert {key for key, _ in world.parts_asked()} == {VALIDATOR.key}


@in_a_loop
async def test_what_one_liar_did_not_give_is_not_begun_with_another_while_somebody_offers_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(VALIDATOR.key, "one")
    world.grow(1)
    begun: list[int] = []
    real = joining.Download

    def download(manifest: offers.Manifest, present: set[int], keys: list[Key]) -> Any:
        begun.append(manifest.size)
        if len(begun) == 1:
            # Now the other one offers the same, in place of nothing.
            world.tampers[also_liar] = _nothing_of_much
        return real(manifest, present, keys)

    def _nothing_of_much(value: codec.Value) -> codec.Value | None:
        return None if isinstance(value, Part) else _small(value)

    monkeypatch.setattr(joining, "Download", download)
    also_liar = signer(61).key
    world.add(LIAR, "liar")
    world.add(also_liar, "also liar")
    world.tampers[LIAR] = _nothing_of_much
    world.tampers[also_liar] = lambda value: None
    assert await world.joined()
    assert len(begun) == 2
    assert len(set(begun)) == 2


@pytest.mark.slow
@in_a_loop
async def test_only_the_slow_one_is_refused_and_the_others_give_what_it_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 3.0)
    monkeypatch.setattr(fetching, "PART_SECONDS_MAX", 60.0)
    world.add(LIAR, "liar")
    world.add(VALIDATOR.key, "one")
    world.tampers[LIAR] = lambda value: None if isinstance(value, Part) else value
    assert await world.joined()
    world.check_joined()
    assert world.count("snapshots_refused_total", cause="slow") == 1
    assert world.joining._refused == {LIAR}


@in_a_loop
async def test_a_liar_who_names_the_content_of_others_for_a_later_block_is_refused_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(VALIDATOR.key, "one")
    found: Any = world.serving[VALIDATOR.key]._newest()
    world.grow(1)
    world.add(LIAR, "liar")
    given_by_liar: Any = world.serving[LIAR].hear

    def hear(sender: Key, value: AskSnapshot | AskPart) -> None:
        if isinstance(value, AskPart):
            with found.path.open("rb") as file:
                data = snapshot_files.read_part(file.fileno(), found, value.index)
            world.answer(LIAR, Part(value.digest, value.index, data))
        else:
            given_by_liar(sender, value)

    def names_it(value: codec.Value) -> codec.Value:
        if isinstance(value, SnapshotOffer) and value.snapshot is not None:
            return replace(value, snapshot=replace(value.snapshot, manifest=found.manifest))
        return value

    monkeypatch.setattr(world.serving[LIAR], "hear", hear)
    world.tampers[LIAR] = names_it
    assert await world.joined()
    assert world.count("snapshots_refused_total", cause="state") == 1
    assert world.joining._refused == {LIAR}


@in_a_loop
async def test_a_state_that_is_not_the_blocks_is_refused_after_it_came(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(LIAR, "liar")
    serving_liar = world.serving[LIAR]
    data = bytes(range(256)) * 4
    cutter = offers.Cutter()
    cutter.update(data)
    digest = cutter.manifest().digest()

    def lie(value: codec.Value) -> codec.Value:
        return _other_state(value)

    real_hear = serving_liar.hear

    def hear(sender: Key, value: AskSnapshot | AskPart) -> None:
        if isinstance(value, AskPart) and value.digest == digest:
            piece = data[value.index * 512 :][:512]
            world.answer(LIAR, Part(digest, value.index, piece))
        else:
            real_hear(sender, value)

    monkeypatch.setattr(serving_liar, "hear", hear)
    world.tampers[LIAR] = lie
    assert not await world.joined()
    assert world.count("snapshots_refused_total", cause="state") == 1
    world.add(VALIDATOR.key, "one")
    assert await world.joined()
    world.check_joined()


@in_a_loop
async def test_what_was_fetched_before_a_restart_is_not_fetched_again(world: World) -> None:
    world.add(VALIDATOR.key, "one")
    given = 0

    def dies(value: codec.Value) -> codec.Value | None:
        nonlocal given
        given += isinstance(value, Part)
        return None if isinstance(value, Part) and given > 4 else value

    world.tampers[VALIDATOR.key] = dies
    task = asyncio.ensure_future(world.joined())
    await until(lambda: given >= 6)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (left,) = world.store.folder.glob("*.parts")
    assert left.stat().st_size > 0
    before = len(world.parts_asked())
    world.tampers.clear()
    world.joining = Joining(
        Founding(world.ledger.data, world.ledger.genesis, world.ledger.ledger_id),
        KINDS,
        world.store,
        world.connected,
        world.send,
        world.on_disk,
        world.measures,
    )
    assert await world.joined()
    asked = {index for _, index in world.parts_asked()[before:]}
    assert len(asked) == len(world.serving[VALIDATOR.key]._newest().manifest.parts) - 4  # type: ignore[union-attr]
    world.check_joined()


@in_a_loop
async def test_a_quorum_that_has_nothing_more_is_waited_for_no_longer(world: World) -> None:
    world.add(VALIDATOR.key, "one", snapshot=False, height=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "ALONE_SECONDS_MAX", 3_600.0)
        patch.setattr(joining, "ANSWERS_SECONDS_MAX", 3_600.0)
        async with asyncio.timeout(60):
            assert not await world.joined(height=5)


@in_a_loop
async def test_whoever_has_more_but_no_snapshot_is_asked_to_write_one(world: World) -> None:
    world.add(VALIDATOR.key, "one", snapshot=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await world.joined()
    made = [one for key, one in world.heard if isinstance(one, AskSnapshot) and one.height == 0]
    assert made


@in_a_loop
async def test_a_validator_that_nobody_answers_goes_on_with_what_it_has(world: World) -> None:
    world.ledger.validators = ValidatorSet.of((VALIDATOR.key, OWN.key))
    assert not await world.joined()


@in_a_loop
async def test_answers_that_were_not_asked_for_are_not_kept(world: World) -> None:
    world.joining.hear(LIAR, SnapshotOffer(2**40, None))
    world.joining.hear(LIAR, Part(offers.Hash(bytes(32)), 0, b"x"))
    assert world.joining._answers == {}
    assert world.joining._came == []


@in_a_loop
async def test_once_it_has_joined_no_offer_is_kept(world: World) -> None:
    world.grow(10)
    world.add(VALIDATOR.key, "honest")
    assert await world.joined(urgent=True)
    assert world.joining._answers == {}
    world.joining.hear(VALIDATOR.key, SnapshotOffer(2**40, None))
    assert world.joining._answers == {}


@in_a_loop
async def test_parts_wait_while_much_is_to_be_said_to_a_validator(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(VALIDATOR.key, "one")
    waiting = serving.WAITING_BYTES_MAX
    one = world.serving[VALIDATOR.key]
    monkeypatch.setattr(one, "_waiting_bytes", lambda key: waiting)
    given: list[codec.Value] = []
    monkeypatch.setattr(one, "_send", lambda key, value: given.append(value))
    found: Any = one._newest()
    task = asyncio.ensure_future(one.run())
    for index in range(serving.PARTS_ASKED_MAX + 3):
        one.hear(OWN.key, AskPart(found.manifest.digest(), index))
    await asyncio.sleep(2 * serving.WAIT_SECONDS)
    assert given == []
    waiting = 0
    await until(lambda: len(given) >= serving.PARTS_ASKED_MAX)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    # What was asked for beyond the bound pushed the oldest out.
    assert [value.index for value in given if isinstance(value, Part)] == [3, 4, 5, 6]
