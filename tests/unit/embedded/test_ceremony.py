"""Founding a home: once, whole, and never over what is there."""

import stat
from pathlib import Path

import pytest

from nocturne.core.genesis import decode_genesis, ledger_id_of
from nocturne.core.keys import key_id
from nocturne.deploy import ceremony
from nocturne.embedded.ceremony import (
    authority_key,
    ensure,
    next_validator,
    operator_key,
    validator_key,
    validators_here,
)
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import Home
from nocturne.runtime import journal
from nocturne.runtime.keys import create_key_file, load_signer
from nocturne.runtime.kinds import check_kinds, installed_kinds


def journal_of(home: Path) -> Path:
    return home / "consensus-0" / "journal"


def test_a_founded_home_has_a_genesis_of_its_own_keys_and_a_journal(tmp_path: Path) -> None:
    founded = ensure(tmp_path / "home", 1)
    data = founded.genesis_file.read_bytes()
    genesis = decode_genesis(data)
    place = Home(tmp_path / "home")
    assert founded.ledger_id == ledger_id_of(data)
    assert founded.partitions == genesis.partitions == 4
    assert genesis.validators[0][0] == load_signer(validator_key(place)).key
    assert genesis.authority == load_signer(authority_key(place)).key
    assert genesis.operators == (load_signer(operator_key(place)).key,)
    assert genesis.operator_threshold == 1
    check_kinds(genesis, installed_kinds())
    label = founded.ledger_id + key_id(genesis.validators[0][0])
    assert list(journal.open_journal(journal_of(tmp_path / "home"), label).read_all()) == []


def test_keys_are_closed_to_everyone_else(tmp_path: Path) -> None:
    ensure(tmp_path, 1)
    for path in (validator_key(Home(tmp_path)), authority_key(Home(tmp_path))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    first = ensure(tmp_path, 1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert ensure(tmp_path, 1) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_two_homes_are_two_ledgers(tmp_path: Path) -> None:
    assert ensure(tmp_path / "a", 1).ledger_id != ensure(tmp_path / "b", 1).ledger_id


def test_a_lost_genesis_is_not_replaced(tmp_path: Path) -> None:
    (ensure(tmp_path, 1).genesis_file).unlink()
    with pytest.raises(EmbeddedError, match=r"put genesis\.avro back"):
        ensure(tmp_path, 1)


def test_a_damaged_genesis_is_named(tmp_path: Path) -> None:
    genesis_file = ensure(tmp_path, 1).genesis_file
    genesis_file.write_bytes(genesis_file.read_bytes()[:-1])
    with pytest.raises(EmbeddedError, match=r"genesis\.avro is damaged"):
        ensure(tmp_path, 1)


def test_a_lost_or_foreign_key_is_named(tmp_path: Path) -> None:
    ensure(tmp_path, 1)
    path = authority_key(Home(tmp_path))
    path.unlink()
    with pytest.raises(EmbeddedError, match=r"authority\.key"):
        ensure(tmp_path, 1)
    path.with_name("authority.key.pub").unlink()
    create_key_file(path)
    with pytest.raises(EmbeddedError, match=r"not the one in genesis\.avro"):
        ensure(tmp_path, 1)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    ensure(tmp_path, 1)
    validator_key(Home(tmp_path)).chmod(0o644)
    with pytest.raises(EmbeddedError, match="0600"):
        ensure(tmp_path, 1)


def test_a_key_without_its_journal_is_refused(tmp_path: Path) -> None:
    ensure(tmp_path, 1)
    for path in journal_of(tmp_path).iterdir():
        path.unlink()
    with pytest.raises(EmbeddedError, match="never votes without it"):
        ensure(tmp_path, 1)


def test_each_of_four_validators_has_its_own_key_and_journal(tmp_path: Path) -> None:
    founded = ensure(tmp_path, 4)
    assert founded.validators == 4
    genesis = decode_genesis(founded.genesis_file.read_bytes())
    for ordinal, (key, _) in enumerate(genesis.validators):
        assert load_signer(validator_key(Home(tmp_path), ordinal)).key == key
        label = founded.ledger_id + key_id(key)
        directory = tmp_path / f"consensus-{ordinal}" / "journal"
        assert list(journal.open_journal(directory, label).read_all()) == []
    assert genesis.validator_set.quorum == 3
    assert ensure(tmp_path, 4) == founded


@pytest.mark.parametrize("asked", [1, 7])
def test_a_home_that_was_founded_keeps_its_number(tmp_path: Path, asked: int) -> None:
    founded = ensure(tmp_path, 4)
    assert ensure(tmp_path, asked) == founded
    assert not (tmp_path / "keys" / "consensus-4").exists()


@pytest.mark.parametrize("asked", [1, 7])
def test_a_founding_that_was_cut_short_keeps_the_number_that_it_composed(
    tmp_path: Path, asked: int
) -> None:
    founded = ensure(tmp_path, 4)
    founded.genesis_file.rename(tmp_path / "genesis.avro.founding")
    for place in (tmp_path / "keys").iterdir():
        for key in place.glob("*.key"):
            key.with_name(f"{key.name}.founding").touch()
    assert ensure(tmp_path, asked) == founded
    assert not list(tmp_path.rglob("*.founding"))


def test_a_validator_that_was_made_later_has_the_next_place(tmp_path: Path) -> None:
    founded = ensure(tmp_path, 4)
    home = Home(tmp_path)
    assert validators_here(home) == 4
    place = next_validator(home)
    assert place.home == home.data("consensus-4")
    made = ceremony.admit(place, founded.ledger_id)
    assert made.key == load_signer(validator_key(home, 4)).key
    assert validators_here(home) == 5
    assert next_validator(home).ordinal == 5
    # The ledger keeps its own number of founders.
    assert ensure(tmp_path, 4) == founded


def test_a_validators_place_that_a_crash_left_half_made_is_finished_and_not_started(
    tmp_path: Path,
) -> None:
    founded = ensure(tmp_path, 1)
    home = Home(tmp_path)
    place = next_validator(home)
    contribution = ceremony.contribute(place)
    assert validators_here(home) == 1, "its journal is not made yet"
    again = next_validator(home)
    assert again == place
    assert ceremony.admit(again, founded.ledger_id).key == contribution.key
    assert validators_here(home) == 2
