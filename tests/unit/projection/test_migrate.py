"""A migration that was applied is never another one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.projection.migrate import (
    Migration,
    MigrationFault,
    SchemaNewer,
    migrations,
    numbered,
    pending,
)

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


def test_a_number_below_1_is_refused() -> None:
    with pytest.raises(MigrationFault, match="they begin at 1"):
        pending(KNOWN, {0: KNOWN[0].checksum, **applied(1, 2)})


def test_a_newer_database_is_told_from_a_changed_one() -> None:
    with pytest.raises(SchemaNewer):
        pending(KNOWN, {**applied(1, 2), 3: bytes(32)})
    with pytest.raises(MigrationFault) as changed:
        pending(KNOWN, {1: bytes(32)})
    assert not isinstance(changed.value, SchemaNewer)


def test_files_are_taken_in_the_order_of_their_numbers() -> None:
    found = numbered([("0002_second.sql", "CREATE 2"), ("0001_first.sql", "CREATE 1")])
    assert found == KNOWN


@pytest.mark.parametrize(
    "names",
    [
        ["0001_a.sql", "0003_c.sql"],
        ["0002_b.sql"],
        ["0000_z.sql", "0001_a.sql"],
        ["0001_a.sql", "0001_b.sql"],
    ],
)
def test_files_with_a_gap_or_a_number_twice_are_refused(names: list[str]) -> None:
    with pytest.raises(MigrationFault, match=r"expected 1, 2, 3, … each once"):
        numbered([(name, "") for name in names])


@pytest.mark.parametrize("name", ["1_a.sql", "0001-a.sql", "0001_.sql", "0001_A.sql", "first.sql"])
def test_a_file_with_another_kind_of_name_is_refused(name: str) -> None:
    with pytest.raises(MigrationFault, match="expected a name like"):
        numbered([(name, "")])


@given(st.dictionaries(st.integers(-2, 6), st.sampled_from([KNOWN[0].checksum, b"", bytes(32)])))
def test_only_a_beginning_of_what_is_known_is_gone_on_from(found: dict[int, bytes]) -> None:
    beginnings = [applied(*range(1, count + 1)) for count in range(len(KNOWN) + 1)]
    if found in beginnings:
        assert pending(KNOWN, found) == KNOWN[len(found) :]
    else:
        with pytest.raises(MigrationFault):
            pending(KNOWN, found)
