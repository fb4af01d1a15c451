"""policy: shown, replaced, proposed and signed by a threshold of operators."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import ALICE, OPERATORS, author_id, make_genesis
from tests.unit.cli.memory_ledger import Shell

from nocturne.cli.policy import parse_rules
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import format_hash

RULES = [{"author": format_hash(author_id(ALICE)), "kind": "facts", "prefix": "alice/"}]


def key_file(folder: Path, number: int) -> Path:
    """The key file of an operator of the ledger in memory: its seed is 32 times 3 and a number."""
    file = folder / f"operator-{number}.key"
    seed = bytes((3 + number,)) * 32
    file.write_text(json.dumps({"suite": "ed25519", "seed": seed.hex()}) + "\n")
    file.chmod(0o600)
    return file


def test_the_rules_in_force_are_shown(shell: Shell) -> None:
    assert shell.run("policy", "show") == 0
    assert "anyone" in shell.out
    assert "2 of 3 operators change it" in shell.err
    told = shell.json("policy", "show")
    assert told["openPolicy"] == [{"author": None, "kind": "", "prefix": ""}]
    assert (told["number"], told["operatorThreshold"], len(told["operators"])) == (0, 2, 3)


def test_a_threshold_of_operators_signs_one_proposal(shell: Shell, tmp_path: Path) -> None:
    first, second = key_file(tmp_path, 0), key_file(tmp_path, 1)
    proposal = tmp_path / "proposal"
    told = shell.run(
        "policy", "set", json.dumps(RULES), "--key", str(first), "--out", str(proposal)
    )
    assert told == 0
    assert shell.run("policy", "submit", str(proposal)) == 1
    assert "expected the signatures of 2 of 3 operators" in shell.err
    assert shell.run("policy", "sign", str(proposal), "--key", str(second)) == 0
    assert "alice/" in shell.out, "who signs sees what"
    assert shell.run("policy", "sign", str(proposal), "--key", str(second)) == 0
    assert "Signed by 2" in shell.err, "twice by one operator is once"
    assert shell.json("policy", "submit", str(proposal))["height"] == 1
    assert shell.json("policy", "show")["openPolicy"] == RULES
    assert shell.run("policy", "submit", str(proposal)) == 1
    assert "expected number 2, got 1" in shell.err


def test_a_proposal_is_never_written_over_another_file(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("something else")
    key = key_file(tmp_path, 0)
    assert shell.run("policy", "set", "[]", "--key", str(key), "--out", str(file)) == 2
    assert file.read_text() == "something else"


def test_one_of_two_signatures_is_not_brought_in_alone(shell: Shell, tmp_path: Path) -> None:
    file = key_file(tmp_path, 0)
    assert shell.run("policy", "set", json.dumps(RULES), "--key", str(file)) == 2
    assert "--out FILE" in shell.err
    assert shell.operators.ledger.blocks == []


def test_a_key_of_no_operator_signs_nothing(shell: Shell, tmp_path: Path) -> None:
    file = key_file(tmp_path, 40)
    assert shell.run("policy", "set", "[]", "--key", str(file)) == 2
    assert "no operator's" in shell.err
    assert shell.run("policy", "set", "[]") == 2
    assert "name one with --key" in shell.err


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "{}",
        "[1]",
        "[{}]",
        '[{"author":null,"kind":"no kind","prefix":""}]',
        '[{"author":null,"kind":"","prefix":"no session"}]',
        '[{"author":"sha256-00","kind":"","prefix":""}]',
        '[{"author":null,"kind":"","prefix":"","more":1}]',
        '[{"author":null,"kind":"","prefix":""}' * 2,
        json.dumps([{"author": None, "kind": "", "prefix": ""}] * 1025),
    ],
)
def test_what_are_no_rules_is_bad_use(shell: Shell, tmp_path: Path, rules: str) -> None:
    file = key_file(tmp_path, 0)
    assert shell.run("policy", "set", rules, "--key", str(file)) == 2
    assert "RULES are none" in shell.err


def test_a_file_that_is_no_proposal_is_bad_use(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "proposal"
    file.write_bytes(b"garbage")
    for command in ("sign", "submit"):
        assert shell.run("policy", command, str(file)) == 2
        assert "is no proposal" in shell.err


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_rules_or_malformed(data: bytes) -> None:
    try:
        parse_rules(data)
    except Malformed:
        return


def test_the_genesis_of_the_ledger_in_memory_has_these_operators() -> None:
    genesis = make_genesis()
    assert genesis.operators == tuple(one.key for one in OPERATORS)
