"""How a process ends: stopped, failed, wrongly set up, or halted until a person has looked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.machines import free_ports, until

from nocturne.core.errors import Halt, Unavailable
from nocturne.runtime import lifecycle as lifecycle_module
from nocturne.runtime import vitals as vitals_module
from nocturne.runtime.lifecycle import (
    EXIT_FAILED,
    EXIT_HALTED,
    EXIT_OK,
    EXIT_SETTINGS,
    HALTED_FILE,
    Lifecycle,
    run,
)
from nocturne.runtime.rpc import serve
from nocturne.runtime.settings import KafkaSettings, read_settings

NAMES = ("HOME_DIR", "GENESIS_FILE", "LISTEN", "KAFKA_BOOTSTRAP", "METRICS_LISTEN", "LOG_LEVEL")


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NAMES:
        monkeypatch.delenv(f"NOCTURNE_{name}", raising=False)
    monkeypatch.setenv("NOCTURNE_HOME_DIR", str(tmp_path))
    # The name of the test process stays its own.
    monkeypatch.setattr(lifecycle_module, "setproctitle", lambda _: None)


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_main_that_returns_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    async def main(lifecycle: Lifecycle) -> None:
        assert lifecycle.name == "test"

    assert run("test", main) == EXIT_OK
    lines = logged(capsys)
    assert [line["event"] for line in lines] == ["starting", "stopped"]
    assert {line["service"] for line in lines} == {"test"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_says_stopping(number: signal.Signals) -> None:
    ended: list[str] = []

    async def main(lifecycle: Lifecycle) -> None:
        os.kill(os.getpid(), number)
        await lifecycle.stopping.wait()
        ended.append("well")

    assert run("test", main) == EXIT_OK
    assert ended == ["well"]


def test_a_main_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle_module, "STOP_SECONDS_MAX", 0.05)

    async def main(lifecycle: Lifecycle) -> None:
        lifecycle.stopping.set()
        await asyncio.Event().wait()

    assert run("test", main) == EXIT_OK


@pytest.mark.parametrize("error", [RuntimeError("bug"), Unavailable("broker away")])
def test_an_error_fails(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    async def main(_: Lifecycle) -> None:
        raise error

    assert run("test", main) == EXIT_FAILED
    assert str(error) in json.dumps(logged(capsys)[-1])


def test_a_halt_stays_until_a_person_has_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starts: list[int] = []

    async def main(_: Lifecycle) -> None:
        starts.append(1)
        raise Halt("two blocks at height 7")

    assert run("test", main) == EXIT_HALTED
    assert (tmp_path / HALTED_FILE).read_text() == "two blocks at height 7\n"
    assert run("test", main) == EXIT_HALTED
    assert logged(capsys)[-1]["cause"] == "two blocks at height 7"
    assert starts == [1]
    (tmp_path / HALTED_FILE).unlink()
    assert run("test", main) == EXIT_HALTED
    assert starts == [1, 1]


def test_a_halt_within_a_group_of_errors_is_found(tmp_path: Path) -> None:
    async def main(_: Lifecycle) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    async def fail() -> None:
        raise Halt("contradiction")

    assert run("test", main) == EXIT_HALTED
    assert (tmp_path / HALTED_FILE).exists()


def test_missing_settings_are_named_one_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOCTURNE_LISTEN", "nowhere")

    async def main(_: Lifecycle) -> None:
        read_settings(KafkaSettings)

    assert run("test", main) == EXIT_SETTINGS
    said = capsys.readouterr().err
    for name in ("NOCTURNE_GENESIS_FILE", "NOCTURNE_KAFKA_BOOTSTRAP", "NOCTURNE_LISTEN"):
        assert f"nocturne-test: {name}: " in said


def test_a_wrong_log_level_is_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOCTURNE_LOG_LEVEL", "loud")

    async def main(_: Lifecycle) -> None:
        raise AssertionError("not reached")

    assert run("test", main) == EXIT_SETTINGS
    assert "NOCTURNE_LOG_LEVEL" in capsys.readouterr().err


def test_settings_are_frozen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (
        ("GENESIS_FILE", str(tmp_path / "genesis")),
        ("LISTEN", "127.0.0.1:0"),
        ("KAFKA_BOOTSTRAP", "127.0.0.1:9092"),
    ):
        monkeypatch.setenv(f"NOCTURNE_{name}", value)
    found = read_settings(KafkaSettings)
    assert found.listen == "127.0.0.1:0"
    assert found.registry_url is None
    with pytest.raises(ValueError, match="frozen"):
        found.listen = "other:1"


def test_metrics_are_served_while_the_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_ports("metrics")["metrics"]
    monkeypatch.setenv("NOCTURNE_METRICS_LISTEN", f"127.0.0.1:{port}")

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read(), "utf-8")

    async def main(lifecycle: Lifecycle) -> None:
        lifecycle.metrics.counter("things", "Things counted").inc(3)
        lifecycle.metrics.histogram("work_seconds", "Work").observe(0.03)
        text = await asyncio.to_thread(read)
        assert "nocturne_finality_anchor_things_total 3.0" in text
        assert 'nocturne_finality_anchor_work_seconds_bucket{le="0.04"} 1.0' in text
        assert "process_resident_memory_bytes" in text
        assert 'nocturne_process_ready{component="finality-anchor"} 0.0' in text
        assert 'nocturne_process_halted{component="finality-anchor"} 0.0' in text

    assert run("finality-anchor", main) == EXIT_OK


# Probes ----------------------------------------------------------------------------------------


def asked(port: int, path: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def test_readyz_is_what_grpc_health_says_and_false_from_the_signal_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_ports("metrics")["metrics"]
    monkeypatch.setenv("NOCTURNE_METRICS_LISTEN", f"127.0.0.1:{port}")

    async def main(lifecycle: Lifecycle) -> None:
        server = await serve("127.0.0.1:0", vitals=lifecycle.vitals)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)

            async def both() -> tuple[bool, bool]:
                answer = await health.Check(health_pb2.HealthCheckRequest())
                status, told = await asyncio.to_thread(asked, port, "/readyz")
                assert (status == 200) == told["ready"]
                return answer.status == health_pb2.HealthCheckResponse.SERVING, status == 200

            assert await both() == (False, False)
            await server.set_serving(True)
            assert await both() == (True, True)
            await server.set_serving(False, "no broker answers")
            assert await both() == (False, False)
            await server.set_serving(True)
            os.kill(os.getpid(), signal.SIGTERM)
            await lifecycle.stopping.wait()
            # Told to stop, it is not ready again, even if its service still says so.
            await server.set_serving(True)
            assert await both() == (False, False)
            assert asked(port, "/readyz")[1] == {"ready": False, "why": "stopping"}
            assert asked(port, "/livez") == (200, {"live": True})
        await server.stop(0)

    assert run("test", main) == EXIT_OK


def test_livez_is_false_while_the_event_loop_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_ports("metrics")["metrics"]
    monkeypatch.setenv("NOCTURNE_METRICS_LISTEN", f"127.0.0.1:{port}")
    monkeypatch.setattr(vitals_module, "TURN_SECONDS_MAX", 0.2)
    monkeypatch.setattr(lifecycle_module, "TURN_SECONDS", 0.02)

    async def main(_: Lifecycle) -> None:
        await asyncio.sleep(0.1)
        assert asked(port, "/livez")[0] == 200
        # Nothing else is done in this turn until the probe has seen it.
        until(lambda: asked(port, "/livez")[0] == 503, 5, "the stuck loop is seen")

    assert run("test", main) == EXIT_OK


def test_a_halted_process_that_stays_answers_until_it_is_told_to_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = free_ports("metrics")["metrics"]
    monkeypatch.setenv("NOCTURNE_METRICS_LISTEN", f"127.0.0.1:{port}")
    monkeypatch.setenv("NOCTURNE_ON_HALT", "stay")
    found: list[tuple[int, dict[str, object]]] = []

    def look_and_stop() -> None:
        def is_halted() -> bool:
            try:
                found[:] = [asked(port, "/readyz"), asked(port, "/livez")]
            except OSError:
                return False
            return "halted" in str(found[0][1].get("why"))

        until(is_halted, 10, "it says that it halted")
        os.kill(os.getpid(), signal.SIGTERM)

    async def main(_: Lifecycle) -> None:
        raise Halt("two blocks at height 7")

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    # Twice: as it halts, and started again with the file there.
    for _ in range(2):
        looking = threading.Thread(target=look_and_stop)
        looking.start()
        assert run("test", main) == EXIT_HALTED
        looking.join()
        assert found[0] == (503, {"ready": False, "why": "halted: two blocks at height 7"})
        assert found[1] == (200, {"live": True})
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


# Parts -----------------------------------------------------------------------------------------


def with_lifecycle(test: Callable[[Lifecycle], object]) -> None:
    async def main(lifecycle: Lifecycle) -> None:
        await test(lifecycle)  # type: ignore[misc]

    assert run("test", main) == EXIT_OK


def test_parts_run_until_stopped_and_wind_down_before_they_are_cancelled() -> None:
    order: list[str] = []

    async def part(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append(f"{name} ended")

    async def stop(lifecycle: Lifecycle) -> None:
        await asyncio.sleep(0)
        lifecycle.stopping.set()

    async def wind_down() -> None:
        order.append("winding down")

    async def test(lifecycle: Lifecycle) -> None:
        await lifecycle.until_stopped(
            part("first"), part("second"), stop(lifecycle), wind_down=wind_down
        )
        order.append("over")

    with_lifecycle(test)
    assert order[0] == "winding down"
    assert sorted(order[1:3]) == ["first ended", "second ended"]
    assert order[3] == "over"


def test_a_part_that_fails_ends_the_others_and_its_error_comes_out() -> None:
    ended: list[str] = []

    async def lasting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("lasting")

    async def failing() -> None:
        raise Unavailable("gone")

    async def test(lifecycle: Lifecycle) -> None:
        with pytest.raises(Unavailable, match="gone"):
            await lifecycle.until_stopped(lasting(), failing())

    with_lifecycle(test)
    assert ended == ["lasting"]


def test_when_every_part_is_done_it_returns() -> None:
    async def short() -> None:
        await asyncio.sleep(0)

    async def test(lifecycle: Lifecycle) -> None:
        await lifecycle.until_stopped(short(), short())

    with_lifecycle(test)
