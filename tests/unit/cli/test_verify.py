"""verify: offline, says what is wrong, and never takes a ledger's word for who it is."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.ledger_factory import make_genesis
from tests.unit.cli.memory_ledger import MemoryLedger, Shell

from nocturne.core.identifiers import format_hash


@pytest.fixture
def export(shell: Shell, tmp_path: Path) -> Path:
    """An export of two events and one receipt."""
    file = tmp_path / "orders.export"
    shell.run("submit", "orders/1", "Ordered", "{}")
    shell.run("submit", "orders/1", "Paid", "{}")
    shell.run("submit", "orders/1", "Paid", "{}", "--expect", "0")
    assert shell.run("export", "orders/1", str(file)) == 0
    shell.ledger.unavailable = "verify must not ask"
    return file


def ledger_id(shell: Shell) -> str:
    return format_hash(shell.ledger.ledger_id)


def test_a_trusted_export_holds(shell: Shell, export: Path) -> None:
    assert shell.run("verify", str(export), "--trust", ledger_id(shell)) == 0
    assert shell.out.startswith("✓ verified: 2 events and 1 receipt of orders/1")
    told = shell.json("verify", str(export), "--trust", ledger_id(shell))
    assert told["holds"] is True
    assert (told["events"], told["receipts"]) == (2, 1)


def test_without_trust_it_is_consistent_at_most_and_ends_with_1(shell: Shell, export: Path) -> None:
    assert shell.run("verify", str(export)) == 1
    assert f"consistent with ledger {ledger_id(shell)}, identity not checked" in shell.out
    assert "--trust" in shell.err
    told = shell.json("verify", str(export), code=1)
    assert told["identityChecked"] is False
    assert told["fault"] is None


def test_the_homes_own_ledger_is_trusted_by_default(shell: Shell, export: Path) -> None:
    shell.home.mkdir(exist_ok=True)
    (shell.home / "genesis.avro").write_bytes(shell.ledger.inner.genesis_bytes)
    assert shell.run("verify", str(export)) == 0


def test_a_genesis_file_can_be_trusted(shell: Shell, export: Path, tmp_path: Path) -> None:
    genesis = tmp_path / "trusted.avro"
    genesis.write_bytes(shell.ledger.inner.genesis_bytes)
    assert shell.run("verify", str(export), "--trust", str(genesis)) == 0


def test_a_complete_self_made_ledger_is_refused(shell: Shell, export: Path, tmp_path: Path) -> None:
    other = Shell(tmp_path / "other", MemoryLedger(replace(make_genesis(), nonce=b"x" * 32)))
    other.run("submit", "orders/1", "Ordered", "{}")
    forged = tmp_path / "forged.export"
    assert other.run("export", "orders/1", str(forged)) == 0
    assert shell.run("verify", str(forged), "--trust", ledger_id(shell)) == 1
    assert "not of the trusted" in shell.out


@pytest.mark.parametrize("change", ["flip", "cut", "drop", "swap", "empty", "noise"])
def test_a_changed_export_is_refused_in_words(shell: Shell, export: Path, change: str) -> None:
    lines = export.read_bytes().splitlines(keepends=True)
    whole = b"".join(lines)
    changed = {
        "flip": whole[:700] + bytes((whole[700] ^ 1,)) + whole[701:],
        "cut": whole[:-40],
        "drop": b"".join(lines[:2] + lines[3:]),
        "swap": b"".join([*lines[:1], *lines[2:3], *lines[1:2], *lines[3:]]),
        "empty": b"",
        "noise": bytes(range(256)),
    }[change]
    export.write_bytes(changed)
    assert shell.run("verify", str(export), "--trust", ledger_id(shell)) == 1
    assert shell.out.startswith("✗ ")
    assert shell.json("verify", str(export), "--trust", ledger_id(shell), code=1)["fault"]


def test_a_file_that_is_not_there_is_bad_use(shell: Shell) -> None:
    assert shell.run("verify", "/no/such/file") == 2
    assert shell.err == "✗ No such file or directory: /no/such/file; name another file.\n"


@pytest.mark.parametrize("named", ["sha256-xyz", "sha256-", "/no/such/file", "/dev/null", ""])
def test_a_trust_that_is_neither_id_nor_genesis_is_bad_use(
    shell: Shell, export: Path, named: str
) -> None:
    assert shell.run("verify", str(export), "--trust", named) == 2
    assert "--trust takes a ledger id" in shell.err
