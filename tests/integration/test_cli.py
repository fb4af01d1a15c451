"""The command line on a real ledger: the guide's lines, imports cut anywhere, and bad days."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.e2e.console_blocks import command_lines
from tests.unit.imports.repositories import Repository, line_of

from nocturne.embedded import ports, postgres
from nocturne.embedded.home import Home
from nocturne.embedded.postgres import Server
from nocturne.embedded.services import VALIDATORS_DEFAULT, services_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "cli.md"
REBUILD = ROOT / "docs" / "runbooks" / "rebuild.md"
NOCTURNE = Path(sys.executable).with_name("nocturne")
COMMITS = 5000
KILLS = 6
IMPORT_SECONDS_MAX = 60


@dataclass(frozen=True)
class Here:
    """A folder to run command lines in, and the home they use."""

    folder: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        path = f"{NOCTURNE.parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "NOCTURNE_HOME": str(self.home), "PATH": path}

    def shell(self, line: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run one line as a person would."""
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def json(self, *arguments: str, code: int = 0) -> list[Any]:
        """The objects that a command prints, one a line."""
        done = subprocess.run(
            [NOCTURNE, *arguments, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, (arguments, done.stdout[-500:], done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that goes on for a while."""
        return subprocess.Popen(
            [NOCTURNE, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A running ledger in a home of its own."""
    folder = tmp_path_factory.mktemp("cli")
    here = Here(folder, folder / "home")
    done = here.shell("nocturne up --detach")
    assert done.returncode == 0, done.stderr
    yield here
    assert here.shell("nocturne down").returncode == 0


def guide_lines() -> list[tuple[str, int]]:
    """Every command line of the guide and the exit code it says."""
    lines: list[tuple[str, int]] = []
    blocks = re.compile(r"^```sh(?: exit=(\d))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for code, block in blocks.findall(GUIDE.read_text()):
        lines += [(line, int(code or 0)) for line in block.splitlines()]
    return lines


def test_every_line_of_the_guide_does_what_it_says(tmp_path: Path) -> None:
    lines = guide_lines()
    assert len(lines) > 20
    clone = tmp_path / "clone"
    done = Here(tmp_path, tmp_path).shell(f"git clone -q {ROOT} {clone}")
    if done.returncode != 0:
        Repository(clone).make(line_of(20))
    here = Here(clone, tmp_path / "home")
    try:
        for line, code in lines:
            done = here.shell(line)
            assert done.returncode == code, (line, done.stdout, done.stderr)
            assert "Traceback" not in done.stdout + done.stderr
    finally:
        here.shell("nocturne down")


def test_every_line_of_the_runbook_of_rebuilds_does_what_it_says(here: Here) -> None:
    here.json("submit", "rebuilt/1", "Ordered", '{"n":1}')
    lines = command_lines(REBUILD.read_text())
    assert [line.exit_code for line in lines] == [0, 1, 0]
    home = Home(here.home)
    port = ports.load(home.ports)["postgres"]
    server = Server(home.postgres / "data", port, home.keys("postgres"))
    for line in lines:
        if line.exit_code != 0:
            with psycopg.connect(server.dsn(postgres.OWNER)) as owner:
                owner.execute(
                    "UPDATE nocturne_v1.sessions SET kind = 'document' WHERE session = 'rebuilt/1'"
                )
        done = here.shell(line.text)
        assert done.returncode == line.exit_code, (line, done.stdout, done.stderr)
        if line.exit_code != 0:
            assert "sessions: 1 altered (session=rebuilt/1: kind)" in done.stderr
    (event,) = here.json("events", "rebuilt/1")
    assert event["payload"] == {"n": 1}
    here.json("submit", "rebuilt/1", "Paid", "{}", "--expect", "1")
    assert len(here.json("events", "rebuilt/1")) == 2
    (told,) = here.json("rebuild")
    assert (told["outcome"], told["equal"], told["kept"]) == ("swapped", True, None)


def test_what_is_submitted_is_there_at_once_for_every_way_to_read(here: Here) -> None:
    for number in range(1, 6):
        (told,) = here.json("submit", "at/once", "Counted", json.dumps({"n": number}))
        assert told["level"] == "signed"
        assert told["events"][0]["sequenceNumber"] == number
        events = here.json("events", "at/once")
        assert [event["payload"]["n"] for event in events] == list(range(1, number + 1))
        assert events[-1]["eventHash"] == told["events"][0]["eventHash"]
    (state,) = here.json("state", "at/once", "--at", "3")
    assert state["state"]["facts"] == 3
    assert "at/once" in {session["sessionId"] for session in here.json("sessions")}


def test_a_refusal_has_its_receipt_in_the_answer_and_in_the_list(here: Here) -> None:
    here.json("submit", "refused/1", "Ordered", "{}")
    (told,) = here.json("submit", "refused/1", "Paid", "{}", "--expect", "5", code=1)
    assert told["receipt"]["detail"] == "DUPLICATE_SEQ"
    (listed,) = here.json("receipts", "refused/1")
    assert listed == told["receipt"]


def test_repeating_by_id_tells_the_first_outcome(here: Here) -> None:
    (told,) = here.json("submit", "again/1", "Ordered", "{}")
    (again,) = here.json("submit", "again/1", "Ordered", "{}", "--id", told["commandId"])
    assert again["events"] == told["events"]
    assert again["repeated"] is True
    assert len(here.json("events", "again/1")) == 1


def test_a_deadline_ends_with_3_and_the_outcome_is_told_later(here: Here) -> None:
    here.json("submit", "late/1", "Ordered", "{}")
    (status,) = here.json("status")
    validators = [one["pid"] for one in status["services"] if one["name"].startswith("consensus-")]
    for pid in validators:
        os.kill(pid, signal.SIGSTOP)
    try:
        done = here.shell("nocturne submit late/1 Paid '{}' --deadline 1")
    finally:
        for pid in validators:
            os.kill(pid, signal.SIGCONT)
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert "The deadline of 1 s came at level accepted, before signed" in done.stderr
    found = re.search(r"--id (\S+),", done.stderr)
    assert found is not None
    (told,) = here.json("submit", "late/1", "Paid", "{}", "--id", found[1])
    assert told["events"][0]["sequenceNumber"] == 2
    assert len(here.json("events", "late/1")) == 2


def test_following_shows_what_comes_and_ends_with_ctrl_c(here: Here) -> None:
    here.json("submit", "live/1", "Said", '{"n":1}')
    following = here.start("events", "live/1", "--follow", "--json")
    assert following.stdout is not None
    seen = [json.loads(following.stdout.readline())["sequenceNumber"]]
    for number in (2, 3):
        here.json("submit", "live/1", "Said", json.dumps({"n": number}))
        seen.append(json.loads(following.stdout.readline())["sequenceNumber"])
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=20)
    assert (seen, following.returncode, err) == ([1, 2, 3], 0, "")


def test_status_names_every_process_with_its_lag(here: Here) -> None:
    here.json("submit", "status/1", "Ordered", "{}")
    (told,) = here.json("status")
    services = {service["name"]: service for service in told["services"]}
    expected = {service.name for service in services_of(VALIDATORS_DEFAULT)}
    assert set(services) == {"kafka", "postgres", *expected}
    assert all(service["health"] == "healthy" for service in services.values())
    assert services["consensus-0"]["lag"] == 0
    assert told["levels"]["signed"] == "reached"
    assert told["levels"]["logged"] == "not configured"
    assert told["events"] > 0


def test_an_import_killed_anywhere_gives_exactly_one_event_a_commit(
    here: Here, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    repository = Repository(tmp_path / "project.git")
    made = repository.make(line_of(COMMITS))
    killed = 0
    for _ in range(KILLS):
        running = here.start("import", "git", str(repository.folder))
        try:
            running.communicate(timeout=dice.uniform(0.5, 2.0))
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
            killed += 1
    assert killed > 0
    began = time.monotonic()
    (told,) = here.json("import", "git", str(repository.folder))
    assert time.monotonic() - began < IMPORT_SECONDS_MAX
    assert told["imported"] + told["skipped"] == COMMITS
    events = here.json("events", "git/project/main")
    assert [event["payload"]["commit"] for event in events] == made
    (again,) = here.json("import", "git", str(repository.folder))
    assert (again["imported"], again["skipped"]) == (0, COMMITS)


def test_two_imports_at_once_write_every_commit_once(here: Here, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "twice.git")
    made = repository.make(line_of(600))
    both = [here.start("import", "git", str(repository.folder), "--json") for _ in range(2)]
    told = []
    for running in both:
        out, err = running.communicate(timeout=IMPORT_SECONDS_MAX)
        assert running.returncode == 0, err
        told.append(json.loads(out))
    events = here.json("events", "git/twice/main")
    assert [event["payload"]["commit"] for event in events] == made
    assert sum(one["imported"] for one in told) == 600


def test_an_export_verifies_by_id_by_file_and_by_home(here: Here) -> None:
    here.json("submit", "export/1", "Ordered", "{}")
    here.json("submit", "export/1", "Paid", "{}", "--expect", "9", code=1)
    here.json("export", "export/1", str(here.folder / "export"))
    (status,) = here.json("status")
    file = str(here.folder / "export")
    for trust in ([], ["--trust", status["ledgerId"]], ["--trust", f"{here.home}/genesis.avro"]):
        (verdict,) = here.json("verify", file, *trust)
        assert (verdict["events"], verdict["receipts"], verdict["holds"]) == (1, 1, True)
    (elsewhere,) = here.json("verify", file, "--home", str(here.folder / "none"), code=1)
    assert elsewhere["fault"] is None


@pytest.mark.parametrize(
    "line, code, sentence",
    [
        ("nocturne sessions --home /nonexistent/home", 3, "nocturne up --detach"),
        ("nocturne status --home /nonexistent/home", 3, "nocturne up --detach"),
        ("nocturne events nobody", 1, "There is no session nobody"),
        ("nocturne submit a Ordered nonsense", 2, "PAYLOAD is not JSON"),
        ("nocturne submit a Ordered '{}' --wait anchored", 2, "--wait takes accepted"),
        ("nocturne up --detach", 3, "in use by process"),
    ],
)
def test_a_bad_day_is_one_sentence(here: Here, line: str, code: int, sentence: str) -> None:
    done = here.shell(line)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_payload_larger_than_the_ledger_takes_is_refused_in_words(here: Here) -> None:
    file = here.folder / "large.json"
    file.write_text(json.dumps("x" * 300_000))
    done = here.shell(f"nocturne submit large/1 Ordered @{file}")
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "TOO_LARGE" in done.stdout
