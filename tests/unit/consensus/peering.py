"""Validators that talk to each other over real sockets of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from tests.machines import free_ports

from nocturne.consensus import codec
from nocturne.consensus.peer_stream import Hear
from nocturne.consensus.peers import PEER_MESSAGE_BYTES_MAX, Peers, PeerStatus
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Ed25519Signer, Key
from nocturne.runtime.rpc import RpcServer, serve
from nocturne.runtime.security import Security
from nocturne.runtime.settings import PeerSettings
from nocturne.runtime.telemetry import Metrics

HOST = "127.0.0.1"
SECONDS_MAX = 20.0
LEDGER = LedgerId(b"L" * 32)


def signer(number: int) -> Ed25519Signer:
    return Ed25519Signer(bytes([number + 1]) * 32)


def fetch(number: int) -> codec.Fetch:
    """A value that tells itself apart."""
    return codec.Fetch(Hash(number.to_bytes(32, "big")))


def number_of(value: codec.Value) -> int:
    assert isinstance(value, codec.Fetch)
    return int.from_bytes(value.digest, "big")


@dataclass
class Validator:
    """One end: its peers, its server, and what it has heard."""

    signer: Ed25519Signer
    peers: Peers
    server: RpcServer
    metrics: Metrics
    heard: list[tuple[Key, codec.Value]] = field(default_factory=list)
    running: asyncio.Task[None] | None = None

    @property
    def key(self) -> Key:
        return self.signer.key

    @property
    def address(self) -> str:
        return f"{HOST}:{self.server.port}"

    def heard_of(self, other: Validator) -> list[int]:
        return [number_of(value) for key, value in self.heard if key == other.key]

    def status_of(self, address: str) -> PeerStatus:
        (found,) = [one for one in self.peers.statuses() if one.address == address]
        return found

    def counted(self, name: str, **labels: str) -> float:
        full = f"nocturne_consensus_{name}"
        return self.metrics.registry.get_sample_value(full, labels) or 0.0

    async def stop(self) -> None:
        """As a process that ends: first its work, then its server."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait({self.running})
        await self.server.stop(0)


def settings_of(folder: Path, **given: object) -> PeerSettings:
    values = {"home_dir": folder, "genesis_file": folder / "g", "listen": f"{HOST}:0", **given}
    return PeerSettings.model_validate(values)


NOWHERE = settings_of(Path("/nowhere"))


async def validator(
    own: Ed25519Signer,
    members: Callable[[], Collection[Key]],
    *,
    addresses: Sequence[str] = (),
    listen: str = f"{HOST}:0",
    ledger: LedgerId = LEDGER,
    settings: PeerSettings = NOWHERE,
    security: Security | None = None,
    hear: Hear | None = None,
    runs: bool = True,
) -> Validator:
    """A started one; `addresses` may be extended before it runs."""
    metrics = Metrics("consensus")
    heard: list[tuple[Key, codec.Value]] = []

    async def keep(key: Key, value: codec.Value) -> None:
        heard.append((key, value))

    peers = Peers(ledger, own, addresses, members, hear or keep, settings, metrics)
    server = await serve(
        listen, [peers.rpc_service()], message_bytes_max=PEER_MESSAGE_BYTES_MAX, security=security
    )
    made = Validator(own, peers, server, metrics, heard)
    if runs:
        made.running = asyncio.ensure_future(peers.run())
    return made


@asynccontextmanager
async def some() -> AsyncIterator[Callable[..., Awaitable[Validator]]]:
    """`add = …`: makes validators, as `validator` does, that are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def add(*given: Any, **named: Any) -> Validator:
            made = await validator(*given, **named)
            stack.push_async_callback(made.stop)
            return made

        yield add


@asynccontextmanager
async def validators(count: int) -> AsyncIterator[list[Validator]]:
    """Some who all know each other's addresses, their own included."""
    signers = [signer(number) for number in range(count)]
    keys = [one.key for one in signers]
    ports = [free_ports("validator")["validator"] for _ in signers]
    addresses = [f"{HOST}:{port}" for port in ports]
    async with some() as add:
        yield [
            await add(own, lambda: keys, addresses=addresses, listen=address)
            for own, address in zip(signers, addresses, strict=True)
        ]


async def happens(condition: Callable[[], bool], what: str) -> None:
    """Wait for it."""
    deadline = asyncio.get_running_loop().time() + SECONDS_MAX
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {SECONDS_MAX} s: {what}"
        await asyncio.sleep(0.01)


def all_met(made: Sequence[Validator]) -> bool:
    return all(
        one.peers.connected() == {other.key for other in made if other is not one} for one in made
    )


def all_streams_open(made: Sequence[Validator]) -> bool:
    """From now on no stream takes the place of another, so that order is kept."""
    opened = [one.counted("peer_streams_opened_total") for one in made]
    return all_met(made) and min(opened) >= 2 * (len(made) - 1)


def channel_to(one: Validator) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(one.address)
