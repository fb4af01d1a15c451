"""`make bench`: start a ledger in a temporary home, load it, write bench/results/latest.json.

Metrics: docs/guides/benchmarks.md. Medians over several runs; every run is in the file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc.aio

from bench import load, machine, plot
from nocturne.core.certificates import quorum
from nocturne.core.genesis import ledger_id_of
from nocturne.core.identifiers import LedgerId
from nocturne.embedded import up
from nocturne.embedded.status import Health, Status, validators_in
from nocturne.wire.command.v1 import command_pb2
from nocturne.wire.query.v1 import query_pb2, query_pb2_grpc

RESULTS = Path(__file__).parent / "results"
READABLE_SECONDS_MAX = 120.0
SETTLE_SECONDS = 2.0
"""After the last command, before a ledger counts as idle."""
BACK_SECONDS_MAX = 60.0
Metrics = dict[str, dict[str, object]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the whole stack on this machine.")
    parser.add_argument("--runs", type=int, default=3, help="runs of each phase")
    parser.add_argument("--seconds", type=float, default=15.0, help="seconds of each phase")
    parser.add_argument("--sessions", type=int, default=200, help="sessions written in turn")
    parser.add_argument("--rate", type=float, default=6000.0, help="offered rate of saturation")
    parser.add_argument("--validators", type=int, help="as many as usual, if not given")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nocturne-bench-"))
    began = time.perf_counter()
    try:
        status = up.up(folder / "home", detach=True, validators=arguments.validators)
        ready_s = time.perf_counter() - began
        try:
            metrics = asyncio.run(_measure(folder / "home", status, arguments))
        finally:
            up.down(folder / "home")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    curves = metrics.pop("curves")
    metrics["up.ready"] = {"value": round(ready_s, 2), "unit": "s", "runs": [round(ready_s, 2)]}
    _write(
        arguments.results, metrics, {str(name): _floats(values) for name, values in curves.items()}
    )
    return 0


def _floats(values: object) -> list[float]:
    assert isinstance(values, list)
    return [float(value) for value in values]


async def _measure(home: Path, status: Status, arguments: argparse.Namespace) -> Metrics:
    ledger_id = ledger_id_of((home / "genesis.avro").read_bytes())
    bench = _Bench(home, ledger_id, status, arguments)
    await bench.run()
    return bench.metrics()


class _Bench:
    """The phases, and the figures of their runs."""

    def __init__(
        self, home: Path, ledger_id: LedgerId, status: Status, arguments: argparse.Namespace
    ) -> None:
        self._home = home
        self._ledger_id = ledger_id
        self._status = status
        self._validators = validators_in(status)
        self._n = f"n{len(self._validators)}"
        self._arguments = arguments
        self._runs: dict[str, tuple[str, list[float]]] = {}
        self._curves: dict[str, list[float]] = {}

    async def run(self) -> None:
        """Warm-up; then light load, saturation and half of it, each several times; then no load at
        all, and light load while a validator is killed.
        """
        await self._phase("warm-up", 500, 5.0, command_pb2.LEVEL_SIGNED)
        for number in range(self._arguments.runs):
            light = await self._phase(
                f"light-{number}", 50, self._arguments.seconds, command_pb2.LEVEL_CERTIFIED
            )
            self._latency(f"latency.{self._n}.light", light)
            rate = await self._saturate(number)
            half = await self._phase(
                f"half-{number}", rate / 2, self._arguments.seconds, command_pb2.LEVEL_CERTIFIED
            )
            self._latency(f"latency.{self._n}.half", half)
        used = machine.usage(self._pids())
        total = sum(one.pss_bytes for one in used.values())
        self._add(f"memory.{self._n}.pss", "MB", total / 1e6)
        for name, one in used.items():
            self._add(f"memory.{self._n}.{name}", "MB", one.pss_bytes / 1e6)
        await self._idle()
        if quorum(len(self._validators)) < len(self._validators):
            for number in range(self._arguments.runs):
                await self._kill(number)

    async def _idle(self) -> None:
        """What the processes cost while nobody asks for anything, in percent of one core."""
        await asyncio.sleep(SETTLE_SECONDS)
        before, began = machine.usage(self._pids()), time.perf_counter()
        await asyncio.sleep(self._arguments.seconds)
        after, elapsed = machine.usage(self._pids()), time.perf_counter() - began
        used = {name: (one.cpu_s - before[name].cpu_s) / elapsed for name, one in after.items()}
        together = sum(used[name] for name in self._validators)
        self._add(f"idle.{self._n}.validators", "% of a core", 100 * together)
        for name, share in used.items():
            self._add(f"idle.{self._n}.{name}", "% of a core", 100 * share)

    async def _kill(self, number: int) -> None:
        """The slowest command while one validator, another one each time, is killed under light
        load: it leads every n-th view until it is back.
        """
        victim = self._validators[number % len(self._validators)]

        async def kill() -> None:
            await asyncio.sleep(self._arguments.seconds / 2)
            os.kill(self._pids()[victim], signal.SIGKILL)

        killing = asyncio.create_task(kill())
        measured = await self._phase(
            f"killed-{number}", 50, self._arguments.seconds, command_pb2.LEVEL_CERTIFIED
        )
        await killing
        self._add(f"killed.{self._n}.slowest", "ms", measured.percentile_ms(100))
        deadline = time.perf_counter() + BACK_SECONDS_MAX
        before = self._pids()[victim]
        while True:
            self._status = up.status(self._home)
            now = self._status.service(victim)
            if now.pid not in (None, before) and now.health is Health.HEALTHY:
                return
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{victim} did not come back")
            await asyncio.sleep(0.1)

    async def _saturate(self, number: int) -> float:
        """Events a second from the first command sent until the last event is readable."""
        before = machine.usage(self._pids())
        events_before = await self._readable_events()
        measured = await self._phase(
            f"full-{number}",
            self._arguments.rate,
            self._arguments.seconds,
            command_pb2.LEVEL_SIGNED,
        )
        deadline = time.perf_counter() + READABLE_SECONDS_MAX
        while await self._readable_events() < events_before + measured.offered:
            if time.perf_counter() > deadline:
                raise TimeoutError("the last event did not become readable")
            await asyncio.sleep(0.02)
        elapsed = time.perf_counter() - measured.started_at
        rate = measured.offered / elapsed
        self._add(f"throughput.{self._n}.single", "events/s", rate)
        after = machine.usage(self._pids())
        for name, one in after.items():
            cpu_us = (one.cpu_s - before[name].cpu_s) * 1e6 / measured.offered
            self._add(f"cpu_us_per_event.{self._n}.{name}", "us", cpu_us)
        print(f"  saturated at {rate:,.0f} events/s until readable", flush=True)
        return rate

    async def _phase(
        self, name: str, rate: float, seconds: float, level: command_pb2.Level.ValueType
    ) -> load.Measured:
        commands = load.Commands(
            self._ledger_id, self._arguments.sessions, 200, f"{name}-{time.time_ns()}"
        )
        measured = await load.offer(self._status.address("command"), commands, rate, seconds, level)
        if measured.refused:
            raise RuntimeError(f"{name}: {measured.refused} commands did not become events")
        print(
            f"{name}: {measured.decided} commands offered at {rate:,.0f}/s, "
            f"p50 {measured.percentile_ms(50):.1f} ms, p99 {measured.percentile_ms(99):.1f} ms",
            flush=True,
        )
        return measured

    async def _readable_events(self) -> int:
        async with grpc.aio.insecure_channel(self._status.address("query")) as channel:
            stub = query_pb2_grpc.QueryServiceStub(channel)
            answer = await stub.GetStatus(query_pb2.GetStatusRequest(), timeout=10)
            return int(answer.events)

    def _pids(self) -> dict[str, int]:
        return {one.name: one.pid for one in self._status.services if one.pid is not None}

    def _latency(self, name: str, measured: load.Measured) -> None:
        for percentile in (50, 99):
            self._add(f"{name}.p{percentile}", "ms", measured.percentile_ms(percentile))
        self._curves[name] = [measured.percentile_ms(one) for one in plot.PERCENTILES]

    def _add(self, name: str, unit: str, value: float) -> None:
        self._runs.setdefault(name, (unit, []))[1].append(round(value, 3))

    def metrics(self) -> Metrics:
        """Median and runs of every figure; under `curves` what is drawn."""
        found: Metrics = {
            name: {"value": round(statistics.median(runs), 3), "unit": unit, "runs": runs}
            for name, (unit, runs) in sorted(self._runs.items())
        }
        found["curves"] = dict(self._curves)
        return found


def _write(folder: Path, metrics: Metrics, curves: dict[str, list[float]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    result = {"commit": machine.commit(), "machine": machine.describe(), "metrics": metrics}
    (folder / "latest.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "latency.svg").write_text(plot.latency_svg(curves))
    for name, metric in metrics.items():
        print(f"{name:44} {metric['value']:>12} {metric['unit']}")
    print(f"written: {folder / 'latest.json'}, {folder / 'latency.svg'}")


if __name__ == "__main__":
    sys.exit(main())
