"""Operators change the validators of a running ledger under load, by the command line alone: one is
added, a key is rotated, one is removed. Nothing stops, nothing is lost, and every export verifies.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.e2e.conftest import Running, started
from tests.e2e.driver import Author
from tests.e2e.loads import Load, checked
from tests.machines import until

from nocturne.audit.verify import verify_export
from nocturne.cli.asking_validators import look
from nocturne.cli.validators_view import validators_json
from nocturne.core.certificates import CommitProof, quorum
from nocturne.core.commands import Opening
from nocturne.deploy import ceremony
from nocturne.deploy.contributions import Terms
from nocturne.embedded import up
from nocturne.embedded.home import Home
from nocturne.embedded.status import Health
from nocturne.runtime.kinds import installed_kinds

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(1500)]

NOCTURNE = Path(sys.executable).with_name("nocturne")
EPOCH_LENGTH = 40
SECONDS_MAX = 240.0
ANSWER_SECONDS_MAX = 10.0
SEED = 20261127
VOTING = ("leader", "follower")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Running]:
    """Four validators, and epochs that last seconds under load."""
    home = Home(tmp_path / "home")
    home.create()
    terms = Terms(secrets.token_bytes(32), installed_kinds().entries, epoch_length=EPOCH_LENGTH)
    members = ceremony.members_of(home.root, 4)
    ceremony.found(members, home.root / ceremony.GENESIS_FILE, lambda: terms)
    yield from started(home.root)


def nocturne(running: Running, *arguments: str, code: int = 0) -> Any:
    """What a command line prints as JSON; its words, if it is refused."""
    done = subprocess.run(
        [NOCTURNE, *arguments, "--home", str(running.home.root), "--json"],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return json.loads(done.stdout) if code == 0 else done.stderr


class Operator:
    """Who looks after the ledger."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def seen(self) -> dict[str, Any]:
        """What `nocturne validators --json` shows, by the validators' names; asked from here, for
        a process each time takes the ledger's processors.
        """
        found = cast("Any", validators_json(look(self._running.home, {}, ANSWER_SECONDS_MAX)))
        return {**found, "validators": {one["name"]: one for one in found["validators"]}}

    def new(self) -> tuple[str, str, list[str]]:
        """A validator's place, started by the supervisor: its name, what it hands over, its key."""
        made = nocturne(self._running, "validators", "new")
        name = made["name"]
        until(
            lambda: any(
                one.name == name and one.health is Health.HEALTHY
                for one in self._running.status.services
            ),
            SECONDS_MAX,
            f"{name} serves",
        )
        return name, made["file"], made["key"]

    def wait_caught_up(self, name: str) -> None:
        """Until it has what the others had when it was asked first."""
        height = self.seen()["height"]
        self._wait(lambda seen: seen["validators"][name]["height"] >= height, f"{name} catches up")

    def wait_acts(self, change: dict[str, Any], names: list[str]) -> None:
        """Until the new set certifies, and these validators vote, by their places."""

        def acts(seen: dict[str, Any]) -> bool:
            each = [seen["validators"][name] for name in names]
            return (
                seen["height"] > change["firstHeight"] + 5
                and [one["index"] for one in each] == list(range(len(names)))
                and all(one["role"] in VOTING for one in each)
            )

        self._wait(acts, f"block {change['firstHeight']} and votes of {names}")
        quorum_seen = self.seen()["quorum"]
        assert quorum_seen["reached"]
        assert quorum_seen["validators"] == len(names)
        assert quorum_seen["needed"] == change["quorum"] == quorum(len(names))

    def wait_observes(self, name: str) -> None:
        """Until a validator is none any more."""
        self._wait(lambda seen: seen["validators"][name]["role"] == "observer", f"{name} observes")

    def _wait(self, condition: Callable[[dict[str, Any]], bool], what: str) -> None:
        def holds() -> bool:
            seen = self.seen()
            # Whoever is busy for long does not answer that time.
            return all(one["reachable"] for one in seen["validators"].values()) and condition(seen)

        until(holds, SECONDS_MAX, what)


def test_validators_are_added_rotated_and_removed_under_load_and_nothing_is_lost(
    ledger: Running,
) -> None:
    operator = Operator(ledger)
    changes: list[dict[str, Any]] = []
    keys: list[list[str]] = []

    def grow() -> None:
        name, file, key = operator.new()
        assert name == "consensus-4"
        keys.append(key)
        # It starts empty, is nobody yet, and follows.
        assert operator.seen()["validators"][name]["role"] == "observer"
        operator.wait_caught_up(name)
        changes.append(nocturne(ledger, "validators", "add", file, "--yes"))
        operator.wait_acts(changes[-1], [f"consensus-{place}" for place in range(5)])
        refused = nocturne(ledger, "validators", "add", file, "--yes", code=2)
        assert "a key stands twice" in refused

    def rotate() -> None:
        name, file, key = operator.new()
        assert name == "consensus-5"
        keys.append(key)
        operator.wait_caught_up(name)
        changes.append(nocturne(ledger, "validators", "rotate", "0", file, "--yes"))
        operator.wait_acts(changes[-1], [name, *(f"consensus-{n}" for n in range(1, 5))])
        operator.wait_observes("consensus-0")

    def shrink() -> None:
        changes.append(nocturne(ledger, "validators", "remove", "1", "--yes"))
        names = ["consensus-5", "consensus-2", "consensus-3", "consensus-4"]
        operator.wait_acts(changes[-1], names)
        operator.wait_observes("consensus-1")

    async def scenario() -> list[str]:
        load = Load(ledger, random.Random(SEED))
        writing = asyncio.create_task(load.run())
        for step in (grow, rotate, shrink):
            await asyncio.to_thread(step)
        answers = await load.finish(writing)
        found = checked(ledger, answers)
        _check_votes(found.blocks, changes)
        sessions = sorted({session for session, _ in found.events})
        driver = ledger.driver()
        for session in sessions:
            lines = (await driver.export(session)).splitlines(keepends=True)
            verify_export(lines, ledger.ledger_id)
        await driver.close()
        return sessions

    sessions = asyncio.run(scenario())
    acted = [one["firstHeight"] for one in changes]
    print(f"{len(sessions)} exports verified; the sets changed at blocks {acted}")
    decided = nocturne(ledger, "validators", "sets")
    (certifying,) = decided["sets"]
    assert [one["key"] for one in certifying["validators"]][::3] == [keys[1], keys[0]]
    # And for who has but the file and the command line.
    export = ledger.home.root / "one.jsonl"
    nocturne(ledger, "export", sessions[0], str(export))
    nocturne(ledger, "verify", str(export))
    # Started again, all of them are there, and certify.
    up.down(ledger.home.root)
    up.up(ledger.home.root, detach=True)

    async def afterwards() -> None:
        driver = ledger.driver()
        author = Author(ledger.ledger_id, random.Random(SEED + 1))
        signed = author.command("afterwards", opening=Opening("facts", 1))
        assert (await driver.submit_until_decided(signed)).events
        await driver.close()

    asyncio.run(afterwards())
    assert len(ledger.validators) == 6


def _check_votes(blocks: list[Any], changes: list[dict[str, Any]]) -> None:
    """From the first block of each set on, and not before, those who came have voted, and whoever
    left has not.
    """
    voters: dict[str, list[int]] = {}
    for one in blocks:
        proof = one.block.proof
        assert isinstance(proof, CommitProof)
        height = one.block.header.height
        for index, signatures in proof.finalization.votes:
            voters.setdefault(f"{signatures[0].key_id.hex()}", []).append(height)
            assert index < 5
    for change, before in zip(changes, [None, *changes], strict=False):
        assert before is None or change["firstHeight"] > before["firstHeight"]
        for one in change["new"]:
            heights = voters[one["keyId"].removeprefix("sha256-")]
            assert min(heights) >= change["firstHeight"]
        for one in change["gone"]:
            heights = voters[one["keyId"].removeprefix("sha256-")]
            assert max(heights) < change["firstHeight"]
