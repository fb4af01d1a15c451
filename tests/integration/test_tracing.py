"""One trace from the caller to the read model, through every service and every topic; and a ledger
that works the same when nobody collects traces.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.collector import Collector, Seen, collecting
from tests.e2e.conftest import Running
from tests.e2e.conftest import started as ledger_started
from tests.e2e.driver import Author
from tests.machines import free_ports, until
from tests.metrics import registered, secured

from nocturne.core import topics
from nocturne.core.commands import Opening, encode_signed_command
from nocturne.deploy.contributions import PARTITIONS
from nocturne.embedded import ports
from nocturne.embedded.services import VALIDATORS_DEFAULT, services_of
from nocturne.runtime.lifecycle import STOP_SECONDS_MAX
from nocturne.runtime.tracing import HEADER, trace_id_of
from nocturne.wire.command.v1 import command_pb2
from nocturne.wire.query.v1 import query_pb2

SERVICES = services_of(VALIDATORS_DEFAULT)
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SEED = 20261126
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
PATH = {"command.submit", "consensus.certify", "signing.sign", "projection.apply"}
PARTS = {
    "command.submit": {"command.publish", "command.wait"},
    "consensus.certify": {"consensus.execute", "consensus.journal", "consensus.publish"},
    "signing.sign": {
        "signing.record",
        "signing.signatures",
        "signing.queue",
        "signing.publish",
    },
    "projection.apply": {"projection.gather", "projection.transaction"},
}
ALL = PATH.union(*PARTS.values())
SERVICE_OF = {name: f"nocturne-{name.split('.')[0]}" for name in ALL}


@dataclass
class Traced:
    """A ledger whose services send their spans to a collector at `port`, running or not."""

    running: Running
    port: int
    author: Author

    async def submit(self, session: str, traceparent: str | None, opening: bool = True) -> int:
        """One command; its height."""
        driver = self.running.driver()
        signed = self.author.command(session, opening=Opening("facts", 1) if opening else None)
        request = command_pb2.SubmitRequest(
            signed_command=encode_signed_command(signed),
            wait=command_pb2.LEVEL_SIGNED,
            deadline_ms=20_000,
        )
        metadata = [] if traceparent is None else [("traceparent", traceparent)]
        try:
            answer = await driver._submit.Submit(request, timeout=25, metadata=metadata)
            assert answer.outcome.decided
            await driver.wait_readable(answer.outcome.height)
            return int(answer.outcome.height)
        finally:
            await driver.close()

    def metrics(self, service: str) -> str:
        """What the service's /metrics says now."""
        with urllib.request.urlopen(f"http://{self.listen(service)}/metrics", timeout=10) as got:
            return str(got.read(), "utf-8")

    def sample(self, service: str, name: str) -> float:
        """Of a sample by its exact name and labels."""
        lines = self.metrics(service).splitlines()
        return float(next(one for one in lines if one.startswith(name)).split()[-1])

    def listen(self, service: str) -> str:
        """Where it answers probes and Prometheus."""
        known = ports.load(self.running.home.ports)
        return f"127.0.0.1:{known[f'{service}-metrics']}"


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    port = free_ports("collector")["collector"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOCTURNE_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        patch.setenv("NOCTURNE_TRACE_RATIO", "1")
        for running in ledger_started(tmp_path_factory.mktemp("traced") / "home"):
            author = Author(running.ledger_id, random.Random(SEED))
            yield Traced(running, port, author)


def by_name(spans: list[Seen]) -> dict[str, Seen]:
    """One of each; every validator has its own of the block, and here is the one of the first."""
    certified = sorted(
        (one for one in spans if one.name == "consensus.certify"), key=lambda one: one.ended
    )
    assert len(certified) <= VALIDATORS_DEFAULT
    others = {one.span_id for one in certified[1:]}
    spans = [one for one in spans if not others & {one.span_id, one.parent_id}]
    found = {one.name: one for one in spans}
    assert len(found) == len(spans), f"one of each: {sorted(one.name for one in spans)}"
    return found


def check_tree(spans: list[Seen], parent_of_submit: str) -> None:
    """Every service's spans hang under the command's, in the order of the path."""
    found = by_name(spans)
    assert set(found) == ALL
    submit = found["command.submit"]
    assert submit.parent_id == parent_of_submit
    for name, parts in PARTS.items():
        whole = found[name]
        assert whole.service == SERVICE_OF[name]
        if name != "command.submit":
            assert whole.parent_id == submit.span_id, name
        for part in parts:
            assert found[part].parent_id == whole.span_id, part
            assert found[part].service == SERVICE_OF[name]
            assert whole.began <= found[part].began <= found[part].ended <= whole.ended, part
    certify, sign, apply = (
        found[name] for name in ("consensus.certify", "signing.sign", "projection.apply")
    )
    # Signing and the projection read a block side by side; what is committed was published signed.
    assert submit.began <= certify.began <= min(sign.began, apply.began)
    assert found["signing.publish"].began <= apply.ended
    heights = {one.attributes["nocturne.height"] for one in (submit, certify, sign, apply)}
    assert len(heights) == 1
    assert submit.attributes["nocturne.outcome"] == "events"
    assert submit.attributes["nocturne.level"] == "signed"


def test_a_command_is_one_trace_under_its_callers_from_admission_to_the_read_model(
    traced: Traced,
) -> None:
    with collecting(traced.port) as (collector, _):
        asyncio.run(traced.submit("traces/1", f"00-{TRACE_ID}-{CALLER}-01"))
        check_tree(collector.wait_for(TRACE_ID, ALL), CALLER)
        check_topics(traced, collector)
        check_own_trace(traced, collector)
        check_unsampled(traced, collector)
        check_query(traced, collector)


def check_topics(traced: Traced, collector: Collector) -> None:
    """What consumers find beside the event is the command service's own span, unchanged."""
    submit = by_name(collector.spans(TRACE_ID))["command.submit"]
    for topic in (topics.COMMANDS, topics.EVENTS):
        (carried,) = traceparents(traced, topic, b"traces/1")
        assert trace_id_of(carried) == TRACE_ID
        assert carried.split(b"-")[2].decode() == submit.span_id


def traceparents(traced: Traced, topic: str, key: bytes) -> list[bytes]:
    """Of each record of a session."""
    place = TopicPartition(topic, topics.partition_of(key, PARTITIONS), 0)
    consumer = Consumer(
        {
            "bootstrap.servers": traced.running.bootstrap,
            "group.id": "traces",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([place])
    found = []
    try:
        while (message := consumer.poll(20)) is not None and message.error() is None:
            if message.key() == key:
                found += [value for name, value in message.headers() or () if name == HEADER]
    finally:
        consumer.close()
    return found


def check_own_trace(traced: Traced, collector: Collector) -> None:
    """Without a caller's trace one begins here, for the ratio is 1."""
    before = {one.trace_id for one in collector.spans()}
    asyncio.run(traced.submit("traces/2", None))
    until(
        lambda: {one.name for one in collector.spans() if one.trace_id not in before} >= ALL,
        20,
        "the whole trace of a command that came without one",
    )
    own = [
        one
        for one in collector.spans()
        if one.name == "command.submit" and one.trace_id not in before
    ]
    assert [one.attributes["nocturne.session"] for one in own] == ["traces/2"], own
    check_tree(collector.spans(own[0].trace_id), "")


def check_unsampled(traced: Traced, collector: Collector) -> None:
    """A caller that does not record its trace gets no spans."""
    other = "5" + TRACE_ID[1:]
    asyncio.run(traced.submit("traces/3", f"00-{other}-{CALLER}-00"))
    # One after it is recorded, so whatever there was of the other has come too.
    third = "6" + TRACE_ID[1:]
    asyncio.run(traced.submit("traces/3", f"00-{third}-{CALLER}-01", opening=False))
    collector.wait_for(third, ALL)
    assert collector.spans(other) == []


def check_query(traced: Traced, collector: Collector) -> None:
    """A question is a span under its caller's, and its end is told."""
    asked = "7" + TRACE_ID[1:]

    async def ask() -> None:
        driver = traced.running.driver()
        request = query_pb2.GetSessionRequest(session_id="traces/1")
        metadata = [("traceparent", f"00-{asked}-{CALLER}-01")]
        await driver.query.GetSession(request, timeout=20, metadata=metadata)
        await driver.close()

    asyncio.run(ask())
    (span,) = collector.wait_for(asked, {"query.GetSession"})
    assert (span.service, span.parent_id) == ("nocturne-query", CALLER)
    assert span.attributes["rpc.grpc.status"] == "OK"


def test_with_the_collector_away_the_ledger_works_and_what_is_lost_is_counted(
    traced: Traced,
) -> None:
    height = asyncio.run(traced.submit("traces/4", f"00-{TRACE_ID}-{CALLER}-01"))
    for number in range(20):
        after = asyncio.run(traced.submit(f"traces/5/{number}", f"00-{TRACE_ID}-{CALLER}-01"))
        assert after > height
    told = "traces_not_taken"
    log = traced.running.home.log("command")
    until(lambda: told in log.read_text(), 30, "the command service says that nobody takes them")
    for service in SERVICES:
        for cause in ("queue", "export", "batch"):
            component = service.component
            name = (
                f'nocturne_process_spans_dropped_total{{cause="{cause}",component="{component}"}}'
            )
            assert traced.sample(service.name, name) == 0.0


def test_a_running_service_has_the_metrics_that_the_document_has(traced: Traced) -> None:
    documented = registered()
    for service in SERVICES:
        component = service.component
        families = re.findall(r"^# TYPE (nocturne_\w+) ", traced.metrics(service.name), re.M)
        # Without TLS: what belongs to it is not there.
        expected = {one.name for one in (*documented[component], *documented["process"])}
        expected -= {one.name for one in secured(component)}
        # Each family has a second one with the times at which its series began.
        found = {one for one in families if not one.endswith("_created")}
        assert found == expected, service.name


def test_every_service_answers_its_probes(traced: Traced) -> None:
    for service in SERVICES:
        listen = traced.listen(service.name)
        for what in ("ready", "live"):
            done = subprocess.run(
                [sys.executable, "-m", "nocturne.runtime.probe", what],
                env={**os.environ, "NOCTURNE_METRICS_LISTEN": listen},
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert (done.returncode, done.stdout) == (0, f"{what}: yes\n"), service.name
        with urllib.request.urlopen(f"http://{listen}/readyz", timeout=10) as answer:
            assert json.load(answer) == {"ready": True}


@pytest.mark.long
def test_each_service_that_is_told_to_stop_ends_within_its_bound_and_comes_back(
    traced: Traced,
) -> None:
    """The collector is away: what waits for it holds nobody up."""
    for service in SERVICES:
        before = traced.running.status.service(service.name)
        assert before.pid is not None
        process = psutil.Process(before.pid)
        started = time.monotonic()
        os.kill(before.pid, signal.SIGTERM)
        process.wait(STOP_SECONDS_MAX + 2)
        assert time.monotonic() - started < STOP_SECONDS_MAX + 2, service.name
        until(
            lambda name=service.name, pid=before.pid: _is_back(traced, name, pid),
            60,
            f"{service.name} is back",
        )
    asyncio.run(traced.submit("traces/6", None))


def _is_back(traced: Traced, name: str, pid: int) -> bool:
    now = traced.running.status.service(name)
    return now.pid not in (None, pid) and traced.running.status.ready
