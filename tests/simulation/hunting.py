"""Plant a bug in a copy of the package, and run the unit tests that hunt it there.

The work tree stays as it is, so that bugs are hunted side by side and nothing is left of a run that
is killed. A test that fails catches the bug; a run that cannot even begin to test is `Broken`, and
so is one whose tests fail without any bug.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.simulation.edits import SOURCES, edited
from tests.simulation.nursery import Answer, Asked
from tests.simulation.production_bugs import HuntedBug

ROOT: Final = Path(__file__).parents[2]
TEST_SECONDS_MAX: Final = 60
"""Of one test: a bug may be that something never ends."""
RUN_SECONDS_MAX: Final = 600
EXAMPLES_DIVISOR: Final = "4"
"""Of each property, as `make check` tries them; from one seed, so that a verdict stands."""

_PASSED: Final = 0
_FAILED: Final = 1


class Broken(Exception):  # noqa: N818
    """The tests could not be run, or fail without the bug."""


@dataclass(frozen=True, slots=True)
class Hunted:
    """What failed first, None when every test passed; and the seconds of a processor."""

    failed: str | None
    seconds: float


def copied(folder: Path) -> Path:
    """The package in a folder of its own. With what is compiled of it: times are kept."""
    shutil.copytree(SOURCES, folder / "nocturne")
    return folder


def check_tests(clean: Path, bugs: Sequence[HuntedBug]) -> None:
    """`Broken` unless the tests that hunt these bugs pass in a copy without any."""
    tests = sorted({test for bug in bugs for test in bug.tests})
    if not tests:
        return
    found = _run(clean, tests)
    if found.failed is not None:
        raise Broken(f"without any bug: {found.failed}")


def hunt(job: tuple[HuntedBug, Path]) -> Hunted:
    """Plant the bug in a copy of the clean copy."""
    bug, clean = job
    with tempfile.TemporaryDirectory(prefix="nocturne-planted-") as name:
        folder = Path(name)
        shutil.copytree(clean / "nocturne", folder / "nocturne")
        for file in {edit.file for edit in bug.edits}:
            (folder / "nocturne" / file).write_text(edited(file, bug.edits))
        try:
            return _run(folder, bug.tests)
        except Broken as fault:
            raise Broken(f"{bug.name}: {fault}") from None


def _run(folder: Path, tests: Sequence[str]) -> Hunted:
    environment = {
        "NOCTURNE_EXAMPLES_DIVISOR": EXAMPLES_DIVISOR,
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
        "COLUMNS": "400",
    }
    options = ["-x", "-q", "--tb=no", "-rf", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # What the fork has imported already asserts nothing here.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options += ["--hypothesis-seed=0", f"--timeout={TEST_SECONDS_MAX}"]
    output = folder / "output"
    asked = Asked(str(folder), [*options, *tests], environment, str(output), float(RUN_SECONDS_MAX))
    answer = _ask(asked)
    text = output.read_text(errors="replace") if output.exists() else ""
    failed = [line for line in text.splitlines() if line.startswith("FAILED ")]
    if answer.code == _FAILED and failed:
        return Hunted(failed[0].partition("::")[2], answer.seconds)
    if answer.code == _PASSED:
        return Hunted(None, answer.seconds)
    raise Broken(f"exit code {answer.code} of its tests:\n{text}")


def _ask(asked: Asked) -> Answer:
    nursery = _nursery()
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write(json.dumps(asdict(asked)) + "\n")
    nursery.stdin.flush()
    line = nursery.stdout.readline()
    if not line:
        raise Broken("the process that runs the tests has ended")
    return Answer(**json.loads(line))


@cache
def _nursery() -> subprocess.Popen[str]:
    """One for each process that hunts, with which it ends: its input does."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation.nursery"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
