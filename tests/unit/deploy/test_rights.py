"""The one list of who may do what, and how strictly it is read."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from nocturne.command import service as command
from nocturne.consensus import publisher as consensus
from nocturne.core.errors import Malformed
from nocturne.core.topics import BLOCKS, COMMANDS, EVENTS, EVIDENCE, RECEIPTS, SEALS, TOPICS
from nocturne.deploy.rights import (
    CLUSTER_NAME,
    FILE_BYTES_MAX,
    Operation,
    Resource,
    Right,
    list_of_rights,
    parse_rights,
)
from nocturne.embedded import postgres
from nocturne.embedded.services import services_of
from nocturne.projection import reading as projection
from nocturne.projection.migrate import SCHEMA
from nocturne.signing import service as signing

DATA = resources.files("nocturne.deploy").joinpath("rights.json").read_bytes()
SPEC = Path(__file__).resolve().parents[3] / "docs" / "spec" / "topics.md"
BEGIN = "<!-- rights: made by tests/unit/deploy/test_rights.py -->"
END = "<!-- end -->"
CHANGING = (
    Operation.CREATE,
    Operation.DELETE,
    Operation.ALTER,
    Operation.ALTER_CONFIGS,
    Operation.CLUSTER_ACTION,
)
ORDINARY = [one for one in list_of_rights().principals if not one.superuser]


def may(operation: Operation, topic: str) -> set[str]:
    """The principals that may, but the superuser."""
    return {one.name for one in ORDINARY if one.may(Resource.TOPIC, topic, operation)}


# The list --------------------------------------------------------------------------------------


def test_every_topic_has_exactly_the_writers_that_the_spec_names() -> None:
    rows = re.findall(
        r"^\| `(nocturne\.[^`]+)` \|.*\| ([a-z, ]+) \|$", SPEC.read_text(), re.MULTILINE
    )
    assert {topic for topic, _ in rows} == set(TOPICS)
    for topic, writers in rows:
        assert may(Operation.WRITE, topic) == set(writers.split(", "))


def test_every_topic_has_exactly_the_readers_that_the_architecture_names() -> None:
    assert may(Operation.READ, COMMANDS) == {"consensus"}
    assert may(Operation.READ, BLOCKS) == {
        *("command", "consensus", "signing", "projection", "consumer")
    }
    assert may(Operation.READ, SEALS) == {"command", "projection", "consumer"}
    assert may(Operation.READ, EVENTS) == {"projection", "consumer"}
    assert may(Operation.READ, RECEIPTS) == {"command", "projection", "consumer"}
    assert may(Operation.READ, EVIDENCE) == {"consumer"}


def test_query_has_no_kafka_principal() -> None:
    assert "query" not in {one.name for one in list_of_rights().principals}


def test_each_service_with_kafka_has_a_principal_and_each_with_a_database_a_role() -> None:
    needed = {service.component for service in services_of(4) if service.kafka}
    assert {one.name for one in list_of_rights().principals} == needed | {"admin", "consumer"}
    assert [one.name for one in list_of_rights().principals if one.optional] == ["consumer"]
    roles = {
        service.component: service.postgres_role
        for service in services_of(4)
        if service.postgres_role is not None
    }
    assert {role.service: role.name for role in list_of_rights().database.roles} == roles
    database = list_of_rights().database
    assert (database.name, database.owner) == (postgres.DATABASE, postgres.OWNER)
    assert database.schema == SCHEMA


def test_nobody_but_the_admin_may_create_delete_or_alter() -> None:
    assert list_of_rights().superuser.name == "admin"
    for principal in ORDINARY:
        for grant in principal.grants:
            assert not set(CHANGING) & set(grant.operations), (principal.name, grant)
            assert grant.resource is not Resource.CLUSTER, principal.name


def test_only_signing_has_a_transactional_id_and_it_is_the_one_it_uses() -> None:
    holders = {
        (one.name, grant.name)
        for one in ORDINARY
        for grant in one.grants
        if grant.resource is Resource.TRANSACTIONAL_ID
    }
    assert holders == {("signing", signing.TRANSACTIONAL_ID)}


def test_no_group_is_shared_and_no_service_may_take_part_in_one() -> None:
    """Services are assigned their partitions: none joins a group or commits an offset."""
    groups = [
        (one.name, grant)
        for one in ORDINARY
        for grant in one.grants
        if grant.resource is Resource.GROUP
    ]
    for name, grant in groups:
        others = {other for other, _ in groups if other != name}
        for other in others:
            found = (
                list_of_rights()
                .principal(other)
                .may(Resource.GROUP, grant.name, Operation.DESCRIBE)
            )
            assert not found, (name, other)
        assert grant.operations == (
            (Operation.READ,) if name == "consumer" else (Operation.DESCRIBE,)
        )


def test_the_groups_are_those_that_the_services_use() -> None:
    used = {
        "command": {command.CONSUMER_GROUP},
        "consensus": {consensus.CONSUMER_GROUP},
        "signing": {signing.CONSUMER_GROUP},
        "projection": {projection.CONSUMER_GROUP, projection.REBUILD_GROUP},
    }
    listed = {
        one.name: {grant.name for grant in one.grants if grant.resource is Resource.GROUP}
        for one in ORDINARY
        if not one.optional
    }
    assert listed == used


def test_only_the_projection_writes_the_read_model_and_not_what_was_migrated() -> None:
    database = list_of_rights().database
    assert database.role_of("projection").rights_in("events") == tuple(sorted(Right))
    assert database.role_of("projection").rights_in("migrations") == (Right.SELECT,)
    assert not database.role_of("projection").read_only
    assert database.role_of("query").rights_in("events") == (Right.SELECT,)
    assert database.role_of("query").rights_in("migrations") == (Right.SELECT,)
    assert database.role_of("query").read_only


def test_secrets_are_named_by_what_they_open() -> None:
    assert list_of_rights().principal("command").secret == "kafka-command"
    assert list_of_rights().database.role_of("query").secret == "postgres-query"
    assert list_of_rights().database.owner_secret == "postgres-owner"


def test_a_grant_covers_its_resource_its_name_and_what_its_operations_imply() -> None:
    command, consumer = (
        list_of_rights().principal("command"),
        list_of_rights().principal("consumer"),
    )
    assert command.may(Resource.TOPIC, COMMANDS, Operation.DESCRIBE)
    assert not command.may(Resource.TOPIC, COMMANDS, Operation.READ)
    assert not command.may(Resource.TOPIC, f"{COMMANDS}.more", Operation.WRITE)
    assert not command.may(Resource.GROUP, COMMANDS, Operation.WRITE)
    assert consumer.may(Resource.GROUP, "nocturne-consumer-7", Operation.READ)
    assert not consumer.may(Resource.GROUP, "another-consumer", Operation.READ)
    assert list_of_rights().superuser.may(Resource.CLUSTER, CLUSTER_NAME, Operation.ALTER)


def told(grants: Iterable[tuple[str, Iterable[str]]]) -> str:
    return ", ".join(f"`{name}` {' '.join(rights)}" for name, rights in grants) or "—"


def table() -> str:
    """The list as the spec shows it."""
    lines = ["| principal | topics | groups | transactional ids |", "|---|---|---|---|"]
    for one in list_of_rights().principals:
        of = {
            sort: told(
                (grant.name + "…" * grant.prefixed, grant.operations)
                for grant in one.grants
                if grant.resource is sort
            )
            for sort in (Resource.TOPIC, Resource.GROUP, Resource.TRANSACTIONAL_ID)
        }
        cells = list(of.values()) if not one.superuser else ["everything: `super.users`", "", ""]
        lines.append(f"| `{one.name}`: {one.purpose} | {' | '.join(cells)} |")
    lines += ["", "| role | tables | but | its sessions |", "|---|---|---|---|"]
    lines.append(f"| `{list_of_rights().database.owner}` | owns them | | |")
    for role in list_of_rights().database.roles:
        sessions = "read only" if role.read_only else ""
        rights = " ".join(role.rights)
        lines.append(f"| `{role.name}` | {rights} | {told(role.other)} | {sessions} |")
    return "\n".join(lines)


def test_the_spec_shows_the_list() -> None:
    shown = SPEC.read_text().split(BEGIN)[1].split(END)[0].strip()
    assert shown == table(), f"the table is now:\n{table()}"


# Reading it ------------------------------------------------------------------------------------

Change = Callable[[Any], object]


def changed(change: Change) -> bytes:
    tree = copy.deepcopy(json.loads(DATA))
    change(tree)
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    "change,says",
    [
        (lambda t: t.update(format=2), "format: expected 1, got 2"),
        (lambda t: t.update(more=1), "expected no member 'more'"),
        (lambda t: t["kafka"][1].update(host="*"), "expected no member 'host'"),
        (lambda t: t["kafka"][1].pop("cluster"), "expected a member cluster"),
        (lambda t: t["kafka"].append(t["kafka"][1]), "command stands twice"),
        (lambda t: t["kafka"][1].update(superuser=True), "expected no grants beside that"),
        (lambda t: t["kafka"].pop(0), "exactly one superuser"),
        (lambda t: t["kafka"][1].update(name="*"), "got '*'"),
        (lambda t: t["kafka"][1].update(purpose=""), "one short line"),
        (lambda t: t["kafka"][1]["topics"].append(t["kafka"][1]["topics"][0]), "stands twice"),
        (lambda t: t["kafka"][1]["topics"][0].update(prefixed=True), "no member 'prefixed'"),
        (lambda t: t["kafka"][1]["topics"][0].update(name="*"), "got '*'"),
        (lambda t: t["kafka"][1]["topics"][0].update(operations=["ALL"]), "got 'ALL'"),
        (lambda t: t["kafka"][1]["topics"][0].update(operations=[]), "expected some"),
        (lambda t: t["kafka"][1]["topics"][0].update(operations=["WRITE", "READ"]), "alphabetical"),
        (lambda t: t["kafka"][1]["topics"][0].update(operations=["READ"] * 2), "none twice"),
        (lambda t: t["kafka"][1].update(cluster=["write"]), "got 'write'"),
        (lambda t: t["kafka"].extend(t["kafka"] * 20), "expected at most 64"),
        (lambda t: t["postgres"]["roles"][0].update(name='x"; DROP'), "got 'x\"; DROP'"),
        (lambda t: t["postgres"]["roles"][0].update(rights=["TRUNCATE"]), "got 'TRUNCATE'"),
        (lambda t: t["postgres"]["roles"][1].update(service="projection"), "stands twice"),
        (lambda t: t["postgres"].update(owner="nocturne_query"), "nocturne_query stands twice"),
    ],
)
def test_a_list_of_another_form_is_refused(change: Change, says: str) -> None:
    with pytest.raises(Malformed, match=re.escape(says)):
        parse_rights(changed(change))


def test_a_list_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(Malformed, match=f"at most {FILE_BYTES_MAX} bytes"):
        parse_rights(DATA + b" " * FILE_BYTES_MAX)


def test_a_cluster_operation_is_one_grant_on_the_cluster() -> None:
    data = changed(lambda t: t["kafka"][1].update(cluster=["DESCRIBE"]))
    command = parse_rights(data).principal("command")
    assert command.may(Resource.CLUSTER, CLUSTER_NAME, Operation.DESCRIBE)
    assert not command.may(Resource.CLUSTER, CLUSTER_NAME, Operation.ALTER)
