"""Ids of the frozen schemas: fixed in the package, or as a schema registry has them.

Rules: docs/spec/topics.md. Subjects are named `<topic>-<record's full name>`
(TopicRecordNameStrategy). Nothing is registered from here: a schema that the registry lacks, or
has otherwise, is a deployment's fault and said so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError

from nocturne.core.errors import Unavailable
from nocturne.core.schemas import SCHEMAS
from nocturne.core.topics import FIXED_SCHEMA_IDS, SCHEMA_NAMES, TOPICS

SECONDS_MAX = 10.0


def schema_ids(registry_url: str | None) -> Mapping[str, int]:
    """Topic → schema id for the records' prefix. Blocks when there is a registry to ask."""
    if registry_url is None:
        return FIXED_SCHEMA_IDS
    client = SchemaRegistryClient({"url": registry_url, "timeout": SECONDS_MAX})
    return {topic: _id_of(client, topic) for topic in TOPICS}


def subject_of(topic: str) -> str:
    """The subject of a topic's one record type."""
    schema = json.loads(SCHEMAS[SCHEMA_NAMES[topic]])
    return f"{topic}-{schema['namespace']}.{schema['name']}"


def _id_of(client: SchemaRegistryClient, topic: str) -> int:
    subject = subject_of(topic)
    schema = Schema(SCHEMAS[SCHEMA_NAMES[topic]], "AVRO")
    try:
        schema_id = client.lookup_schema(subject, schema).schema_id
    except SchemaRegistryError as fault:
        raise Unavailable(f"registry: subject {subject}: {fault.error_message}") from fault
    except OSError as fault:
        raise Unavailable(f"registry: cannot be asked for {subject}: {fault}") from fault
    if not isinstance(schema_id, int):
        raise Unavailable(f"registry: subject {subject}: expected an id, got {schema_id!r}")
    return schema_id
