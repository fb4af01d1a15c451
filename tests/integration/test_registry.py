"""The schemas in a real registry (Apicurio): registered once, guarded by their modes, asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, cast

import pytest
from fastavro.schema import to_parsing_canonical_form
from tests.machines import free_ports
from tests.stand import Stand

from nocturne.core.schemas import SCHEMAS
from nocturne.core.topics import (
    COMMANDS,
    EVENTS,
    FIXED_SCHEMA_IDS,
    SCHEMA_NAMES,
    SEALS,
    TOPICS,
)
from nocturne.runtime.lifecycle import EXIT_FAILED, EXIT_SETTINGS
from nocturne.runtime.registry import COMPATIBILITY, schema_ids, subject_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NOCTURNE = Path(sys.executable).with_name("nocturne")


def nocturne(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One command line, to its end."""
    return subprocess.run(
        [NOCTURNE, *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def registered(url: str) -> list[dict[str, Any]]:
    """What `schemas register` prints."""
    done = nocturne("schemas", "register", "--registry", url, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def asked(url: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """The registry's own answer, without anything of ours between."""
    request = urllib.request.Request(
        f"{url}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/vnd.schemaregistry.v1+json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def changed(topic: str, *, without: str = "", extra: dict[str, Any] | None = None) -> object:
    """A topic's schema with one of its fields removed, or one more."""
    schema = json.loads(SCHEMAS[SCHEMA_NAMES[topic]])
    names = [field["name"] for field in schema["fields"]]
    assert not without or without in names
    schema["fields"] = [field for field in schema["fields"] if field["name"] != without]
    schema["fields"] += [] if extra is None else [extra]
    return {"schema": json.dumps(schema), "schemaType": "AVRO"}


def form(schema: str) -> str:
    """What readers see of a schema: a registry may spell its names another way."""
    return str(to_parsing_canonical_form(json.loads(schema)))


# The order matters: the registry is empty at first.


def test_an_empty_registry_names_the_command_to_run(registry_url: str, tmp_path: Path) -> None:
    done = nocturne("schemas", "check", "--registry", registry_url)
    assert done.returncode == 1
    assert "6 subjects are not as a ledger needs it: 'nocturne schemas register'" in done.stderr
    environment = {"NOCTURNE_REGISTRY_URL": registry_url}
    done = nocturne("up", "--detach", "--home", str(tmp_path / "home"), environment=environment)
    assert done.returncode == 3
    assert f"'nocturne schemas register --registry {registry_url}'" in done.stderr
    assert done.stderr.startswith("✗ The schema registry")
    assert done.stderr.count("\n") == 1


def test_a_service_does_not_start_without_its_schemas(registry_url: str, tmp_path: Path) -> None:
    stand = Stand(tmp_path / "home", "127.0.0.1:9")
    stand.environment["NOCTURNE_REGISTRY_URL"] = registry_url
    try:
        service = stand.start("consensus", healthy=False)
        assert service.ended() == EXIT_FAILED
        assert f"nocturne schemas register --registry {registry_url}" in service.said()
        assert "Traceback" not in service.said()
        stand.environment["NOCTURNE_REGISTRY_URL"] = "http:registry"
        service = stand.start("consensus", healthy=False)
        assert service.ended() == EXIT_SETTINGS
        assert "NOCTURNE_REGISTRY_URL: " in service.said()
    finally:
        stand.stop_all()


def test_a_registry_that_is_down_is_one_sentence(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_ports('nobody')['nobody']}"
    environment = {"NOCTURNE_REGISTRY_URL": url, "NOCTURNE_HOME": str(tmp_path / "home")}
    for arguments in (["up", "--detach"], ["up"], ["schemas", "check"], ["schemas", "register"]):
        done = nocturne(*arguments, environment=environment)
        assert done.returncode == 3, (arguments, done.stderr)
        assert f"{url}: cannot be asked" in done.stderr
        assert done.stderr.count("\n") == 1


def test_registering_is_safe_to_repeat_and_sets_each_mode(registry_url: str) -> None:
    # So that no id is by chance the fixed one.
    for number in range(7):
        body = {"schema": json.dumps({"type": "fixed", "name": "Other", "size": number + 1})}
        assert asked(registry_url, "POST", f"/subjects/other-{number}/versions", body)[0] == 200
    first = registered(registry_url)
    assert registered(registry_url) == first
    assert [one["topic"] for one in first] == list(TOPICS)
    for one in first:
        subject = subject_of(one["topic"])
        assert asked(registry_url, "GET", f"/subjects/{subject}/versions") == (200, [1])
        mode = {"compatibilityLevel": COMPATIBILITY[one["topic"]].value}
        assert asked(registry_url, "GET", f"/config/{subject}") == (200, mode)
        found = asked(registry_url, "GET", f"/schemas/ids/{one['id']}")[1]
        assert form(found["schema"]) == form(SCHEMAS[SCHEMA_NAMES[one["topic"]]])
    ids = {one["topic"]: cast("int", one["id"]) for one in first}
    assert min(ids.values()) > max(FIXED_SCHEMA_IDS.values())
    assert schema_ids(registry_url) == ids
    assert nocturne("schemas", "check", "--registry", registry_url).returncode == 0


@pytest.mark.parametrize("topic", TOPICS)
def test_a_schema_that_cannot_read_the_past_is_refused(registry_url: str, topic: str) -> None:
    registered(registry_url)
    needed = changed(topic, extra={"name": "added", "type": "string"})
    status, answer = asked(registry_url, "POST", f"/subjects/{subject_of(topic)}/versions", needed)
    assert status == 409, answer
    assert asked(registry_url, "GET", f"/subjects/{subject_of(topic)}/versions") == (200, [1])


@pytest.mark.parametrize(
    "topic, field, taken",
    [
        (EVENTS, "payload", False),
        (SEALS, "signatures", False),
        (COMMANDS, "payloads", True),
    ],
)
def test_only_commands_may_lose_what_old_readers_need(
    registry_url: str, topic: str, field: str, taken: bool
) -> None:
    registered(registry_url)
    answer = asked(
        registry_url,
        "POST",
        f"/compatibility/subjects/{subject_of(topic)}/versions/latest",
        changed(topic, without=field),
    )
    assert answer == (200, {"is_compatible": taken})


def test_a_mode_that_someone_changed_is_found_and_set_right(registry_url: str) -> None:
    registered(registry_url)
    subject = subject_of(EVENTS)
    asked(registry_url, "PUT", f"/config/{subject}", {"compatibility": "NONE"})
    done = nocturne("schemas", "check", "--registry", registry_url, "--json")
    assert done.returncode == 1
    assert subject in done.stderr
    assert [
        one["topic"] for line in done.stdout.splitlines() if not (one := json.loads(line))["ready"]
    ] == [EVENTS]
    assert all(one["ready"] for one in registered(registry_url))
