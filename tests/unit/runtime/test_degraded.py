"""The file that keeps why a ledger is DEGRADED."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.core.test_modes import CHAIN, KEPT

from nocturne.core.errors import Halt
from nocturne.core.identifiers import LedgerId
from nocturne.core.modes import Degraded
from nocturne.runtime.degraded import FILE, LedgerMode, keep, load


@pytest.mark.parametrize("why", KEPT, ids=str)
def test_what_is_kept_is_there_after_a_restart(why: Degraded, tmp_path: Path) -> None:
    home = tmp_path / "made"
    mode = LedgerMode(home, CHAIN.ledger_id)
    assert mode.kept is None
    mode.keep(why)
    assert LedgerMode(home, CHAIN.ledger_id).kept == mode.kept == why
    assert [one.name for one in home.iterdir()] == [FILE]


def test_the_first_cause_stays(tmp_path: Path) -> None:
    first, second = KEPT[:2]
    mode = LedgerMode(tmp_path, CHAIN.ledger_id)
    mode.keep(first)
    mode.keep(second)
    keep(tmp_path, CHAIN.ledger_id, second)
    assert LedgerMode(tmp_path, CHAIN.ledger_id).kept == mode.kept == first


def test_want_of_a_quorum_is_in_no_file(tmp_path: Path) -> None:
    mode = LedgerMode(tmp_path, CHAIN.ledger_id)
    mode.want_of_a_quorum("nothing is certified")
    assert dict(mode.metadata())["nocturne-mode-cause"] == "WANT_OF_A_QUORUM"
    assert list(tmp_path.iterdir()) == []
    mode.want_of_a_quorum(None)
    assert mode.degraded is None


@pytest.mark.parametrize("data", [b"", b"junk", None])
def test_a_file_that_cannot_be_read_is_not_none(data: bytes | None, tmp_path: Path) -> None:
    keep(tmp_path, CHAIN.ledger_id, KEPT[0])
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-1] if data is None else data)
    with pytest.raises(Halt, match="nobody can say any more"):
        load(tmp_path, CHAIN.ledger_id)


def test_another_ledgers_file_halts(tmp_path: Path) -> None:
    keep(tmp_path, CHAIN.ledger_id, KEPT[0])
    with pytest.raises(Halt, match="another ledger"):
        load(tmp_path, LedgerId(bytes(32)))
