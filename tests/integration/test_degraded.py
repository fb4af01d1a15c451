"""Two certified histories on a real ledger: it is DEGRADED and says so, also after a restart.

The validators' own keys certify a second block of one height, which only more than f liars, or
whoever stole their keys, could do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.e2e.strangers import append
from tests.machines import until

from nocturne.client import Client, Committed, LedgerDegraded, SyncClient
from nocturne.core.blocks import Block, decode_block, encode_block, encode_block_header, hash_block
from nocturne.core.certificates import Ballot, Certificate, CommitProof, VoteKind, sign_vote
from nocturne.core.commands import Opening
from nocturne.core.conflicts import check_conflict
from nocturne.core.genesis import Genesis, decode_genesis, ledger_id_of
from nocturne.core.keys import Ed25519Signer
from nocturne.core.modes import Cause
from nocturne.core.topics import BLOCKS, COMMANDS, PREFIX_BYTES, unframe
from nocturne.embedded import status
from nocturne.embedded.home import Home
from nocturne.runtime import degraded
from nocturne.runtime.keys import load_signer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NOCTURNE = Path(sys.executable).with_name("nocturne")
SECONDS_MAX = 60.0
VALIDATORS = tuple(f"consensus-{number}" for number in range(4))
KEEPERS = ("command", "signing", *VALIDATORS)
"""Who has it in its folder; the projection has it in the read model."""


@dataclass(frozen=True)
class Stack:
    """An embedded ledger with four validators."""

    home: Home

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [NOCTURNE, *arguments],
            env={**os.environ, "NOCTURNE_HOME": str(self.home.root)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout.splitlines()[0])

    def up(self) -> None:
        done = self.run("up", "--detach")
        assert done.returncode == 0, done.stderr

    @property
    def genesis_bytes(self) -> bytes:
        return (self.home.root / "genesis.avro").read_bytes()

    @property
    def genesis(self) -> Genesis:
        return decode_genesis(self.genesis_bytes)

    @property
    def bootstrap(self) -> str:
        return status.read(self.home.status).address("kafka")

    def client(self) -> SyncClient:
        found = status.read(self.home.status)
        return SyncClient(
            Client(
                found.address("command"),
                found.address("query"),
                genesis=self.genesis_bytes,
                signer=Ed25519Signer(bytes([7]) * 32),
            )
        )

    def end_of(self, topic: str, partition: int) -> int:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "test"})
        try:
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
        finally:
            consumer.close()
        return int(high)

    def published(self, offset: int) -> bytes:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "test"})
        try:
            consumer.assign([TopicPartition(BLOCKS, 0, offset)])
            message = consumer.poll(20)
            assert message is not None
            value = message.value()
        finally:
            consumer.close()
        assert value is not None
        return value

    def keepers(self) -> list[str]:
        """Whose folder has the cause with the whole proof."""
        genesis, ledger_id = self.genesis, ledger_id_of(self.genesis_bytes)
        found = []
        for name in KEEPERS:
            kept = degraded.load(self.home.data(name), ledger_id).kept
            if kept is not None:
                assert kept.cause is Cause.CONFLICTING_COMMIT_PROOFS
                assert kept.conflict is not None
                check_conflict(kept.conflict, ledger_id, genesis.founding_sets, genesis.authority)
                found.append(name)
        return found

    def says_so(self) -> bool:
        """The read side and each validator."""
        said, validators = self.json("status"), self.json("validators")
        modes = [one.get("mode") for one in validators["validators"]]
        return said["mode"] == "DEGRADED" and modes == ["DEGRADED"] * 4


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    found = Stack(Home(tmp_path / "home"))
    found.up()
    try:
        yield found
    finally:
        found.run("down")


def _rival(stack: Stack, block: Block) -> Block:
    """Another block of the height, certified by a quorum of the validators' own keys."""
    validators = stack.genesis.validator_set
    header = replace(block.header, time=block.header.time + 1)
    encoded = encode_block_header(header)
    digest = hash_block(encoded)
    ballot = Ballot(
        VoteKind.FINALIZE, header.ledger_id, header.epoch, validators.hash, header.view, digest
    )
    signers = {one.key: one for one in map(_key_of, map(stack.home.keys, VALIDATORS))}
    votes = tuple(
        (number, sign_vote(signers[key], ballot))
        for number, key in enumerate(validators.keys[: validators.quorum])
    )
    certificate = Certificate(
        VoteKind.FINALIZE, header.epoch, validators.hash, header.view, digest, votes
    )
    proof = CommitProof(certificate, ())
    return replace(block, header=header, header_bytes=encoded, digest=digest, proof=proof)


def _key_of(folder: Path) -> Any:
    return load_signer(folder / "validator.key")


def _refused(stack: Stack) -> None:
    """No command is taken, and the log does not grow."""
    ends = [stack.end_of(COMMANDS, one) for one in range(stack.genesis.partitions)]
    with stack.client() as client, pytest.raises(LedgerDegraded) as found:
        client.append("orders/1", [client.json("Ordered", {})])
    assert found.value.cause == "CONFLICTING_COMMIT_PROOFS"
    assert "two certified blocks at height 2" in str(found.value)
    assert ends == [stack.end_of(COMMANDS, one) for one in range(stack.genesis.partitions)]
    done = stack.run("submit", "orders/1", "Ordered", "{}")
    assert done.returncode == 1
    assert "the ledger is DEGRADED: CONFLICTING_COMMIT_PROOFS: two certified blocks" in done.stderr
    assert "degraded.md" in done.stderr


def test_a_ledger_with_two_certified_histories_is_degraded_and_stays_so_after_a_restart(
    stack: Stack,
) -> None:
    with stack.client() as client:
        for number in range(3):
            opening = Opening("facts", 1)
            made = client.append(f"orders/{number}", [client.json("A", {})], opening=opening)
            assert isinstance(made, Committed)
        client.readable(made.place.height)
    assert stack.json("status")["mode"] == "SYNC_WS"
    values = [stack.published(offset) for offset in range(stack.end_of(BLOCKS, 0))]
    second = next(
        (value, block)
        for value, block in ((value, decode_block(unframe(value))) for value in values)
        if block.header.height == 2
    )
    rival = _rival(stack, second[1])
    append(stack.bootstrap, BLOCKS, 0, b"2", second[0][:PREFIX_BYTES] + encode_block(rival))

    until(lambda: stack.keepers() == [*KEEPERS], SECONDS_MAX, "each keeps the proof")
    until(stack.says_so, SECONDS_MAX, "the read side and each validator say DEGRADED")
    _refused(stack)
    with stack.client() as client:
        assert client.status().mode_cause == "CONFLICTING_COMMIT_PROOFS"
        assert [one.header.sequence for one in client.events("orders/1")] == [1]

    processes = {one.name: one.pid for one in status.read(stack.home.status).services}
    killed = processes["command"]
    assert killed is not None
    os.kill(killed, signal.SIGKILL)

    def is_back() -> bool:
        now = status.read(stack.home.status).service("command")
        return now.pid not in (None, killed) and now.health is status.Health.HEALTHY

    until(is_back, SECONDS_MAX, "the command service is started again")
    _refused(stack)

    assert stack.run("down").returncode == 0
    stack.up()
    until(stack.says_so, SECONDS_MAX, "all say so after a restart of everything")
    _refused(stack)
    assert stack.keepers() == [*KEEPERS]
