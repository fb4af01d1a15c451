"""Topics are made once and as they must be, and rights are the list's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from nocturne.core import topics as names
from nocturne.deploy import topics
from nocturne.deploy.rights import list_of_rights
from nocturne.deploy.topics import Topic, acl_text, plan, reaches, rights_of
from nocturne.runtime import kafka
from nocturne.runtime.cluster import Cluster

PARTITIONS = 4
WANTED = plan(PARTITIONS)


class LateBroker:
    """Shows what it has only after it was asked some times, as a broker's metadata do."""

    def __init__(self, shown: tuple[Topic, ...], asked_before: int) -> None:
        self.shown = shown
        self.answers = self._answers(asked_before)
        self.created: list[str] = []

    def list_topics(self, timeout: float) -> Any:
        return SimpleNamespace(topics=next(self.answers))

    def create_topics(self, fresh: list[Any], operation_timeout: float) -> dict[str, Any]:
        self.created += [one.topic for one in fresh]
        return {one.topic: SimpleNamespace(result=lambda _: None) for one in fresh}

    def describe_configs(self, resources: list[Any]) -> dict[Any, Any]:
        of = {one.name: one.settings for one in self.shown}

        def told(name: str) -> Any:
            entries = {key: SimpleNamespace(value=value) for key, value in of[name].items()}
            return SimpleNamespace(result=lambda _: entries)

        return {resource: told(resource.name) for resource in resources}

    def _answers(self, asked_before: int) -> Iterator[dict[str, Any]]:
        for number in range(asked_before):
            # A topic can be shown before its partitions are.
            yield (
                dict.fromkeys([one.name for one in self.shown], _shape(0, 0)) if number % 2 else {}
            )
        while True:
            yield {one.name: _shape(one.partitions, one.replicas) for one in self.shown}


def _shape(partitions: int, replicas: int) -> Any:
    return SimpleNamespace(
        partitions={
            number: SimpleNamespace(replicas=range(replicas)) for number in range(partitions)
        }
    )


def _ensure(monkeypatch: pytest.MonkeyPatch, broker: LateBroker) -> tuple[Topic, ...]:
    monkeypatch.setattr(kafka, "AdminClient", lambda _: broker)
    return topics.ensure(Cluster("broker:1"), WANTED)


def _with(name: str, **changed: Any) -> tuple[Topic, ...]:
    return tuple(replace(one, **changed) if one.name == name else one for one in WANTED)


# Topics ----------------------------------------------------------------------------------------


def test_topics_that_are_shown_late_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = LateBroker(WANTED, asked_before=5)
    assert _ensure(monkeypatch, broker) == WANTED
    assert broker.created == [one.name for one in WANTED]


def test_topics_that_are_there_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = LateBroker(_with(names.COMMANDS, replicas=5), asked_before=0)
    assert _ensure(monkeypatch, broker) == ()
    assert broker.created == []


@pytest.mark.parametrize(
    "changed,says",
    [
        ({"partitions": 3}, "has 3 partitions, expected 4 from the genesis"),
        ({"replicas": 0}, "has 0 replicas, expected 1"),
        (
            {"settings": {**WANTED[0].settings, "retention.ms": "604800000"}},
            "has retention.ms=604800000, expected -1",
        ),
        (
            {"settings": {**WANTED[0].settings, "flush.messages": "9223372036854775807"}},
            "flush.messages=9223372036854775807, expected 1",
        ),
    ],
)
def test_a_topic_that_is_not_what_the_ledger_needs_is_refused(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], says: str
) -> None:
    broker = LateBroker(_with(names.COMMANDS, **changed), asked_before=0)
    with pytest.raises(topics.TopicFault, match=says):
        _ensure(monkeypatch, broker)


def test_topics_that_are_never_shown_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "SHOWN_SECONDS_MAX", 0.0)
    with pytest.raises(topics.TopicFault, match="has 0 partitions"):
        _ensure(monkeypatch, LateBroker((), asked_before=0))


def test_every_topic_is_kept_for_ever() -> None:
    assert [one.name for one in WANTED] == list(names.TOPICS)
    for topic in WANTED:
        assert topic.settings["retention.ms"] == "-1"
        assert topic.settings["retention.bytes"] == "-1"
        assert topic.settings["cleanup.policy"] == "delete"


def test_commands_events_and_receipts_share_the_partition_count() -> None:
    assert {one.name: one.partitions for one in plan(partitions=7)} == {
        names.COMMANDS: 7,
        names.EVENTS: 7,
        names.RECEIPTS: 7,
        names.BLOCKS: 1,
        names.SEALS: 1,
        names.EVIDENCE: 1,
    }


@pytest.mark.parametrize(
    "replicas,asked,insync,flushed",
    [(1, None, "1", True), (2, None, "2", False), (3, None, "2", False), (3, 1, "1", True)],
)
def test_what_is_acknowledged_is_on_the_disk_or_on_two_machines(
    replicas: int, asked: int | None, insync: str, flushed: bool
) -> None:
    wanted = plan(PARTITIONS, replicas, asked)
    for topic in wanted:
        assert topic.replicas == replicas
        assert topic.settings["min.insync.replicas"] == insync
    assert (wanted[0].settings.get("flush.messages") == "1") == flushed


# Rights ----------------------------------------------------------------------------------------


def _acl(principal: str, sort: str, name: str, operation: str, **more: Any) -> AclBinding:
    return AclBinding(
        ResourceType[sort],
        name,
        more.get("pattern", ResourcePatternType.LITERAL),
        principal,
        more.get("host", "*"),
        AclOperation[operation],
        more.get("permission", AclPermissionType.ALLOW),
    )


def test_a_principals_rights_are_those_of_the_list_and_a_superuser_needs_none() -> None:
    assert rights_of(list_of_rights().superuser) == set()
    assert rights_of(list_of_rights().principal("signing")) == {
        _acl("User:signing", "TOPIC", names.BLOCKS, "READ"),
        _acl("User:signing", "TOPIC", names.SEALS, "WRITE"),
        _acl("User:signing", "TOPIC", names.EVENTS, "WRITE"),
        _acl("User:signing", "TOPIC", names.RECEIPTS, "WRITE"),
        _acl("User:signing", "GROUP", "nocturne-signing", "DESCRIBE"),
        _acl("User:signing", "TRANSACTIONAL_ID", "nocturne-signing-v1", "WRITE"),
    }
    group = _acl(
        "User:consumer",
        "GROUP",
        "nocturne-consumer",
        "READ",
        pattern=ResourcePatternType.PREFIXED,
    )
    assert group in rights_of(list_of_rights().principal("consumer"))


PREFIXED = ResourcePatternType.PREFIXED


@pytest.mark.parametrize(
    "acl,found",
    [
        (_acl("User:x", "TOPIC", names.EVENTS, "READ"), True),
        (_acl("User:x", "TOPIC", "*", "WRITE"), True),
        (_acl("User:x", "TOPIC", "noct", "WRITE", pattern=PREFIXED), True),
        (_acl("User:x", "TOPIC", "other", "WRITE"), False),
        (_acl("User:x", "TOPIC", "other", "WRITE", pattern=PREFIXED), False),
        (_acl("User:x", "TRANSACTIONAL_ID", "nocturne-signing-v1", "WRITE"), True),
        (_acl("User:x", "GROUP", "other", "READ"), False),
        (_acl("User:x", "BROKER", "kafka-cluster", "ALTER"), True),
        (
            _acl("User:x", "TOPIC", names.EVENTS, "READ", permission=AclPermissionType.DENY),
            False,
        ),
    ],
)
def test_a_strangers_right_that_reaches_the_ledger_is_known(acl: AclBinding, found: bool) -> None:
    assert reaches(acl, list_of_rights()) is found


def test_a_right_is_said_in_words() -> None:
    acl = _acl("User:x", "TOPIC", "noct", "WRITE", pattern=PREFIXED, host="10.0.0.1")
    assert acl_text(acl) == "User:x may WRITE TOPIC noct… from 10.0.0.1"
    denied = _acl("User:x", "TOPIC", "t", "READ", permission=AclPermissionType.DENY)
    assert acl_text(denied) == "User:x may not READ TOPIC t"
