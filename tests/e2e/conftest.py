"""A running ledger for the tests of the whole stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.driver import Driver

from nocturne.core.genesis import ledger_id_of
from nocturne.core.identifiers import LedgerId
from nocturne.embedded import postgres, up
from nocturne.embedded.home import Home, find
from nocturne.embedded.status import Status, validators_in


@dataclass(frozen=True, slots=True)
class Running:
    """An embedded ledger that runs."""

    home: Home
    genesis_bytes: bytes

    @property
    def ledger_id(self) -> LedgerId:
        """Its identity."""
        return ledger_id_of(self.genesis_bytes)

    @property
    def status(self) -> Status:
        """Its processes, as of now."""
        return up.status(self.home.root)

    @property
    def bootstrap(self) -> str:
        """Its broker."""
        return self.status.address("kafka")

    @property
    def validators(self) -> tuple[str, ...]:
        """The names of its validators, by their ordinals."""
        return validators_in(self.status)

    def dsn(self, role: str = postgres.QUERY) -> str:
        """Its database, as a role."""
        port = self.status.service("postgres").port
        server = postgres.Server(self.home.postgres / "data", port, self.home.keys("postgres"))
        return server.dsn(role)

    def driver(self) -> Driver:
        """A connection; close it."""
        status = self.status
        return Driver(status.address("command"), status.address("query"))


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A fresh ledger for each module, stopped at its end. A module whose matter is not the quorum
    may say VALIDATORS = 1, which takes half the time.
    """
    folder = tmp_path_factory.mktemp("ledger") / "home"
    yield from started(folder, getattr(request.module, "VALIDATORS", None))


def started(folder: Path, validators: int | None = None) -> Iterator[Running]:
    """Start a ledger in `folder`, of so many validators or as many as usual; stop it afterwards."""
    up.up(folder, detach=True, validators=validators)
    try:
        home = find(folder, {})
        yield Running(home, (home.root / "genesis.avro").read_bytes())
    finally:
        up.down(folder)
