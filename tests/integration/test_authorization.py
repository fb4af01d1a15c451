"""Every service works as its own principal, and whatever is not in the list of rights is refused.

A real broker with users and rights, a real database with its roles: docs/spec/topics.md §6. Each
sort of attempt is also made by somebody who may, so that a refusal is never a broken attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from psycopg import sql
from tests.certificates import Authority
from tests.machines import until
from tests.secured import STRANGER, Secured, TlsInFront, secured
from tests.stand import SECONDS_MAX, Running, Stand, author

from nocturne.core.commands import Opening
from nocturne.core.errors import NocturneError, Unavailable
from nocturne.core.events import decode_event
from nocturne.core.topics import COMMANDS, EVENTS, TOPICS, unframe
from nocturne.deploy import topics as job
from nocturne.deploy.rights import Operation, Resource, Right, Rights, list_of_rights
from nocturne.deploy.topics import Acls
from nocturne.embedded.kafka import HOST
from nocturne.projection.service import check_topics
from nocturne.runtime import kafka
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import (
    BatchConsumer,
    Start,
    consumer_config,
    partition_count,
    watermarks,
)
from nocturne.runtime.postgres import Database
from nocturne.runtime.secrets import Secret, read_secret
from nocturne.wire.command.v1 import command_pb2, command_pb2_grpc
from nocturne.wire.query.v1 import query_pb2, query_pb2_grpc

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LIST: Rights = list_of_rights()
ORDINARY = [one.name for one in LIST.principals if not one.superuser]
"""Whom the broker asks for every right."""
EVERYBODY = [*ORDINARY, STRANGER]
REFUSALS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    # Of a topic that it may not see, a client finds no leader to ask.
    KafkaError._NOENT,
}
SESSION = "orders/1"
ASKING_SECONDS = 3.0
"""For questions that are to be refused: they are asked again until then."""


def may(user: str, resource: Resource, name: str, operation: Operation) -> bool:
    """What the list says; of a stranger nothing."""
    return user != STRANGER and LIST.principal(user).may(resource, name, operation)


def run_job(name: str, *environments: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    for one in environments:
        environment |= one
    return subprocess.run(
        [sys.executable, "-m", f"nocturne.deploy.{name}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker and a database that ask who comes; the jobs of a deployment have run on them."""
    with secured(tmp_path_factory.mktemp("secured")) as made:
        yield made


@pytest.fixture(scope="module")
def stand(place: Secured) -> Iterator[Stand]:
    """A ledger on them."""
    made = Stand(place.folder / "home", f"{HOST}:{place.ports['clients']}")
    topics = run_job("topics", topics_environment(place, made))
    assert topics.returncode == 0, topics.stderr
    database = run_job("database", database_environment(place))
    assert database.returncode == 0, database.stderr
    job.ensure_users(
        place.cluster("admin"), {STRANGER: read_secret(place.passwords / f"kafka-{STRANGER}")}
    )
    yield made
    made.stop_all()


def topics_environment(place: Secured, stand: Stand, **more: str) -> dict[str, str]:
    return {
        **place.kafka_environment("admin"),
        "NOCTURNE_GENESIS_FILE": str(stand.genesis_file),
        "NOCTURNE_TOPIC_REPLICAS": "1",
        "NOCTURNE_PASSWORDS_DIR": str(place.passwords),
        "NOCTURNE_KAFKA_ACLS": "add",
        **more,
    }


def database_environment(place: Secured) -> dict[str, str]:
    return {
        **place.postgres_environment(LIST.database.owner, LIST.database.owner_secret),
        "NOCTURNE_PASSWORDS_DIR": str(place.passwords),
    }


def start(place: Secured, stand: Stand, service: str, **more: str) -> Running:
    """One service as its own principal and in its own role, and with nothing else."""
    environment: dict[str, str] = {"NOCTURNE_KAFKA_BOOTSTRAP": ""}
    if service != "query":
        environment |= place.kafka_environment(service)
    for role in LIST.database.roles:
        if role.service == service:
            environment |= place.postgres_environment(role.name, role.secret)
    return stand.start(service, healthy=False, **{**environment, **more})


# Working ---------------------------------------------------------------------------------------


def test_every_service_works_as_its_own_principal(place: Secured, stand: Stand) -> None:
    names = ("consensus", "signing", "projection", "query", "command")
    running = {name: start(place, stand, name) for name in names}
    for name, one in running.items():
        stand.wait_healthy(name, one)
    signed = unframe(
        stand.command(author(), SESSION, 1, expected=0, opening=Opening("facts", 1)).value
    )
    with grpc.insecure_channel(running["command"].address) as channel:
        stub: Any = command_pb2_grpc.CommandServiceStub(channel)
        answer = stub.Submit(command_pb2.SubmitRequest(signed_command=signed), timeout=SECONDS_MAX)
    assert answer.outcome.level == command_pb2.LEVEL_SIGNED
    assert len(answer.outcome.events) == 1
    with grpc.insecure_channel(running["query"].address) as channel:
        asking: Any = query_pb2_grpc.QueryServiceStub(channel)

        def sequences() -> list[int]:
            request = query_pb2.ListEventsRequest(session_id=SESSION)
            try:
                responses = list(asking.ListEvents(request, timeout=SECONDS_MAX))
            except grpc.RpcError:
                return []
            return [decode_event(e).header.sequence for r in responses for e in r.events]

        until(lambda: sequences() == [1], SECONDS_MAX, "the event is in the read model")
    for name, one in running.items():
        assert one.stop() == 0, f"{name}: {one.said()}"


def test_the_jobs_change_nothing_when_they_run_again(place: Secured, stand: Stand) -> None:
    topics = run_job("topics", topics_environment(place, stand))
    assert topics.returncode == 0, topics.stderr
    assert "topics: 0 made, all 6 are as the ledger needs them" in topics.stdout
    assert "topics: 0 rights granted" in topics.stdout
    database = run_job("database", database_environment(place))
    assert database.returncode == 0, database.stderr
    assert "database: 0 migrations applied, the schema is current" in database.stdout
    for secret in place.passwords.iterdir():
        for said in (topics.stdout, topics.stderr, database.stdout, database.stderr):
            assert secret.read_text().strip() not in said


def test_rights_beyond_the_list_are_told_and_withdrawn_only_when_asked(
    place: Secured, stand: Stand
) -> None:
    admin = AdminClient(admin_settings(place))
    beyond = [acl(f"User:{user}", EVENTS) for user in ("command", "other")]
    for done in admin.create_acls(beyond).values():
        done.result(SECONDS_MAX)
    said = run_job("topics", topics_environment(place, stand)).stdout
    for user in ("command", "other"):
        assert f"BEYOND THE LIST: User:{user} may WRITE TOPIC {EVENTS}" in said
    said = run_job("topics", topics_environment(place, stand, NOCTURNE_KAFKA_ACLS="exact")).stdout
    assert f"withdrawn, beyond the list: User:command may WRITE TOPIC {EVENTS}" in said
    assert f"BEYOND THE LIST: User:other may WRITE TOPIC {EVENTS}" in said
    for done in admin.delete_acls([exactly("User:other", EVENTS)]).values():
        done.result(SECONDS_MAX)
    told: list[str] = []
    job.ensure_rights(place.cluster("admin"), LIST, LIST.principals, Acls.ADD, told.append)
    assert [one for one in told if "BEYOND" in one] == []


# Being refused: Kafka --------------------------------------------------------------------------


def settings_of(place: Secured, user: str) -> dict[str, Any]:
    return {**place.cluster(user).connection(), "log_level": 0}


def admin_settings(place: Secured) -> dict[str, Any]:
    return settings_of(place, LIST.superuser.name)


def acl(user: str, topic: str) -> AclBinding:
    return AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        user,
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )


def exactly(user: str, topic: str) -> AclBindingFilter:
    return AclBindingFilter(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        user,
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )


def let(attempt: Callable[[], object]) -> bool:
    """Whether the broker let it be done; whatever else goes wrong is an error of the test."""
    try:
        attempt()
    except KafkaException as fault:
        if fault.args[0].code() in REFUSALS:
            return False
        raise
    return True


def readable(place: Secured, user: str) -> set[str]:
    """The topics that it can read: something was fetched, or the end was. A client does not even
    try to fetch what it cannot see.
    """
    seen = AdminClient(settings_of(place, user)).list_topics(timeout=SECONDS_MAX).topics
    found = {topic: False for topic in TOPICS if topic not in seen}
    consumer = Consumer(
        {
            **settings_of(place, user),
            "group.id": f"nocturne-{user}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_uncommitted",
        }
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0) for topic in TOPICS if topic in seen])

        def decided() -> bool:
            message = consumer.poll(1.0)
            if message is not None and message.topic() is not None:
                error = message.error()
                ended = error is None or error.code() == KafkaError._PARTITION_EOF
                assert ended or error.code() in REFUSALS, error
                found[str(message.topic())] = ended
            return set(found) == set(TOPICS)

        until(decided, SECONDS_MAX, f"{user} has tried to read every topic")
    finally:
        consumer.close()
    return {topic for topic, read in found.items() if read}


def writable(place: Secured, user: str) -> set[str]:
    """The topics that it can write."""
    found: dict[str, bool] = {}
    producer = Producer({**settings_of(place, user), "acks": "all"})
    for topic in TOPICS:

        def told(error: KafkaError | None, _: object, topic: str = topic) -> None:
            assert error is None or error.code() in REFUSALS, error
            found[topic] = error is None

        producer.produce(topic, b"forged", partition=0, on_delivery=told)
    assert producer.flush(SECONDS_MAX) == 0
    return {topic for topic, written in found.items() if written}


@pytest.mark.parametrize("user", [*EVERYBODY, LIST.superuser.name])
def test_a_principal_reads_and_writes_its_own_topics_and_no_other(
    place: Secured, stand: Stand, user: str
) -> None:
    def listed(operation: Operation) -> set[str]:
        return {topic for topic in TOPICS if may(user, Resource.TOPIC, topic, operation)}

    assert readable(place, user) == listed(Operation.READ)
    assert writable(place, user) == listed(Operation.WRITE)


@pytest.mark.parametrize("user", [*EVERYBODY, LIST.superuser.name])
def test_a_principal_sees_its_own_topics_and_their_settings_where_it_may(
    place: Secured, stand: Stand, user: str
) -> None:
    admin = AdminClient(settings_of(place, user))
    described = set(admin.list_topics(timeout=SECONDS_MAX).topics)
    assert described & set(TOPICS) == {
        topic for topic in TOPICS if may(user, Resource.TOPIC, topic, Operation.DESCRIBE)
    }
    for topic in TOPICS:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        answered = admin.describe_configs([resource])[resource]
        expected = may(user, Resource.TOPIC, topic, Operation.DESCRIBE_CONFIGS)
        assert let(lambda: answered.result(SECONDS_MAX)) == expected, topic  # noqa: B023


@pytest.mark.parametrize("user", EVERYBODY)
def test_only_its_holder_opens_a_transactional_id(place: Secured, stand: Stand, user: str) -> None:
    ids = {
        grant.name
        for one in LIST.principals
        for grant in one.grants
        if grant.resource is Resource.TRANSACTIONAL_ID
    }
    for identity in (*ids, "of-nobody"):
        producer = Producer({**settings_of(place, user), "transactional.id": identity})
        expected = may(user, Resource.TRANSACTIONAL_ID, identity, Operation.WRITE)
        assert let(lambda: producer.init_transactions(SECONDS_MAX)) == expected, identity  # noqa: B023


@pytest.mark.parametrize("user", EVERYBODY)
def test_a_principal_finds_its_own_groups_and_commits_in_none_that_is_not_its_own(
    place: Secured, stand: Stand, user: str
) -> None:
    groups = {
        grant.name
        for one in LIST.principals
        for grant in one.grants
        if grant.resource is Resource.GROUP
    }
    admin = AdminClient(settings_of(place, user))
    for group in (*sorted(groups), "of-nobody"):
        asking = ConsumerGroupTopicPartitions(group, [TopicPartition(EVENTS, 0)])
        found = admin.list_consumer_group_offsets([asking])[group]
        described = may(user, Resource.GROUP, group, Operation.DESCRIBE)
        assert let(lambda: found.result(SECONDS_MAX)) == described, group  # noqa: B023
        saying = ConsumerGroupTopicPartitions(group, [TopicPartition(EVENTS, 0, 1)])
        committed = admin.alter_consumer_group_offsets([saying])[group]
        may_commit = may(user, Resource.GROUP, group, Operation.READ) and may(
            user, Resource.TOPIC, EVENTS, Operation.READ
        )
        assert let(lambda: _each(committed.result(SECONDS_MAX))) == may_commit, group  # noqa: B023


def _each(answered: ConsumerGroupTopicPartitions) -> None:
    for one in answered.topic_partitions:
        if one.error is not None:
            raise KafkaException(one.error)


def administrations(admin: AdminClient, fresh: str) -> dict[str, Callable[[], object]]:
    """What only an administrator may do; `fresh` is made first, and gone at the end."""
    wait = SECONDS_MAX
    entry = ConfigEntry("retention.ms", "604800000", incremental_operation=AlterConfigOpType.SET)
    altered = ConfigResource(ResourceType.TOPIC, fresh, incremental_configs=[entry])
    credential = UserScramCredentialUpsertion(
        fresh, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), b"password"
    )
    binding = acl(f"User:{fresh}", fresh)
    anything = AclBindingFilter(
        ResourceType.TOPIC,
        fresh,
        ResourcePatternType.LITERAL,
        f"User:{fresh}",
        "*",
        AclOperation.ANY,
        AclPermissionType.ANY,
    )

    def one(futures: dict[Any, Any]) -> object:
        (future,) = futures.values()
        return future.result(wait)

    return {
        "create": lambda: one(admin.create_topics([NewTopic(fresh, 1, 1)])),
        "alter": lambda: one(admin.incremental_alter_configs([altered])),
        "grow": lambda: one(admin.create_partitions([NewPartitions(fresh, 2)])),
        "grant": lambda: one(admin.create_acls([binding])),
        "withdraw": lambda: one(admin.delete_acls([anything])),
        "make a user": lambda: one(admin.alter_user_scram_credentials([credential])),
        "delete records": lambda: one(
            admin.delete_records([TopicPartition(fresh, 0, 0)], request_timeout=wait)
        ),
        "delete": lambda: one(admin.delete_topics([fresh])),
    }


def test_the_admin_creates_alters_grants_and_deletes(place: Secured, stand: Stand) -> None:
    done = administrations(AdminClient(admin_settings(place)), f"fresh-{uuid.uuid4().hex[:8]}")
    for what, attempt in done.items():
        assert let(lambda: _soon(attempt)), what  # noqa: B023


@pytest.mark.parametrize("user", EVERYBODY)
def test_nobody_else_sees_who_may_do_what(place: Secured, stand: Stand, user: str) -> None:
    # The client hands an empty list on where the broker has refused.
    assert seen_rights(place, LIST.superuser.name) != []
    assert seen_rights(place, user) == []


def seen_rights(place: Secured, user: str) -> list[AclBinding]:
    admin = AdminClient(settings_of(place, user))
    return list(admin.describe_acls(job.any_right()).result(SECONDS_MAX))


def _soon(attempt: Callable[[], object]) -> None:
    """A topic that was just made is known to the broker a moment later."""
    passing = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION}

    def done() -> bool:
        try:
            attempt()
        except KafkaException as fault:
            if fault.args[0].code() in {*passing, KafkaError.LEADER_NOT_AVAILABLE}:
                return False
            raise
        return True

    until(done, SECONDS_MAX, "it is done")


@pytest.mark.parametrize("user", EVERYBODY)
@pytest.mark.parametrize("topic", [COMMANDS, "a-topic-of-its-own"])
def test_nobody_else_creates_alters_grants_or_deletes(
    place: Secured, stand: Stand, user: str, topic: str
) -> None:
    for what, attempt in administrations(AdminClient(settings_of(place, user)), topic).items():
        assert not let(attempt), f"{user} could {what} {topic}"


# Being refused: PostgreSQL ---------------------------------------------------------------------


def database_of(place: Secured, service: str) -> Database:
    role = LIST.database.role_of(service)
    return Database(place.dsn(role.name), place.passwords / role.secret)


def owner_of(place: Secured) -> Database:
    return Database(place.dsn(LIST.database.owner), place.passwords / LIST.database.owner_secret)


def tables_of(place: Secured) -> list[str]:
    with owner_of(place).connect() as owner:
        rows = owner.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", (LIST.database.schema,)
        ).fetchall()
    return sorted(name for (name,) in rows)


def permitted(database: Database, statement: sql.Composed | str) -> bool:
    """Whether the database let the role do it; nothing of it stays. Its sessions may write, so that
    it is the role's rights alone that refuse.
    """
    with database.connect() as connection:
        connection.read_only = False
        try:
            connection.execute(statement)  # type: ignore[arg-type]
        except psycopg.errors.InsufficientPrivilege:
            return False
        except psycopg.IntegrityError:
            # It was let in, and stumbled over a constraint.
            return True
        finally:
            connection.rollback()
    return True


@pytest.mark.parametrize("service", [role.service for role in LIST.database.roles])
def test_a_role_does_with_each_table_what_the_list_says_and_nothing_else(
    place: Secured, stand: Stand, service: str
) -> None:
    role, database = LIST.database.role_of(service), database_of(place, service)
    tables = tables_of(place)
    assert {"events", "migrations", "progress"} <= set(tables)
    for table in tables:
        name = sql.Identifier(LIST.database.schema, table)
        attempts = {
            Right.SELECT: "SELECT * FROM {} LIMIT 1",
            Right.INSERT: "INSERT INTO {} DEFAULT VALUES",
            Right.DELETE: "DELETE FROM {}",
        }
        for right, statement in attempts.items():
            found = permitted(database, sql.SQL(statement).format(name))
            assert found == (right in role.rights_in(table)), f"{right} {table}"
        column = sql.Identifier(_first_column(place, table))
        update = sql.SQL("UPDATE {0} SET {1} = {1}").format(name, column)
        assert permitted(database, update) == (Right.UPDATE in role.rights_in(table)), table
        for statement in (
            "TRUNCATE {}",
            "DROP TABLE {}",
            "ALTER TABLE {} ADD COLUMN more integer",
            "ALTER TABLE {} OWNER TO CURRENT_USER",
            "CREATE INDEX ON {} ((1))",
        ):
            assert not permitted(database, sql.SQL(statement).format(name)), statement
        assert not _can_pass_on(database, name), table


def _can_pass_on(database: Database, table: sql.Identifier) -> bool:
    """Whether its grant to everybody has an effect: without the right it is a warning."""
    with database.connect() as connection:
        connection.read_only = False
        connection.execute(sql.SQL("GRANT ALL ON {} TO PUBLIC").format(table))
        row = connection.execute(
            "SELECT count(*) FROM pg_class, aclexplode(relacl) AS entry"
            " WHERE pg_class.oid = %s::regclass AND entry.grantee = 0",
            (table.as_string(),),
        ).fetchone()
        connection.rollback()
    return row != (0,)


def _first_column(place: Secured, table: str) -> str:
    with owner_of(place).connect() as owner:
        row = owner.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s"
            " AND table_name = %s ORDER BY ordinal_position",
            (LIST.database.schema, table),
        ).fetchone()
    assert row is not None
    return str(row[0])


STRUCTURE = (
    "CREATE TABLE nocturne_v1.more (x integer)",
    "CREATE TABLE public.more (x integer)",
    "CREATE TEMPORARY TABLE more (x integer)",
    "CREATE SCHEMA more",
    "DROP SCHEMA nocturne_v1 CASCADE",
    "CREATE ROLE more",
    "ALTER ROLE nocturne_owner PASSWORD 'x'",
    "SET ROLE nocturne_owner",
    "GRANT nocturne_owner TO nocturne_query",
    # It reads to the end: one that does not breaks the owner's pipe now and then.
    "COPY nocturne_v1.events TO PROGRAM 'cat >/dev/null'",
)


@pytest.mark.parametrize("service", [role.service for role in LIST.database.roles])
def test_no_service_changes_structures_roles_or_rights(
    place: Secured, stand: Stand, service: str
) -> None:
    for statement in STRUCTURE:
        assert not permitted(database_of(place, service), statement), statement
        assert permitted(owner_of(place), statement), statement


def test_an_owner_without_attributes_suffices_where_others_made_database_and_roles(
    place: Secured, stand: Stand, tmp_path: Path
) -> None:
    name = f"plain_{uuid.uuid4().hex}"
    with owner_of(place).connect(autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'its-own'".encode())
        owner.execute(f"CREATE DATABASE {name} OWNER {name}".encode())
    password = tmp_path / "password"
    password.write_text("its-own")
    given = {
        "NOCTURNE_POSTGRES_DSN": f"postgresql://{name}@{HOST}:{place.server.port}/{name}",
        "NOCTURNE_POSTGRES_PASSWORD_FILE": str(password),
    }
    done = run_job("database", given)
    assert done.returncode == 0, done.stderr
    assert "the schema is current" in done.stdout


def test_a_role_that_is_more_than_a_services_role_is_refused(place: Secured, stand: Stand) -> None:
    with owner_of(place).connect(autocommit=True) as owner:
        owner.execute("ALTER ROLE nocturne_query CREATEDB")
        try:
            done = run_job("database", database_environment(place))
        finally:
            owner.execute("ALTER ROLE nocturne_query NOCREATEDB")
    assert done.returncode == 1
    assert "the role nocturne_query has attributes that let it do more" in done.stderr


def test_querys_sessions_are_read_only_beside_its_rights(place: Secured, stand: Stand) -> None:
    with database_of(place, "query").connect() as connection:
        row = connection.execute("SHOW default_transaction_read_only").fetchone()
    assert row == ("on",)


def test_nobody_else_enters_the_database(place: Secured, stand: Stand) -> None:
    name = f"stranger_{uuid.uuid4().hex}"
    with owner_of(place).connect(autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'".encode())
    stranger = replace(owner_of(place), dsn=place.dsn(f"{name}:x"), password_file=None)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        stranger.connect()


# A wrong password ------------------------------------------------------------------------------


@pytest.mark.long
def test_a_wrong_password_ends_a_service_with_a_sentence_that_names_the_user(
    place: Secured, stand: Stand, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("another-password")
    services = ("command", "consensus", "signing", "projection")
    running = {
        name: start(place, stand, name, NOCTURNE_KAFKA_PASSWORD_FILE=str(wrong))
        for name in services
    }
    for name, one in running.items():
        assert one.ended() == 1, one.said()
        last = one.said().splitlines()[-1]
        assert "do not accept each other" in last, one.said()
        assert f"the user '{name}'" in last
        assert "invalid credentials" in last
        assert "another-password" not in one.said()


@pytest.mark.long
def test_a_job_with_a_wrong_password_ends_with_a_sentence(
    place: Secured, stand: Stand, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("another-password")
    given = {
        "NOCTURNE_KAFKA_PASSWORD_FILE": str(wrong),
        "NOCTURNE_POSTGRES_PASSWORD_FILE": str(wrong),
    }
    with ThreadPoolExecutor() as pool:
        topics = pool.submit(run_job, "topics", topics_environment(place, stand), given)
        database = pool.submit(run_job, "database", database_environment(place), given)
    said = topics.result()
    assert said.returncode == 1
    assert "the user 'admin' do not accept each other" in said.stderr
    assert "another-password" not in said.stderr
    said = database.result()
    assert said.returncode == 1
    assert 'password authentication failed for user "nocturne_owner"' in said.stderr
    assert "another-password" not in said.stderr


def test_a_password_that_comes_late_lets_the_client_in(
    place: Secured, stand: Stand, tmp_path: Path
) -> None:
    assert EVENTS in writable(place, "signing")
    file = tmp_path / "password"
    file.write_text("another-password")
    cluster = replace(place.cluster("projection"), password_file=file)

    async def read() -> None:
        consumer = BatchConsumer(
            consumer_config(cluster, "nocturne-projection"), [Start(EVENTS, 0, 0)]
        )
        heard = asyncio.to_thread(
            until, lambda: consumer._doorkeeper._cause != "", SECONDS_MAX, "it was refused"
        )
        try:
            await heard
            file.write_text((place.passwords / "kafka-projection").read_text())
            await asyncio.wait_for(consumer.batch(), SECONDS_MAX)
        finally:
            await consumer.close()

    asyncio.run(read())


def test_a_password_is_changed_by_the_job(place: Secured, stand: Stand, tmp_path: Path) -> None:
    before = place.passwords / "kafka-consumer"
    job.ensure_users(place.cluster("admin"), {"consumer": Secret("a-new-one")})
    fresh = tmp_path / "fresh"
    fresh.write_text("a-new-one")
    cluster = replace(place.cluster("consumer"), password_file=fresh)
    assert partition_count(cluster, EVENTS) == stand.partitions
    job.ensure_users(place.cluster("admin"), {"consumer": read_secret(before)})
    assert partition_count(place.cluster("consumer"), EVENTS) == stand.partitions


def test_the_projection_does_not_wait_in_silence_for_a_topic_that_it_may_not_see(
    place: Secured, stand: Stand
) -> None:
    check_topics(place.cluster("projection"), stand.partitions)
    with pytest.raises(Unavailable, match="the partitions of nocturne"):
        check_topics(place.cluster(STRANGER), stand.partitions)
    with pytest.raises(NocturneError, match=f"topic {EVENTS}: expected {stand.partitions + 1}"):
        check_topics(place.cluster("projection"), stand.partitions + 1)


# TLS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["tls", "mutual"])
def test_over_tls_a_user_and_a_certificate_are_principals(
    place: Secured, stand: Stand, listener: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "ADMIN_SECONDS_MAX", ASKING_SECONDS)
    cluster = place.cluster("command", listener)
    assert partition_count(cluster, COMMANDS) == stand.partitions
    assert watermarks(cluster, COMMANDS, 0)[0] == 0
    with pytest.raises(Unavailable, match="Topic authorization failed"):
        partition_count(cluster, EVENTS)


def refusal(cluster: Cluster) -> str:
    with pytest.raises(Unavailable) as fault:
        partition_count(cluster, COMMANDS)
    return str(fault.value)


def test_over_tls_a_broker_or_client_that_is_another_is_refused(
    place: Secured, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "ADMIN_SECONDS_MAX", ASKING_SECONDS)
    other = Authority("another authority")
    wrong_ca = other.write(place.folder / "other-ca.crt")
    certificate, key = other.make("command").write(place.folder / "other", "command")
    cases = {
        "wrong authority": replace(place.cluster("command", "tls"), ca_file=wrong_ca),
        "wrong name": place.cluster("command", "other"),
        "wrong client": replace(
            place.cluster("command", "mutual"), cert_file=certificate, key_file=key
        ),
        "no client": replace(place.cluster("command", "mutual"), cert_file=None, key_file=None),
        "no TLS": replace(place.cluster("command", "tls"), protocol="sasl_plaintext"),
    }
    with ThreadPoolExecutor() as pool:
        said = dict(zip(cases, pool.map(refusal, cases.values()), strict=True))
    assert "certificate verify failed" in said["wrong authority"]
    assert "certificate verify failed" in said["wrong name"]
    assert "certificate required" in said["no client"]
    for case in ("wrong authority", "wrong name", "wrong client", "no client"):
        assert "do not accept each other" in said[case], said


@contextlib.contextmanager
def tls_before(place: Secured, name: str) -> Iterator[int]:
    certificate, key = place.authority.make("postgres", name).write(
        place.folder / "postgres-tls", name
    )
    front = TlsInFront(certificate, key, place.server.port)
    try:
        yield front.port
    finally:
        front.close()


def test_a_database_is_met_over_tls_and_one_of_another_name_or_authority_is_refused(
    place: Secured, stand: Stand
) -> None:
    wrong_ca = Authority("another authority").write(place.folder / "wrong-ca.crt")
    good = database_of(place, "query")

    def verified(port: int, ca: Path = place.ca_file) -> Database:
        dsn = good.dsn.replace(f":{place.server.port}/", f":{port}/")
        return replace(good, dsn=f"{dsn}?sslmode=verify-full&sslrootcert={ca}")

    with tls_before(place, HOST) as port:
        with verified(port).connect() as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("nocturne_query",)
            assert connection.pgconn.ssl_in_use
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            verified(port, wrong_ca).connect()
    with (
        tls_before(place, "db.elsewhere.example") as port,
        pytest.raises(psycopg.OperationalError, match="does not match host name"),
    ):
        verified(port).connect()
    # A server that speaks no TLS is not met in the clear instead.
    with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
        verified(place.server.port).connect()
