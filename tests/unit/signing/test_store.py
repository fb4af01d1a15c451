"""The authority's memory on disk."""

import sqlite3
from pathlib import Path

import pytest

from nocturne.core.errors import Halt
from nocturne.core.identifiers import Hash, LedgerId, SessionId
from nocturne.core.state_leaf import LogPosition
from nocturne.signing import store as stores
from nocturne.signing.guard import Head
from nocturne.signing.store import Recorded, Resume, SigningStore

LEDGER, KEY = LedgerId(b"L" * 32), b"K" * 32
POSITIONS = (LogPosition(0, 1, bytes(16), 9, Hash(b"p" * 32)),)


def digest(number: int) -> Hash:
    return Hash(number.to_bytes(32, "big"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "signed.sqlite"


def opened(path: Path) -> SigningStore:
    return SigningStore(path, LEDGER, KEY)


def test_a_new_store_knows_nothing(path: Path) -> None:
    store = opened(path)
    assert store.resume() == Resume(0, 0, (), b"")
    assert store.last_height() == 0
    assert store.digest(1) is None
    assert store.heads([SessionId("a")]) == {}


def test_what_is_recorded_is_there_after_a_start(path: Path) -> None:
    store = opened(path)
    heads = {SessionId("a"): Head(3, digest(30)), SessionId("b"): Head(1, digest(10))}
    store.record([Recorded(1, digest(1)), Recorded(2, digest(2))], heads, None)
    store.record([Recorded(3, digest(3))], {}, Resume(2, 17, POSITIONS, b"sets"))
    store.close()
    again = opened(path)
    assert again.last_height() == 3
    assert [again.digest(height) for height in (1, 2, 3, 4)] == [*map(digest, (1, 2, 3)), None]
    assert again.heads(map(SessionId, "abc")) == heads
    assert again.resume() == Resume(2, 17, POSITIONS, b"sets")


def test_heads_beyond_the_cache_come_from_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "HEADS_CACHED_MAX", 2)
    monkeypatch.setattr(stores, "QUERY_SESSIONS_MAX", 3)
    store = opened(path)
    heads = {SessionId(f"s{number}"): Head(number, digest(number)) for number in range(10)}
    store.record([Recorded(1, digest(1))], heads, None)
    assert store.heads(heads) == heads
    store.record([], {SessionId("s0"): Head(11, digest(11))}, None)
    assert store.heads([SessionId("s0")]) == {SessionId("s0"): Head(11, digest(11))}


def test_a_height_is_never_recorded_twice(path: Path) -> None:
    store = opened(path)
    store.record([Recorded(1, digest(1))], {}, None)
    with pytest.raises(SystemExit, match="commit failed"):
        store.record([Recorded(1, digest(2))], {SessionId("a"): Head(1, digest(1))}, None)
    store.close()
    again = opened(path)
    assert again.digest(1) == digest(1)
    assert again.heads([SessionId("a")]) == {}


@pytest.mark.parametrize("ledger, key", [(LedgerId(b"M" * 32), KEY), (LEDGER, b"J" * 32)])
def test_another_ledgers_or_keys_store_is_a_halt(path: Path, ledger: LedgerId, key: bytes) -> None:
    opened(path).close()
    with pytest.raises(Halt, match="another ledger or another key"):
        SigningStore(path, ledger, key)


def test_a_damaged_store_is_a_halt(path: Path) -> None:
    path.write_bytes(b"this is no database, and was one" * 100)
    with pytest.raises(Halt, match="not a database"):
        opened(path)


def test_every_transaction_is_synced(path: Path) -> None:
    opened(path)
    store = opened(path)
    assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert isinstance(store._database, sqlite3.Connection)


def test_nobody_else_can_read_it(path: Path) -> None:
    opened(path)
    assert path.stat().st_mode & 0o077 == 0
