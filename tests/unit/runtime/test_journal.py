"""The journal on disk: what was synced is there, what was torn is cut off, damage is a halt."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.core.errors import Halt
from nocturne.runtime import journal
from nocturne.runtime.journal import Journal, JournalMissing, create, exists, open_journal

LABEL = b"ledger and key"


def records_of(opened: Journal) -> list[bytes]:
    return [entry.record for entry in opened.read_all()]


def reopened(directory: Path, segment_bytes: int = journal.SEGMENT_BYTES) -> Journal:
    return open_journal(directory, LABEL, segment_bytes=segment_bytes)


def written(directory: Path, groups: list[list[bytes]], segment_bytes: int = 10**9) -> None:
    create(directory, LABEL)
    opened = reopened(directory, segment_bytes)
    for group in groups:
        opened.append(group)
        opened.sync()
    opened.close()


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def test_a_directory_without_segments_is_no_journal(tmp_path: Path) -> None:
    assert not exists(tmp_path / "none")
    with pytest.raises(JournalMissing):
        reopened(tmp_path)


def test_a_journal_is_created_once(tmp_path: Path) -> None:
    create(tmp_path, LABEL)
    with pytest.raises(FileExistsError):
        create(tmp_path, LABEL)


def test_another_owners_journal_is_refused(tmp_path: Path) -> None:
    create(tmp_path, LABEL)
    with pytest.raises(Halt, match="another key or ledger"):
        open_journal(tmp_path, b"somebody else")


@given(groups=st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=4), max_size=6))
@settings(max_examples=40, deadline=None)
def test_what_was_synced_is_read_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[bytes]]
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    written(directory, groups, segment_bytes=150)
    opened = reopened(directory)
    assert records_of(opened) == [record for group in groups for record in group]
    assert opened.torn_bytes == 0


def test_what_was_not_synced_is_not_there(tmp_path: Path) -> None:
    written(tmp_path, [[b"one"]])
    opened = reopened(tmp_path)
    opened.append([b"two"])
    opened.close()
    assert records_of(reopened(tmp_path)) == [b"one"]


def test_a_last_frame_cut_anywhere_is_dropped_whole_and_writing_goes_on(tmp_path: Path) -> None:
    written(tmp_path / "whole", [[b"first", b"second"], [b"third", b"fourth"]])
    (path,) = segments(tmp_path / "whole")
    whole = path.read_bytes()
    written(tmp_path / "shorter", [[b"first", b"second"]])
    start = len(segments(tmp_path / "shorter")[0].read_bytes())
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        opened = reopened(tmp_path / "whole")
        assert opened.torn_bytes == end - start
        assert records_of(opened) == [b"first", b"second"]
        opened.append([b"again"])
        opened.sync()
        opened.close()
        again = reopened(tmp_path / "whole")
        assert (records_of(again), again.torn_bytes) == ([b"first", b"second", b"again"], 0)
        again.close()


def test_every_flipped_bit_is_torn_tail_or_halt_and_never_read(tmp_path: Path) -> None:
    groups = [[b"first"], [b"second"], [b"third"]]
    written(tmp_path, groups)
    (path,) = segments(tmp_path)
    whole = path.read_bytes()
    last_frame = whole.rindex(b"third") - 4 - 24
    halts = torn = 0
    for position in range(len(whole)):
        for bit in (0, 3, 7):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                opened = reopened(tmp_path)
            except Halt:
                halts += 1
                assert position < last_frame
                continue
            torn += 1
            assert position >= last_frame
            assert opened.torn_bytes > 0
            assert records_of(opened) == [b"first", b"second"]
            opened.close()
    assert halts
    assert torn


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_before_the_last_segment_is_a_halt(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    written(directory, [[bytes([n]) * 50] for n in range(6)], segment_bytes=150)
    path = data.draw(st.sampled_from(segments(directory)[:-1]))
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        damaged = bytearray(whole)
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(damaged)
    with pytest.raises(Halt):
        reopened(directory)


def test_a_lost_middle_segment_is_a_halt(tmp_path: Path) -> None:
    written(tmp_path, [[bytes([n]) * 50] for n in range(6)], segment_bytes=150)
    assert len(segments(tmp_path)) > 2
    segments(tmp_path)[1].unlink()
    with pytest.raises(Halt, match="lost"):
        reopened(tmp_path)


def test_a_segment_of_an_older_copy_does_not_fit_in(tmp_path: Path) -> None:
    written(tmp_path / "a", [[bytes([n]) * 50] for n in range(6)], segment_bytes=150)
    written(tmp_path / "b", [[bytes([n + 9]) * 50] for n in range(6)], segment_bytes=150)
    segments(tmp_path / "a")[1].write_bytes(segments(tmp_path / "b")[1].read_bytes())
    with pytest.raises(Halt, match="does not continue"):
        reopened(tmp_path / "a")


def test_segments_roll_and_old_ones_are_dropped_but_never_the_newest(tmp_path: Path) -> None:
    written(tmp_path, [[bytes([n]) * 50] for n in range(6)], segment_bytes=150)
    opened = reopened(tmp_path)
    newest = opened.segment
    assert newest > 2
    opened.drop_before(2)
    assert opened.first_segment == 2
    opened.drop_before(10**6)
    assert (opened.first_segment, opened.segment) == (newest, newest)
    opened.append([b"more"])
    assert opened.sync() == newest
    opened.close()
    again = reopened(tmp_path)
    assert records_of(again)[-1] == b"more"
    assert again.first_segment == newest


def test_an_unfinished_segment_of_a_crash_is_removed(tmp_path: Path) -> None:
    written(tmp_path, [[b"one"]])
    (tmp_path / "000000000002.tmp").write_bytes(b"half")
    assert records_of(reopened(tmp_path)) == [b"one"]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_record_that_looks_like_a_frame_does_not_make_a_torn_tail_a_halt(tmp_path: Path) -> None:
    written(tmp_path / "a", [[b"one"], [b"two"]])
    foreign = segments(tmp_path / "a")[0].read_bytes()
    written(tmp_path / "b", [[b"one"], [foreign]])
    (path,) = segments(tmp_path / "b")
    path.write_bytes(path.read_bytes()[:-1])
    assert records_of(reopened(tmp_path / "b")) == [b"one"]


def test_a_failed_fsync_ends_the_process_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, [[b"one"]])
    opened = reopened(tmp_path)
    calls = []

    def refuse(file: int) -> None:
        calls.append(file)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    opened.append([b"two"])
    for _ in range(2):
        with pytest.raises(SystemExit, match="fsync failed"):
            opened.sync()
    assert len(calls) == 1


def test_records_and_frames_are_bounded(tmp_path: Path) -> None:
    written(tmp_path, [])
    opened = reopened(tmp_path)
    with pytest.raises(ValueError, match="at most"):
        opened.append([bytes(journal.RECORD_BYTES_MAX + 1)])
    opened.append([bytes(journal.RECORD_BYTES_MAX)] * 3)
    with pytest.raises(ValueError, match="wait for one sync"):
        opened.append([bytes(journal.RECORD_BYTES_MAX)])
