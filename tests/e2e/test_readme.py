"""The README's commands do what it says, in its order, in a folder like a fresh clone."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.console_blocks import CommandLine, command_lines

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SECONDS_MAX = 240.0
# What a run makes in the clone; everything else is the clone's own.
MADE = {"demo", "build"}


class Clone:
    """A folder that looks like this repository, and the environment of somebody's shell in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "nocturne"
        self.home = folder / "home"
        self.folder.mkdir()
        for entry in ROOT.iterdir():
            if entry.name not in MADE:
                (self.folder / entry.name).symlink_to(entry)
        self._after = folder / "environment"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
            "NOCTURNE_HOME": str(self.home),
        }
        if not (self.folder / ".git").exists():
            self.run(
                "git init -q . && git add Makefile && git -c user.name=A -c user.email=a@b "
                "commit -q -m 'As it was unpacked'"
            )

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """One line as typed; what it exports is there for the next one."""
        done = subprocess.run(
            ["bash", "-c", f"{line}\ncode=$?; env -0 >'{self._after}'; exit $code"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        entries = self._after.read_text().rstrip("\0").split("\0")
        self.environment = dict(entry.split("=", 1) for entry in entries)
        return done


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    made = Clone(tmp_path_factory.mktemp("clone"))
    try:
        yield made
    finally:
        made.run(f"'{ROOT}/.venv/bin/nocturne' down")


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_every_command_of_the_readme_does_what_it_says(clone: Clone) -> None:
    said: dict[str, str] = {}
    for line in command_lines(README):
        if line.text == "make test":
            # This test is a part of it: that the target is there has to do.
            line = CommandLine("make -n test", line.number, 0)
        done = clone.run(line.text)
        told = f"README.md:{line.number}: {line.text}\n{done.stdout}{done.stderr}"
        assert done.returncode == line.exit_code, told
        assert "Traceback" not in done.stderr, told
        said[line.text] = done.stdout + done.stderr
    assert "attacks were caught" in said["make demo"]
    assert (clone.folder / "demo" / "report.html").stat().st_size > 10_000
    assert "verified: 2 events and 1 receipt of orders/1" in said["nocturne verify order.jsonl"]
    changed = next(text for line, text in said.items() if "changed.jsonl" in line)
    assert re.search(r"event 1: its payload is not the one its author signed", changed), changed


def test_the_readme_names_files_that_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [name for name in targets if not (ROOT / name).exists()] == []


def test_the_readme_says_its_two_commands_first() -> None:
    assert [line.text for line in command_lines(README)][:2] == ["make demo", "make test"]


def test_commands_are_read_from_console_blocks_alone() -> None:
    text = "$ not this\n```console exit=3\n$ one two\noutput\n```\n```json\n{}\n```\n"
    assert command_lines(text) == [CommandLine("one two", 3, 3)]


@pytest.mark.parametrize(
    "text",
    ["```sh\nls\n```\n", "```\n$ ls\n```\n", "```console\n$ ls\n", "```console fast\n$ ls\n```\n"],
)
def test_a_command_that_no_test_would_run_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line \d|does not end"):
        command_lines(text)
