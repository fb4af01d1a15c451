"""validators new, add, remove, rotate, sets, sign, submit: shown, signed, refused in words."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_factory import OPERATORS, VALIDATORS, Ledger, make_genesis
from tests.unit.cli.memory_ledger import MemoryOperators, Shell
from tests.unit.cli.test_policy import key_file

from nocturne.cli.validator_changes_view import Change, certifying_after, change_lines, when_text
from nocturne.client.operating import DecidedSet, Governance
from nocturne.core.identifiers import format_hash
from nocturne.core.keys import (
    Ed25519Signer,
    Key,
    format_key,
    key_id,
    parse_key,
    prove_possession,
)
from nocturne.core.validator_sets import VALIDATORS_MAX, Member
from nocturne.deploy.contributions import Contribution, Role, encode_contribution
from nocturne.runtime import journal

E = 4


def new_signer(number: int) -> Ed25519Signer:
    return Ed25519Signer(bytes([200 - number]) * 32)


def member(number: int) -> Member:
    signer = new_signer(number)
    return signer.key, prove_possession(signer)


def handed_over(folder: Path, number: int, role: Role = Role.VALIDATOR) -> Path:
    """What a new validator hands over to the operators."""
    file = folder / f"new-{number}.json"
    file.write_bytes(encode_contribution(Contribution(role, 0, *member(number))))
    return file


def keys_of(found: Any) -> list[str]:
    return [one["key"][0] for one in found["validators"]]


def printed(signer: Ed25519Signer) -> str:
    return format_key(signer.key[0])


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A ledger of four validators, with epochs of four, whose one operator's key is in the home."""
    made = Shell(tmp_path / "home")
    genesis = replace(
        make_genesis(validators=VALIDATORS[:4], epoch_length=E),
        operators=(OPERATORS[0].key,),
        operator_threshold=1,
    )
    made.operators = MemoryOperators(Ledger(genesis, VALIDATORS[:4]))
    place = made.home / "keys" / "operator"
    place.mkdir(parents=True)
    key_file(tmp_path, 0).rename(place / "operator.key")
    return made


def test_a_validator_is_added_and_the_set_is_shown_first(shell: Shell, tmp_path: Path) -> None:
    file = handed_over(tmp_path, 0)
    shell.says = "yes\n"
    assert shell.run("validators", "add", str(file)) == 0
    assert printed(new_signer(0)) in shell.err
    assert "5 validators, of which 1 may lie; 4 certify a block" in shell.err
    assert "Before: 4 validators, of which 1 may lie; 3 certify a block" in shell.err
    assert "If a block up to 4 has the change, it acts from block 9 on" in shell.err
    assert "in block 1; the new set certifies from block 9 on (epoch 2)" in shell.out
    found = shell.json("validators", "sets")
    assert (found["number"], found["height"], found["epochLength"]) == (1, 1, E)
    assert [(one["firstEpoch"], one["firstHeight"]) for one in found["sets"]] == [(0, 1), (2, 9)]
    old = [printed(one) for one in VALIDATORS[:4]]
    assert [keys_of(one) for one in found["sets"]] == [old, [*old, printed(new_signer(0))]]
    assert (found["sets"][1]["quorum"], found["sets"][1]["mayFail"]) == (4, 1)
    assert shell.run("validators", "sets") == 0
    assert "certifies block 2: 4 validators" in shell.out
    assert "from block 9 on, epoch 2: 5 validators" in shell.out


def test_a_change_begins_with_the_newest_set_whether_it_certifies_or_not(
    shell: Shell, tmp_path: Path
) -> None:
    first, second = handed_over(tmp_path, 0), handed_over(tmp_path, 1)
    shell.json("validators", "add", str(first), "--yes")
    told = shell.json("validators", "rotate", "4", str(second), "--yes")
    assert (told["height"], told["firstEpoch"], told["firstHeight"]) == (2, 2, 9)
    assert [one["key"][0] for one in told["new"]] == [printed(new_signer(1))]
    assert [one["key"][0] for one in told["gone"]] == [printed(new_signer(0))]
    assert len(keys_of(told)) == 5
    (now, later) = shell.json("validators", "sets")["sets"]
    assert (len(keys_of(now)), keys_of(later)[4]) == (4, printed(new_signer(1)))


def test_a_validator_is_named_by_place_key_or_key_id(shell: Shell) -> None:
    second = VALIDATORS[1]
    told = shell.json("validators", "remove", "0", printed(second), "--yes")
    # Both places were those of the set of before.
    assert keys_of(told) == [printed(one) for one in VALIDATORS[2:4]]
    assert "tolerates no liar" in shell.err
    third = format_hash(key_id(VALIDATORS[2].key))
    assert keys_of(shell.json("validators", "remove", third, "--yes")) == [printed(VALIDATORS[3])]
    assert shell.run("validators", "remove", "0", "--yes") == 2
    assert "expected 1 to 31, got 0" in shell.err


def test_who_is_not_sure_changes_nothing(shell: Shell) -> None:
    shell.says = "no\n"
    assert shell.run("validators", "remove", "1") == 1
    assert "Nothing was changed" in shell.err
    shell.says = None
    assert shell.run("validators", "remove", "1", "--json") == 2
    assert "Say --yes" in shell.err
    assert shell.operators.ledger.blocks == []


def test_what_can_be_no_set_is_refused_in_words(shell: Shell, tmp_path: Path) -> None:
    def refused(words: str, *arguments: str) -> None:
        assert shell.run("validators", *arguments, "--yes") == 2
        assert words in shell.err, shell.err
        assert "Traceback" not in shell.err

    file = str(handed_over(tmp_path, 0))
    refused("a key stands twice", "add", file, file)
    refused("is nobody in the newest set of 4", "remove", "4")
    refused("is nobody in the newest set of 4", "rotate", printed(new_signer(0)), file)
    refused("a key without a proof", "add", printed(new_signer(0)))
    many = [str(handed_over(tmp_path, number)) for number in range(VALIDATORS_MAX - 3)]
    refused("expected 1 to 31, got 32", "add", *many)
    refused("the key of the operator", "add", str(handed_over(tmp_path, 1, Role.OPERATOR)))
    stolen = Contribution(Role.VALIDATOR, 0, member(3)[0], member(4)[1])
    bad = tmp_path / "bad.json"
    for data in (b"", b"{}", b"\xff" * 40, b"x" * 20_000, encode_contribution(stolen)):
        bad.write_bytes(data)
        refused("holds no validator's key with its proof", "add", str(bad))
    refused("No such file", "add", str(tmp_path / "none"))
    assert shell.operators.ledger.blocks == []
    # One that certifies already is no new one.
    told = shell.json("validators", "add", str(handed_over(tmp_path, 0)), "--yes")
    assert len(told["new"]) == 1
    refused("a key stands twice", "rotate", "0", str(handed_over(tmp_path, 0)))


def test_a_threshold_of_operators_signs_one_set(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "home")
    first, second = key_file(tmp_path, 0), key_file(tmp_path, 1)
    proposal, new = tmp_path / "proposal", str(handed_over(tmp_path, 0))
    assert shell.run("validators", "add", new, "--yes", "--key", str(first)) == 2
    assert "2 operators must sign" in shell.err
    assert "'nocturne validators sign FILE'" in shell.err
    arguments = ("--key", str(first), "--yes", "--out", str(proposal))
    assert shell.run("validators", "add", new, *arguments) == 0
    assert shell.run("validators", "submit", str(proposal)) == 1
    assert "expected the signatures of 2 of 3 operators" in shell.err
    assert "'nocturne validators sets' says where" in shell.err
    assert shell.run("validators", "sign", str(proposal), "--key", str(second)) == 0
    assert printed(new_signer(0)) in shell.out, "who signs sees whom"
    told = shell.json("validators", "submit", str(proposal))
    assert [one["key"][0] for one in told["new"]] == [printed(new_signer(0))]
    # Each kind of proposal is brought in under its own word.
    assert shell.run("policy", "submit", str(proposal)) == 2
    assert "takes a OpenPolicyChanged" in shell.err
    stranger = key_file(tmp_path, 40)
    assert shell.run("validators", "remove", "0", "--key", str(stranger), "--yes") == 2
    assert "no operator's of this ledger" in shell.err


def test_a_new_validators_key_and_journal_are_made_together_once(
    shell: Shell, tmp_path: Path
) -> None:
    ledger = format_hash(shell.operators.ledger.ledger_id)
    shell.environment = {"NOCTURNE_LEDGER": ledger}
    folder = tmp_path / "fifth"
    made = shell.json("validators", "new", str(folder))
    assert (made["name"], made["file"]) == ("fifth", str(folder / "validator.json"))
    assert (folder / "validator.key").stat().st_mode & 0o777 == 0o600
    label = journal.owner_label(shell.operators.ledger.ledger_id, _key(made))
    journal.open_journal(folder / journal.FOLDER, label).close()
    again = shell.json("validators", "new", str(folder))
    assert again == made, "what is finished is only shown again"
    told = shell.json("validators", "add", made["file"], "--yes")
    assert keys_of(told)[4:] == made["key"]
    assert shell.run("validators", "new", str(folder)) == 0
    assert "never put back an older copy" in shell.err
    # A key without its journal never votes: none is made for it later.
    shutil.rmtree(folder / journal.FOLDER)
    assert shell.run("validators", "new", str(folder)) == 1
    assert "never votes without it" in shell.err


def _key(made: Any) -> Key:
    return tuple(map(parse_key, made["key"]))


def test_a_new_validator_needs_to_know_its_ledger_and_its_place(
    shell: Shell, tmp_path: Path
) -> None:
    assert shell.run("validators", "new", str(tmp_path / "x")) == 2
    assert "set NOCTURNE_LEDGER" in shell.err
    assert not (tmp_path / "x").exists()
    assert shell.run("validators", "new") == 2
    assert "name the FOLDER" in shell.err


def test_options_stand_after_the_word(shell: Shell) -> None:
    assert shell.run("validators", "--json", "sets") == 2
    assert "after the word" in shell.err


# What it means ---------------------------------------------------------------------------------


def governance(height: int, *sets: DecidedSet) -> Governance:
    ledger = Ledger().ledger_id
    return Governance(ledger, height, 0, (), (), 1, E, sets)


def members(*numbers: int) -> tuple[Member, ...]:
    return tuple(map(member, numbers))


@pytest.mark.parametrize(
    "height, words",
    [
        (0, "If a block up to 4 has the change, it acts from block 9 on, with which epoch 2"),
        (3, "If a block up to 4 has the change, it acts from block 9 on, with which epoch 2"),
        (4, "If a block up to 8 has the change, it acts from block 13 on, with which epoch 3"),
    ],
)
def test_when_a_change_acts_is_said_by_the_block_that_has_it(height: int, words: str) -> None:
    assert words in when_text(governance(height, DecidedSet(0, members(0))))


def test_a_change_that_rests_on_validators_who_certify_nothing_yet_is_said() -> None:
    now = governance(0, DecidedSet(0, members(0, 1, 2, 3)))
    half = Change(members(0, 1, 2, 3), members(0, 1, 8, 9))
    assert certifying_after(half, now) == 2
    assert any("2 certify now, and 3 must" in line for line in change_lines(half, now))
    new = Change(members(0, 1, 2, 3), members(6, 7, 8, 9))
    assert any("none certifies now" in line for line in change_lines(new, now))
    one = Change(members(0, 1, 2, 3), members(0, 1, 2, 9))
    assert not any("must" in line for line in change_lines(one, now))


def test_who_moves_up_is_told_from_who_stays() -> None:
    change = Change(members(0, 1, 2), members(1, 2, 5))
    words = [(place, word) for place, _, word in change.rows]
    assert words == [(0, "was 1"), (1, "was 2"), (2, "new"), (None, "gone")]


def test_json_of_a_set_has_every_key_and_its_id(shell: Shell) -> None:
    (found,) = shell.json("validators", "sets")["sets"]
    one = found["validators"][0]
    assert one == {
        "keyId": format_hash(key_id(VALIDATORS[0].key)),
        "key": [printed(VALIDATORS[0])],
    }
    assert json.dumps(found)
