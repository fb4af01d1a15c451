"""schemas: what is listed, registered and checked, and what is said when it cannot be."""

from __future__ import annotations

import json

import pytest
from tests.unit.cli.memory_ledger import Shell
from tests.unit.runtime.registries import Fake, registry

from nocturne.core.schemas import SCHEMAS
from nocturne.core.topics import EVENTS, FIXED_SCHEMA_IDS, TOPICS
from nocturne.runtime.registry import COMPATIBILITY, subject_of


def test_without_a_registry_the_fixed_ids_are_listed(shell: Shell) -> None:
    listed = shell.json_lines("schemas", "list")
    assert {one["topic"]: one["id"] for one in listed} == FIXED_SCHEMA_IDS
    assert shell.run("schemas", "list") == 0
    assert "nocturne.events.v1-nocturne.v1.Event" in shell.out


@pytest.mark.parametrize("name", ["events", "nocturne.events.v1"])
def test_a_schema_is_shown_for_readers_without_a_registry(shell: Shell, name: str) -> None:
    assert shell.run("schemas", "show", name) == 0
    assert json.loads(shell.out) == json.loads(SCHEMAS["event"])


def test_registering_twice_says_the_same(shell: Shell) -> None:
    fake = Fake()
    with registry(fake) as url:
        first = shell.json_lines("schemas", "register", "--registry", url)
        assert shell.json_lines("schemas", "register", "--registry", url) == first
    assert [one["topic"] for one in first] == list(TOPICS)
    assert all(one["ready"] for one in first)
    assert fake.modes == {subject_of(topic): COMPATIBILITY[topic].value for topic in TOPICS}


def test_the_environment_names_the_registry(shell: Shell) -> None:
    with registry(Fake.complete()) as url:
        shell.environment = {"NOCTURNE_REGISTRY_URL": url}
        listed = shell.json_lines("schemas", "list")
        assert [one["id"] for one in listed] == [100, 101, 102, 103, 104, 105]
        assert shell.run("schemas", "check") == 0


def test_a_check_names_what_is_wrong_and_what_to_run(shell: Shell) -> None:
    fake = Fake.complete()
    fake.modes[subject_of(EVENTS)] = "NONE"
    with registry(fake) as url:
        assert shell.run("schemas", "check", "--registry", url) == 1
    assert "NONE, not FULL_TRANSITIVE" in shell.out
    assert "1 subject is not as a ledger needs it" in shell.err
    assert "'nocturne schemas register'" in shell.err


def test_another_schema_under_the_subject_is_refused(shell: Shell) -> None:
    fake = Fake.complete()
    fake.schemas[subject_of(EVENTS)] = (5, '"string"')
    with registry(fake) as url:
        assert shell.run("schemas", "register", "--registry", url) == 1
    assert "holds another schema" in shell.err


@pytest.mark.parametrize("command", ["register", "check"])
def test_no_registry_is_bad_use(shell: Shell, command: str) -> None:
    assert shell.run("schemas", command) == 2
    assert "NOCTURNE_REGISTRY_URL" in shell.err


def test_what_is_no_address_is_bad_use_and_not_shown(shell: Shell) -> None:
    assert shell.run("schemas", "check", "--registry", "user:secret@registry") == 2
    assert "secret" not in shell.err


def test_a_registry_that_is_away_ends_with_3(shell: Shell) -> None:
    assert shell.run("schemas", "register", "--registry", "http://127.0.0.1:9") == 3
    assert "cannot be asked" in shell.err
    assert shell.err.count("\n") == 1


def test_a_topic_that_is_none_is_bad_use(shell: Shell) -> None:
    assert shell.run("schemas", "show", "orders\x1b[2J") == 2
    assert "TOPIC takes commands, blocks, seals, events, receipts" in shell.err
    assert "\x1b" not in shell.err
