"""Make the ledger's topics, Kafka's users and their rights: `python -m nocturne.deploy.topics`.

Runs as the superuser of `rights.json`, once or as often as one likes: what is so already is left
alone, and nothing that is there is changed or removed unless it is asked for. A topic of another
ledger, or one that keeps less than a ledger needs, is refused. Settings: docs/guides/settings.md.
Exit codes: 0 all is as it should be, 1 it is not, or Kafka is away, 2 settings.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from pydantic import Field, field_validator

from nocturne.core import topics
from nocturne.core.errors import NocturneError, Unavailable
from nocturne.deploy import jobs
from nocturne.deploy.granting import WAIT_SECONDS, WaitSeconds, passwords_of, sayer
from nocturne.deploy.rights import Principal, Resource, Rights, list_of_rights
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import Doorkeeper, admin_config, asked
from nocturne.runtime.secrets import Secret
from nocturne.runtime.settings import ClusterSettings, ProcessSettings, read_founding, read_settings
from nocturne.runtime.telemetry import configure_logs

ADMIN_SECONDS_MAX: Final = 30
SHOWN_SECONDS_MAX = 15.0
LOOK_SECONDS: Final = 0.05
ANSWER_SECONDS_MAX: Final = 2.0
MIB: Final = 1024 * 1024
COMMAND_BYTES_MAX: Final = MIB + 64 * 1024
"""The largest command, plus room for what rides beside it (headers, framing)."""
BLOCK_BYTES_MAX: Final = 12 * MIB
REPLICAS_MAX: Final = 32
SCRAM_ITERATIONS: Final = 4096
"""Kafka's default; each new connection costs the client as many hashes."""

KEPT: Final = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "CreateTime",
}

Answer = TypeVar("Answer")
Say = Callable[[str], None]


class TopicFault(NocturneError):  # noqa: N818
    """A topic is there and is not what this ledger needs."""


class Acls(StrEnum):
    """What is done about rights."""

    NONE = "none"
    """Nothing: the cluster asks for none, or others grant them."""
    ADD = "add"
    """Those of the list that are missing are granted; what is beyond it is reported."""
    EXACT = "exact"
    """And those of the list's principals that are beyond it are withdrawn."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it is to be. `settings` are Kafka's."""

    name: str
    partitions: int
    replicas: int
    settings: Mapping[str, str]


class Settings(ProcessSettings, ClusterSettings):
    """What the job reads from the environment."""

    genesis_file: Path
    topic_replicas: int = Field(3, ge=1, le=REPLICAS_MAX)
    topic_min_insync_replicas: int | None = Field(None, ge=1, le=REPLICAS_MAX)
    """None: 2, or 1 when there is one replica."""
    kafka_acls: Acls = Acls.NONE
    passwords_dir: Path | None = None
    """The folder of the principals' passwords; None: no users are made."""
    wait_seconds: WaitSeconds = WAIT_SECONDS

    @field_validator("topic_min_insync_replicas")
    @classmethod
    def _can_be_reached(cls, value: int | None, info: Any) -> int | None:
        replicas = info.data.get("topic_replicas", REPLICAS_MAX)
        if value is not None and value > replicas:
            raise ValueError(f"expected at most {replicas}, as many as there are replicas")
        return value


def main() -> int:
    """Run the job with the settings of the environment; its exit code."""
    return jobs.run("topics", {"grant": _grant_all}, sys.argv[1:])


def _grant_all() -> str:
    settings = read_settings(Settings)
    configure_logs("topics", settings.log_level)
    cluster, listed = settings.cluster, list_of_rights()
    say = sayer("topics")
    partitions = read_founding(settings.genesis_file).genesis.partitions
    wanted = plan(partitions, settings.topic_replicas, settings.topic_min_insync_replicas)
    passwords = passwords_of(
        settings.passwords_dir,
        {one.secret: one.optional for one in listed.principals if not one.superuser},
    )
    wait_for(cluster, settings.topic_replicas, settings.wait_seconds)
    made = ensure(cluster, wanted)
    say(f"{len(made)} made, all {len(wanted)} are as the ledger needs them")
    entitled = [one for one in listed.principals if one.secret in passwords or not one.optional]
    if passwords:
        users = {one.name: passwords[one.secret] for one in entitled if not one.superuser}
        ensure_users(cluster, users)
        say(f"{len(users)} users have the passwords of {settings.passwords_dir}")
    if settings.kafka_acls is Acls.NONE:
        return "rights are left to others"
    return ensure_rights(cluster, listed, entitled, settings.kafka_acls, say)


# Topics ----------------------------------------------------------------------------------------


def plan(partitions: int, replicas: int = 1, min_insync: int | None = None) -> tuple[Topic, ...]:
    """The ledger's topics. Commands, events and receipts share the partition count. A record that
    was acknowledged is on two machines or, where one may be all there are, on the disk.
    """
    insync = min(replicas, 2) if min_insync is None else min_insync
    kept = {**KEPT, "min.insync.replicas": str(insync)}
    # `accepted` is honest only if a command outlives the loss of one machine's memory.
    flushed = {"flush.messages": "1"} if insync < 2 else {}
    commands = {**kept, **flushed, "max.message.bytes": str(COMMAND_BYTES_MAX)}
    signed = {**kept, "max.message.bytes": str(2 * MIB)}
    return (
        Topic(topics.COMMANDS, partitions, replicas, commands),
        Topic(topics.BLOCKS, 1, replicas, {**kept, "max.message.bytes": str(BLOCK_BYTES_MAX)}),
        Topic(topics.SEALS, 1, replicas, kept),
        Topic(topics.EVENTS, partitions, replicas, signed),
        Topic(topics.RECEIPTS, partitions, replicas, signed),
        Topic(topics.EVIDENCE, 1, replicas, {**kept, "max.message.bytes": str(4 * MIB)}),
    )


def ensure(cluster: Cluster, wanted: tuple[Topic, ...]) -> tuple[Topic, ...]:
    """Make what is missing; those that were. `TopicFault` when one is there with other partitions,
    fewer replicas or other settings; `Unavailable` when the cluster does not answer.
    """
    present = asked(cluster, _present, "its topics")
    missing = tuple(topic for topic in wanted if topic.name not in present)
    if missing:
        asked(cluster, lambda admin: _create(admin, missing), "that it has made the topics")
    _check_shape(asked(cluster, lambda admin: _all_present(admin, wanted), "its topics"), wanted)
    _check_settings(asked(cluster, lambda admin: _settings(admin, wanted), "settings"), wanted)
    return missing


def wait_for(cluster: Cluster, brokers: int, seconds: float) -> None:
    """Until so many brokers are there. `Unavailable` when they are not in time, or the cluster does
    not let us in.
    """
    doorkeeper = Doorkeeper(cluster)
    hear: dict[str, Any] = {"error_cb": doorkeeper.heard}
    admin = AdminClient(admin_config(cluster) | hear)
    deadline = time.monotonic() + seconds
    while True:
        found, cause = 0, "no answer"
        try:
            found = len(admin.list_topics(timeout=ANSWER_SECONDS_MAX).brokers)
            cause = f"{found} brokers of {brokers}"
        except KafkaException as fault:
            cause = fault.args[0].str()
        if found >= brokers:
            return
        admin.poll(0)
        doorkeeper.check()
        if time.monotonic() > deadline:
            said = "; ".join(filter(None, (cause, doorkeeper.last_words)))
            raise Unavailable(f"Kafka at {cluster.bootstrap}: {said} within {seconds:.0f} s")
        time.sleep(LOOK_SECONDS)


Shape = tuple[int, int]
"""Partitions, and the fewest replicas that one of them has."""


def _present(admin: AdminClient) -> dict[str, Shape]:
    found = admin.list_topics(timeout=ADMIN_SECONDS_MAX).topics
    return {
        name: (
            len(topic.partitions),
            min((len(one.replicas) for one in topic.partitions.values()), default=0),
        )
        for name, topic in found.items()
    }


def _create(admin: AdminClient, missing: tuple[Topic, ...]) -> None:
    fresh = [
        NewTopic(
            one.name,
            num_partitions=one.partitions,
            replication_factor=one.replicas,
            config=dict(one.settings),
        )
        for one in missing
    ]
    for created in admin.create_topics(fresh, operation_timeout=ADMIN_SECONDS_MAX).values():
        try:
            created.result(ADMIN_SECONDS_MAX)
        except KafkaException as fault:
            if fault.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def _all_present(admin: AdminClient, wanted: tuple[Topic, ...]) -> dict[str, Shape]:
    """The shape of each topic. A topic that was just made is shown a moment later only: the
    controller has it before the broker's metadata do.
    """
    deadline = time.monotonic() + SHOWN_SECONDS_MAX
    while True:
        present = _present(admin)
        shown = all(present.get(one.name, (0, 0))[0] for one in wanted)
        if shown or time.monotonic() > deadline:
            return present
        time.sleep(LOOK_SECONDS)


def _check_shape(present: Mapping[str, Shape], wanted: tuple[Topic, ...]) -> None:
    for one in wanted:
        partitions, replicas = present.get(one.name, (0, 0))
        if partitions != one.partitions:
            raise TopicFault(
                f"the topic {one.name} has {partitions} partitions, expected {one.partitions} from "
                "the genesis: the cluster belongs to another ledger"
            )
        if replicas < one.replicas:
            raise TopicFault(
                f"the topic {one.name} has {replicas} replicas, expected {one.replicas}: "
                "reassign its partitions, or ask for fewer"
            )


def _settings(admin: AdminClient, wanted: tuple[Topic, ...]) -> dict[str, Mapping[str, str | None]]:
    resources = [ConfigResource(ResourceType.TOPIC, one.name) for one in wanted]
    return {
        resource.name: {
            name: entry.value for name, entry in answered.result(ADMIN_SECONDS_MAX).items()
        }
        for resource, answered in admin.describe_configs(resources).items()
    }


def _check_settings(
    found: Mapping[str, Mapping[str, str | None]], wanted: tuple[Topic, ...]
) -> None:
    for one in wanted:
        for name, value in one.settings.items():
            got = found[one.name].get(name)
            if got != value:
                raise TopicFault(
                    f"the topic {one.name} has {name}={got}, expected {value}: a ledger would lose "
                    "or refuse records; set it (kafka-configs.sh --alter) and run this again"
                )


# Users -----------------------------------------------------------------------------------------


def ensure_users(cluster: Cluster, passwords: Mapping[str, Secret]) -> None:
    """Make each user, or give it this password: SCRAM-SHA-512. Connections that are open stay."""
    wanted: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(
            user,
            ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS),
            str(password).encode(),
        )
        for user, password in passwords.items()
    ]

    def give(admin: AdminClient) -> None:
        for done in admin.alter_user_scram_credentials(wanted).values():
            done.result(ADMIN_SECONDS_MAX)

    asked(cluster, give, "that it has made the users")


# Rights ----------------------------------------------------------------------------------------


def ensure_rights(
    cluster: Cluster, listed: Rights, entitled: Iterable[Principal], acls: Acls, say: Say
) -> str:
    """Grant what the list has and the cluster lacks, say what the cluster has beyond it, and with
    `EXACT` withdraw that, where it is a principal's of the list. What was granted, in words.
    """
    wanted = {acl for principal in entitled for acl in rights_of(principal)}
    present = asked(cluster, _rights_present, "its rights")
    missing = wanted - present
    if missing:
        asked(cluster, lambda admin: _grant(admin, missing), "that it has granted the rights")
    ours = {f"User:{one.name}" for one in listed.principals}
    for acl in sorted(present - wanted, key=repr):
        if acl.principal in ours and acls is Acls.EXACT:
            asked(cluster, partial(_withdraw, acl), "that it has withdrawn a right")
            say(f"withdrawn, beyond the list: {acl_text(acl)}")
        elif acl.principal in ours or reaches(acl, listed):
            say(f"BEYOND THE LIST: {acl_text(acl)}")
    return f"{len(missing)} rights granted, all {len(wanted)} of the list are there"


def rights_of(principal: Principal) -> set[AclBinding]:
    """What the broker must be told of one principal; nothing of a superuser."""
    return {
        AclBinding(
            ResourceType[_RESOURCE_TYPES[grant.resource]],
            grant.name,
            ResourcePatternType.PREFIXED if grant.prefixed else ResourcePatternType.LITERAL,
            f"User:{principal.name}",
            "*",
            AclOperation[operation.value],
            AclPermissionType.ALLOW,
        )
        for grant in principal.grants
        for operation in grant.operations
    }


def reaches(acl: AclBinding, listed: Rights) -> bool:
    """Whether a right that is nobody's of the list lets its holder do something with the ledger's
    topics, groups or transactional ids, or with the cluster.
    """
    if acl.permission_type is not AclPermissionType.ALLOW:
        return False
    if acl.restype is ResourceType.BROKER:
        return True
    ours = {
        grant.name
        for principal in listed.principals
        for grant in principal.grants
        if ResourceType[_RESOURCE_TYPES[grant.resource]] is acl.restype
    }
    if acl.resource_pattern_type is ResourcePatternType.PREFIXED:
        return any(name.startswith(acl.name) for name in ours)
    return acl.name == "*" or acl.name in ours


def acl_text(acl: AclBinding) -> str:
    """One right in words: `User:x may WRITE TOPIC nocturne.commands.v1`."""
    prefix = "…" if acl.resource_pattern_type is ResourcePatternType.PREFIXED else ""
    may = "may" if acl.permission_type is AclPermissionType.ALLOW else "may not"
    host = "" if acl.host == "*" else f" from {acl.host}"
    operation, sort = AclOperation(acl.operation), ResourceType(acl.restype)
    return f"{acl.principal} {may} {operation.name} {sort.name} {acl.name}{prefix}{host}"


_RESOURCE_TYPES: Final = {
    Resource.TOPIC: "TOPIC",
    Resource.GROUP: "GROUP",
    Resource.TRANSACTIONAL_ID: "TRANSACTIONAL_ID",
    # librdkafka's name of the cluster.
    Resource.CLUSTER: "BROKER",
}


def _rights_present(admin: AdminClient) -> set[AclBinding]:
    return set(admin.describe_acls(any_right()).result(ADMIN_SECONDS_MAX))


def _grant(admin: AdminClient, missing: set[AclBinding]) -> None:
    for done in admin.create_acls(list(missing)).values():
        done.result(ADMIN_SECONDS_MAX)


def _withdraw(acl: AclBinding, admin: AdminClient) -> None:
    exactly = AclBindingFilter(
        acl.restype,
        acl.name,
        acl.resource_pattern_type,
        acl.principal,
        acl.host,
        acl.operation,
        acl.permission_type,
    )
    for done in admin.delete_acls([exactly]).values():
        done.result(ADMIN_SECONDS_MAX)


def any_right() -> AclBindingFilter:
    """Matches whatever anybody may or may not do."""
    sorts = (ResourceType.ANY, ResourcePatternType.ANY, AclOperation.ANY, AclPermissionType.ANY)
    nobody: Any = None
    return AclBindingFilter(sorts[0], nobody, sorts[1], nobody, nobody, sorts[2], sorts[3])


if __name__ == "__main__":
    sys.exit(main())
