"""Imports of real histories while services, the broker and the import itself are killed: exact.

`NOCTURNE_SEED` replays one run's dice. The files are not part of the repository: `data_files`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.data_files import data_file
from tests.e2e.conftest import Running, started
from tests.integration.test_cli import NOCTURNE

from nocturne.client import Client
from nocturne.embedded.services import services_of
from nocturne.embedded.status import Health, ServiceStatus

VALIDATORS = 1
"""The quorum is not the matter here."""
SEED = int(os.environ.get("NOCTURNE_SEED", secrets.randbelow(2**32)))
SERVICES = (
    *(service.name for service in services_of(VALIDATORS) if service.kafka),
    "kafka",
)
IMPORT_KILLS = 2
"""How often the import itself is killed before one may run to its end."""
RECOVERY_SECONDS_MAX = 90.0
IMPORT_SECONDS_MAX = 600.0
POSITIONS = 20

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A fresh ledger for each test: a supervisor gives up a process that dies too often."""
    yield from started(tmp_path_factory.mktemp("killed") / "home", VALIDATORS)


def test_every_case_of_an_event_log_is_a_session_with_its_events_in_order(
    running: Running,
) -> None:
    file = data_file("permit_process.xes.gz")
    told = imported_under_kills(running, "xes", file)
    assert told["sessions"] == 1434
    assert told["skipped"] > 0
    assert told["imported"] + told["skipped"] == 8577
    expected = cases(file)
    found = asyncio.run(sessions_of(running, "xes/permit_process/"))
    assert len(found) == 1434
    assert sum(map(len, found.values())) == 8577
    assert found.keys() == expected.keys()
    for session, events in expected.items():
        assert [payload["attributes"] for payload in found[session]] == events
    again = finished(run_import(running, "xes", file))
    assert (again["imported"], again["skipped"], again["sessions"]) == (0, 8577, 1434)


def test_a_text_that_two_people_wrote_is_the_same_at_every_step(running: Running) -> None:
    file = data_file("collaborative_text.json.gz")
    told = imported_under_kills(running, "text", file)
    assert (told["sessions"], told["endMatches"]) == (1, True)
    written = json.loads(gzip.decompress(file.read_bytes()))
    dice = random.Random(SEED)
    count = len(written["txns"])
    assert told["imported"] + told["skipped"] == count
    positions = sorted({*dice.sample(range(1, count), POSITIONS), count})
    expected = replayed(written, positions)
    assert expected[count] == written["endContent"]
    found = asyncio.run(states_of(running, "text/collaborative_text", positions))
    assert found == {at: {"text": text, "skipped": 0} for at, text in expected.items()}


# What is expected, read independently -----------------------------------------------------------


def cases(file: Path) -> dict[str, list[Any]]:
    """The events' attributes of every case, by its session."""
    root = ElementTree.fromstring(gzip.decompress(file.read_bytes()))
    space = root.tag.removesuffix("log")
    found: dict[str, list[Any]] = {}
    for trace in root.iter(f"{space}trace"):
        name = trace.find(f"{space}string[@key='concept:name']")
        assert name is not None
        events = [attributes(event, space) for event in trace.findall(f"{space}event")]
        assert found.setdefault(f"xes/permit_process/{name.attrib['value']}", events) is events
    return found


def attributes(element: ElementTree.Element, space: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in element:
        value: dict[str, Any] = {one.tag.removeprefix(space): one.attrib["value"]}
        if len(one):
            value["attributes"] = attributes(one, space)
        found[one.attrib["key"]] = value
    return found


def replayed(written: Any, positions: list[int]) -> dict[int, str]:
    """The text after so many transactions, letter by letter."""
    letters = list(written["startContent"])
    assert not letters
    found: dict[int, str] = {}
    for number, transaction in enumerate(written["txns"], start=1):
        for at, deleted, inserted in transaction["patches"]:
            letters[at : at + deleted] = list(inserted)
        if number in positions:
            found[number] = "".join(letters)
    return found


# What the ledger holds --------------------------------------------------------------------------


def client_of(running: Running) -> Client:
    status = running.status
    return Client(status.address("command"), status.address("query"), genesis=running.genesis_bytes)


async def sessions_of(running: Running, prefix: str) -> dict[str, list[Any]]:
    """The payloads of all sessions, each event checked by the SDK."""
    found: dict[str, list[Any]] = {}
    async with client_of(running) as client:
        async for session in client.sessions(prefix):
            async with aclosing(client.events(session.session)) as events:
                found[session.session] = [json.loads(e.payload.data) async for e in events]
    return found


async def states_of(running: Running, session: str, positions: list[int]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    async with client_of(running) as client:
        for at in positions:
            state = await client.state(session, at)
            assert state is not None
            assert state.sequence == at
            found[at] = state.value
    return found


async def events_there(running: Running) -> int:
    async with client_of(running) as client:
        return (await client.status()).events


# Killing ----------------------------------------------------------------------------------------


def run_import(running: Running, kind: str, file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [NOCTURNE, "import", kind, str(file), "--json", "--deadline", "300"],
        env={**os.environ, "NOCTURNE_HOME": str(running.home.root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=IMPORT_SECONDS_MAX)
    assert process.returncode == 0, err
    return json.loads(out)


def imported_under_kills(running: Running, kind: str, file: Path) -> Any:
    """Import `file`; kill the import some times, and services the whole time. What it told."""
    print(f"NOCTURNE_SEED={SEED}")
    dice = random.Random(SEED)
    victims = dice.sample(SERVICES, len(SERVICES))
    killed = 0
    deadline = time.monotonic() + IMPORT_SECONDS_MAX
    for _ in range(IMPORT_KILLS):
        before = asyncio.run(events_there(running))
        process = run_import(running, kind, file)
        while process.poll() is None and asyncio.run(events_there(running)) == before:
            assert time.monotonic() < deadline, "the import wrote nothing"
            time.sleep(0.05)
        wait_for_end(process, dice.uniform(0.0, 1.0))
        assert process.poll() is None, "the import was over before it was killed"
        process.kill()
        process.communicate()
    process = run_import(running, kind, file)
    try:
        while process.poll() is None and killed < len(victims):
            assert time.monotonic() < deadline, "the import did not end"
            wait_for_end(process, dice.uniform(0.3, 2.0))
            if process.poll() is None:
                kill(running, victims[killed])
                killed += 1
        told = finished(process)
    finally:
        if process.poll() is None:
            process.kill()
    print(f"{kind}: {killed} services killed of {victims}: {told}")
    assert killed > 0, "the import was over before anything was killed: nothing was tested"
    for name in SERVICES:
        healthy(running, name)
    return told


def wait_for_end(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait for the import, at most so long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def kill(running: Running, name: str) -> None:
    """kill -9, and wait until the supervisor has it back: the others may suffer meanwhile."""
    victim = healthy(running, name)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    while True:
        now = running.status.service(name)
        if now.pid not in (None, victim.pid) and now.health is Health.HEALTHY:
            return
        assert now.health is not Health.GIVEN_UP, f"{name} was given up"
        assert time.monotonic() < deadline, f"{name} did not come back: {running.home.log(name)}"
        time.sleep(0.05)


def healthy(running: Running, name: str) -> ServiceStatus:
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    while True:
        now = running.status.service(name)
        if now.pid is not None and now.health is Health.HEALTHY:
            return now
        assert time.monotonic() < deadline, f"{name} did not become healthy"
        time.sleep(0.05)
