"""The quorum on the real stack: of four validators one is killed, paused, cut off or lies in each
way, of seven two, and the others certify on and agree; of four two are away, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from tests import machines
from tests.e2e import cables, truth
from tests.e2e.conftest import Running, started
from tests.e2e.driver import Author
from tests.e2e.liar import Way
from tests.e2e.loads import Load, checked
from tests.e2e.places import Place, chain_of, check_journals
from tests.quorum_stand import SECONDS_MAX, QuorumStand
from tests.stand import fresh_topics

from nocturne.core.commands import Opening
from nocturne.core.evidence import Offence, offence_of
from nocturne.core.topics import EVIDENCE
from nocturne.embedded import kafka
from nocturne.embedded.services import kafka_process

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

# Between two commands that are certified, whatever one validator does; a view is half a second.
GAP_SECONDS_MAX = 30.0
COMMANDS = 40
LIES_MIN = 20
STALLED_SECONDS = 5.0
CERTIFIES = '"event": "certifying"'
EVIDENCE_OF = {
    Way.EQUIVOCATION: {Offence.TWO_PROPOSALS},
    Way.VOTES: {Offence.TWO_NOTARIZATIONS, Offence.FINALIZED_AND_NULLIFIED},
}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


# The ledger and who stands where -----------------------------------------------------------------


@pytest.fixture(scope="module")
def all_places(running: Running) -> Iterator[tuple[Place, ...]]:
    """Of each validator of the module's ledger; the supervisor has them until a test takes one."""
    yield from _places(running)


@pytest.fixture
def places(all_places: tuple[Place, ...]) -> tuple[Place, ...]:
    """The same, and a validator in each, whatever the test before left."""
    for place in all_places:
        if place.is_empty and not place.has_lied:
            place.start()
    return all_places


def _places(running: Running) -> Iterator[tuple[Place, ...]]:
    found = tuple(Place(running, name) for name in running.validators)
    try:
        yield found
    finally:
        for place in found:
            place.close()


class Liar:
    """The validator in `place` lies from now on, in the ways that it is told."""

    def __init__(self, running: Running, place: Place) -> None:
        self.name = place.name
        self._file = running.home.run / f"{place.name}.ways"
        self._told = self._file.with_suffix(".told")
        self._told.write_text("{}")
        self.lie()
        place.has_lied = True
        place.kill()
        place.start(("-m", "tests.e2e.liar", str(self._file)))

    def lie(self, *ways: Way) -> None:
        """In these ways, until told otherwise."""
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text(" ".join(way.name for way in ways))
        fresh.replace(self._file)

    def told(self, way: Way) -> int:
        """How many lies it told in a way."""
        found: dict[str, int] = json.loads(self._told.read_text())
        return found.get(way.name, 0)


@pytest.fixture(scope="module")
def liar(running: Running, all_places: Sequence[Place]) -> Liar:
    """The last of four. Its key has signed too much ever to be honest again."""
    return Liar(running, all_places[-1])


# Load, and what must hold of it ------------------------------------------------------------------


@asynccontextmanager
async def _load(running: Running) -> AsyncIterator[Load]:
    """Writers for the length of a block; then all that they were told is held against the ledger's
    topics and rows.
    """
    load = Load(running, random.Random())
    writing = asyncio.create_task(load.run())
    try:
        yield load
        answers = await load.finish(writing)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    assert all(answer.decided for answer in answers)


async def _certified(load: Load, commands: int = COMMANDS) -> None:
    """Until so many more commands have their outcome, none long after the one before."""
    wanted, seen, since = len(load.answers) + commands, 0, time.monotonic()
    while len(load.answers) < wanted:
        if len(load.answers) != seen:
            seen, since = len(load.answers), time.monotonic()
        assert time.monotonic() - since < GAP_SECONDS_MAX, f"stalled after {seen} commands"
        await asyncio.sleep(0.05)


async def _until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.1)


def _check_ledger(running: Running, load: Load, correct: Sequence[Place]) -> truth.Truth:
    """Answers, topics and rows agree, and so does each correct validator's own journal."""
    found = checked(running, load.answers)
    check_journals(running, found, [place.name for place in correct])
    return found


def _check_accused(running: Running, liars: Sequence[int]) -> set[tuple[int, Offence]]:
    """Nobody is accused who did not lie; who of the liars is accused of what."""
    accused: set[tuple[int, Offence]] = set()
    for piece in truth.evidence(running.bootstrap, running.genesis_bytes):
        assert piece.validator in liars, f"{EVIDENCE} accuses the correct {piece.validator}"
        offence = offence_of(piece.first, piece.second)
        assert offence is not None
        accused.add((piece.validator, offence))
    return accused


async def _until_accused(
    running: Running, load: Load, liars: Sequence[int], wanted: Collection[Offence]
) -> None:
    """Certify on until each of the liars is accused of all of this."""
    missing = {(liar, offence) for liar in liars for offence in wanted}
    deadline = time.monotonic() + GAP_SECONDS_MAX
    while still := missing - _check_accused(running, liars):
        assert time.monotonic() < deadline, f"no evidence of {still}"
        await _certified(load, 10)


# Of four, one ------------------------------------------------------------------------------------


def test_four_validators_certify_on_while_one_is_killed_and_it_comes_back_to_the_same_chain(
    running: Running, places: Sequence[Place]
) -> None:
    victim = places[0]

    async def scenario() -> Load:
        async with _load(running) as load:
            await _certified(load)
            await asyncio.to_thread(victim.kill)
            await _certified(load)
            await victim.come_back()
            await _certified(load)
        return load

    load = asyncio.run(scenario())
    _check_ledger(running, load, places)
    assert _check_accused(running, ()) == set()


@pytest.mark.long
def test_validators_killed_at_random_moments_lose_nothing_and_end_with_one_chain(
    running: Running, places: Sequence[Place]
) -> None:
    dice = random.Random(seed := random.randrange(2**32))
    print(f"seed {seed}")

    async def kill_and_return(place: Place) -> None:
        await asyncio.sleep(dice.uniform(0, 0.5))
        await asyncio.to_thread(place.kill)
        await asyncio.sleep(dice.uniform(0, 1.0))
        await place.come_back()

    async def scenario() -> Load:
        async with _load(running) as load:
            # One, then two, three and all of them at once: a quorum is gone for a moment.
            for count in (1, 2, 3, 4):
                await asyncio.gather(*map(kill_and_return, dice.sample(list(places), count)))
                await _certified(load, 10)
        return load

    load = asyncio.run(scenario())
    _check_ledger(running, load, places)
    assert _check_accused(running, ()) == set()


@pytest.mark.long
def test_four_validators_certify_on_while_one_is_paused(
    running: Running, places: Sequence[Place]
) -> None:
    victim = places[1]

    async def scenario() -> Load:
        async with _load(running) as load:
            os.kill(victim.pid, signal.SIGSTOP)
            try:
                await _certified(load)
            finally:
                os.kill(victim.pid, signal.SIGCONT)
            await _certified(load)
        return load

    load = asyncio.run(scenario())
    _check_ledger(running, load, places)
    assert _check_accused(running, ()) == set()


@pytest.mark.long
def test_four_validators_certify_on_while_the_connections_of_one_hold_everything_back(
    running: Running, places: Sequence[Place]
) -> None:
    victim = places[2]
    others = [_port(one.address) for one in places if one is not victim]
    detour = cables.Detour(others)
    settings = {
        "NOCTURNE_LISTEN": f"{cables.ASIDE}:{_port(victim.address)}",
        "NOCTURNE_PEERS": ",".join(f"{cables.ASIDE}:{port}" for port in others),
    }

    async def scenario() -> Load:
        async with _load(running) as load:
            detour.cut()
            await _certified(load)
            detour.mend()
            await _certified(load)
        return load

    try:
        victim.kill()
        victim.start(settings=settings, said=CERTIFIES)
        load = asyncio.run(scenario())
        _check_ledger(running, load, places)
        assert _check_accused(running, ()) == set()
    finally:
        victim.kill()
        detour.close()


@pytest.mark.long
@pytest.mark.skipif(not cables.are_allowed(), reason="needs the right to make network namespaces")
def test_four_validators_certify_on_while_one_is_cut_off(
    running: Running, places: Sequence[Place]
) -> None:
    victim = places[2]
    island = cables.Island()

    async def scenario() -> Load:
        to_others = island.lay([_port(one.address) for one in places if one is not victim])
        to_broker = island.lay([_port(running.bootstrap)])
        await asyncio.to_thread(victim.kill)
        victim.start(before=island.inside, said=CERTIFIES)
        async with _load(running) as load:
            await _certified(load)
            # From the others alone, from all, from the broker alone, and from nobody.
            for cut, mended in (
                ((to_others,), ()),
                ((to_broker,), ()),
                ((), (to_others,)),
                ((), (to_broker,)),
            ):
                for cable in cut:
                    cable.cut()
                for cable in mended:
                    cable.mend()
                await _certified(load)
        return load

    try:
        load = asyncio.run(scenario())
        _check_ledger(running, load, places)
        assert _check_accused(running, ()) == set()
    finally:
        victim.kill()
        island.close()


@pytest.mark.long
@pytest.mark.parametrize("way", Way, ids=lambda way: way.name.lower())
def test_four_validators_certify_on_while_one_lies(
    running: Running, places: Sequence[Place], liar: Liar, way: Way
) -> None:
    wanted = EVIDENCE_OF.get(way, set())

    async def scenario() -> Load:
        async with _load(running) as load:
            before = liar.told(way)
            liar.lie(way)
            try:
                await _certified(load)
                await _until(lambda: liar.told(way) >= before + LIES_MIN, f"lies told: {way.value}")
                await _until_accused(running, load, [3], wanted)
            finally:
                liar.lie()
            await _certified(load, 10)
        return load

    load = asyncio.run(scenario())
    _check_ledger(running, load, places[:3])
    _check_accused(running, [3])


# Of four, two ------------------------------------------------------------------------------------


@pytest.mark.long
def test_without_a_quorum_nothing_is_certified_nothing_is_lost_and_callers_are_told_to_come_back(
    running: Running, places: Sequence[Place]
) -> None:
    async def scenario() -> Load:
        async with _load(running) as load:
            await _certified(load, 10)
            for place in places[2:]:
                await asyncio.to_thread(place.kill)
            # What was under way is over by then.
            assert await _refused(running) > 0
            answered = len(load.answers)
            heights = {chain_of(running, one.name).height for one in places[:2]}
            assert await _refused(running) > 0
            assert len(load.answers) == answered
            assert {chain_of(running, one.name).height for one in places[:2]} == heights
            await places[2].come_back()
            await _certified(load)
        return load

    load = asyncio.run(scenario())
    _check_ledger(running, load, places[:3])


async def _refused(running: Running) -> float:
    """Ask until refused as UNAVAILABLE, which is not long after `STALLED_SECONDS`; seconds that the
    caller is told to wait.
    """
    driver = running.driver()
    author = Author(running.ledger_id, random.Random())
    signed = author.command(f"stalled/{random.getrandbits(32):08x}", opening=Opening("facts", 1))
    deadline = time.monotonic() + 4 * STALLED_SECONDS
    try:
        while True:
            assert time.monotonic() < deadline, "nobody said UNAVAILABLE"
            try:
                await driver.submit(signed, deadline_s=0.5)
            except grpc.aio.AioRpcError as fault:
                if fault.code() is grpc.StatusCode.UNAVAILABLE:
                    return _retry_seconds(fault)
                if fault.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
            await asyncio.sleep(0.1)
    finally:
        await driver.close()


def _retry_seconds(fault: grpc.aio.AioRpcError) -> float:
    details = dict(fault.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(retry):
            return float(retry.retry_delay.ToNanoseconds()) / 1e9
    raise AssertionError(f"no RetryInfo in {fault}")


# Of seven, two -----------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(600)
def test_seven_validators_certify_on_while_two_lie_in_every_way_and_while_one_of_them_is_killed(
    tmp_path: Path,
) -> None:
    with (
        contextlib.contextmanager(started)(tmp_path / "home", 7) as running,
        contextlib.contextmanager(_places)(running) as places,
    ):
        liars = [Liar(running, place) for place in places[5:]]

        async def lie(load: Load, *ways: Way) -> None:
            """Both, until each has really lied in each of these ways."""
            before = {(one, way): one.told(way) for one in liars for way in ways}
            for one in liars:
                one.lie(*ways)
            await _certified(load)
            await _until(
                lambda: all(
                    one.told(way) >= told + LIES_MIN for (one, way), told in before.items()
                ),
                f"lies told by both: {', '.join(way.value for way in ways)}",
            )

        async def scenario() -> Load:
            async with _load(running) as load:
                await lie(load, *Way)
                # Silence would hide the rest.
                await lie(load, *set(Way) - {Way.SILENCE})
                await _until_accused(running, load, [5, 6], {Offence.TWO_PROPOSALS})
                await asyncio.to_thread(places[6].kill)
                await _certified(load)
                for one in liars:
                    one.lie()
            return load

        load = asyncio.run(scenario())
        _check_ledger(running, load, places[:5])
        _check_accused(running, [5, 6])


@pytest.mark.long
@pytest.mark.timeout(600)
def test_seven_validators_certify_on_while_two_are_killed_paused_or_cut_off(
    seven: QuorumStand,
) -> None:
    """One pair after another, each next to each other in the order of leaders; the last is also cut
    off by a network namespace where the machine allows it.
    """
    seven.raise_all()
    seven.certify(8)

    for one in (victims := (0, 1)):
        seven.of(one).kill()
    _certifies(seven)
    seven.raise_all(victims)
    _wait_all_vote(seven)

    for one in (victims := (2, 3)):
        seven.of(one).process.send_signal(signal.SIGSTOP)
    _certifies(seven)
    for one in victims:
        seven.of(one).process.send_signal(signal.SIGCONT)
    _wait_all_vote(seven)

    victims = (5, 6)
    others = [_port(seven.of(one).address) for one in range(5)]
    with contextlib.closing(cables.Detour(others)) as detour:
        aside = {one: f"{cables.ASIDE}:{_port(seven.of(one).address)}" for one in victims}
        peers = ",".join([*(f"{cables.ASIDE}:{port}" for port in others), *aside.values()])
        for one in victims:
            seven.of(one).kill()
            seven.begin(one, NOCTURNE_LISTEN=aside[one], NOCTURNE_PEERS=peers)
        _wait_all_vote(seven)
        detour.cut()
        _certifies(seven)
        detour.mend()
        _wait_all_vote(seven)
        for one in victims:
            seven.of(one).kill()
    if cables.are_allowed():
        with contextlib.closing(cables.Island()) as island:
            to_others, to_broker = island.lay(others), island.lay([_port(seven.bootstrap)])
            for one in victims:
                seven.begin(one, inside=island.inside)
            _wait_all_vote(seven, island.inside)
            # From the others alone, then from all; the broker comes back first.
            to_others.cut()
            _certifies(seven)
            to_broker.cut()
            _certifies(seven)
            assert seven.seen(island.inside)["quorum"]["reached"] is False
            to_broker.mend()
            to_others.mend()
            _wait_all_vote(seven, island.inside)
            for one in victims:
                seven.of(one).kill()
    seven.check_no_fork()


@pytest.fixture
def seven(tmp_path: Path) -> Iterator[QuorumStand]:
    """Seven validators and a broker, and nothing else of a ledger; none is started."""
    broker = machines.make_broker(tmp_path / "kafka")
    kafka.prepare(broker)
    with machines.started(kafka_process(broker), broker.folder / "log"):
        made = QuorumStand(tmp_path / "home", broker.bootstrap, validators=7)
        fresh_topics(broker.bootstrap, made.partitions)
        yield made
        made.stop_all()


def _certifies(stand: QuorumStand) -> None:
    """Commands one after another are certified, each soon. Each takes a block, and there are more
    of them than leaders besides the two: the turns of those two are passed over.
    """
    for _ in range(stand.validators - 1):
        began = time.monotonic()
        stand.certify(2)
        assert time.monotonic() - began < GAP_SECONDS_MAX


def _wait_all_vote(stand: QuorumStand, inside: Sequence[str] = ()) -> None:
    """Until every validator votes, and has what was certified before."""
    height = max(one.header.height for one in stand.blocks() if one.header.record_count)

    def all_vote() -> bool:
        seen = stand.seen(inside)
        voting = seen["quorum"]["voting"] == stand.validators
        return voting and all(one["height"] >= height for one in seen["validators"])

    machines.until(all_vote, SECONDS_MAX, f"all validators vote and have block {height}")
