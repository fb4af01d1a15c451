"""Validators behind their doors (TLS, certificates, an access file), and strangers at the port."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import grpc
import psutil
import pytest
from pydantic import ValidationError
from tests.certificates import Authority
from tests.hostile.inputs import ODDITIES
from tests.mutation import mutated
from tests.raw_http2 import PREFACE, SETTINGS, frame, request
from tests.unit.consensus.peering import (
    HOST,
    LEDGER,
    SECONDS_MAX,
    Validator,
    all_met,
    channel_to,
    fetch,
    happens,
    settings_of,
    signer,
    some,
)

from nocturne.consensus import codec, peers
from nocturne.consensus.handshake import Calling
from nocturne.core.access import EXCHANGE
from nocturne.runtime.guard import Guard
from nocturne.runtime.security import Security, ServerTls
from nocturne.runtime.settings import PeerSettings
from nocturne.runtime.telemetry import Metrics

AUTHORITY = Authority()
NEXT = Authority("next")
GROWTH_BYTES_MAX = 96 * 1024 * 1024
KEYS = [signer(0).key, signer(1).key]


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), SECONDS_MAX * 2))


# Doors -----------------------------------------------------------------------------------------


def with_files(folder: Path, authority: Authority = AUTHORITY) -> PeerSettings:
    """Its certificate, its key and its authorities in `folder`, as its settings name them."""
    certificate, key = authority.make("validator", HOST).write(folder, "own")
    return settings_of(
        folder,
        tls_cert_file=certificate,
        tls_key_file=key,
        peers_ca_file=authority.write(folder / "ca.crt"),
    )


def mutual(settings: PeerSettings, access_file: Path | None = None) -> Security:
    """Demands a certificate of whoever calls."""
    assert settings.tls_cert_file is not None
    assert settings.tls_key_file is not None
    files = (settings.tls_cert_file, settings.tls_key_file, settings.peers_ca_file)
    guard = None if access_file is None else Guard(access_file, Metrics("a"))
    return Security(ServerTls(*files, Metrics("a")), guard)


def test_validators_meet_over_mutual_tls_and_need_no_principal(tmp_path: Path) -> None:
    access_file = tmp_path / "access.json"
    access_file.write_text(json.dumps({"principals": []}))

    async def test() -> None:
        first, second = (with_files(tmp_path / name) for name in ("first", "second"))
        async with some() as add:
            there = await add(
                signer(1), lambda: KEYS, settings=first, security=mutual(first, access_file)
            )
            one = await add(signer(0), lambda: KEYS, settings=second, addresses=[there.address])
            await happens(lambda: all_met([one, there]), "they have met")
            one.peers.send(there.key, fetch(1))
            await happens(lambda: there.heard_of(one) == [1], "it is heard")

    run(test)


def test_without_a_certificate_that_is_trusted_nobody_comes_to_the_handshake(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        doors = with_files(tmp_path / "there")
        own_authorities = settings_of(tmp_path, peers_ca_file=doors.peers_ca_file)
        strange = with_files(tmp_path / "strange", NEXT)
        plain = settings_of(tmp_path)
        async with some() as add:
            there = await add(signer(1), lambda: KEYS, settings=doors, security=mutual(doors))
            for settings in (own_authorities, strange, plain):
                one = await add(
                    signer(0), lambda: KEYS, settings=settings, addresses=[there.address]
                )
                await happens(lambda one=one: bool(one.status_of(there.address).error), "refused")
                assert not one.peers.connected()
                await one.stop()
            assert not there.peers.connected()

    run(test)


def test_certificates_are_read_again_for_each_connection(tmp_path: Path) -> None:
    """And what is broken does not take the place of what works."""

    async def test() -> None:
        doors = with_files(tmp_path / "there")
        own = with_files(tmp_path / "own", NEXT)
        assert own.peers_ca_file is not None
        async with some() as add:
            there = await add(signer(1), lambda: KEYS, settings=doors, security=mutual(doors))
            one = await add(signer(0), lambda: KEYS, settings=own, addresses=[there.address])
            await happens(lambda: bool(one.status_of(there.address).error), "it is refused")
            with_files(tmp_path / "own")
            await happens(lambda: all_met([one, there]), "with the new files it is let in")
            own.peers_ca_file.write_bytes(b"broken")
            opened = one.counted("peer_streams_opened_total")
            assert there.running is not None
            there.running.cancel()
            await asyncio.wait({there.running})
            there.running = asyncio.ensure_future(there.peers.run())
            await happens(
                lambda: one.counted("peer_streams_opened_total") > opened, "with the last good ones"
            )

    run(test)


def test_files_that_never_were_good_are_named(tmp_path: Path) -> None:
    async def test() -> None:
        async with some() as add:
            settings = settings_of(tmp_path, peers_ca_file=tmp_path / "none.crt")
            one = await add(signer(0), lambda: KEYS, settings=settings, addresses=[f"{HOST}:1"])
            await happens(lambda: bool(one.status_of(f"{HOST}:1").error), "it is said")
            assert "none.crt" in str(one.status_of(f"{HOST}:1").error)

    run(test)


def test_addresses_are_read_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOCTURNE_PEERS", "a.example:7001, [::1]:7002")
    assert settings_of(tmp_path).peers == ("a.example:7001", "[::1]:7002")
    monkeypatch.setenv("NOCTURNE_PEERS", "")
    assert settings_of(tmp_path).peers == ()
    for wrong in ("a.example", "a:1,,b:2", "a:1,b:99999", ",".join(["a:1"] * 1001)):
        monkeypatch.setenv("NOCTURNE_PEERS", wrong)
        with pytest.raises(ValidationError):
            settings_of(tmp_path)


# Strangers -------------------------------------------------------------------------------------


async def still_serves(there: Validator, one: Validator, number: int) -> None:
    one.peers.send(there.key, fetch(number))
    await happens(lambda: number in there.heard_of(one), "validators go on")


async def one_call(there: Validator, *messages: bytes) -> grpc.StatusCode:
    """What a stranger's stream ends with."""
    async with channel_to(there) as channel:
        call: Any = channel.stream_stream(EXCHANGE)()
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for message in messages:
                await call.write(message)
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
        return grpc.StatusCode(await call.code())


def test_hostile_bytes_at_the_port_are_refused_counted_and_cost_nothing_that_lasts() -> None:
    async def test() -> None:
        dice = Random("strangers at the validators' port")
        async with some() as add:
            there = await add(signer(1), lambda: KEYS)
            one = await add(signer(0), lambda: KEYS, addresses=[there.address])
            await happens(lambda: all_met([one, there]), "they have met")
            hello = Calling(LEDGER, signer(0), os.urandom(32)).hello()
            envelope = b"\x1a\x04\x0a\x02ab"
            good = (hello, envelope, b"\x12\x03\x0a\x01x")
            before = psutil.Process().memory_info().rss
            ended = set()
            for number in range(300):
                first = mutated(dice, dice.choice(good), 3)
                hostile = (dice.choice(ODDITIES), first, dice.randbytes(dice.randrange(2000)))
                messages = hostile[number % 3 :] if number % 2 else (hello, *hostile)
                ended.add(await one_call(there, *messages))
            assert ended <= {
                grpc.StatusCode.INVALID_ARGUMENT,
                # What its own end says to a stranger who writes on a stream that is no more.
                grpc.StatusCode.INTERNAL,
            }, ended
            assert there.counted("peer_streams_refused_total", cause="handshake") >= 200
            assert there.heard == []
            assert psutil.Process().memory_info().rss - before < GROWTH_BYTES_MAX
            await still_serves(there, one, 7)

    run(test)


def test_raw_bytes_and_half_calls_do_not_stop_it() -> None:
    async def test() -> None:
        dice = Random("raw bytes")
        path = EXCHANGE.encode()
        async with some() as add:
            there = await add(signer(1), lambda: KEYS)
            one = await add(signer(0), lambda: KEYS, addresses=[there.address])
            await happens(lambda: all_met([one, there]), "they have met")
            opened = []
            for number in range(60):
                connection = socket.create_connection((HOST, there.server.port), 5)
                opened.append(connection)
                sent = (
                    dice.randbytes(500),
                    request(path),
                    # Says that 5 MB follow, and sends a little.
                    PREFACE
                    + SETTINGS
                    + request(path)[len(PREFACE) + len(SETTINGS) : -14]
                    + frame(0, 0, 1, b"\x00\x00\x50\x00\x00" + bytes(1000)),
                )[number % 3]
                with suppress(OSError):
                    connection.sendall(sent)
            await still_serves(there, one, 8)
            for connection in opened:
                connection.close()
            await still_serves(there, one, 9)

    run(test)


def test_a_message_over_the_bound_ends_its_stream_alone() -> None:
    async def test() -> None:
        async with some() as add:
            there = await add(signer(1), lambda: KEYS)
            one = await add(signer(0), lambda: KEYS, addresses=[there.address])
            await happens(lambda: all_met([one, there]), "they have met")
            huge = bytes(peers.PEER_MESSAGE_BYTES_MAX + 1)
            assert await one_call(there, huge) is grpc.StatusCode.RESOURCE_EXHAUSTED
            await still_serves(there, one, 3)

    run(test)


def test_strangers_who_say_nothing_keep_no_validator_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "HANDSHAKES_MAX", 4)

    async def test() -> None:
        async with some() as add:
            there = await add(signer(1), lambda: KEYS)
            async with channel_to(there) as channel:
                silent: list[Any] = [channel.stream_stream(EXCHANGE)() for _ in range(40)]
                await happens(
                    lambda: there.counted("peer_streams_refused_total", cause="crowd") >= 36,
                    "the oldest are cut",
                )
                one = await add(signer(0), lambda: KEYS, addresses=[there.address])
                await happens(lambda: all_met([one, there]), "they meet all the same")
                for call in silent:
                    call.cancel()

    run(test)


def test_a_stranger_who_says_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "HANDSHAKE_SECONDS_MAX", 0.2)

    async def test() -> None:
        async with some() as add:
            there = await add(signer(1), lambda: KEYS)
            async with channel_to(there) as channel:
                call: Any = channel.stream_stream(EXCHANGE)()
                assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert there.counted("peer_streams_refused_total", cause="slow") == 1

    run(test)


def test_a_member_that_turns_hostile_after_its_handshake_is_bounded_too() -> None:
    """Garbage in good envelopes is counted; the stream of another member is as quick as before."""

    async def test() -> None:
        three = [*KEYS, signer(2).key]
        async with some() as add:
            there = await add(signer(1), lambda: three)
            one = await add(signer(0), lambda: three, addresses=[there.address])
            liar = await add(signer(2), lambda: three, addresses=[there.address])
            await happens(lambda: there.peers.connected() == {KEYS[0], three[2]}, "all have met")
            dice = Random("a member that turns")
            garbage = iter(lambda: dice.randbytes(200), None)
            liar.peers._encoded = lambda _: next(garbage)  # type: ignore[method-assign]
            for _ in range(3000):
                liar.peers.send(there.key, codec.AskVotes())
            await still_serves(there, one, 4)
            await happens(
                lambda: there.counted("peer_values_malformed_total") >= 2000, "it is counted"
            )
            assert liar.key in there.peers.connected()

    run(test)
