"""A validator's place in an embedded ledger, taken from its supervisor: what stands there from then
on is the test's to say, an honest validator, a liar, or nobody.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import Running
from tests.e2e.truth import Truth
from tests.machines import until

from nocturne.consensus.store import Recovered, Store
from nocturne.core.identifiers import Hash
from nocturne.deploy.ceremony import GENESIS_FILE
from nocturne.embedded import kafka, ports, postgres, services
from nocturne.embedded.processes import birth, grpc_serves, launched
from nocturne.embedded.status import Health
from nocturne.runtime import journal
from nocturne.runtime.keys import load_signer
from nocturne.runtime.kinds import installed_kinds
from nocturne.runtime.lifecycle import HALTED_FILE

SECONDS_MAX = 90.0
AGREE_SECONDS_MAX = 60.0
HONEST = ("-m", "nocturne.consensus")
ROOT = Path(__file__).parents[2]


class Place:
    """One validator's place; `close` it."""

    def __init__(self, running: Running, name: str) -> None:
        self._running = running
        self.name = name
        self.log = running.home.log(f"{name}-place")
        self.has_lied = False
        self._is_taken = False
        self._offset = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where its validator serves."""
        return self._running.status.address(self.name)

    @property
    def pid(self) -> int:
        """Of whoever stands there now."""
        if self._process is not None:
            return self._process.pid
        pid = self._running.status.service(self.name).pid
        assert pid is not None
        return pid

    @property
    def is_empty(self) -> bool:
        """Whether nobody stands there, and nothing will of itself."""
        return self._is_taken and self._process is None

    def environment(self) -> dict[str, str]:
        """The settings of the validator as its supervisor gives them."""
        running, home = self._running, self._running.home
        chosen = ports.load(home.ports)
        broker = kafka.Broker(
            home.kafka, chosen["kafka"], chosen["kafka-controller"], (), Path("java")
        )
        server = postgres.Server(home.postgres / "data", chosen["postgres"], home.keys("postgres"))
        count = len(running.validators)
        genesis = home.root / GENESIS_FILE
        machine = services.Machine(home, broker, server, chosen, genesis, count)
        found = {one.name: one for one in services.validators_of(count)}
        return services.environment(machine, found[self.name])

    def kill(self) -> None:
        """`kill -9`, and nobody stands there."""
        if not self._is_taken:
            self._take()
        elif self._process is not None:
            self._process.kill()
            self._process.wait(SECONDS_MAX)
            self._process = None

    def _take(self) -> None:
        """The supervisor lets go of a service that has halted: its file says so."""
        pid, halted = self.pid, self._running.home.data(self.name) / HALTED_FILE
        born = birth(pid)
        halted.write_text("a test has taken its place\n")
        os.kill(pid, signal.SIGKILL)
        until(lambda: birth(pid) != born, SECONDS_MAX, f"{self.name} ended")
        until(
            lambda: self._running.status.service(self.name).health is Health.GIVEN_UP,
            SECONDS_MAX,
            f"the supervisor has let go of {self.name}",
        )
        halted.unlink()
        self._is_taken = True

    def start(
        self,
        argv: Sequence[str] = HONEST,
        settings: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
        said: str = "",
    ) -> None:
        """`begin`, and `wait`."""
        self.begin(argv, settings, before)
        self.wait(said)

    def begin(
        self,
        argv: Sequence[str] = HONEST,
        settings: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        """Stand there as this Python program, behind the command `before`, once the one before was
        killed. In the main thread: what is started dies with the thread that started it.
        """
        assert self._is_taken
        assert self._process is None
        assert threading.current_thread() is threading.main_thread()
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                launched([*before, sys.executable, *argv]),
                env={**self.environment(), **(settings or {})},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def wait(self, said: str = "") -> None:
        """Until who was begun serves, or has said `said`."""
        process = self._process
        assert process is not None

        def is_there() -> bool:
            text = self.log.read_text()[self._offset :]
            assert process.poll() is None, text[-4000:]
            return said in text if said else grpc_serves(self.address)

        until(is_there, SECONDS_MAX, f"{self.name} serves in its place")

    async def come_back(self) -> None:
        """`start`, while other things go on."""
        self.begin()
        await asyncio.to_thread(self.wait)

    def close(self) -> None:
        """End what the test has put there."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(SECONDS_MAX)
            self._process = None


# What a validator has on its disk -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chain:
    """The committed and executed chain of one validator's journal."""

    height: int
    digest: Hash
    digests: Mapping[int, Hash]
    """By their heights, as far back as the journal has them."""


def chain_of(running: Running, name: str) -> Chain:
    """What the journal of a validator says, which may be running: a copy of it is read."""
    home = running.home.data(name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in (journal.FOLDER, "snapshots"):
            if (home / part).exists():
                shutil.copytree(home / part, copy / part)
        signer = load_signer(running.home.keys(name) / "validator.key")
        store = Store(copy, journal.owner_label(running.ledger_id, signer.key))
        try:
            found: Recovered = store.recover(running.genesis_bytes, installed_kinds().registry)
        finally:
            store.close()
    tip = found.chain.tip
    return Chain(tip.height, tip.digest, found.digests)


def check_journals(running: Running, found: Truth, names: Sequence[str]) -> None:
    """Each of these validators has every block of the topic that has records, soon; and whatever it
    has is the one chain.
    """
    digests = {one.block.header.height: one.block.digest for one in found.blocks}
    # Empty blocks after the last record need not be everywhere (docs/spec/quorum.md §6).
    needed = max(one.block.header.height for one in found.blocks if one.block.header.record_count)
    deadline = time.monotonic() + AGREE_SECONDS_MAX
    for name in names:
        chain = chain_of(running, name)
        while chain.height < needed:
            assert time.monotonic() < deadline, f"{name} stays at {chain.height} of {needed}"
            time.sleep(0.2)
            chain = chain_of(running, name)
        assert chain.digests[chain.height] == chain.digest
        for height, digest in chain.digests.items():
            assert digests.setdefault(height, digest) == digest, f"{name}: another block {height}"
