"""Four validators on one machine, as `nocturne validators` shows them to somebody on call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e.conftest import Running, started
from tests.machines import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SECONDS_MAX = 30.0


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
