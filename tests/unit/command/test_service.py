"""The command service's shell with a broker in memory: what is published, who is called back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from google.rpc import code_pb2, error_details_pb2
from tests.unit.command.test_outcomes import block_value
from tests.vectors.synthetic import SyntheticLedger

from nocturne.command import outbox, outcomes, replies, service
from nocturne.command.limits import RateLimits, SessionCounts
from nocturne.command.outcomes import Level, Outcome
from nocturne.command.replies import Refused, deadline_of, level_of, outcome_message
from nocturne.command.service import Batch, Commands
from nocturne.core.block_intake import BlockIntake
from nocturne.core.commands import SignedCommand, encode_signed_command
from nocturne.core.errors import Unavailable
from nocturne.core.identifiers import format_id
from nocturne.core.modes import Cause, Degraded
from nocturne.core.topics import COMMANDS, frame, partition_of
from nocturne.runtime.degraded import LedgerMode, measure
from nocturne.runtime.kafka import Delivery, ProducedRecord, Undelivered
from nocturne.runtime.settings import Founding
from nocturne.runtime.telemetry import Metrics
from nocturne.runtime.tracing import parse_traceparent

LEDGER = SyntheticLedger(partitions=4)
ONE = SyntheticLedger(partitions=1)


class FakeProducer:
    """A broker in memory; reports are given by hand."""

    def __init__(self) -> None:
        self.reachable = True
        self.broken = False
        self.delivering = asyncio.Event()
        self.records: list[ProducedRecord] = []
        self.reports: list[asyncio.Future[list[Delivery]]] = []

    def deliver(self, records: Sequence[ProducedRecord]) -> asyncio.Future[list[Delivery]]:
        if self.broken:
            raise Unavailable("producer: fenced")
        future: asyncio.Future[list[Delivery]] = asyncio.get_running_loop().create_future()
        self.records += records
        self.reports.append(future)
        if len(self.reports) > 1:
            self.delivering.set()
        return future


class FakeCaller:
    def __init__(self) -> None:
        self.answers: dict[int, Outcome] = {}
        self.refusals: dict[int, Refused] = {}
        self.called = asyncio.Event()

    def answer(self, correlation: int, outcome: Outcome) -> None:
        assert correlation not in self.answers
        assert correlation not in self.refusals
        self.answers[correlation] = outcome
        self.called.set()

    def refuse(self, correlation: int, refused: Refused) -> None:
        assert correlation not in self.answers
        assert correlation not in self.refusals
        self.refusals[correlation] = refused


class World:
    def __init__(
        self,
        limits: RateLimits | None = None,
        ledger: SyntheticLedger = ONE,
        sessions_max: int = 0,
        home: Path = Path("/nowhere"),
    ) -> None:
        founding = Founding(ledger.genesis_bytes, ledger.genesis, ledger.state.ledger_id)
        self.ledger = ledger
        self.intake = BlockIntake(founding.ledger_id, ledger.genesis.founding_sets, None)
        self.producer = FakeProducer()
        self.caller = FakeCaller()
        self.metrics = Metrics("command")
        self.mode = LedgerMode(home, founding.ledger_id)
        measure(self.metrics, lambda: self.mode.degraded)
        self.commands = Commands(
            founding,
            self.producer,  # type: ignore[arg-type]
            77,
            limits or RateLimits(0, 0),
            SessionCounts(sessions_max),
            self.metrics,
            self.mode,
        )

    def submit(
        self,
        *commands: SignedCommand | bytes,
        wait: Level = Level.ACCEPTED,
        seconds: float = 60.0,
        traceparent: bytes | None = None,
    ) -> None:
        data = [
            (number, one if isinstance(one, bytes) else encode_signed_command(one))
            for number, one in enumerate(commands)
        ]
        batch = Batch(data, wait, seconds, False, traceparent)
        self.commands.submit(self.caller, "ipv4:127.0.0.1:1", batch)

    def certify(self, signed: SignedCommand) -> None:
        """A block with this command comes."""
        self.ledger.submit(signed)
        for checked in self.intake.offer(block_value(self.ledger.make_block())):
            self.commands.answer(self.commands.take_block(checked))

    def left(self) -> int:
        """Tokens that the caller's host has."""
        tokens, _ = self.commands._limits._buckets["ipv4:127.0.0.1"]
        return round(tokens)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"nocturne_command_{name}", labels)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_command_is_published_as_it_came_with_its_key_partition_and_headers() -> None:
    signed = LEDGER.command("orders/7", b"{}")

    async def test() -> None:
        world = World(ledger=LEDGER)
        world.submit(signed, traceparent=TRACE)
        (record,) = world.producer.records
        assert (record.topic, record.key) == (COMMANDS, b"orders/7")
        assert record.partition == partition_of(b"orders/7", 4)
        assert record.value == frame(77, encode_signed_command(signed))
        headers = dict(record.headers)
        assert headers["ce_id"] == format_id(signed.command.command_id).encode()
        assert headers["ce_type"] == b"nocturne.command.v1"
        assert headers["ce_subject"] == b"orders/7"
        assert headers["traceparent"] == TRACE

    run(test)


def test_without_a_trace_one_is_begun() -> None:
    async def test() -> None:
        world = World()
        world.submit(LEDGER.command("a", b"{}"))
        (record,) = world.producer.records
        assert parse_traceparent(dict(record.headers)["traceparent"]) is not None

    run(test)


def test_bad_commands_of_a_batch_are_refused_and_the_others_published_at_once() -> None:
    good = [LEDGER.command("a", b"{}"), LEDGER.command("b", b"{}")]

    async def test() -> None:
        world = World()
        world.submit(good[0], b"nonsense", good[1])
        assert len(world.producer.records) == 2
        assert len(world.producer.reports) == 1
        assert list(world.caller.refusals) == [1]
        assert world.caller.refusals[1].code == code_pb2.INVALID_ARGUMENT
        world.producer.reports[0].set_result([(0, 5), (1, 6)])
        await asyncio.sleep(0)
        assert sorted(world.caller.answers) == [0, 2]
        assert world.sample("commands_published_total") == 2
        assert world.sample("commands_answered_total", level="accepted", outcome="undecided") == 2
        assert world.sample("commands_refused_total", code="INVALID_ARGUMENT") == 1
        assert world.sample("commands_pending") == 0

    run(test)


def test_a_record_that_kafka_did_not_take_is_refused_and_can_be_repeated() -> None:
    async def test() -> None:
        world = World()
        world.submit(LEDGER.command("a", b"{}"), LEDGER.command("b", b"{}"), wait=Level.SIGNED)
        world.producer.reports[0].set_result([Undelivered("timed out"), (1, 6)])
        await asyncio.sleep(0)
        assert list(world.caller.refusals) == [0]
        refused = world.caller.refusals[0]
        assert refused.code == code_pb2.UNAVAILABLE
        assert "repeat the same command" in refused.message
        assert len(world.commands.table) == 1

    run(test)


def test_what_comes_while_a_batch_is_in_flight_goes_together_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "DISTANCE_SECONDS", 0.0)

    async def test() -> None:
        world = World()
        for _ in range(3):
            world.submit(LEDGER.command("a", b"{}"), LEDGER.command("b", b"{}"))
        assert [len(world.producer.records), len(world.producer.reports)] == [2, 1]
        world.producer.reports[0].set_result([(0, 0), (0, 1)])
        await asyncio.sleep(0)
        assert [len(world.producer.records), len(world.producer.reports)] == [6, 2]
        world.producer.reports[1].set_result([(0, number) for number in range(2, 6)])
        await asyncio.sleep(0)
        assert len(world.producer.reports) == 2
        world.submit(LEDGER.command("a", b"{}"))
        assert len(world.producer.reports) == 3

    run(test)


def test_batches_of_a_partition_keep_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "DISTANCE_SECONDS", 0.02)

    async def test() -> None:
        world = World()
        loop = asyncio.get_running_loop()
        started = loop.time()
        world.submit(LEDGER.command("a", b"{}"))
        world.producer.reports[0].set_result([(0, 0)])
        await asyncio.sleep(0)
        world.submit(LEDGER.command("a", b"{}"))
        world.submit(LEDGER.command("a", b"{}"))
        assert len(world.producer.reports) == 1
        await world.producer.delivering.wait()
        assert loop.time() - started >= 0.02
        assert [len(world.producer.records), len(world.producer.reports)] == [3, 2]

    run(test)


def test_partitions_do_not_wait_for_each_other() -> None:
    sessions = {partition_of(name.encode(), 4): name for name in map("s{}".format, range(40))}

    async def test() -> None:
        world = World(ledger=LEDGER)
        for partition in range(4):
            world.submit(LEDGER.command(sessions[partition], b"{}"))
        assert [record.partition for record in world.producer.records] == [0, 1, 2, 3]
        assert len(world.producer.reports) == 4

    run(test)


def test_commands_that_are_not_in_the_log_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PENDING_MAX", 3)

    async def test() -> None:
        world = World()
        for _ in range(2):
            world.submit(LEDGER.command("a", b"{}"), LEDGER.command("b", b"{}"))
        assert [one.code for one in world.caller.refusals.values()] == [code_pb2.RESOURCE_EXHAUSTED]
        assert len(world.commands.table) == 3

    run(test)


def test_a_producer_that_broke_refuses_what_it_was_given() -> None:
    async def test() -> None:
        world = World()
        world.producer.broken = True
        world.submit(LEDGER.command("a", b"{}"))
        assert world.caller.refusals[0].code == code_pb2.UNAVAILABLE
        assert len(world.commands.table) == 0

    run(test)


def test_while_no_broker_answers_nothing_is_taken() -> None:
    async def test() -> None:
        world = World()
        world.producer.reachable = False
        world.submit(LEDGER.command("a", b"{}"))
        assert not world.producer.records
        status = world.caller.refusals[0].status()
        retry = error_details_pb2.RetryInfo()
        assert status.code == code_pb2.UNAVAILABLE
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.seconds == 1

    run(test)


def test_a_full_table_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "PENDING_MAX", 1)

    async def test() -> None:
        world = World()
        world.submit(LEDGER.command("a", b"{}"), LEDGER.command("b", b"{}"))
        assert len(world.producer.records) == 1
        assert world.caller.refusals[1].code == code_pb2.RESOURCE_EXHAUSTED

    run(test)


def test_over_its_rate_a_whole_batch_is_refused() -> None:
    async def test() -> None:
        world = World(RateLimits(per_second=1, burst=2))
        world.submit(LEDGER.command("a", b"{}"), LEDGER.command("b", b"{}"))
        other = FakeCaller()
        batch = Batch([(9, b"x")], Level.ACCEPTED, 1.0, False, None)
        world.commands.submit(other, "ipv4:127.0.0.1:1", batch)
        assert other.refusals[9].code == code_pb2.RESOURCE_EXHAUSTED
        retry = other.refusals[9].retry_seconds
        assert retry is not None
        assert 0 < retry <= 1

    run(test)


def test_a_refused_command_costs_ten_even_if_its_caller_has_gone() -> None:
    async def test() -> None:
        world = World(RateLimits(per_second=0.001, burst=20), SyntheticLedger(partitions=1))
        refused = world.ledger.command("never/opened", b"{}")
        world.submit(refused, wait=Level.SIGNED)
        world.commands.forget_caller(world.caller)
        world.producer.reports[0].set_result([(0, 0)])
        await asyncio.sleep(0)
        world.certify(refused)
        assert world.left() == 10

    run(test)


def test_a_refused_command_costs_ten_when_its_block_is_faster_than_its_report() -> None:
    async def test() -> None:
        world = World(RateLimits(per_second=0.001, burst=20), SyntheticLedger(partitions=1))
        refused = world.ledger.command("never/opened", b"{}")
        world.submit(refused)
        world.certify(refused)
        assert world.left() == 19
        world.producer.reports[0].set_result([(0, 0)])
        await asyncio.sleep(0)
        assert world.left() == 10

    run(test)


def test_an_accepted_command_and_its_repetition_cost_one_each() -> None:
    async def test() -> None:
        world = World(RateLimits(per_second=0.001, burst=20), SyntheticLedger(partitions=1))
        opening = world.ledger.command("a/1", b"{}", kind="facts")
        for offset in range(2):
            world.submit(opening)
            world.producer.reports[offset].set_result([(0, offset)])
            await asyncio.sleep(outbox.DISTANCE_SECONDS * 2)
            world.certify(opening)
            world.caller.answers.clear()
        assert world.left() == 18

    run(test)


def test_below_zero_a_principal_is_told_when_to_come_back() -> None:
    async def test() -> None:
        world = World(RateLimits(per_second=1, burst=5), SyntheticLedger(partitions=1))
        refused = world.ledger.command("never/opened", b"{}")
        world.submit(refused)
        world.producer.reports[0].set_result([(0, 0)])
        await asyncio.sleep(0)
        world.certify(refused)
        other = FakeCaller()
        world.commands.submit(
            other,
            "ipv4:127.0.0.1:2",
            Batch([(9, encode_signed_command(refused))], Level.ACCEPTED, 1.0, False, None),
        )
        assert other.refusals[9].code == code_pb2.RESOURCE_EXHAUSTED
        retry = other.refusals[9].retry_seconds
        assert retry is not None
        assert 5 < retry <= 6

    run(test)


def test_an_author_with_its_number_of_sessions_opens_no_more_but_may_repeat_the_last() -> None:
    async def test() -> None:
        world = World(ledger=SyntheticLedger(partitions=1), sessions_max=1)
        first, second = (world.ledger.command(name, b"{}", kind="facts") for name in ("a/1", "a/2"))
        world.submit(first)
        world.producer.reports[0].set_result([(0, 0)])
        await asyncio.sleep(0)
        world.certify(first)
        world.caller.answers.clear()
        world.submit(second, first, world.ledger.command("a/1", b"{}"))
        await asyncio.sleep(outbox.DISTANCE_SECONDS * 2)
        assert list(world.caller.refusals) == [0]
        assert world.caller.refusals[0].reason == "SESSIONS_PER_AUTHOR"
        assert world.caller.refusals[0].code == code_pb2.FAILED_PRECONDITION
        assert "1 sessions" in world.caller.refusals[0].message
        assert len(world.producer.records) == 3

    run(test)


def test_deadlines_are_answered_while_it_runs() -> None:
    async def test() -> None:
        world = World()
        world.submit(LEDGER.command("a", b"{}"), wait=Level.SIGNED, seconds=0.01)
        expiring = asyncio.ensure_future(world.commands.expire())
        await world.caller.called.wait()
        assert world.caller.answers[0].level is Level.UNKNOWN
        assert world.sample("commands_expired_total") == 1
        # The report that comes after it finds nobody.
        world.producer.reports[0].set_result([(0, 1)])
        await asyncio.sleep(0)
        expiring.cancel()

    run(test)


def test_a_caller_that_goes_is_forgotten_with_all_it_waits_for() -> None:
    async def test() -> None:
        world = World()
        world.submit(*(LEDGER.command("a", b"{}") for _ in range(5)), wait=Level.SIGNED)
        other = FakeCaller()
        data = encode_signed_command(LEDGER.command("b", b"{}"))
        world.commands.submit(other, "peer", Batch([(1, data)], Level.SIGNED, 60.0, False, None))
        world.commands.forget_caller(world.caller)
        assert len(world.commands.table) == 1
        world.producer.reports[0].set_result([(0, number) for number in range(5)])
        await asyncio.sleep(0)
        assert not world.caller.answers

    run(test)


# Replies ---------------------------------------------------------------------------------------


def test_a_level_that_is_named_is_meant() -> None:
    assert level_of(0) is Level.SIGNED
    assert [level_of(number) for number in (1, 2, 3)] == [
        Level.ACCEPTED,
        Level.CERTIFIED,
        Level.SIGNED,
    ]
    for number in (4, 5, 6):
        refused = level_of(number)
        assert isinstance(refused, Refused)
        assert refused.code == code_pb2.FAILED_PRECONDITION
        assert "not configured" in refused.message
        info = error_details_pb2.ErrorInfo()
        assert refused.status().details[0].Unpack(info)
        assert (info.reason, info.domain) == ("LEVEL_NOT_CONFIGURED", "nocturne.command")
    refused = level_of(7)
    assert isinstance(refused, Refused)
    assert refused.code == code_pb2.INVALID_ARGUMENT


def test_a_deadline_has_bounds() -> None:
    assert deadline_of(0, 20_000, 120_000) == 20.0
    assert deadline_of(1500, 20_000, 120_000) == 1.5
    for number in (-1, 120_001):
        refused = deadline_of(number, 20_000, 120_000)
        assert isinstance(refused, Refused)
        assert refused.field == "deadline_ms"


def test_a_refusal_of_bad_bytes_names_the_field() -> None:
    status = replies.malformed("not a record").status()
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert bad.field_violations[0].description == "not a record"


def test_an_open_outcome_says_nothing_of_a_block() -> None:
    signed = LEDGER.command("a", b"{}")
    outcome = Outcome(Level.UNKNOWN, signed.command_hash, None, None, None, False, b"")
    message = outcome_message(outcome, "flushed")
    assert not message.decided
    assert not message.HasField("position")
    assert message.command_hash == signed.command_hash
    assert message.height == 0


# The ledger's mode ------------------------------------------------------------------------------

CONFLICT = Degraded(Cause.CONFLICTING_COMMIT_PROOFS, "two certified blocks at height 7")


def test_a_ledger_that_is_degraded_takes_no_command_and_says_why_also_after_a_restart(
    tmp_path: Path,
) -> None:
    signed = ONE.command("mode", b"{}")

    async def test() -> None:
        world = World(home=tmp_path)
        assert world.sample("degraded") == 0
        world.mode.keep(CONFLICT)
        for each in (world, World(home=tmp_path)):
            each.submit(signed, b"not a command")
            assert each.producer.records == []
            for number in (0, 1):
                refused = each.caller.refusals[number]
                assert refused.code == code_pb2.FAILED_PRECONDITION
                assert "two certified blocks at height 7" in refused.message
                info = error_details_pb2.ErrorInfo()
                assert refused.status().details[0].Unpack(info)
                assert info.reason == refused.refusal().reason == "LEDGER_DEGRADED"
                assert info.metadata["cause"] == "CONFLICTING_COMMIT_PROOFS"
                assert refused.refusal().cause == "CONFLICTING_COMMIT_PROOFS"
            assert each.sample("degraded") == 1
            assert dict(each.mode.metadata())["nocturne-mode"] == "DEGRADED"

    run(test)


def test_want_of_a_quorum_is_the_mode_while_it_lasts_and_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = SyntheticLedger(partitions=1)
    signed = ledger.command("want", b"{}")

    async def test() -> None:
        world = World(home=tmp_path, ledger=ledger)
        world.submit(signed, wait=Level.CERTIFIED)
        world.producer.reports[0].set_result([(0, 0)])
        await asyncio.sleep(0)
        monkeypatch.setattr("nocturne.command.progress.STALLED_SECONDS", -1.0)
        world.caller = FakeCaller()
        world.submit(ledger.command("want", b"{}"))
        assert world.caller.refusals[0].code == code_pb2.UNAVAILABLE
        assert world.mode.metadata()[1] == ("nocturne-mode-cause", "WANT_OF_A_QUORUM")
        monkeypatch.undo()
        world.certify(signed)
        assert world.mode.metadata() == (("nocturne-mode", "SYNC_WS"),)

    run(test)
    assert list(tmp_path.iterdir()) == []
