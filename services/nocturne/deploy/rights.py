"""Who may do what: the one list of Kafka's principals and Postgres' roles, `rights.json`.

Rules: docs/spec/topics.md §6. Whatever grants a right or tries one reads it here: the jobs that
make users and roles, the deployments' files, the tests. Pure but for reading the packaged file.

    {"format": 1, "kafka": [principal, …], "postgres": {"database": …, "roles": [role, …]}}

What is not in the list is refused by the broker and by the database. Kafka lets whoever may READ
or WRITE also DESCRIBE, and lets whoever may WRITE a topic write it idempotently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Final, TypeVar

from nocturne.core.errors import Malformed
from nocturne.core.json_fields import Fields
from nocturne.core.strict_json import parse_json

FILE: Final = "rights.json"
FORMAT: Final = 1
FILE_BYTES_MAX: Final = 64 * 1024
DEPTH_MAX: Final = 8
PRINCIPALS_MAX: Final = 64
GRANTS_MAX: Final = 64
"""Of one principal, of each sort; tables that a role has other rights in, too."""
PURPOSE_CHARACTERS_MAX: Final = 120

CLUSTER_NAME: Final = "kafka-cluster"
"""Kafka's own name of the one resource of its type."""

_KAFKA_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
"""Of a topic, as Kafka takes it; groups, transactional ids and principals of ours are no wider."""
_SQL_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")

Choice = TypeVar("Choice", bound=StrEnum)


class Resource(StrEnum):
    """What Kafka has rights in, in Kafka's words."""

    TOPIC = "TOPIC"
    GROUP = "GROUP"
    TRANSACTIONAL_ID = "TRANSACTIONAL_ID"
    CLUSTER = "CLUSTER"


class Operation(StrEnum):
    """What may be done with it, in Kafka's words."""

    READ = "READ"
    WRITE = "WRITE"
    CREATE = "CREATE"
    DELETE = "DELETE"
    ALTER = "ALTER"
    DESCRIBE = "DESCRIBE"
    CLUSTER_ACTION = "CLUSTER_ACTION"
    DESCRIBE_CONFIGS = "DESCRIBE_CONFIGS"
    ALTER_CONFIGS = "ALTER_CONFIGS"
    IDEMPOTENT_WRITE = "IDEMPOTENT_WRITE"


class Right(StrEnum):
    """What may be done with a table, in SQL's words."""

    SELECT = "SELECT"
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class Grant:
    """Operations on one resource; `prefixed`: on every one whose name begins so."""

    resource: Resource
    name: str
    prefixed: bool
    operations: tuple[Operation, ...]

    def covers(self, resource: Resource, name: str, operation: Operation) -> bool:
        """Whether it lets `operation` be done."""
        named = name.startswith(self.name) if self.prefixed else name == self.name
        return self.resource is resource and named and operation in self._with_implied()

    def _with_implied(self) -> tuple[Operation, ...]:
        implies = {Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER}
        describes = not implies.isdisjoint(self.operations)
        return (*self.operations, Operation.DESCRIBE) if describes else self.operations


@dataclass(frozen=True, slots=True)
class Principal:
    """One user of the broker, `User:<name>`, and all that it may do.

    `superuser`: the broker asks nothing of it (`super.users`). `optional`: a deployment may be
    without it.
    """

    name: str
    purpose: str
    superuser: bool
    optional: bool
    grants: tuple[Grant, ...]

    @property
    def secret(self) -> str:
        """The file of its password, wherever secrets are files: `kafka-command`."""
        return f"kafka-{self.name}"

    def may(self, resource: Resource, name: str, operation: Operation) -> bool:
        """Whether the broker lets it."""
        return self.superuser or any(one.covers(resource, name, operation) for one in self.grants)


@dataclass(frozen=True, slots=True)
class Role:
    """One role of the database, the `service` that is it, and its rights in every table of the
    schema but those in `other`. `read_only`: its sessions are so, whatever it is granted.
    """

    name: str
    service: str
    read_only: bool
    rights: tuple[Right, ...]
    other: tuple[tuple[str, tuple[Right, ...]], ...]

    @property
    def secret(self) -> str:
        """The file of its password, wherever secrets are files: `postgres-query`."""
        return f"postgres-{self.service}"

    def rights_in(self, table: str) -> tuple[Right, ...]:
        """Its rights in one table of the schema."""
        return dict(self.other).get(table, self.rights)


@dataclass(frozen=True, slots=True)
class Database:
    """The database, its schema, the role that owns both, and the services' roles."""

    name: str
    schema: str
    owner: str
    roles: tuple[Role, ...]

    @property
    def owner_secret(self) -> str:
        """The file of the owner's password."""
        return "postgres-owner"

    def role_of(self, service: str) -> Role:
        """The role of a service; `KeyError` when it has none."""
        return {role.service: role for role in self.roles}[service]


@dataclass(frozen=True, slots=True)
class Rights:
    """The whole list."""

    principals: tuple[Principal, ...]
    database: Database

    @property
    def superuser(self) -> Principal:
        """The one principal that is not asked."""
        return next(one for one in self.principals if one.superuser)

    def principal(self, name: str) -> Principal:
        """The principal of this name; `KeyError` when there is none."""
        return {one.name: one for one in self.principals}[name]


@cache
def list_of_rights() -> Rights:
    """The list of this version."""
    return parse_rights(resources.files("nocturne.deploy").joinpath(FILE).read_bytes())


def parse_rights(data: bytes) -> Rights:
    """The list in `data`. `Malformed` on whatever is not said above, and on a name that stands
    twice; there is exactly one superuser.
    """
    fields = Fields.of(parse_json(data, FILE_BYTES_MAX, DEPTH_MAX), "rights")
    fields.only("format", "kafka", "postgres")
    if fields.natural("format") != FORMAT:
        raise Malformed(f"rights.format: expected {FORMAT}, got {fields.natural('format')}")
    principals = tuple(map(_principal, fields.objects("kafka", PRINCIPALS_MAX)))
    _each_once("rights.kafka", [one.name for one in principals])
    if sum(one.superuser for one in principals) != 1:
        raise Malformed("rights.kafka: expected exactly one superuser")
    return Rights(principals, _database(fields.object("postgres")))


def _principal(fields: Fields) -> Principal:
    fields.only(
        "name",
        "purpose",
        "superuser",
        "optional",
        "topics",
        "groups",
        "transactionalIds",
        "cluster",
    )
    name = _matching(fields, "name", _KAFKA_NAME)
    purpose = fields.text("purpose")
    if not 0 < len(purpose) <= PURPOSE_CHARACTERS_MAX or not purpose.isprintable():
        raise Malformed(f"rights.kafka: {name}'s purpose: expected one short line")
    grants = tuple(_grants(fields))
    _each_once(f"rights.kafka: {name}", [f"{one.resource} {one.name}" for one in grants])
    if fields.boolean("superuser") and grants:
        raise Malformed(f"rights.kafka: {name} is a superuser: expected no grants beside that")
    return Principal(name, purpose, fields.boolean("superuser"), fields.boolean("optional"), grants)


def _grants(fields: Fields) -> Iterator[Grant]:
    for one in fields.objects("topics", GRANTS_MAX):
        yield _grant(Resource.TOPIC, one)
    for one in fields.objects("groups", GRANTS_MAX):
        yield _grant(Resource.GROUP, one, may_be_prefixed=True)
    for one in fields.objects("transactionalIds", GRANTS_MAX):
        yield _grant(Resource.TRANSACTIONAL_ID, one)
    if fields.texts("cluster", GRANTS_MAX):
        operations = _choices(fields, "cluster", Operation)
        yield Grant(Resource.CLUSTER, CLUSTER_NAME, False, operations)


def _grant(resource: Resource, fields: Fields, may_be_prefixed: bool = False) -> Grant:
    fields.only("name", "operations", *(["prefixed"] if may_be_prefixed else []))
    name = _matching(fields, "name", _KAFKA_NAME)
    prefixed = may_be_prefixed and fields.boolean("prefixed")
    return Grant(resource, name, prefixed, _choices(fields, "operations", Operation))


def _database(fields: Fields) -> Database:
    fields.only("database", "schema", "owner", "roles")
    roles = tuple(map(_role, fields.objects("roles", PRINCIPALS_MAX)))
    owner = _matching(fields, "owner", _SQL_NAME)
    _each_once("rights.postgres", [owner, *(role.name for role in roles)])
    _each_once("rights.postgres", [role.service for role in roles])
    return Database(
        _matching(fields, "database", _SQL_NAME),
        _matching(fields, "schema", _SQL_NAME),
        owner,
        roles,
    )


def _role(fields: Fields) -> Role:
    fields.only("name", "service", "readOnly", "rights", "except")
    name = _matching(fields, "name", _SQL_NAME)
    other = tuple(map(_other_rights, fields.objects("except", GRANTS_MAX)))
    _each_once(f"rights.postgres: {name}", [table for table, _ in other])
    return Role(
        name,
        _matching(fields, "service", _KAFKA_NAME),
        fields.boolean("readOnly"),
        _choices(fields, "rights", Right),
        other,
    )


def _other_rights(fields: Fields) -> tuple[str, tuple[Right, ...]]:
    fields.only("table", "rights")
    return _matching(fields, "table", _SQL_NAME), _choices(fields, "rights", Right)


def _matching(fields: Fields, member: str, form: re.Pattern[str]) -> str:
    text = fields.text(member)
    if form.match(text) is None:
        raise Malformed(f"rights: {member}: expected {form.pattern[:-2]}, got {text[:80]!r}")
    return text


def _choices(fields: Fields, member: str, kind: type[Choice]) -> tuple[Choice, ...]:
    """At least one, in alphabetical order, none twice."""
    texts = fields.texts(member, len(kind))
    if unknown := [text for text in texts if text not in [*kind]]:
        raise Malformed(f"rights: {member}: expected {', '.join(kind)}, got {unknown[0][:80]!r}")
    if not texts or sorted(set(texts)) != texts:
        raise Malformed(f"rights: {member}: expected some, in alphabetical order, none twice")
    return tuple(map(kind, texts))


def _each_once(where: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Malformed(f"{where}: {twice[0]} stands twice")
