"""The signing service of a ledger that is DEGRADED: it signs nothing more, and says so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.core.test_modes import CHAIN, KEPT

from nocturne.core.identifiers import Hash
from nocturne.core.modes import Cause, DegradedFound
from nocturne.runtime.degraded import LedgerMode
from nocturne.signing.guard import is_signed
from nocturne.signing.service import _until_degraded


class FakeSigning:
    def __init__(self, ends: Exception | None) -> None:
        self._ends = ends
        self.ran = 0

    async def run(self, _: object) -> None:
        self.ran += 1
        if self._ends is not None:
            raise self._ends


def ends_with(ends: Exception | None, home: Path) -> tuple[FakeSigning, LedgerMode]:
    signing: Any = FakeSigning(ends)
    mode = LedgerMode(home, CHAIN.ledger_id)
    server: Any = object()
    asyncio.run(_until_degraded(signing, mode, server))
    return signing, mode


def test_a_conflict_is_kept_and_after_a_restart_nothing_is_signed(tmp_path: Path) -> None:
    with pytest.raises(DegradedFound) as found:
        is_signed(7, Hash(b"a" * 32), Hash(b"b" * 32))
    assert found.value.degraded.cause is Cause.SIGNING_CONFLICT
    signing, mode = ends_with(found.value, tmp_path)
    assert (signing.ran, mode.kept) == (1, found.value.degraded)
    again, kept = ends_with(None, tmp_path)
    assert (again.ran, kept.kept) == (0, mode.kept)


def test_two_certified_histories_are_kept_with_their_proof(tmp_path: Path) -> None:
    _, mode = ends_with(DegradedFound(KEPT[0]), tmp_path)
    assert mode.kept == KEPT[0]


def test_a_service_that_is_told_to_stop_keeps_nothing(tmp_path: Path) -> None:
    signing, mode = ends_with(None, tmp_path)
    assert (signing.ran, mode.kept) == (1, None)
