"""Followers are woken when their session changes, and are bounded."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.projection.chains import Chain
from tests.unit.query.read_model import ReadModel

from nocturne.core.identifiers import SessionId, session_key
from nocturne.query import feed as feed_module
from nocturne.query.feed import Feed, FollowersFull
from nocturne.runtime.postgres import Database


def grown(blocks: int) -> ReadModel:
    made = Chain()
    made.grow(blocks, seed=3, sessions=6)
    return ReadModel(made, blocks)


def test_only_followers_of_changed_sessions_are_woken() -> None:
    model = grown(30)
    ledger_id = model.made.ledger.ledger_id
    keys = {number: session_key(ledger_id, SessionId(f"grown/{number}")) for number in range(6)}
    feed = Feed(Database(""), model.store)

    async def look() -> None:
        with feed.following(keys[0]) as first, feed.following(keys[1]) as second:
            model.height = 5
            await feed._look()
            # What was before the first look is not known: both look for themselves.
            assert first.is_set()
            assert second.is_set()
            for height in range(6, 31):
                first.clear()
                second.clear()
                model.height = height
                await feed._look()
                changed = model.changes[height - 1][1]
                assert first.is_set() == (keys[0] in changed)
                assert second.is_set() == (keys[1] in changed)

    asyncio.run(look())
    assert feed.followers == 0


def test_after_many_blocks_everyone_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "BLOCKS_PER_LOOK", 3)
    model = grown(10)
    feed = Feed(Database(""), model.store)

    async def look() -> None:
        with feed.following(b"any") as changed:
            model.height = 1
            await feed._look()
            changed.clear()
            model.height = 2
            await feed._look()
            assert not changed.is_set()
            model.height = 10
            await feed._look()
            assert changed.is_set()

    asyncio.run(look())


def test_followers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "FOLLOWERS_MAX", 1)
    feed = Feed(Database(""), grown(1).store)
    with feed.following(b"a"), pytest.raises(FollowersFull), feed.following(b"b"):
        pass
    with feed.following(b"b"):
        assert feed.followers == 1
