"""Subject keys on disk: closed to others, never written over, destroyed for good."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.client import subject_store
from nocturne.client.sealing import SubjectKey, make_subject_key
from nocturne.client.subject_store import (
    FILE_BYTES_MAX,
    SubjectKeyFault,
    SubjectStore,
    parse_subject_key,
    print_subject_key,
)
from nocturne.core.errors import Malformed

KEY = make_subject_key(bytes(range(48)))
OTHER = make_subject_key(bytes(range(1, 49)))


@pytest.fixture
def store(tmp_path: Path) -> SubjectStore:
    return SubjectStore(tmp_path / "keys" / "subjects")


@given(st.binary(min_size=48, max_size=48))
def test_a_key_is_printed_and_read_back(random: bytes) -> None:
    key = make_subject_key(random)
    assert parse_subject_key(print_subject_key(key)) == key


@given(st.binary(max_size=FILE_BYTES_MAX + 10))
def test_what_is_no_key_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_subject_key(data)


def test_a_key_is_kept_closed_and_found_by_name_and_id(store: SubjectStore) -> None:
    assert store.add("ada", KEY) == KEY
    file = store.file("ada")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert store.named("ada") == KEY
    assert list(store.keys_of(KEY.id)) == [KEY]
    assert store.every() == [("ada", KEY)]
    assert [one.name for one in file.parent.iterdir()] == ["ada.json"]


def test_of_two_that_make_a_subjects_key_both_use_the_first(store: SubjectStore) -> None:
    assert store.add("ada", KEY) == KEY
    assert store.add("ada", OTHER) == KEY
    assert store.named("ada") == KEY


def test_looking_makes_nothing(store: SubjectStore, tmp_path: Path) -> None:
    assert store.every() == []
    assert store.named("ada") is None
    assert not store.was_destroyed(KEY.id)
    assert list(tmp_path.iterdir()) == []


def test_a_destroyed_key_is_gone_remembered_and_not_taken_in_again(store: SubjectStore) -> None:
    store.add("ada", KEY)
    assert list(store.keys_of(KEY.id)) == [KEY]
    assert store.destroy("ada") == KEY
    assert store.named("ada") is None
    assert list(store.keys_of(KEY.id)) == []
    assert store.was_destroyed(KEY.id)
    assert not store.was_destroyed(OTHER.id)
    assert store.destroy("ada") is None
    with pytest.raises(SubjectKeyFault, match="not taken in again"):
        store.add("ada", KEY)
    # The subject may be written of again, under a new key.
    assert store.add("ada", OTHER) == OTHER


def test_nothing_of_the_key_or_its_name_is_left(store: SubjectStore, tmp_path: Path) -> None:
    store.add("ada", KEY)
    store.destroy("ada")
    left = [one for one in tmp_path.rglob("*") if one.is_file()]
    assert [one.parent.name for one in left] == ["destroyed"]
    assert all("ada" not in one.name and one.read_bytes() == b"" for one in left)


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["_wipe", "_overwrite"])
def test_a_destruction_cut_short_is_finished_by_whoever_looks(
    store: SubjectStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store.add("ada", KEY)

    def crash(_: Path) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(subject_store, step, crash)
        with pytest.raises(Crash):
            store.destroy("ada")
    assert store.file("ada").exists()
    again = SubjectStore(store.file("ada").parent)
    assert list(again.keys_of(KEY.id)) == []
    assert not store.file("ada").exists()
    assert again.was_destroyed(KEY.id)


def test_zeros_where_a_key_was_are_cleared_away(store: SubjectStore) -> None:
    store.add("ada", KEY)
    store.file("ada").write_bytes(bytes(100))
    assert store.named("ada") is None
    assert not store.file("ada").exists()


def test_a_copy_left_by_a_run_that_ended_early_is_destroyed_too(store: SubjectStore) -> None:
    store.add("ada", KEY)
    copy = store.file("ada").with_name("ada.json.4711.new")
    copy.write_bytes(store.file("ada").read_bytes())
    store.destroy("ada")
    assert not copy.exists()


def test_a_key_that_others_can_read_is_refused(store: SubjectStore) -> None:
    store.add("ada", KEY)
    store.file("ada").chmod(0o644)
    with pytest.raises(SubjectKeyFault, match="expected mode 0600"):
        store.named("ada")


@pytest.mark.parametrize("name", ["", ".", "..", "../ada", "a/b", "a" * 129, "é", "-a", "a\n", "*"])
def test_a_name_that_is_none_is_refused(store: SubjectStore, name: str) -> None:
    with pytest.raises(SubjectKeyFault, match="no name for a subject"):
        store.add(name, KEY)


def test_one_id_may_have_more_keys_than_one(store: SubjectStore) -> None:
    false = SubjectKey(KEY.id, OTHER.key)
    store.add("ada", KEY)
    store.add("from a stranger".replace(" ", "-"), false)
    assert set(store.keys_of(KEY.id)) == {KEY, false}


def test_the_same_key_under_other_names_is_destroyed_too(store: SubjectStore) -> None:
    store.add("ada", KEY)
    store.add("lovelace", KEY)
    store.add("bob", OTHER)
    store.file("lovelace").chmod(0o644)
    assert store.destroy("ada") == KEY
    assert not store.file("lovelace").exists()
    assert store.every() == [("bob", OTHER)]


def test_a_file_that_cannot_be_looked_into_stops_no_destruction(store: SubjectStore) -> None:
    for name in ("ada", "zoe"):
        store.add(name, KEY)
    store.file("lost").mkdir()
    with pytest.raises(SubjectKeyFault, match=r"lost\.json: cannot be looked into"):
        store.destroy("ada")
    assert not store.file("ada").exists()
    assert not store.file("zoe").exists()


def test_what_a_run_left_beside_a_key_never_costs_the_key(store: SubjectStore) -> None:
    store.add("ada", KEY)
    # Ended between link and unlink; the next run has its process id.
    left = store.file("ada").with_name(f"ada.json.{os.getpid()}.new")
    os.link(store.file("ada"), left)
    assert store.add("ada", OTHER) == KEY
    assert store.named("ada") == KEY
    assert not left.exists()


def test_what_another_run_is_writing_is_left_alone(store: SubjectStore) -> None:
    store.add("ada", KEY)
    busy = store.file("ada").with_name("ada.json.0123.new")
    with busy.open("wb") as opened:
        opened.write(b"half")
        opened.flush()
        fcntl.flock(opened, fcntl.LOCK_EX)
        store.add("ada", OTHER)
        assert busy.read_bytes() == b"half"
    store.add("ada", OTHER)
    assert not busy.exists()


def test_a_new_folder_is_on_the_disk_with_its_key(
    store: SubjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(subject_store, "sync_folder", synced.append)
    store.add("ada", KEY)
    assert {tmp_path, tmp_path / "keys", tmp_path / "keys" / "subjects"} <= set(synced)


def test_only_the_stores_own_folder_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    SubjectStore(tmp_path / "subjects").add("ada", KEY)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "subjects").stat().st_mode) == 0o700


def test_a_file_that_cannot_be_used_is_passed_over_and_named(store: SubjectStore) -> None:
    for name, key in (("ada", KEY), ("bob", OTHER)):
        store.add(name, key)
    store.file("ada").chmod(0o644)
    store.file("zoe").write_bytes(b"{}")
    store.file("zoe").chmod(0o600)
    assert store.every() == [("bob", OTHER)]
    for named, problem in zip(("ada.json", "zoe.json"), store.problems, strict=True):
        assert named in problem
    assert list(store.keys_of(OTHER.id)) == [OTHER]
