"""The supervisor with real, tiny processes: restarts, giving up, stopping, and no orphans."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.machines import free_ports, until

from nocturne.embedded import status
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import Home
from nocturne.embedded.processes import Process
from nocturne.embedded.readiness import Need, all_of
from nocturne.embedded.status import Health
from nocturne.embedded.supervisor import Supervisor

pytestmark = pytest.mark.integration

SERVER = """
import signal, socket, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
"""

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_supervisor import server
from nocturne.embedded.home import Home
from nocturne.embedded.readiness import Need, all_of
from nocturne.embedded.supervisor import Supervisor

async def main():
    supervisor = Supervisor(Home(Path(sys.argv[1])))
    supervisor.start(server("one", int(sys.argv[2])))
    await supervisor.until_healthy([all_of(["one"])], 20)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def server(name: str, port: int, manner: str = "polite") -> Process:
    return Process(
        name=name,
        argv=[sys.executable, "-c", SERVER, str(port), manner],
        environment=dict(os.environ),
        port=port,
        healthy=lambda: accepts(port),
        stop_seconds_max=1.0,
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    place = Home(tmp_path / "home")
    place.create()
    return place


@pytest.fixture
def port() -> int:
    return free_ports("one")["one"]


def told(home: Home, name: str) -> status.ServiceStatus:
    return status.read(home.status).service(name)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, timeout=30))


async def until_restarted(home: Home, name: str, restarts: int) -> int:
    """Wait until the process lives again; its pid."""

    def restarted() -> bool:
        found = told(home, name)
        return found.restarts >= restarts and found.health is Health.HEALTHY

    await asyncio.to_thread(until, restarted, 20, f"{name} lives again")
    pid = told(home, name).pid
    assert pid is not None
    return pid


def test_a_killed_process_is_started_again_with_another_pid(home: Home, port: int) -> None:
    async def scenario() -> None:
        supervisor = Supervisor(home)
        supervisor.start(server("one", port))
        await supervisor.until_healthy([all_of(["one"])], 20)
        first = told(home, "one").pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        second = await until_restarted(home, "one", 1)
        await supervisor.stop(last=())
        assert second != first
        assert told(home, "one").health is Health.STOPPED
        assert not accepts(port)

    run(scenario())
    assert b"ended with signal SIGKILL" in home.log("one").read_bytes()


def test_a_process_that_cannot_start_is_given_up_with_its_last_words(home: Home, port: int) -> None:
    broken = Process(
        name="broken",
        argv=[sys.executable, "-c", "raise SystemExit('no such table')"],
        environment=dict(os.environ),
        port=port,
        healthy=lambda: False,
    )

    async def scenario() -> None:
        supervisor = Supervisor(home)
        supervisor.start(broken)
        with pytest.raises(EmbeddedError, match="broken was given up") as caught:
            await supervisor.until_healthy([all_of(["broken"])], 20)
        await supervisor.stop(last=())
        assert "no such table" in caught.value.details

    run(scenario())
    assert "broken was given up" in (status.read(home.status).error or "")


def test_enough_of_many_are_ready_without_one_that_was_given_up(home: Home, port: int) -> None:
    ended = [sys.executable, "-c", "raise SystemExit('halted')"]
    halted = Process(
        "halted", ended, dict(os.environ), 0, lambda: False, final_exits={1: "it halted"}
    )

    async def scenario() -> None:
        supervisor = Supervisor(home)
        supervisor.start(server("one", port))
        supervisor.start(halted)
        await supervisor.until_healthy([Need(("one", "halted"), 1)], 20)
        supervisor.set_ready()
        gone = lambda: told(home, "halted").health is Health.GIVEN_UP  # noqa: E731
        await asyncio.to_thread(until, gone, 20, "halted is given up")
        assert status.read(home.status).ready
        assert "halted was given up (it halted)" in (status.read(home.status).error or "")
        with pytest.raises(EmbeddedError, match="halted was given up"):
            await supervisor.until_healthy([all_of(["halted"])], 20)
        supervisor.tell()
        assert not status.read(home.status).ready
        await supervisor.stop(last=())

    run(scenario())


def test_a_process_that_does_not_answer_in_time_is_said(home: Home, port: int) -> None:
    silent = Process("silent", ["sleep", "60"], dict(os.environ), port, healthy=lambda: False)

    async def scenario() -> None:
        supervisor = Supervisor(home)
        supervisor.start(silent)
        with pytest.raises(EmbeddedError, match="silent did not answer within 0 s"):
            await supervisor.until_healthy([all_of(["silent"])], 0.3)
        await supervisor.stop(last=())

    run(scenario())


def test_a_process_that_will_not_stop_is_killed_within_its_bound(home: Home, port: int) -> None:
    async def scenario() -> None:
        supervisor = Supervisor(home)
        supervisor.start(server("one", port, "stubborn"))
        await supervisor.until_healthy([all_of(["one"])], 20)
        started = time.monotonic()
        await supervisor.stop(last=())
        assert 1.0 <= time.monotonic() - started < 5.0

    run(scenario())
    assert not accepts(port)


def test_a_failed_job_is_said_with_its_last_words(home: Home) -> None:
    async def scenario() -> None:
        job = [sys.executable, "-c", "raise SystemExit('migration 3 failed')"]
        with pytest.raises(EmbeddedError, match="migrations failed with exit code 1") as caught:
            await Supervisor(home).run_once("migrations", job, dict(os.environ))
        assert caught.value.details == ("migration 3 failed",)

    run(scenario())


def test_nothing_is_orphaned_when_the_supervisor_is_killed(home: Home, port: int) -> None:
    root = str(Path(__file__).resolve().parent.parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(home.root), str(port)],
        env={**os.environ, "PYTHONPATH": root},
    ) as supervisor:
        until(lambda: accepts(port), 20, "the process is up")
        supervisor.kill()
        supervisor.wait()
    until(lambda: not accepts(port), 5, "the process died with its supervisor")
