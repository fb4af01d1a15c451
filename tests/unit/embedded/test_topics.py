"""Topics are made once, and what a broker shows of them late is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nocturne.core.topics import COMMANDS
from nocturne.embedded import topics
from nocturne.embedded.errors import EmbeddedError

PARTITIONS = 4


class LateBroker:
    """Shows what it has only after it was asked some times, as a broker's metadata do."""

    def __init__(self, shown: dict[str, int], asked_before: int) -> None:
        self.shown = shown
        self.answers = self._answers(asked_before)
        self.created: list[str] = []

    def list_topics(self, timeout: float) -> Any:
        return SimpleNamespace(
            topics={
                name: SimpleNamespace(partitions=range(count))
                for name, count in next(self.answers).items()
            }
        )

    def create_topics(self, fresh: list[Any], operation_timeout: float) -> dict[str, Any]:
        self.created += [one.topic for one in fresh]
        return {one.topic: SimpleNamespace(result=lambda _: None) for one in fresh}

    def _answers(self, asked_before: int) -> Iterator[dict[str, int]]:
        for number in range(asked_before):
            # A topic can be shown before its partitions are.
            yield dict.fromkeys(self.shown, 0) if number % 2 else {}
        while True:
            yield self.shown


def _ensure(monkeypatch: pytest.MonkeyPatch, broker: LateBroker) -> None:
    monkeypatch.setattr(topics, "AdminClient", lambda _: broker)
    topics.ensure("broker:1", PARTITIONS)


def test_topics_that_are_shown_late_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {name: count for name, (count, _) in topics.plan(PARTITIONS).items()}
    broker = LateBroker(wanted, asked_before=5)
    _ensure(monkeypatch, broker)
    assert set(broker.created) == set(wanted)


def test_a_topic_with_another_partition_count_is_another_ledgers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = {name: count for name, (count, _) in topics.plan(PARTITIONS).items()}
    broker = LateBroker({**wanted, COMMANDS: 3}, asked_before=0)
    with pytest.raises(EmbeddedError, match="has 3 partitions, expected 4"):
        _ensure(monkeypatch, broker)


def test_topics_that_are_never_shown_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "SHOWN_SECONDS_MAX", 0.0)
    with pytest.raises(EmbeddedError, match="has 0 partitions"):
        _ensure(monkeypatch, LateBroker({}, asked_before=0))
