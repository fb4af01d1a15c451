"""What every test may use: one real broker and one real database a session, on loopback.

Both are started only if a test asks for them. Integration tests run in one process (`make test`
runs them with `-p no:xdist`), so that there is one of each.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nocturne.embedded import downloads, kafka, ports, postgres
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import Server
from nocturne.embedded.processes import Process, launched
from nocturne.embedded.services import kafka_process, postgres_process

START_SECONDS_MAX = 60.0


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker with no topics: connect to `kafka_broker.bootstrap`, make topics of your own names
    or call `nocturne.embedded.topics.ensure(kafka_broker.bootstrap, partitions)`."""
    broker = make_broker(tmp_path_factory.mktemp("kafka"))
    kafka.prepare(broker)
    with started(kafka_process(broker), broker.folder / "log"):
        yield broker


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the database `nocturne` and its three roles: `postgres_server.dsn(role)`."""
    server = make_server(tmp_path_factory.mktemp("postgres"))
    postgres.prepare(server)
    with started(postgres_process(server), server.passwords / "log"):
        postgres.ensure_roles(server)
        yield server


def make_broker(folder: Path) -> Broker:
    free = free_ports("kafka", "controller")
    classpath = downloads.ensure_kafka(downloads.cache_folder(os.environ))
    return Broker(folder, free["kafka"], free["controller"], classpath, kafka.java())


def make_server(folder: Path) -> Server:
    return Server(folder / "data", free_ports("postgres")["postgres"], folder / "passwords")


def free_ports(*names: str) -> dict[str, int]:
    dice = random.SystemRandom()
    usual = {name: dice.choice(ports.SPARE_PORTS) for name in names}
    return ports.choose(usual, {}, {}, ports.is_free, dice)


class started:  # noqa: N801 - reads as a verb: `with started(process, log):`
    """Run one process for the length of a block; it is healthy on entry and gone on exit."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self.log = log

    def __enter__(self) -> subprocess.Popen[bytes]:
        process = self.process
        with self.log.open("ab") as output:
            self.running = subprocess.Popen(
                launched(process.argv, process.user, process.orphan_signal),
                env=dict(process.environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until(
            lambda: process.healthy() or self.running.poll() is not None,
            START_SECONDS_MAX,
            f"{process.name} is healthy",
        )
        assert self.running.poll() is None, self.log.read_text()
        return self.running

    def __exit__(self, *_: object) -> None:
        if self.running.poll() is None:
            self.running.send_signal(self.process.stop_signal)
            try:
                self.running.wait(self.process.stop_seconds_max)
            except subprocess.TimeoutExpired:
                self.running.send_signal(signal.SIGKILL)
                self.running.wait()


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition; AssertionError names it when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
