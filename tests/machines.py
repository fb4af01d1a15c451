"""Real processes for integration tests: a broker, a database, any supervised process.

`with started(process, log):` runs one; `until(condition, seconds, what)` waits for a condition.
"""

import atexit
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from nocturne.embedded import downloads, kafka, ports, reservations
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import Server
from nocturne.embedded.processes import Process, launched

START_SECONDS_MAX = 180.0
# Kept while the tests run: neither a ledger nor another worker's tests take them in between.
RESERVED = reservations.Reservations()
atexit.register(RESERVED.close)


def make_broker(folder: Path) -> Broker:
    free = free_ports("kafka", "controller")
    classpath = downloads.ensure_kafka(downloads.cache_folder(os.environ))
    return Broker(folder, free["kafka"], free["controller"], classpath, kafka.java())


def make_server(folder: Path) -> Server:
    return Server(folder / "data", free_ports("postgres")["postgres"], folder / "passwords")


def free_ports(*names: str) -> dict[str, int]:
    dice = random.SystemRandom()
    usual = {name: dice.choice(ports.SPARE_PORTS) for name in names}
    return ports.choose(usual, {}, {}, RESERVED.take, dice)


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
