"""The commands topic of a running ledger is deleted and made anew: nothing is certified of it until
the operators open the next log epoch, and then everything goes on, provable as before.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from tests.e2e.conftest import Running, started
from tests.e2e.driver import Author
from tests.machines import until

from nocturne.audit.verify import verify_export
from nocturne.core import topics
from nocturne.core.commands import Opening, SignedCommand
from nocturne.core.identifiers import LEDGER_SESSION, format_hash
from nocturne.deploy import topics as topics_job
from nocturne.runtime.cluster import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

MODULE = Path(__file__).resolve().parents[2] / "clients" / "verifier-go"
SESSIONS = tuple(f"lost/{number}" for number in range(6))
SECONDS_MAX = 180.0


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A ledger of four validators."""
    yield from started(tmp_path_factory.mktemp("four") / "home", validators=4)


def told(running: Running, *arguments: str, code: int = 0) -> Any:
    """What a `nocturne` command says with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "nocturne.cli", *arguments, "--json", "--home", running.home.root],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def lose_log(running: Running) -> None:
    """The commands topic is deleted, and a new one made as the ledger's own job makes it."""
    cluster = Cluster(running.bootstrap)
    admin = AdminClient({"bootstrap.servers": running.bootstrap, "log_level": 0})
    partitions = len(admin.list_topics(topics.COMMANDS).topics[topics.COMMANDS].partitions)
    admin.delete_topics([topics.COMMANDS])[topics.COMMANDS].result(10)

    def made() -> bool:
        # A topic that is being deleted cannot be made yet.
        try:
            return bool(topics_job.ensure(cluster, topics_job.plan(partitions)))
        except Exception:
            return False

    until(made, 60, "the topic is made anew")


def stand(running: Running) -> bool:
    """Whether every validator says that its intake stands."""
    seen = told(running, "validators")["validators"]
    return all("its intake stands" in (one.get("roleCause") or "") for one in seen)


async def submitted(running: Running, commands: list[SignedCommand]) -> set[int]:
    """Every command's outcome is known; the log epochs that they stand in."""
    driver = running.driver()
    answers = [await driver.submit_until_decided(one, SECONDS_MAX) for one in commands]
    assert all(one.events for one in answers)
    await driver.wait_readable(max(one.height for one in answers))
    await driver.close()
    return {one.position[0] for one in answers}


async def exported(running: Running) -> dict[str, bytes]:
    driver = running.driver()
    found = {name: await driver.export(name) for name in (*SESSIONS, LEDGER_SESSION)}
    await driver.close()
    return found


def test_a_recreated_commands_topic_is_left_for_a_new_log_epoch_and_all_exports_verify(
    four: Running, tmp_path: Path
) -> None:
    author = Author(four.ledger_id, random.Random(7))
    early = [author.command(one, opening=Opening("facts", 1)) for one in SESSIONS]
    early += [author.command(one) for one in SESSIONS * 2]
    assert asyncio.run(submitted(four, early)) == {1}
    height = told(four, "log", "show")["height"]

    lose_log(four)
    until(lambda: stand(four), SECONDS_MAX, "every validator says why it takes no records")
    shown = told(four, "log", "show")
    assert shown["cause"]
    moved = [one for one in shown["partitions"] if one["nextOffset"]]
    assert moved
    assert {one["lost"] for one in moved} == {"another topic"}
    assert shown["height"] == height, "nothing of the new topic is certified"
    assert "rewritten log at 4 of 4" in told(four, "validators")["degraded"]

    assert told(four, "log", "open", "--yes")["height"] == height + len(moved)
    # Commands that were decided are sent again, and are what they were; new ones are new.
    assert asyncio.run(submitted(four, early)) <= {1, 2}
    late = [author.command(one) for one in SESSIONS * 2]
    assert asyncio.run(submitted(four, late)) == {2}
    shown = told(four, "log", "show")
    assert shown["cause"] is None
    assert not any(one["lost"] for one in shown["partitions"])
    assert told(four, "validators")["degraded"] is None

    exports = asyncio.run(exported(four))
    trust = format_hash(four.ledger_id)
    for name, data in exports.items():
        verdict = verify_export(data.splitlines(keepends=True), four.ledger_id)
        assert verdict.fault is None, (name, verdict)
    for name in SESSIONS:
        epochs = {int(line.split(b'"logEpoch":')[1][:1]) for line in exports[name].splitlines()
                  if b'"logEpoch":' in line}  # fmt: skip
        assert epochs == {1, 2}, name
    if shutil.which("go") is None:
        return
    program = tmp_path / "nocturne-verify"
    subprocess.run(
        ["go", "build", "-o", program, "./cmd/nocturne-verify"], cwd=MODULE, check=True, timeout=240
    )
    for name, data in exports.items():
        file = tmp_path / "export"
        file.write_bytes(data)
        done = subprocess.run(
            [program, "--trust", trust, file],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
