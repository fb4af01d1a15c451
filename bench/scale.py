"""`python -m bench.scale`: one long session, then many; does anything get slower or larger?

Metrics: docs/guides/benchmarks.md. Latencies are compared with those of the same ledger while it
was small, memory by process: flat in events, linear in sessions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from bench import load, machine
from nocturne.core.genesis import ledger_id_of
from nocturne.core.identifiers import LedgerId
from nocturne.embedded import up
from nocturne.embedded.status import Status
from nocturne.wire.command.v1 import command_pb2
from nocturne.wire.query.v1 import query_pb2, query_pb2_grpc

RESULTS = Path(__file__).parent / "results"
FOUNDATION = frozenset({"kafka", "postgres"})
"""They size their memory by themselves; that of all others is ours to keep flat."""
RATE = 1500.0
LIGHT_RATE = 50.0
LIGHT_SECONDS = 6.0
READS = 50
SETTLE_SECONDS_MAX = 120.0
LIVE = "live"
LONG = "long"
MANY = "many"


@dataclass(slots=True)
class Found:
    """Latencies in ms by name, and bytes of memory by step and service."""

    latency_ms: dict[str, float] = field(default_factory=dict)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)

    def grown(self, before: str, after: str) -> dict[str, int]:
        """How much each service grew between two steps, in bytes."""
        return {
            name: size - self.memory[before][name]
            for name, size in self.memory[after].items()
            if name not in FOUNDATION
        }


class Scale:
    """A ledger that grows, looked at after each step."""

    def __init__(self, ledger_id: LedgerId, status: Status, light_seconds: float) -> None:
        self._ledger_id = ledger_id
        self._status = status
        self._light_seconds = light_seconds
        self.found = Found()

    async def run(self, events: int, sessions: int) -> Found:
        """Warm up; a session of `events`; a longer one, until what has a bound is full (the command
        service remembers 65 536 outcomes); one of `events` again; `sessions` more, looked at half
        way and at the end.
        """
        live = await self._live()
        await self._write(f"{LONG}-warm", 1, max(events // 10, 500))
        await self._look("small", live)
        await self._read("small", f"bench/{LONG}-warm/0", max(events // 10, 500))
        await self._write(LONG, 1, events)
        await self._look("events", live)
        await self._read("events", f"bench/{LONG}/0", events)
        await self._write(f"{LONG}-full", 1, events * 4 // 3)
        await self._look("full", live)
        await self._write(f"{LONG}-again", 1, events)
        await self._look("again", live)
        await self._write(f"{MANY}-1", sessions // 2, sessions // 2)
        await self._look("half", live)
        await self._write(f"{MANY}-2", sessions - sessions // 2, sessions - sessions // 2)
        await self._look("sessions", live)
        await self._read("sessions", f"bench/{LONG}/0", events)
        return self.found

    async def _live(self) -> load.Commands:
        commands = load.Commands(self._ledger_id, 20, 200, LIVE)
        await self._offer(commands, LIGHT_RATE, 2.0)
        return commands

    async def _write(self, name: str, sessions: int, commands: int) -> None:
        began = time.perf_counter()
        await self._offer(
            load.Commands(self._ledger_id, sessions, 200, name), RATE, commands / RATE
        )
        took = time.perf_counter() - began
        print(
            f"  {commands} commands into {sessions} sessions: {commands / took:,.0f}/s", flush=True
        )

    async def _offer(self, commands: load.Commands, rate: float, seconds: float) -> load.Measured:
        measured = await load.offer(
            self._status.address("command"), commands, rate, seconds, command_pb2.LEVEL_CERTIFIED
        )
        if measured.refused:
            raise RuntimeError(f"{measured.refused} commands did not become events")
        return measured

    async def _look(self, step: str, live: load.Commands) -> None:
        await self._settled()
        measured = await self._offer(live, LIGHT_RATE, self._light_seconds)
        for percentile in (50, 99):
            name = f"certified.{step}.p{percentile}"
            self.found.latency_ms[name] = round(measured.percentile_ms(percentile), 2)
        pids = {one.name: one.pid for one in self._status.services if one.pid is not None}
        used = machine.usage(pids)
        self.found.memory[step] = {name: one.pss_bytes for name, one in used.items()}

    async def _read(self, step: str, session: str, events: int) -> None:
        async with grpc.aio.insecure_channel(self._status.address("query")) as channel:
            stub = query_pb2_grpc.QueryServiceStub(channel)

            async def session_of() -> None:
                answer = await stub.GetSession(
                    query_pb2.GetSessionRequest(session_id=session), timeout=60
                )
                assert answer.session.sequence == events

            async def last_events() -> None:
                request = query_pb2.ListEventsRequest(
                    session_id=session, from_sequence=max(1, events - 9)
                )
                count = 0
                async for page in stub.ListEvents(request, timeout=60):
                    count += len(page.events)
                assert count == min(10, events), count

            async def state() -> None:
                await stub.GetState(query_pb2.GetStateRequest(session_id=session), timeout=60)

            for name, ask in (("session", session_of), ("events", last_events), ("state", state)):
                times = []
                for _ in range(READS):
                    began = time.perf_counter()
                    await ask()
                    times.append((time.perf_counter() - began) * 1000)
                self.found.latency_ms[f"read_{name}.{step}.p50"] = round(
                    statistics.median(times), 2
                )
                self.found.latency_ms[f"read_{name}.{step}.first"] = round(times[0], 2)

    async def _settled(self) -> None:
        """Until all that is certified is readable."""
        deadline = time.perf_counter() + SETTLE_SECONDS_MAX
        async with grpc.aio.insecure_channel(self._status.address("query")) as channel:
            stub = query_pb2_grpc.QueryServiceStub(channel)
            last = -1
            while time.perf_counter() < deadline:
                answer = await stub.GetStatus(query_pb2.GetStatusRequest(), timeout=10)
                if answer.events == last:
                    return
                last = answer.events
                await asyncio.sleep(1.0)
        raise TimeoutError("the read side did not settle")


def measure(
    home: Path,
    events: int,
    sessions: int,
    light_seconds: float = LIGHT_SECONDS,
    validators: int | None = None,
) -> Found:
    """Start a ledger in `home`, grow it, stop it."""
    status = up.up(home, detach=True, validators=validators)
    try:
        ledger_id = ledger_id_of((home / "genesis.avro").read_bytes())
        return asyncio.run(Scale(ledger_id, status, light_seconds).run(events, sessions))
    finally:
        up.down(home)


def metrics(found: Found, events: int, sessions: int) -> dict[str, dict[str, object]]:
    """What is written: latencies, and memory by event and by session."""
    made: dict[str, dict[str, object]] = {
        name: {"value": value, "unit": "ms", "runs": [value]}
        for name, value in found.latency_ms.items()
    }
    for unit, count, grown in (
        ("event", events, found.grown("full", "again")),
        ("session", sessions, found.grown("again", "sessions")),
    ):
        _add_memory(made, unit, count, grown)
    return made


def _add_memory(
    made: dict[str, dict[str, object]], unit: str, count: int, grown: Mapping[str, int]
) -> None:
    for name, size in grown.items():
        value = round(size / count, 1)
        made[f"memory_per_{unit}.{name}"] = {"value": value, "unit": "bytes", "runs": [value]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure a ledger as it grows.")
    parser.add_argument("--events", type=int, default=30_000, help="events of the long session")
    parser.add_argument("--sessions", type=int, default=20_000, help="sessions of the ledger")
    parser.add_argument("--validators", type=int, help="as many as usual, if not given")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nocturne-scale-"))
    try:
        found = measure(
            folder / "home",
            arguments.events,
            arguments.sessions,
            validators=arguments.validators,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    made = metrics(found, arguments.events, arguments.sessions)
    for name, metric in made.items():
        print(f"{name:44} {metric['value']:>12} {metric['unit']}")
    arguments.results.mkdir(parents=True, exist_ok=True)
    result = {"commit": machine.commit(), "machine": machine.describe(), "metrics": made}
    (arguments.results / "scale.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
