"""A session kind of another package, in a clean environment: founded with, used, and missed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.console_blocks import CommandLine, command_lines
from tests.e2e.wheels import (
    ROOT,
    SECONDS_MAX,
    UV,
    build_wheel,
    clean_environment,
    fresh_environment,
)

from nocturne.core.genesis import decode_genesis
from nocturne.core.kinds import code_hash

GUIDE = ROOT / "docs/guides/kinds.md"
EXAMPLE = ROOT / "examples/kind-inventory"
MODULE = "nocturne_kind_inventory.py"
MOVE = '{"from":"ann","to":"shop","amount":6}'
ORDER = '{"order":"b","side":"buy","price":3,"quantity":2}'
RIVER, HILLS = (hashlib.sha256(one).hexdigest() for one in (b"river", b"hills"))
BUILT_IN = {
    """submit bank/1 Opened '{"account":"ann"}' --kind accounts""": 0,
    """submit bank/1 Issued '{"account":"ann","amount":5}'""": 0,
    """submit bank/1 Opened '{"account":"shop"}' --as shop""": 1,
    """submit bank/1 Opened '{"account":"shop"}'""": 0,
    f"""submit bank/1 Transferred '{MOVE}'""": 1,
    f"""submit book/1 OrderPlaced '{ORDER}' --kind orderbook""": 0,
    """submit routes/1 Proposed '{"candidate":"river","utility":4}' --kind proposals""": 0,
    """submit routes/1 Proposed '{"candidate":"hills","utility":9}'""": 0,
    f"""submit routes/1 Chosen '{{"candidate":"sha256-{RIVER}"}}'""": 1,
    f"""submit routes/1 Chosen '{{"candidate":"sha256-{HILLS}"}}'""": 0,
    """submit routes/1 Proposed '{"candidate":"late","utility":99}'""": 1,
    """submit notes/1 Edited '{"patches":[[0,0,"Night"]]}' --kind text""": 0,
}
"""Command lines of the built-in kinds, and their exit codes."""
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Shell:
    """Somebody's shell in a clone, with the environment of `bin` active and a home of its own."""

    bin: Path
    home: Path

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """One line as typed."""
        return subprocess.run(
            ["bash", "-c", line],
            cwd=ROOT,
            env=clean_environment(
                NOCTURNE_HOME=str(self.home),
                VIRTUAL_ENV=str(self.bin.parent),
                PATH=os.pathsep.join([str(self.bin), str(UV.parent), os.environ["PATH"]]),
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def json(self, line: str, code: int = 0) -> Any:
        """The one object that a line prints with --json."""
        done = self.run(f"{line} --json")
        assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def typed(self, line: CommandLine) -> str:
        """What a line of the guide prints; it ends as the guide says."""
        done = self.run(line.text)
        told = f"{GUIDE.name}:{line.number}: {line.text}\n{done.stdout}{done.stderr}"
        assert done.returncode == line.exit_code, told
        assert "Traceback" not in done.stderr, told
        return done.stdout + done.stderr

    def validator(self) -> subprocess.CompletedProcess[str]:
        """Start the home's validator by itself, as under compose."""
        return self.run(
            f"NOCTURNE_GENESIS_FILE='{self.home}/genesis.avro' "
            f"NOCTURNE_HOME_DIR='{self.home}/consensus-0' NOCTURNE_LISTEN=127.0.0.1:0 "
            "NOCTURNE_KAFKA_BOOTSTRAP=127.0.0.1:9 "
            f"NOCTURNE_KEY_FILE='{self.home}/keys/consensus-0/validator.key' "
            "python -m nocturne.consensus"
        )


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("kind")
    made = Shell(fresh_environment(folder), folder / "home")
    try:
        yield made
    finally:
        made.run("nocturne down")


@pytest.mark.long
def test_the_guide_does_what_it_says_and_a_ledger_knows_its_kinds_by_their_code(
    shell: Shell,
) -> None:
    lines = command_lines(GUIDE.read_text("utf-8"))
    *before, down, uninstall, refused = lines
    assert (down.text, uninstall.exit_code, refused.text) == (
        "nocturne down",
        0,
        "nocturne up --detach",
    )
    said = [shell.typed(line) for line in before]
    assert "the invariant inventory.in_stock would not hold" in said[-1]
    _check_the_session(shell)
    _check_built_in_kinds(shell)
    shell.typed(down)

    shell.typed(uninstall)
    missing = "session kind inventory version 1 is in the genesis of this ledger but not in this"
    assert missing in shell.typed(refused).replace("\n", " ")
    _check_refusal(shell.validator(), missing)

    wheel = build_wheel(EXAMPLE, shell.bin.parent / "kind-dist")
    _install(shell, wheel)
    _alter(next(shell.bin.parent.glob(f"lib/*/site-packages/{MODULE}")))
    asked = (
        "session kind inventory version 1: the genesis asks for the code "
        f"sha256-{code_hash((EXAMPLE / MODULE).read_bytes()).hex()}"
    )
    assert asked in shell.run("nocturne up --detach").stderr.replace("\n", " ")
    _check_refusal(shell.validator(), asked)

    _install(shell, wheel)
    assert shell.run("nocturne up --detach").returncode == 0
    state = shell.json("nocturne state stock/berlin")
    assert state["state"] == {"stock": {"bolt-m8": 70}}


def _check_the_session(shell: Shell) -> None:
    genesis = decode_genesis((shell.home / "genesis.avro").read_bytes())
    hashes = {(one.name, one.version): one.code_hash for one in genesis.kinds}
    assert hashes["inventory", 1] == code_hash((EXAMPLE / MODULE).read_bytes())
    assert {"accounts", "document", "facts", "orderbook", "proposals", "text"} < {
        name for name, _ in hashes
    }
    assert shell.json("nocturne state stock/berlin")["state"] == {"stock": {"bolt-m8": 70}}
    overdrawn = 'nocturne submit stock/berlin Shipped \'{"item":"bolt-m8","quantity":71}\''
    receipt = shell.json(overdrawn, 1)["receipt"]
    assert receipt["reason"] == "INVARIANT_VIOLATION"
    assert receipt["context"]["violatedInvariant"] == "inventory.in_stock"
    unknown = shell.run("nocturne submit stock/rome Received '{}' --kind inventry")
    assert unknown.returncode == 2
    assert "accounts, document, facts, inventory, orderbook, proposals, text" in unknown.stderr


def _check_built_in_kinds(shell: Shell) -> None:
    """The built-in kinds with invariants, from the same command line."""
    shell.run("nocturne keys new shop")
    for line, code in BUILT_IN.items():
        done = shell.run(f"nocturne {line}")
        assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
    bank = shell.json("nocturne state bank/1")["state"]
    assert {name: one["balance"] for name, one in bank["accounts"].items()} == {"ann": 5, "shop": 0}
    assert shell.json("nocturne state book/1")["state"]["bids"][0]["order"] == "b"
    routes = shell.json("nocturne state routes/1")["state"]
    assert (routes["choice"], routes["closed"]) == (f"sha256-{HILLS}", True)
    assert shell.json("nocturne state notes/1")["state"] == {"text": "Night", "skipped": 0}


def _check_refusal(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    """A validator ends with code 1 and one line that says why."""
    assert done.returncode == 1, done.stdout + done.stderr
    told = [line for line in (done.stdout + done.stderr).splitlines() if sentence in line]
    assert len(told) == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def _alter(module: Path) -> None:
    text = module.read_text()
    # The installer may have linked the file with its cache's: a new one takes its place.
    module.unlink()
    module.write_text(text.replace("if left < 0:", "if left < -1:"))


def _install(shell: Shell, wheel: Path) -> None:
    done = shell.run(f"uv pip install --no-deps --reinstall '{wheel}'")
    assert done.returncode == 0, done.stderr


def test_the_environment_is_not_this_one(shell: Shell) -> None:
    where = shell.run("python -c 'import nocturne; print(nocturne.__file__)'").stdout
    assert str(shell.bin.parent) in where
    assert sys.prefix not in where
