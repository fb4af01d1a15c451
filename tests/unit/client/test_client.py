"""The client against services that answer, break, refuse, lag and lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.unit.client.fakes import Services, services
from tests.vectors.synthetic import signer_of

from nocturne.client import (
    Client,
    Committed,
    LedgerDegraded,
    Level,
    Malformed,
    NocturneError,
    NotConfigured,
    Opening,
    Reason,
    Refused,
    SyncClient,
    Unavailable,
    Undecided,
    transport,
)
from nocturne.client import client as client_module
from nocturne.core.commands import SignedCommand
from nocturne.core.errors import PeerFault
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.modes import Cause, Degraded
from nocturne.wire.command.v1 import command_pb2

FACTS = Opening("facts", 1)
SECONDS_MAX = 20.0

Test = Callable[[Services, Client], Awaitable[None]]


def run(test: Test, deadline_seconds: float = 5.0, **options: object) -> None:
    async def whole() -> None:
        async with services() as served:
            trust = options or {"genesis": served.ledger.ledger.genesis_bytes}
            client = Client(
                served.address,
                served.address,
                signer=signer_of("alice"),
                deadline_seconds=deadline_seconds,
                **trust,  # type: ignore[arg-type]
            )
            async with client:
                await test(served, client)

    asyncio.run(asyncio.wait_for(whole(), SECONDS_MAX))


def test_append_gives_the_events() -> None:
    async def test(_: Services, client: Client) -> None:
        drafts = [client.json("A", {"n": 1}), client.data("B", b"\x00", "application/x")]
        result = await client.append("s/1", drafts, opening=FACTS)
        assert isinstance(result, Committed)
        assert [one.event_type for one in result.events] == ["A", "B"]
        again = await client.append("s/1", drafts, expected_sequence=2)
        assert isinstance(again, Committed)
        assert again.sequence == 4

    run(test)


def test_a_refusal_is_a_value() -> None:
    async def test(_: Services, client: Client) -> None:
        await fill(client, 1)
        result = await client.append("s/1", [client.json("A", {})], expected_sequence=4)
        assert isinstance(result, Refused)
        assert result.reason is Reason.DUPLICATE_SEQ

    run(test)


def test_a_service_that_is_away_is_asked_again() -> None:
    async def test(served: Services, client: Client) -> None:
        served.command.unavailable = 3
        result = await client.append("s/1", [client.json("A", {})], opening=FACTS)
        assert isinstance(result, Committed)
        assert len(served.command.received) == 1

    run(test)


def test_a_service_that_stays_away_is_unavailable() -> None:
    async def test(served: Services, client: Client) -> None:
        served.command.unavailable = 1000
        with pytest.raises(Unavailable, match="the log cannot be reached"):
            await client.append("s/1", [client.json("A", {})], opening=FACTS)

    run(test, deadline_seconds=0.3)


def test_a_service_that_says_nothing_leaves_the_command_undecided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "MARGIN_SECONDS", 0.05)

    async def test(served: Services, client: Client) -> None:
        served.command.answer_nothing = True
        signed = await client.build("s/1", [client.json("A", {})], opening=FACTS)
        result = await client.submit(signed, deadline_seconds=0.1)
        assert result == Undecided(signed.command_hash, Level.UNKNOWN)
        served.command.answer_nothing = False
        assert isinstance(await client.submit(signed), Committed)

    run(test)


def test_a_level_that_the_ledger_has_not_is_an_error() -> None:
    async def test(_: Services, client: Client) -> None:
        with pytest.raises(NotConfigured):
            await client.append("s/1", [client.json("A", {})], wait=Level.ANCHORED)

    run(test)


def test_what_the_service_calls_no_command_is_an_error() -> None:
    async def test(_: Services, client: Client) -> None:
        with pytest.raises(Malformed, match="session"):
            await client.append("not a session id", [client.json("A", {})])

    run(test)


@pytest.mark.parametrize("lagging", [0, 2])
def test_a_repeated_command_gets_its_first_outcome_from_the_read_side(lagging: int) -> None:
    async def test(served: Services, client: Client) -> None:
        signed = await client.build("s/1", [client.json("A", {})], opening=FACTS)
        first = await client.submit(signed)
        served.query.lagging = lagging
        again = await client.submit(signed)
        assert isinstance(first, Committed)
        assert isinstance(again, Committed)
        assert again.repeated
        assert (again.events, again.place) == (first.events, first.place)
        assert again.proof

    run(test)


def test_a_stale_id_of_a_known_command_gets_its_first_outcome() -> None:
    async def test(served: Services, client: Client) -> None:
        first = await client.build("s/1", [client.json("A", {})], opening=FACTS)
        outcome = await client.submit(first)
        for _ in range(257):
            await client.append("s/1", [client.json("B", {})])
        again = await client.submit(first)
        assert isinstance(outcome, Committed)
        assert isinstance(again, Committed)
        assert again.events == outcome.events

    run(test)


def test_a_stale_id_of_an_unknown_command_is_refused() -> None:
    async def test(served: Services, client: Client) -> None:
        late = await client.build("s/1", [client.json("A", {})])
        await client.append("s/1", [client.json("A", {})], opening=FACTS)
        for _ in range(257):
            await client.append("s/1", [client.json("B", {})])
        result = await client.submit(late)
        assert isinstance(result, Refused)
        assert result.reason is Reason.STALE_ID

    run(test)


def test_a_proof_is_checked() -> None:
    async def test(served: Services, client: Client) -> None:
        drafts = [client.json("A", {})]
        result = await client.append("s/1", drafts, opening=FACTS, prove=True)
        assert isinstance(result, Committed)
        assert result.proof

        def without(outcome: command_pb2.Outcome) -> None:
            outcome.proof = b""

        served.command.alter = without
        result = await client.append("s/1", drafts, prove=True)
        assert isinstance(result, Committed)
        assert result.proof

        def false(outcome: command_pb2.Outcome) -> None:
            outcome.proof = outcome.proof[:-5]

        served.command.alter = false
        with pytest.raises(Malformed, match="proof"):
            await client.append("s/1", drafts, prove=True)

    run(test)


def test_a_lying_service_is_noticed() -> None:
    async def test(served: Services, client: Client) -> None:
        def lie(outcome: command_pb2.Outcome) -> None:
            outcome.command_hash = bytes(32)

        served.command.alter = lie
        with pytest.raises(Malformed, match="another command"):
            await client.append("s/1", [client.json("A", {})], opening=FACTS)

    run(test)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come true")


# Many ------------------------------------------------------------------------------------------


async def commands(client: Client, count: int, sessions: int = 1) -> list[SignedCommand]:
    made = []
    for number in range(count):
        opening = FACTS if number < sessions else None
        session = f"many/{number % sessions}"
        made.append(await client.build(session, [client.json("A", {})], opening=opening))
    return made


async def collect(
    client: Client, made: Iterable[SignedCommand], in_flight_max: int = 2048
) -> dict[Hash, Committed]:
    found = {}
    async for signed, result in client.submit_many(made, in_flight_max=in_flight_max):
        assert isinstance(result, Committed)
        assert signed.command_hash not in found
        found[signed.command_hash] = result
    return found


def test_many_commands_are_answered_each_once_in_order() -> None:
    async def test(_: Services, client: Client) -> None:
        made = await commands(client, 700, 3)
        found = await collect(client, made)
        assert list(found) == [one.command_hash for one in made]
        ours = [found[one.command_hash] for one in made if one.command.session == "many/0"]
        assert [one.sequence for one in ours] == list(range(1, len(ours) + 1))

    run(test)


def test_a_broken_stream_is_opened_again_and_nothing_is_lost() -> None:
    async def test(served: Services, client: Client) -> None:
        served.command.break_stream_after = [0, 10, 200, 0]
        made = await commands(client, 500)
        found = await collect(client, made)
        assert len(found) == 500
        assert any(one.repeated for one in found.values())
        assert len({one.sequence for one in found.values()}) == 500

    run(test)


def test_refusals_that_pass_are_sent_again_in_the_same_stream() -> None:
    async def test(served: Services, client: Client) -> None:
        served.command.refuse_in_stream = 5
        made = await commands(client, 20, sessions=20)
        found = await collect(client, made)
        assert len(found) == 20
        assert len(served.command.received) == 20

    run(test)


def test_what_a_broken_stream_refused_is_sent_once_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pause = 0.02
    monkeypatch.setattr(transport, "backoff_seconds", lambda attempt, _=None: (attempt + 1) * pause)

    async def test(served: Services, client: Client) -> None:
        # The first stream refuses all and breaks when the first of them comes again, which is when
        # the pauses of the others are still running.
        served.command.refuse_in_stream = 10
        served.command.break_stream_after = [10]
        served.command.answer_stream_after = [0, 12 * pause]
        made = await commands(client, 10, sessions=10)
        assert len(await collect(client, made)) == 10
        assert len(served.command.received) == 10
        assert not served.command.break_stream_after

    run(test)


def test_an_answer_to_what_was_not_sent_is_the_services_fault() -> None:
    async def test(served: Services, client: Client) -> None:
        served.command.answer_twice = True
        with pytest.raises(PeerFault, match="answers to what was sent"):
            await collect(client, await commands(client, 5))

    run(test)


def test_in_flight_commands_are_bounded_in_all_and_per_session() -> None:
    async def test(served: Services, client: Client) -> None:
        served.command.hold = True
        made = await commands(client, 600)

        async def flow() -> None:
            await collect(client, made)

        flowing = asyncio.ensure_future(flow())
        await until(lambda: served.command.unanswered_max >= 255)
        for _ in range(20):
            await asyncio.sleep(0)
        assert served.command.unanswered_max == 255
        flowing.cancel()
        await asyncio.wait([flowing])
        served.command.hold = False
        served.command.unanswered_max = 0
        other = await commands(client, 300, sessions=300)
        assert len(await collect(client, other, in_flight_max=64)) == 300
        assert served.command.unanswered_max <= 64

    run(test)


def test_a_command_that_is_none_ends_the_stream_with_its_fault() -> None:
    async def test(_: Services, client: Client) -> None:
        bad = await client.build("no session", [client.json("A", {})])
        with pytest.raises(Malformed, match="session"):
            await collect(client, [*await commands(client, 3), bad])

    run(test)


def test_what_the_callers_iteration_raises_comes_out_after_the_answers() -> None:
    async def test(_: Services, client: Client) -> None:
        made = await commands(client, 5)

        def broken() -> Iterator[SignedCommand]:
            yield from made
            raise RuntimeError("enough")

        answered: list[Hash] = []

        async def take() -> None:
            async for signed, _result in client.submit_many(broken()):
                answered.append(signed.command_hash)

        with pytest.raises(RuntimeError, match="enough"):
            await take()
        assert answered == [one.command_hash for one in made]

    run(test)


def test_an_endless_source_is_taken_as_it_comes_and_can_be_left() -> None:
    async def test(_: Services, client: Client) -> None:
        async def endless() -> AsyncIterator[SignedCommand]:
            opening: Opening | None = FACTS
            while True:
                yield await client.build("endless", [client.json("A", {})], opening=opening)
                opening = None

        count = 0
        async with aclosing(client.submit_many(endless())) as results:
            async for _signed, result in results:
                assert isinstance(result, Committed)
                count += 1
                if count == 100:
                    break
        result = await client.append("other", [client.json("A", {})], opening=FACTS)
        assert isinstance(result, Committed)

    run(test)


def test_a_stream_that_only_breaks_is_unavailable() -> None:
    async def test(served: Services, client: Client) -> None:
        served.command.break_stream_after = [0] * 1000
        with pytest.raises(Unavailable, match="again"):
            await collect(client, await commands(client, 3))

    run(test, deadline_seconds=0.5)


# Reading ---------------------------------------------------------------------------------------


async def fill(client: Client, count: int) -> None:
    for number in range(count):
        opening = FACTS if number == 0 else None
        await client.append("s/1", [client.json("A", {"n": number})], opening=opening)


def test_events_are_read_and_checked() -> None:
    async def test(_: Services, client: Client) -> None:
        await fill(client, 4)
        assert [one.header.sequence async for one in client.events("s/1")] == [1, 2, 3, 4]
        assert [one.header.sequence async for one in client.events("s/1", 3)] == [3, 4]

    run(test)


def test_an_altered_event_is_noticed() -> None:
    async def test(served: Services, client: Client) -> None:
        await fill(client, 3)
        served.query.alter = lambda number, data: data if number != 2 else data[:-1] + b"\x01"
        seen: list[int] = []

        async def read() -> None:
            async for event in client.events("s/1"):
                seen.append(event.header.sequence)

        with pytest.raises(Malformed):
            await read()
        assert seen == [1]

    run(test)


def test_following_goes_on_over_breaks_without_gap_or_double() -> None:
    async def test(served: Services, client: Client) -> None:
        await fill(client, 3)
        served.query.break_follow_after = [2, 0]
        seen: list[int] = []
        async with aclosing(client.events("s/1", follow=True)) as events:
            async for event in events:
                seen.append(event.header.sequence)
                if len(seen) == 3:
                    await client.append("s/1", [client.json("A", {})])
                    served.query.changed.set()
                if len(seen) == 4:
                    break
        assert seen == [1, 2, 3, 4]

    run(test)


def test_receipts_are_read_page_by_page_and_checked() -> None:
    async def test(served: Services, client: Client) -> None:
        await fill(client, 1)
        for _ in range(5):
            await client.append("s/1", [client.json("A", {})], expected_sequence=9)
        found = [one.header.reason async for one in client.receipts()]
        assert found == [Reason.DUPLICATE_SEQ] * 5
        assert len([one async for one in client.receipts(claimed=False)]) == 5
        assert [one async for one in client.receipts(claimed=True)] == []
        served.query.lies = True
        with pytest.raises(Malformed, match="not asked for"):
            [one async for one in client.receipts(claimed=True)]
        served.query.alter = lambda number, data: data[:-1] + bytes((data[-1] ^ 2,))
        with pytest.raises(Malformed):
            [one async for one in client.receipts()]

    run(test)


def test_sessions_state_and_status_are_plain_values() -> None:
    async def test(served: Services, client: Client) -> None:
        served.query.unavailable = 2
        assert await client.session("s/1") is None
        await fill(client, 2)
        found = await client.session("s/1")
        assert found is not None
        assert found.sequence == 2
        names = [one.session async for one in client.sessions("s/")]
        assert names == [f"s/{number}" for number in range(5)]
        state = await client.state("s/1")
        assert state is not None
        assert state.value == {"a": 1}
        assert (await client.status()).refused_records == (("stranger", 3),)

    run(test)


def test_an_export_is_kept_only_if_it_verifies(tmp_path: Path) -> None:
    async def test(served: Services, client: Client) -> None:
        await fill(client, 3)
        path = tmp_path / "s.jsonl"
        verdict = await client.export("s/1", path)
        assert verdict.holds
        assert path.read_bytes() == b"".join(served.ledger.ledger.export("s/1"))
        other = tmp_path / "other.jsonl"
        served.query.alter = lambda number, data: data if number != 2 else data[1:]
        with pytest.raises(Malformed, match="export"):
            await client.export("s/1", other)

    run(test)
    assert [one.name for one in tmp_path.iterdir()] == ["s.jsonl"]


def test_the_proof_of_a_command_is_found_by_its_hash() -> None:
    async def test(_: Services, client: Client) -> None:
        signed = await client.build("s/1", [client.json("A", {})], opening=FACTS)
        assert await client.disposition(signed.command_hash) is None
        await client.submit(signed)
        assert await client.disposition(signed.command_hash)

    run(test)


# Trust -----------------------------------------------------------------------------------------


def test_with_a_ledger_id_the_genesis_is_fetched_and_checked() -> None:
    async def whole() -> None:
        async with services() as served:
            await fill_ledger(served)
            trusted = served.ledger.ledger.state.ledger_id
            async with Client(served.address, served.address, ledger_id=trusted) as client:
                ledger = await client.ledger()
                assert ledger.genesis_bytes == served.ledger.ledger.genesis_bytes
                assert [one.header.sequence async for one in client.events("s/1")] == [1]
            other = LedgerId(bytes(32))
            async with Client(served.address, served.address, ledger_id=other) as client:
                with pytest.raises(Malformed, match="trusted"):
                    await client.ledger()

    asyncio.run(asyncio.wait_for(whole(), SECONDS_MAX))


async def fill_ledger(served: Services) -> None:
    served.ledger.take(served.ledger.ledger.command("s/1", b"{}", kind="facts"))


def test_without_trust_key_or_address_it_says_so() -> None:
    with pytest.raises(ValueError, match="ledger"):
        Client("127.0.0.1:1")

    async def test(served: Services, _: Client) -> None:
        genesis = served.ledger.ledger.genesis_bytes
        async with Client(served.address, genesis=genesis) as client:
            with pytest.raises(ValueError, match="author"):
                await client.build("s/1", [client.json("A", {})])
            with pytest.raises(NotConfigured):
                await client.session("s/1")

    run(test)


def test_an_unknown_session_has_no_events() -> None:
    async def test(_: Services, client: Client) -> None:
        assert [one async for one in client.events("nowhere")] == []

    run(test)


def test_programs_without_an_event_loop_have_the_same_client() -> None:
    ready: list[Services] = []

    async def serve(started: asyncio.Event, ended: asyncio.Event) -> None:
        async with services() as served:
            ready.append(served)
            started.set()
            await ended.wait()

    async def whole() -> None:
        started, ended = asyncio.Event(), asyncio.Event()
        serving = asyncio.ensure_future(serve(started, ended))
        await started.wait()
        try:
            await asyncio.to_thread(use, ready[0])
        finally:
            ended.set()
            await serving

    def use(served: Services) -> None:
        genesis = served.ledger.ledger.genesis_bytes
        client = Client(served.address, served.address, genesis=genesis, signer=signer_of("bob"))
        with SyncClient(client) as sync:
            drafts = [sync.json("A", {"n": 1})]
            assert isinstance(sync.append("s/1", drafts, opening=FACTS), Committed)
            more = [sync.build("s/1", drafts) for _ in range(3)]
            assert len(list(sync.submit_many(more))) == 3
            assert [one.header.sequence for one in sync.events("s/1")] == [1, 2, 3, 4]
            with pytest.raises(NocturneError):
                sync.append("no session", drafts)

    asyncio.run(asyncio.wait_for(whole(), SECONDS_MAX))


# The ledger's mode -----------------------------------------------------------------------------

CONFLICT = Degraded(Cause.CONFLICTING_COMMIT_PROOFS, "two certified blocks at height 7")


def test_a_degraded_ledger_is_an_error_of_its_own_and_is_not_asked_again() -> None:
    async def test(served: Services, client: Client) -> None:
        served.command.degraded = CONFLICT
        with pytest.raises(LedgerDegraded, match="two certified blocks at height 7") as found:
            await client.append("s/1", [client.json("A", {})], opening=FACTS)
        assert found.value.cause == "CONFLICTING_COMMIT_PROOFS"
        assert "degraded.md" in str(found.value)
        assert served.command.asked == 1

    run(test)


def test_in_a_stream_too() -> None:
    async def test(served: Services, client: Client) -> None:
        served.command.degraded = CONFLICT
        with pytest.raises(LedgerDegraded, match="two certified blocks at height 7") as found:
            await collect(client, await commands(client, 1))
        assert found.value.cause == "CONFLICTING_COMMIT_PROOFS"
        assert served.command.asked == 1

    run(test)


def test_the_status_has_the_mode_that_the_read_side_says() -> None:
    async def test(served: Services, client: Client) -> None:
        status = await client.status()
        assert (status.mode, status.mode_cause) == ("SYNC_WS", "")
        served.query.mode.keep(CONFLICT)
        status = await client.status()
        assert (status.mode, status.mode_cause) == ("DEGRADED", "CONFLICTING_COMMIT_PROOFS")

    run(test)
