"""The consensus service's door: who votes at all, and what everybody is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.consensus.ledgers import VALIDATOR, Ledger, signer

from nocturne.consensus import codec, service
from nocturne.core.keys import Key
from nocturne.runtime import journal
from nocturne.runtime.settings import Founding
from nocturne.runtime.telemetry import Metrics

OTHER = signer(2).key
TURNS = 100
"""Of the loop: more than starting takes, where nothing waits."""
Hear = Callable[[Key, codec.Value], Awaitable[None]]


class FakePeers:
    """What is said to other validators; `hear` is what the service does when they speak."""

    def __init__(self, hear: Hear) -> None:
        self.hear = hear
        self.said: list[tuple[Key, codec.Value]] = []

    def send(self, key: Key, value: codec.Value) -> None:
        self.said.append((key, value))

    def rpc_service(self) -> None:
        return None


class World:
    """A process of the service without broker, network and clock."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ledger = Ledger()
        self.peers: list[FakePeers] = []
        self.validators = 0
        self.serving: list[tuple[bool, str]] = []
        self.stopping = asyncio.Event()
        self.settings: Any = SimpleNamespace(
            cluster=None,
            genesis_file=None,
            key_file=None,
            home_dir=home,
            listen="",
            peers=(),
            registry_url=None,
        )
        self.lifecycle: Any = SimpleNamespace(
            metrics=Metrics("consensus"),
            vitals=SimpleNamespace(set_serving=lambda *state: self.serving.append(state)),
            stopping=self.stopping,
        )
        founding = Founding(ledger.data, ledger.genesis, ledger.ledger_id)
        replaced = {
            "read_founding": lambda file: founding,
            "installed_kinds": lambda: None,
            "check_kinds": lambda genesis, kinds: None,
            "load_signer": lambda file: VALIDATOR,
            "held_alone": _nobody_else,
            "ControlServicer": lambda desk: SimpleNamespace(rpc_service=lambda: None),
            "ValidatorServicer": lambda report: SimpleNamespace(rpc_service=lambda: None),
            "security_of": lambda settings, metrics: None,
            "serve": self._serve,
            "Peers": self._peers,
            "Validator": self._validator,
        }
        for name, value in replaced.items():
            monkeypatch.setattr(service, name, value)
        monkeypatch.setattr(service.kafka, "measure_rotation", lambda cluster, metrics: None)

    async def _serve(self, *_: object, **__: object) -> Any:
        async def stop() -> None:
            return None

        return SimpleNamespace(stop=stop)

    def _peers(self, ledger_id: object, own: object, known: object, of: object, hear: Hear,
               *_: object) -> FakePeers:  # fmt: skip
        self.peers.append(FakePeers(hear))
        return self.peers[0]

    def _validator(self, *_: object) -> Any:
        self.validators += 1

        async def run(server: object) -> None:
            await self.stopping.wait()

        return SimpleNamespace(run=run)

    async def asked_for_votes(self) -> list[tuple[Key, codec.Value]]:
        """Start, let another validator ask, stop; what it was told."""
        running = asyncio.ensure_future(service.run(self.settings, self.lifecycle))
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert not running.done()
        await self.peers[0].hear(OTHER, codec.AskVotes())
        self.stopping.set()
        await running
        return self.peers[0].said


@contextmanager
def _nobody_else(home: Path) -> Iterator[None]:
    yield


def test_a_key_without_its_journal_never_votes_begins_none_and_answers_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        world = World(tmp_path, monkeypatch)
        assert await world.asked_for_votes() == []
        assert world.validators == 0
        (state,) = world.serving
        assert state[0] is False
        assert "journal" in state[1]

    asyncio.run(go())
    assert not journal.exists(tmp_path / journal.FOLDER)


def test_a_key_with_its_journal_says_what_it_holds_before_it_has_asked_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger()
    label = journal.owner_label(ledger.ledger_id, VALIDATOR.key)
    journal.create(tmp_path / journal.FOLDER, label)

    async def go() -> None:
        world = World(tmp_path, monkeypatch)
        assert await world.asked_for_votes() == [(OTHER, codec.NewestVotes(()))]
        assert (world.validators, world.serving) == (1, [])

    asyncio.run(go())
