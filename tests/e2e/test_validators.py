"""Four validators on one machine, as `nocturne validators` shows them to somebody on call."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.e2e.conftest import Running, started
from tests.e2e.driver import Author
from tests.machines import until

from nocturne.client.validators import Role, ask_validator
from nocturne.core import topics
from nocturne.core.commands import Opening
from nocturne.runtime import kafka
from nocturne.runtime.cluster import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SECONDS_MAX = 30.0
IDLE_SECONDS = 10.0


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A ledger of four validators."""
    yield from started(tmp_path_factory.mktemp("four") / "home", validators=4)


def asked(running: Running) -> tuple[int, Any]:
    """The exit code and the answer of `nocturne validators --json`."""
    home = str(running.home.root)
    done = subprocess.run(
        [sys.executable, "-m", "nocturne.cli", "validators", "--json", "--home", home],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def votes(running: Running, count: int) -> bool:
    """Whether so many vote."""
    return bool(asked(running)[1]["quorum"]["voting"] == count)


@contextmanager
def paused(running: Running, *names: str) -> Iterator[None]:
    """Stop processes as a scheduler would; they go on afterwards."""
    pids = [running.status.service(name).pid for name in names]
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            assert pid is not None
            os.kill(pid, signal.SIGCONT)


def test_four_that_run_are_a_quorum_that_bears_one_failure(four: Running) -> None:
    until(lambda: votes(four, 4), SECONDS_MAX, "four validators vote")
    code, told = asked(four)
    assert code == 0
    assert told["quorum"] == {
        "reached": True,
        "validators": 4,
        "needed": 3,
        "voting": 4,
        "unasked": 0,
        "mayFail": 1,
    }
    assert [one["name"] for one in told["validators"]] == list(four.validators)
    assert [one["index"] for one in told["validators"]] == [0, 1, 2, 3]
    assert [one["role"] for one in told["validators"]].count("leader") == 1
    for one in told["validators"]:
        assert [peer["connected"] for peer in one["peers"]] == [True] * 3
        assert one["index"] not in [peer["index"] for peer in one["peers"]]


def test_an_idle_ledger_says_nothing_makes_no_view_and_publishes_no_block(four: Running) -> None:
    until(lambda: votes(four, 4), SECONDS_MAX, "four validators vote")
    asyncio.run(_write(four, 8))
    until(lambda: _is_settled(four), SECONDS_MAX, "four validators have the same, and are done")
    before = _standing(four)
    # Not a wait for something: it is watched that nothing happens for so long.
    time.sleep(IDLE_SECONDS)
    assert _standing(four) == before


async def _write(running: Running, count: int) -> None:
    """Commands of an author, one after another, until all of them can be read."""
    author, driver = Author(running.ledger_id, random.Random()), running.driver()
    try:
        for number in range(count):
            opening = Opening("facts", 1) if number == 0 else None
            signed = author.command("busy", opening=opening)
            height = (await driver.submit_until_decided(signed)).height
        await driver.wait_readable(height)
    finally:
        await driver.close()


@dataclass(frozen=True, slots=True)
class Standing:
    """What moves when a ledger does something; the validators by their ordinals."""

    views: tuple[tuple[int, int], ...]
    """With their epochs."""
    heights: tuple[int, ...]
    published: tuple[int, ...]
    sent: tuple[dict[int | None, int], ...]
    """The values that each has said to each other one; pings and pongs are none."""
    blocks_end: int
    """The next offset of the blocks topic."""


def _standing(running: Running) -> Standing:
    said = [
        asyncio.run(ask_validator(running.status.address(name), SECONDS_MAX))
        for name in running.validators
    ]
    for one in said:
        assert one.role in (Role.LEADER, Role.FOLLOWER)
        assert [peer.connected for peer in one.peers] == [True] * 3
    return Standing(
        tuple((one.epoch, one.view) for one in said),
        tuple(one.height for one in said),
        tuple(one.published_height for one in said),
        tuple({peer.index: peer.sent for peer in one.peers} for one in said),
        kafka.watermarks(Cluster(running.bootstrap), topics.BLOCKS, 0)[1],
    )


def _is_settled(running: Running) -> bool:
    """Whether all have one height and have published it, and nothing was said between two looks:
    the last votes may be on their way still.
    """
    first, then = _standing(running), _standing(running)
    return first == then and len({*then.heights, *then.published}) == 1


def test_one_that_is_paused_is_unreachable_and_two_are_no_quorum(four: Running) -> None:
    until(lambda: votes(four, 4), SECONDS_MAX, "four validators vote")
    with paused(four, "consensus-2"):
        code, told = asked(four)
        assert (code, told["quorum"]["voting"], told["quorum"]["mayFail"]) == (0, 3, 0)
        assert [one["reachable"] for one in told["validators"]] == [True, True, False, True]
        with paused(four, "consensus-0"):
            code, told = asked(four)
            assert (code, told["quorum"]["reached"]) == (3, False)
    until(lambda: votes(four, 4), SECONDS_MAX, "four validators vote again")


def test_a_validator_that_is_killed_comes_back_and_votes(four: Running) -> None:
    before = four.status.service("consensus-1")
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    until(
        lambda: four.status.service("consensus-1").restarts > before.restarts,
        SECONDS_MAX,
        "it is started again",
    )
    until(lambda: votes(four, 4), SECONDS_MAX, "four validators vote again")
