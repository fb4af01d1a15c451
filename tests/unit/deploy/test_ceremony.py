"""A founding: once, whole, repeatable after a crash at any step, and never over what is there."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nocturne.core.genesis import decode_genesis, ledger_id_of
from nocturne.deploy import ceremony
from nocturne.deploy.ceremony import Member, complete, contribute, found, has_founded, members_of
from nocturne.deploy.contributions import FoundingFault, Role, Terms, compose
from nocturne.runtime import journal
from nocturne.runtime.home import held_alone
from nocturne.runtime.keys import create_key_file, load_signer
from nocturne.runtime.kinds import builtin_entries


def terms() -> Terms:
    return Terms(os.urandom(32), builtin_entries())


def founded(home: Path) -> ceremony.Founded:
    return found(members_of(home, 1), home / "genesis.avro", terms)


def files(home: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def validator(home: Path) -> Member:
    return members_of(home, 1)[0]


# All in one place ----------------------------------------------------------------------------


def test_a_second_time_changes_nothing_and_leaves_no_mark(tmp_path: Path) -> None:
    first = founded(tmp_path)
    before = files(tmp_path)
    assert founded(tmp_path) == first
    assert files(tmp_path) == before
    assert not [path for path in before if path.name.endswith(".founding")]


class Crash(Exception):  # noqa: N818
    """The process ends here."""


STEPS = ["contribute", "_key", "compose", "write_file", "_bind", "_finish", "sync_folder"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_founding_cut_short_is_completed_as_the_ledger_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    """At every call of every step in turn: what is repeated founds one ledger, with the keys that
    were made first once a genesis of them was composed.
    """
    for at in range(1, 30):
        home = tmp_path / str(at)
        home.mkdir()
        with monkeypatch.context() as patch:
            crashed = crash_at(patch, step, at, when)
            try:
                founded(home)
            except Crash:
                pass
            else:
                assert not crashed()
        drafts = [path.read_bytes() for path in home.glob("genesis.avro*") if path.suffix != ".tmp"]
        again = founded(home)
        assert founded(home) == again
        assert all(ledger_id_of(data) == again.ledger_id for data in drafts)
        assert all(has_founded(one) for one in members_of(home, 1))
        if not crashed():
            assert at > 1, f"{step} is never called"
            return
    pytest.fail(f"{step} is called too often")


def crash_at(patch: pytest.MonkeyPatch, step: str, at: int, when: str) -> Callable[[], bool]:
    original = getattr(ceremony, step)
    calls = 0

    def crash(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at and when == "before":
            raise Crash
        result = original(*arguments)
        if calls == at:
            raise Crash
        return result

    patch.setattr(ceremony, step, crash)
    return lambda: calls >= at


def test_half_a_key_of_an_unfinished_founding_is_made_anew(tmp_path: Path) -> None:
    member = validator(tmp_path)
    member.key_file.parent.mkdir(parents=True)
    member.mark.touch()
    member.key_file.write_bytes(b'{"suite"')
    assert founded(tmp_path).partitions == 4


def test_a_key_or_a_journal_without_its_genesis_is_refused(tmp_path: Path) -> None:
    founded(tmp_path).genesis_file.unlink()
    before = files(tmp_path)
    with pytest.raises(FoundingFault, match=r"put genesis\.avro back from a backup"):
        founded(tmp_path)
    for member in members_of(tmp_path, 1):
        member.key_file.unlink()
    with pytest.raises(FoundingFault, match=r"journal is there"):
        founded(tmp_path)
    assert len(files(tmp_path)) == len(before) - 3


def test_an_operator_may_take_the_key_away(tmp_path: Path) -> None:
    first = founded(tmp_path)
    operator = members_of(tmp_path, 1)[-1]
    assert operator.role is Role.OPERATOR
    operator.key_file.unlink()
    assert founded(tmp_path) == first


def test_a_journal_is_not_opened_while_its_validator_may_run(tmp_path: Path) -> None:
    first = founded(tmp_path)
    with held_alone(tmp_path / "consensus-0"):
        assert founded(tmp_path) == first


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("no folder")
    with pytest.raises(FoundingFault, match="keys"):
        founded(tmp_path)


# Each member in its own place -------------------------------------------------------------------


def parted(tmp_path: Path) -> list[Member]:
    """Members whose places have nothing in common."""
    return [
        Member(
            role, 0, tmp_path / role / "own.key", tmp_path / role if role == "validator" else None
        )
        for role in Role
    ]


def test_members_apart_found_one_ledger(tmp_path: Path) -> None:
    members = parted(tmp_path)
    data = compose([contribute(one) for one in members], terms())
    assert not any(map(has_founded, members))
    for one in members:
        complete(one, data)
        complete(one, data)
        assert has_founded(one)
        assert stat.S_IMODE(one.key_file.stat().st_mode) == 0o600
    key = load_signer(members[0].key_file).key
    label = journal.owner_label(ledger_id_of(data), key)
    assert list(journal.open_journal(tmp_path / "validator" / "journal", label).read_all()) == []
    assert decode_genesis(data).validator_set.keys == (key,)


def test_a_contribution_is_the_same_until_the_founding_is_finished_and_then_refused(
    tmp_path: Path,
) -> None:
    members = parted(tmp_path)
    first = [contribute(one) for one in members]
    assert [contribute(one) for one in members] == first
    for one in members:
        complete(one, compose(first, terms()))
        with pytest.raises(FoundingFault, match="a key founds one ledger"):
            contribute(one)


def test_a_member_whose_key_the_genesis_has_not_completes_nothing(tmp_path: Path) -> None:
    members = parted(tmp_path)
    theirs = compose([contribute(one) for one in parted(tmp_path / "others")], terms())
    for one in members:
        contribute(one)
        with pytest.raises(FoundingFault, match="not the one in"):
            complete(one, theirs)
        assert not has_founded(one)
    assert not (tmp_path / "validator" / "journal").exists()
    with pytest.raises(FoundingFault, match="no validator 3"):
        complete(replace(members[0], ordinal=3), theirs)


def test_a_journal_made_for_another_genesis_is_never_taken_over(tmp_path: Path) -> None:
    members = parted(tmp_path)
    contributions = [contribute(one) for one in members]
    one, other = compose(contributions, terms()), compose(contributions, terms())
    complete(members[0], one)
    members[0].mark.touch()
    before = files(tmp_path)
    with pytest.raises(FoundingFault, match="not made for this genesis"):
        complete(members[0], other)
    assert files(tmp_path) == before


def test_a_validator_that_lost_its_journal_is_not_given_a_new_one(tmp_path: Path) -> None:
    members = parted(tmp_path)
    data = compose([contribute(one) for one in members], terms())
    complete(members[0], data)
    for path in (tmp_path / "validator" / "journal").iterdir():
        path.unlink()
    with pytest.raises(FoundingFault, match="never votes without it"):
        complete(members[0], data)


def test_a_lost_key_is_not_made_anew_for_a_ledger_that_is_founded(tmp_path: Path) -> None:
    members = parted(tmp_path)
    data = compose([contribute(one) for one in members], terms())
    complete(members[1], data)
    members[1].key_file.unlink()
    with pytest.raises(FoundingFault, match="put the file back"):
        complete(members[1], data)
    members[1].key_file.with_name("own.key.pub").unlink()
    create_key_file(members[1].key_file)
    with pytest.raises(FoundingFault, match="not the one in"):
        complete(members[1], data)


# A validator more ------------------------------------------------------------------------------


def test_a_validator_more_has_a_key_and_a_journal_that_are_made_together(tmp_path: Path) -> None:
    ledger_id = founded(tmp_path).ledger_id
    more = Member(Role.VALIDATOR, 7, tmp_path / "more" / "validator.key", tmp_path / "more")
    made = ceremony.admit(more, ledger_id)
    assert not more.mark.exists()
    assert made.key == load_signer(more.key_file).key
    label = journal.owner_label(ledger_id, made.key)
    assert more.journal is not None
    journal.open_journal(more.journal, label).close()
    assert ceremony.admit(more, ledger_id) == made, "what is finished is only checked"


def test_a_key_without_its_journal_is_given_none_and_a_journal_without_its_key_neither(
    tmp_path: Path,
) -> None:
    ledger_id = founded(tmp_path).ledger_id
    more = Member(Role.VALIDATOR, 7, tmp_path / "more" / "validator.key", tmp_path / "more")
    ceremony.admit(more, ledger_id)
    assert more.journal is not None
    kept = more.journal.rename(tmp_path / "kept")
    with pytest.raises(FoundingFault, match="never votes without it"):
        ceremony.admit(more, ledger_id)
    assert not more.journal.exists()
    kept.rename(more.journal)
    more.key_file.unlink()
    with pytest.raises(FoundingFault, match="is there"):
        ceremony.admit(more, ledger_id)
