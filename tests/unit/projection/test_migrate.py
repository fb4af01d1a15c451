"""A migration that was applied is never another one."""

from __future__ import annotations

import pytest

from nocturne.projection.migrate import Migration, MigrationFault, migrations, pending

KNOWN = (Migration(1, "first", "CREATE 1"), Migration(2, "second", "CREATE 2"))


def applied(*numbers: int) -> dict[int, bytes]:
    return {number: KNOWN[number - 1].checksum for number in numbers}


def test_what_is_not_applied_is_pending_in_its_order() -> None:
    assert pending(KNOWN, {}) == KNOWN
    assert pending(KNOWN, applied(1)) == KNOWN[1:]
    assert pending(KNOWN, applied(1, 2)) == ()


def test_a_file_changed_after_it_was_applied_is_refused() -> None:
    with pytest.raises(MigrationFault, match=r"migration 1 .first. was applied with other"):
        pending(KNOWN, {1: bytes(32)})


def test_a_database_of_a_newer_version_is_refused() -> None:
    with pytest.raises(MigrationFault, match="this version ends at 2"):
        pending(KNOWN, {**applied(1, 2), 3: bytes(32)})


def test_a_hole_is_refused() -> None:
    with pytest.raises(MigrationFault, match="holes"):
        pending(KNOWN, applied(2))


def test_the_package_carries_its_files_numbered_from_1() -> None:
    found = migrations()
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    assert "CREATE TABLE nocturne_v1.progress" in found[0].statements
