"""The second verifier, which shares no code with this one, accepts a running ledger's exports."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.e2e.conftest import Running
from tests.e2e.driver import Author

from nocturne.core.commands import Opening
from nocturne.core.identifiers import LEDGER_SESSION, format_hash

MODULE = Path(__file__).resolve().parents[2] / "clients" / "verifier-go"
VALIDATORS = 1
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        shutil.which("go") is None,
        reason="needs Go 1.22 or later: install requirements/go.lock, or Go itself",
    ),
]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built."""
    program = tmp_path_factory.mktemp("go") / "nocturne-verify"
    subprocess.run(
        ["go", "build", "-o", str(program), "./cmd/nocturne-verify"],
        cwd=MODULE,
        check=True,
        timeout=240,
    )
    return program


def _exports(running: Running) -> dict[str, bytes]:
    """A session with events of several commands and receipts, and the ledger's own."""

    async def scenario() -> dict[str, bytes]:
        driver = running.driver()
        author = Author(running.ledger_id, random.Random(4))
        await driver.submit(
            author.command("go/1", (b"{}", b'{"n":1.5}'), opening=Opening("facts", 1))
        )
        for number in range(20):
            await driver.submit(author.command("go/1", (b'{"n":%d}' % number,)))
        await driver.submit(author.command("go/1", expected=3))
        stranger = Author(running.ledger_id, random.Random(5))
        await driver.submit(stranger.command("go/1"))
        last = await driver.submit(stranger.command("~go", opening=Opening("facts", 1)))
        await driver.wait_readable(last.height)
        found = {name: await driver.export(name) for name in ("go/1", LEDGER_SESSION)}
        await driver.close()
        return found

    return asyncio.run(scenario())


def test_the_go_verifier_accepts_real_exports_and_refuses_them_altered(
    running: Running, verifier: Path, tmp_path: Path
) -> None:
    trust = format_hash(running.ledger_id)
    dice = random.Random(6)
    for name, export in _exports(running).items():
        file = tmp_path / "export"
        file.write_bytes(export)
        done = _verify(verifier, "--trust", trust, str(file))
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        assert _verify(verifier, "--trust", format_hash(bytes(32)), str(file)).returncode == 1
        assert _verify(verifier, str(file)).returncode == 1, "without trust nothing is proved"
        for _ in range(25):
            place = dice.randrange(len(export))
            altered = bytearray(export)
            altered[place] ^= 1 << dice.randrange(8)
            file.write_bytes(altered)
            refused = _verify(verifier, "--trust", trust, str(file))
            assert refused.returncode == 1, f"{name}: byte {place} may be altered unnoticed"


def _verify(verifier: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(verifier), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
