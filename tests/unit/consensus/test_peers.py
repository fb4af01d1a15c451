"""Validators over real sockets: who talks to whom, what is lost, what is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.unit.consensus.peering import (
    HOST,
    LEDGER,
    SECONDS_MAX,
    Validator,
    all_met,
    all_streams_open,
    channel_to,
    fetch,
    happens,
    settings_of,
    signer,
    some,
    validator,
    validators,
)

from nocturne.consensus import codec, peers
from nocturne.consensus.handshake import Calling
from nocturne.consensus.peer_bounds import QUEUE_VALUES_MAX
from nocturne.core.access import EXCHANGE
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import Key
from nocturne.wire.consensus.v1.exchange_pb2 import Content


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), SECONDS_MAX * 2))


@pytest.mark.parametrize("count", [2, 4])
def test_everyone_hears_everyone_in_order(count: int) -> None:
    async def test() -> None:
        async with validators(count) as made:
            await happens(lambda: all_streams_open(made), "all have met, in both directions")
            for number in range(500):
                for one in made:
                    for other in made:
                        if other is not one:
                            one.peers.send(other.key, fetch(number))
            whole = list(range(500))
            await happens(
                lambda: all(
                    one.heard_of(other) == whole
                    for one in made
                    for other in made
                    if other is not one
                ),
                "each has heard each other's 500",
            )
            for one in made:
                assert len(one.peers.statuses()) == count - 1, "one's own address is no peer"
                assert all(status.dropped == 0 for status in one.peers.statuses())

    run(test)


def test_what_is_said_before_they_meet_is_heard_when_they_do() -> None:
    async def test() -> None:
        async with some() as add:
            keys = [signer(0).key, signer(1).key]
            late = await add(signer(1), lambda: keys, runs=False)
            one = await add(signer(0), lambda: keys, addresses=[late.address])
            one.peers.send(late.key, fetch(1))
            late.running = asyncio.ensure_future(late.peers.run())
            await happens(lambda: late.heard_of(one) == [1], "it is heard")

    run(test)


def test_who_only_called_is_answered_over_its_own_stream() -> None:
    async def test() -> None:
        async with some() as add:
            keys = [signer(0).key, signer(1).key]
            called = await add(signer(1), lambda: keys)
            caller = await add(signer(0), lambda: keys, addresses=[called.address])
            await happens(lambda: all_met([called, caller]), "they have met")
            called.peers.send(caller.key, fetch(7))
            await happens(lambda: caller.heard_of(called) == [7], "the caller hears")
            (status,) = called.peers.statuses()
            assert (status.key, status.address, status.connected) == (caller.key, None, True)
            await caller.stop()
            await happens(lambda: called.peers.connected() == frozenset(), "it is seen to be gone")

    run(test)


def test_a_validator_that_was_started_again_is_back() -> None:
    async def test() -> None:
        async with validators(3) as made:
            await happens(lambda: all_met(made), "all have met")
            first, second, third = made
            await third.stop()
            await happens(lambda: third.key not in first.peers.connected(), "it is gone")
            await happens(lambda: first.status_of(third.address).error is not None, "it is said")
            first.peers.send(second.key, fetch(1))
            await happens(lambda: second.heard_of(first) == [1], "the others go on")
            again = await validator(
                third.signer,
                lambda: [one.key for one in made],
                addresses=[one.address for one in made],
                listen=third.address,
            )
            await happens(lambda: all_met([first, second, again]), "it is back")
            first.peers.send(third.key, fetch(2))
            await happens(lambda: 2 in again.heard_of(first), "it hears again")
            await happens(lambda: first.status_of(third.address).error is None, "it is dialed too")
            await again.stop()

    run(test)


def test_addresses_that_a_file_has_are_dialed_while_it_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "FILE_SECONDS", 0.02)
    keys = [signer(number).key for number in range(3)]

    async def test() -> None:
        file = tmp_path / "peers"
        async with some() as add:
            named = await add(signer(1), lambda: keys)
            listed = await add(signer(2), lambda: keys)
            one = await add(
                signer(0),
                lambda: keys,
                addresses=[named.address],
                settings=settings_of(tmp_path, peers_file=file),
            )
            await happens(lambda: one.peers.connected() == {named.key}, "the one named is met")
            file.write_text(f"{listed.address}\n")
            await happens(lambda: one.peers.connected() == set(keys[1:]), "so is the one listed")
            file.write_text("nonsense")
            one.peers.send(listed.key, fetch(1))
            await happens(lambda: listed.heard_of(one) == [1], "a broken file changes nothing")
            file.write_text(f"# {listed.address}\n{named.address}\n")
            await happens(lambda: one.peers.connected() == {named.key}, "it is let go")
            assert [status.address for status in one.peers.statuses()][:1] == [named.address]
            assert named.counted("peer_refused_total", cause="handshake") == 0

    run(test)


def test_who_is_no_member_is_refused_in_words_and_let_in_when_it_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "REFUSED_SECONDS", 0.3)

    async def test() -> None:
        async with some() as add:
            keys: list[Key] = [signer(0).key]
            all_keys = [signer(0).key, signer(1).key]
            one = await add(signer(0), lambda: keys)
            other = await add(signer(1), lambda: all_keys, addresses=[one.address])
            await happens(lambda: bool(other.status_of(one.address).error), "it is told")
            assert "no validator's" in str(other.status_of(one.address).error)
            assert one.counted("peer_streams_refused_total", cause="stranger") >= 1
            assert not one.heard
            keys.append(signer(1).key)
            await happens(lambda: all_met([one, other]), "it is let in")
            keys.remove(signer(1).key)
            await happens(
                lambda: not one.peers.connected(), "it is put out when it is none any more"
            )

    run(test)


def test_a_caller_does_not_talk_to_an_address_whose_key_is_no_members() -> None:
    async def test() -> None:
        async with some() as add:
            own, stranger = signer(0), signer(1)
            there = await add(stranger, lambda: [own.key, stranger.key])
            one = await add(own, lambda: [own.key], addresses=[there.address])
            one.peers.send(stranger.key, fetch(1))
            await happens(lambda: bool(one.status_of(there.address).error), "it is told")
            assert one.status_of(there.address).key == stranger.key
            assert not one.peers.connected()
            assert not there.heard

    run(test)


def test_another_ledgers_validator_is_refused_in_words() -> None:
    async def test() -> None:
        async with some() as add:
            keys = [signer(0).key, signer(1).key]
            there = await add(signer(1), lambda: keys, ledger=LedgerId(b"M" * 32))
            one = await add(signer(0), lambda: keys, addresses=[there.address])
            await happens(lambda: bool(one.status_of(there.address).error), "it is told")
            assert "another ledger" in str(one.status_of(there.address).error)
            assert there.counted("peer_streams_refused_total", cause="handshake") >= 1

    run(test)


def test_another_process_with_ones_own_key_is_told_and_said() -> None:
    async def test() -> None:
        async with some() as add:
            keys = [signer(0).key]
            twin = await add(signer(0), lambda: keys)
            one = await add(signer(0), lambda: keys, addresses=[twin.address])
            await happens(lambda: bool(one.status_of(twin.address).error), "it is told")
            assert "has that key itself" in str(one.status_of(twin.address).error)
            assert twin.counted("peer_streams_refused_total", cause="own_key") >= 1

    run(test)


def test_two_addresses_of_one_validator_make_one_stream() -> None:
    async def test() -> None:
        async with some() as add:
            keys = [signer(0).key, signer(1).key]
            there = await add(signer(1), lambda: keys)
            second_name = f"localhost:{there.server.port}"
            one = await add(signer(0), lambda: keys, addresses=[there.address, second_name])
            await happens(lambda: all_met([one, there]), "they have met")
            await happens(
                lambda: any(
                    "same validator" in str(status.error) or "took its place" in str(status.error)
                    for status in one.peers.statuses()
                ),
                "one of them is told that it is the other",
            )
            one.peers.send(there.key, fetch(1))
            await happens(lambda: there.heard_of(one) == [1], "it is heard once")

    run(test)


def test_a_newer_stream_takes_the_place_of_the_older() -> None:
    async def test() -> None:
        async with some() as add:
            keys = [signer(0).key, signer(1).key]
            there = await add(signer(1), lambda: keys)
            async with channel_to(there) as channel:
                older = await by_hand(channel, there)
                newer = await by_hand(channel, there)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await older.read_to_the_end()
                assert caught.value.code() is grpc.StatusCode.ABORTED
                await newer.say(codec.encode(fetch(3)))
                await happens(lambda: len(there.heard) == 1, "the newer one is heard")

    run(test)


class ByHand:
    """A validator's end of a stream, made by hand."""

    def __init__(self, call: Any, calling: Calling) -> None:
        self.call = call
        self.sealer, self.opener = calling.seals()

    async def say(self, *values: bytes, ping: int = 0) -> None:
        await self.call.write(self.sealer.seal(Content(values=values, ping=ping)))

    async def hear(self) -> Content:
        return self.opener.open(await self.call.read())

    async def read_to_the_end(self) -> None:
        while await self.call.read() is not grpc.aio.EOF:
            pass


async def by_hand(channel: grpc.aio.Channel, there: Validator, number: int = 0) -> ByHand:
    call: Any = channel.stream_stream(EXCHANGE)()
    calling = Calling(LEDGER, signer(number), bytes([number + 1]) * 32)
    await call.write(calling.hello())
    assert calling.hear_hello(await call.read()) == there.key
    await call.write(calling.proof())
    made = ByHand(call, calling)
    assert await made.hear() == Content()
    return made


def test_what_is_not_well_formed_is_counted_and_the_rest_is_heard() -> None:
    async def test() -> None:
        async with some() as add:
            there = await add(signer(1), lambda: [signer(0).key])
            async with channel_to(there) as channel:
                stream = await by_hand(channel, there)
                await stream.say(b"garbage", codec.encode(fetch(1)), b"", b"\xff" * 1000)
                await stream.say(ping=5)
                assert (await stream.hear()).pong == 5
                assert [value for _, value in there.heard] == [fetch(1)]
                assert there.counted("peer_values_malformed_total") == 3
                assert there.counted("peer_values_received_total") == 4

    run(test)


def test_an_envelope_that_is_not_the_next_one_cuts_the_stream() -> None:
    async def test() -> None:
        async with some() as add:
            there = await add(signer(1), lambda: [signer(0).key])
            async with channel_to(there) as channel:
                stream = await by_hand(channel, there)
                envelope = stream.sealer.seal(Content(values=[codec.encode(fetch(1))]))
                await stream.call.write(envelope)
                await stream.call.write(envelope)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stream.read_to_the_end()
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert len(there.heard) == 1
                assert there.counted("peer_streams_refused_total", cause="garbage") == 1

    run(test)


def test_a_flood_is_slowed_and_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nocturne.consensus.peer_stream.VALUES_PER_SECOND", 200)
    monkeypatch.setattr("nocturne.consensus.peer_stream.VALUES_BURST", 300)

    async def test() -> None:
        async with some() as add:
            there = await add(signer(1), lambda: [signer(0).key])
            async with channel_to(there) as channel:
                stream = await by_hand(channel, there)
                value = codec.encode(codec.Control(bytes(100_000)))
                written = 0

                async def flood() -> None:
                    nonlocal written
                    while True:
                        await stream.say(value)
                        written += 1

                flooding = asyncio.ensure_future(flood())
                await happens(lambda: there.counted("peer_pauses_total") >= 3, "it is slowed")
                before, began = len(there.heard), time.monotonic()
                await happens(lambda: len(there.heard) >= before + 40, "it is heard on")
                assert time.monotonic() - began > 0.9, "200 a second, and an envelope costs 6"
                # The kernel's buffers of both ends take some 10 MiB when the reader is late.
                assert written - len(there.heard) < 150, "what waits is in the transport, bounded"
                flooding.cancel()

    run(test)


def test_a_queue_that_overflows_drops_the_oldest_and_counts_it() -> None:
    async def test() -> None:
        async with some() as add:
            release = asyncio.Event()
            heard: list[codec.Value] = []

            async def slowly(_: Key, value: codec.Value) -> None:
                await release.wait()
                heard.append(value)

            keys = [signer(0).key, signer(1).key]
            there = await add(signer(1), lambda: keys, hear=slowly)
            one = await add(signer(0), lambda: keys, addresses=[there.address])
            await happens(lambda: all_met([one, there]), "they have met")
            # Long ones, so that little of it is on its way when it does not read on.
            values = [
                codec.Control(number.to_bytes(4, "big") + bytes(100_000)) for number in range(800)
            ]
            for at in range(0, len(values), 20):
                for value in values[at : at + 20]:
                    one.peers.send(there.key, value)
                await asyncio.sleep(0.005)
            (status,) = one.peers.statuses()
            assert status.dropped > 0
            assert one.counted("peer_values_dropped_total", cause="full") == status.dropped
            release.set()
            await happens(lambda: bool(heard) and heard[-1] == values[-1], "the newest is heard")
            assert len(heard) == len(values) - status.dropped
            numbers = [value.record[:4] for value in heard if isinstance(value, codec.Control)]
            assert numbers == sorted(numbers)
            assert len(values) < QUEUE_VALUES_MAX, "it was bounded by bytes"

    run(test)


def test_what_hear_raises_ends_the_run() -> None:
    async def test() -> None:
        async with some() as add:

            class BrokenError(Exception):
                pass

            async def broken(_: Key, __: codec.Value) -> None:
                raise BrokenError

            keys = [signer(0).key, signer(1).key]
            there = await add(signer(1), lambda: keys, hear=broken)
            one = await add(signer(0), lambda: keys, addresses=[there.address])
            one.peers.send(there.key, fetch(1))
            assert there.running is not None
            with pytest.raises(BrokenError):
                await asyncio.wait_for(asyncio.shield(there.running), SECONDS_MAX)
            assert there.peers.connected() == frozenset()

    run(test)


def test_round_trips_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PING_SECONDS", 0.05)
    monkeypatch.setattr(peers, "TICK_SECONDS", 0.02)

    async def test() -> None:
        async with validators(2) as made:
            await happens(
                lambda: all(
                    status.rtt_ms is not None for one in made for status in one.peers.statuses()
                ),
                "both know how long a ping takes",
            )
            (status,) = made[0].peers.statuses()
            assert status.rtt_ms is not None
            assert 0 < status.rtt_ms < 5_000

    run(test)


def test_a_stream_that_falls_silent_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "SILENT_SECONDS_MAX", 0.3)
    monkeypatch.setattr(peers, "TICK_SECONDS", 0.05)

    async def test() -> None:
        async with some() as add:
            there = await add(signer(1), lambda: [signer(0).key])
            async with channel_to(there) as channel:
                stream = await by_hand(channel, there)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stream.read_to_the_end()
                assert "silent" in str(caught.value.details())

    run(test)


def test_a_validator_that_stops_says_so_at_once() -> None:
    async def test() -> None:
        async with validators(3) as made:
            await happens(lambda: all_met(made), "all have met")
            assert made[0].running is not None
            made[0].running.cancel()
            await asyncio.wait({made[0].running})
            # Whoever kept the server would keep it for longer than that.
            await asyncio.wait_for(made[0].server.stop(10 * SECONDS_MAX), SECONDS_MAX)
            await happens(lambda: made[0].key not in made[1].peers.connected(), "the others see it")

    run(test)


def test_callers_are_told_to_come_later_until_it_runs() -> None:
    async def test() -> None:
        async with some() as add:
            there = await add(signer(1), lambda: [signer(0).key], runs=False)
            async with channel_to(there) as channel:
                call: Any = channel.stream_stream(EXCHANGE)()
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call.read()
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    run(test)


@pytest.mark.parametrize("code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.OK])
def test_an_address_that_answers_strangely_is_dialed_again(code: grpc.StatusCode) -> None:
    async def test() -> None:
        async with some() as add:
            calls = 0

            async def strange(_: Any, context: Any) -> None:
                nonlocal calls
                calls += 1
                context.set_code(code)
                context.set_details("so")

            handler: Any = grpc.stream_stream_rpc_method_handler(strange)
            generic = grpc.method_handlers_generic_handler(
                "nocturne.consensus.v1.PeerService", {"Exchange": handler}
            )
            server = grpc.aio.server()
            server.add_generic_rpc_handlers((generic,))
            port = server.add_insecure_port(f"{HOST}:0")
            await server.start()
            one = await add(signer(0), lambda: [signer(0).key], addresses=[f"{HOST}:{port}"])
            await happens(lambda: calls > 2, "it is dialed again")
            assert one.running is not None
            assert not one.running.done()
            await server.stop(0)

    run(test)
