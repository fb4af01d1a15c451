"""Imports on a real ledger: the guide's lines, and its library."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_cli import ROOT, Here

from nocturne.core.keys import Ed25519Signer
from nocturne.embedded import status as statuses
from nocturne.embedded.home import Home
from nocturne.imports import Brought

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

GUIDE = ROOT / "docs" / "guides" / "importing.md"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A running ledger, and this repository as the folder to run lines in."""
    here = Here(ROOT, tmp_path_factory.mktemp("imports") / "home")
    done = here.shell("nocturne up --detach")
    assert done.returncode == 0, done.stderr
    yield here
    assert here.shell("nocturne down").returncode == 0


def blocks(language: str) -> list[tuple[str, str]]:
    """(exit code that is said or none, text) of each of the guide's blocks."""
    found = re.compile(rf"^```{language}(?: exit=(\d))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return found.findall(GUIDE.read_text())


def test_every_line_of_the_guide_does_what_it_says(here: Here) -> None:
    lines = [(line, int(code or 0)) for code, block in blocks("sh") for line in block.splitlines()]
    assert len(lines) >= 6
    for line, code in lines:
        done = here.shell(line)
        assert done.returncode == code, (line, done.stdout, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr


def test_the_guides_program_imports_as_a_library(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((_, program),) = blocks("python")
    named: dict[str, Any] = {}
    exec(compile(program, str(GUIDE), "exec"), named)
    monkeypatch.chdir(ROOT)
    found = statuses.read(Home(here.home).status)
    genesis = (here.home / "genesis.avro").read_bytes()
    signer = Ed25519Signer(bytes(range(32)))
    for imported, skipped in ((3, 0), (0, 3)):
        log, rows = asyncio.run(
            named["bring"](found.address("command"), found.address("query"), genesis, signer)
        )
        assert log == Brought(imported, skipped, 2)
        assert rows == Brought(imported, skipped, 2)
    assert [e["payload"]["item"] for e in here.json("events", "17")] == ["tea, green", ""]
    assert Path(GUIDE).exists()
