"""A sampled command has a span from admission to answer, and the log carries its context."""

from __future__ import annotations

import asyncio

import pytest
from tests.fake_tracer import FakeTracer, sampled
from tests.unit.command.test_service import LEDGER, ONE, TRACE, World, run
from tests.vectors.synthetic import SyntheticLedger

from nocturne.command import service
from nocturne.command.outcomes import Level
from nocturne.runtime.kafka import Undelivered
from nocturne.runtime.tracing import is_sampled, trace_id_of

UNSAMPLED = TRACE[:-2] + b"00"


def traced_world(ledger: SyntheticLedger = LEDGER) -> tuple[World, FakeTracer]:
    world, tracer = World(ledger=ledger), FakeTracer()
    world.commands._tracer = tracer
    return world, tracer


def carried(world: World) -> list[bytes]:
    return [dict(record.headers)["traceparent"] for record in world.producer.records]


def test_the_log_carries_the_commands_own_span_under_its_callers() -> None:
    async def test() -> None:
        world, tracer = traced_world()
        world.submit(LEDGER.command("a", b"{}"), traceparent=TRACE)
        (submit,) = tracer.spans
        assert (submit.name, submit.parent) == ("command.submit", TRACE)
        assert carried(world) == [submit.traceparent]
        assert trace_id_of(submit.traceparent) == trace_id_of(TRACE)
        assert submit.attributes["nocturne.session"] == "a"
        world.producer.reports[0].set_result([(1, 7)])
        await asyncio.sleep(0)
        assert tracer.parts(submit) == ["command.publish", "command.wait"]
        (publish,) = tracer.named("command.publish")
        assert publish.attributes == {"nocturne.partition": 1, "nocturne.offset": 7}
        assert submit.ended
        assert submit.attributes["nocturne.level"] == "accepted"

    run(test)


def test_an_outcome_is_told_with_its_height() -> None:
    async def test() -> None:
        ledger = SyntheticLedger("traced outcome", partitions=1)
        world, tracer = traced_world(ledger)
        signed = ledger.command("a", b"{}", kind="facts")
        world.submit(signed, wait=Level.CERTIFIED, traceparent=TRACE)
        world.producer.reports[0].set_result([(0, 0)])
        await asyncio.sleep(0)
        world.certify(signed)
        (submit,) = tracer.named("command.submit")
        assert submit.ended
        assert submit.attributes["nocturne.outcome"] == "events"
        assert submit.attributes["nocturne.height"] == 1

    run(test)


def test_each_command_without_a_callers_trace_is_a_trace_of_its_own() -> None:
    async def test() -> None:
        world, tracer = traced_world()
        world.submit(LEDGER.command("a", b"{}"), LEDGER.command("b", b"{}"))
        assert len({trace_id_of(one) for one in carried(world)}) == 2
        assert [one.parent for one in tracer.spans] == [None, None]

    run(test)


def test_a_callers_unsampled_trace_is_carried_as_it_is_without_spans() -> None:
    async def test() -> None:
        world, tracer = traced_world()
        world.submit(LEDGER.command("a", b"{}"), traceparent=UNSAMPLED)
        assert carried(world) == [UNSAMPLED]
        assert tracer.spans == []

    run(test)


def test_of_a_batch_only_so_many_have_spans_and_the_rest_is_recorded_by_nobody_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "TRACED_PER_BATCH_MAX", 2)

    async def test() -> None:
        world, tracer = traced_world()
        commands = [LEDGER.command(f"s/{number}", b"{}") for number in range(5)]
        world.submit(*commands, traceparent=TRACE)
        assert len(tracer.spans) == 2
        by_session = {dict(one.headers)["ce_subject"]: one for one in world.producer.records}
        flags = [
            is_sampled(dict(by_session[b"s/%d" % number].headers)["traceparent"])
            for number in range(5)
        ]
        assert flags == [True, True, False, False, False]
        assert {trace_id_of(one) for one in carried(world)} == {trace_id_of(TRACE)}
        assert tracer.lost == 3

    run(test)


def test_a_refusal_ends_its_span_with_the_cause() -> None:
    async def test() -> None:
        world, tracer = traced_world()
        world.submit(b"nonsense", traceparent=TRACE)
        world.submit(LEDGER.command("a", b"{}"), traceparent=sampled(2))
        world.producer.reports[0].set_result([Undelivered("away")])
        await asyncio.sleep(0)
        malformed, away = tracer.named("command.submit")
        assert malformed.ended
        assert malformed.error
        assert "away" in away.error
        assert tracer.parts(away) == []

    run(test)


def test_a_caller_that_has_gone_ends_the_span() -> None:
    async def test() -> None:
        world, tracer = traced_world(ONE)
        signed = ONE.command("a", b"{}")
        world.submit(signed, wait=Level.SIGNED, traceparent=TRACE)
        world.commands.forget_caller(world.caller)
        (submit,) = tracer.spans
        assert submit.error == "the caller has gone"
        # The delivery report comes all the same.
        world.producer.reports[0].set_result([(0, 0)])
        await asyncio.sleep(0)
        assert tracer.spans == [submit]

    run(test)
