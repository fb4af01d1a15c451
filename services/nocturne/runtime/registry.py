"""Ids of the frozen schemas: fixed in the package, or as a schema registry has them.

Rules: docs/spec/topics.md. Subjects are named `<topic>-<record's full name>`
(TopicRecordNameStrategy). Nothing is registered from here: a schema that the registry lacks, or
has otherwise, is a deployment's fault and said so.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

from nocturne.core.errors import Unavailable
from nocturne.core.schemas import SCHEMAS
from nocturne.core.topics import FIXED_SCHEMA_IDS, SCHEMA_NAMES, TOPICS

SECONDS_MAX = 10.0


def schema_ids(registry_url: str | None) -> Mapping[str, int]:
    """Topic → schema id for the records' prefix. Blocks when there is a registry to ask."""
    if registry_url is None:
        return FIXED_SCHEMA_IDS
    return {topic: _id_of(registry_url, topic) for topic in TOPICS}


def subject_of(topic: str) -> str:
    """The subject of a topic's one record type."""
    schema = json.loads(SCHEMAS[SCHEMA_NAMES[topic]])
    return f"{topic}-{schema['namespace']}.{schema['name']}"


def _id_of(registry_url: str, topic: str) -> int:
    """The id under which the registry has exactly this schema (`POST /subjects/{subject}`)."""
    subject = subject_of(topic)
    request = urllib.request.Request(
        f"{registry_url.rstrip('/')}/subjects/{urllib.parse.quote(subject, safe='')}",
        json.dumps({"schema": SCHEMAS[SCHEMA_NAMES[topic]], "schemaType": "AVRO"}).encode(),
        {"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
            schema_id = json.load(answer)["id"]
    except urllib.error.HTTPError as fault:
        raise Unavailable(f"registry: subject {subject}: {fault.code} {fault.reason}") from fault
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise Unavailable(f"registry: cannot be asked for {subject}: {fault}") from fault
    if not isinstance(schema_id, int):
        raise Unavailable(f"registry: subject {subject}: expected an id, got {schema_id!r}")
    return schema_id
