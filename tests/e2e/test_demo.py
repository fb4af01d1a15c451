"""The demonstration, as `make demo` runs it but smaller: it holds, it shows, it leaves nothing."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nocturne.embedded import up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

SECONDS_MAX = 200.0
ARGUMENTS = [sys.executable, "-m", "nocturne.embedded.demo", "--commands", "300"]
ATTACKS = (
    "A changed row",
    "A forged command",
    "A forged block",
    "A forged seal",
    "A forged event",
    "A forged receipt",
    "A withheld receipt",
    "A flipped byte",
    "A wrong key",
    "A self-made ledger",
    "64 racing writers",
    "An overdraft",
    "A revoked key",
    "A curious operator",
    "A killed validator",
    "A lying validator",
)


def _environment(folder: Path, **more: str) -> dict[str, str]:
    """Temporary homes go into `folder`, where what is left can be seen."""
    return {**os.environ, "TMPDIR": str(folder), "KEEP": "", **more}


def _left(folder: Path) -> list[str]:
    """Command lines of processes that work on a home in `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line:
            found.append(line)
    return found


def test_the_demonstration_holds_and_leaves_a_report_and_nothing_else(tmp_path: Path) -> None:
    places = tmp_path / "temporary"
    places.mkdir()
    done = subprocess.run(
        ARGUMENTS,
        cwd=tmp_path,
        env=_environment(places),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert "\x1b" not in said
    lines = said.splitlines()
    for attack in ATTACKS:
        assert len([line for line in lines if re.match(rf"  ✓ {attack}\b.*caught by ", line)]) == 1
    page = (tmp_path / "demo" / "report.html").read_text("utf-8")
    assert f"All {len(ATTACKS)} attacks were caught" in page
    assert page.count("✓ caught") == len(ATTACKS)
    assert list(places.iterdir()) == []
    assert _left(places) == []


def test_kept_it_runs_on_and_the_commands_it_names_work(tmp_path: Path) -> None:
    places = tmp_path / "temporary"
    places.mkdir()
    done = subprocess.run(
        [*ARGUMENTS, "--report", str(tmp_path / "page.html")],
        cwd=tmp_path,
        env=_environment(places, KEEP="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (home,) = places.glob("nocturne-demo-*")
    try:
        told = done.stdout.split("It still runs")[1]
        lines = [line.strip().split("    #")[0] for line in told.splitlines()[1:] if line.strip()]
        assert [shlex.split(line)[1] for line in lines] == ["events", "export", "verify", "down"]
        for line in lines:
            next_one = subprocess.run(
                shlex.split(line),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert next_one.returncode == 0, line + next_one.stdout + next_one.stderr
    finally:
        up.down(home)
    assert _left(places) == []


@pytest.mark.parametrize("moment", ["  Nocturne", "    home"])
def test_interrupted_it_stops_everything(tmp_path: Path, moment: str) -> None:
    """At the very beginning, while processes start; and in the middle of the business case."""
    places = tmp_path / "temporary"
    places.mkdir()
    running = subprocess.Popen(
        [*ARGUMENTS, "--commands", "5000"],
        cwd=tmp_path,
        env=_environment(places, PYTHONUNBUFFERED="1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    try:
        for line in running.stdout:
            if line.startswith(moment):
                break
        running.send_signal(signal.SIGINT)
        rest, _ = running.communicate(timeout=90)
    finally:
        running.kill()
    assert running.returncode == 130, rest
    assert "interrupted" in rest
    assert list(places.iterdir()) == []
    assert _left(places) == []
