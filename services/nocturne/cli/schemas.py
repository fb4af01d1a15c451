"""schemas: what stands in the topics, and the schema registry that says it to everyone else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from nocturne.cli import surroundings
from nocturne.cli.failures import ExitCode, Failure, bad_use
from nocturne.cli.options import JsonOption
from nocturne.cli.screen import Cell, Column, pretty_json, table
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.topic_names import TopicArgument, topic_named
from nocturne.cli.words import count_text
from nocturne.core.json_fields import JsonObject
from nocturne.core.schemas import SCHEMAS
from nocturne.core.strict_json import parse_json
from nocturne.core.topics import FIXED_SCHEMA_IDS, SCHEMA_NAMES, TOPICS
from nocturne.runtime.registry import (
    COMPATIBILITY,
    Registry,
    Standing,
    Subject,
    is_address,
    subject_of,
)

SCHEMA_BYTES_MAX: Final = 64 * 1024
SCHEMA_DEPTH_MAX: Final = 64
REGISTRY_VARIABLE: Final = "NOCTURNE_REGISTRY_URL"

schemas = typer.Typer(
    help="Show the topics' schemas, and bring them into a schema registry.", no_args_is_help=True
)

RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="URL",
        help=f"Address of Confluent's registry API: {REGISTRY_VARIABLE} when not given.",
        show_default=False,
    ),
]

_FIXED: Final = (
    Column("topic", "bold"),
    Column("subject"),
    Column("id without a registry", justify="right"),
    Column("compatibility", "dim"),
)
_REGISTERED: Final = (
    Column("topic", "bold"),
    Column("subject"),
    Column("id", justify="right"),
    Column("compatibility"),
    Column("in the registry"),
)


@schemas.command("list")
def schemas_list(
    context: typer.Context, registry: RegistryOption = None, as_json: JsonOption = False
) -> None:
    """List every topic's subject; with a registry, as that registry has it."""
    around = surroundings.of(context)
    url = _url(around, registry)
    if url is not None:
        _show(around, Registry(url).look(), as_json)
    elif as_json:
        for topic in TOPICS:
            around.emit(
                {
                    "topic": topic,
                    "subject": subject_of(topic),
                    "id": FIXED_SCHEMA_IDS[topic],
                    "compatibility": COMPATIBILITY[topic].value,
                }
            )
    else:
        rows = [
            [topic, subject_of(topic), str(FIXED_SCHEMA_IDS[topic]), COMPATIBILITY[topic].value]
            for topic in TOPICS
        ]
        around.out.print(table(_FIXED, rows))


@schemas.command("show")
def schemas_show(context: typer.Context, topic: TopicArgument) -> None:
    """Print a topic's Avro schema, for a reader without a registry."""
    around = surroundings.of(context)
    text = SCHEMAS[SCHEMA_NAMES[topic_named(topic)]]
    schema = parse_json(text.encode(), SCHEMA_BYTES_MAX, SCHEMA_DEPTH_MAX)
    around.out.file.write(pretty_json(schema) + "\n")


@schemas.command("register")
def schemas_register(
    context: typer.Context, registry: RegistryOption = None, as_json: JsonOption = False
) -> None:
    """Bring every schema into the registry, each under its compatibility mode. Again is safe."""
    around = surroundings.of(context)
    found = Registry(_needed(around, registry)).register()
    _show(around, found, as_json)
    _all_ready(found, "registered, but not kept as asked")


@schemas.command("check")
def schemas_check(
    context: typer.Context, registry: RegistryOption = None, as_json: JsonOption = False
) -> None:
    """Check that the registry has every schema under its mode; exit code 1 if not."""
    around = surroundings.of(context)
    found = Registry(_needed(around, registry)).look()
    _show(around, found, as_json)
    _all_ready(found, "not as a ledger needs it: 'nocturne schemas register' sets it right")


def _url(around: Surroundings, named: str | None) -> str | None:
    """The registry that was named, else the environment's; None without either."""
    url = around.environment.get(REGISTRY_VARIABLE) or None if named is None else named
    if url is not None and not is_address(url):
        # It may hold a password: it is not shown.
        raise bad_use(
            "The registry's address is none: give --registry one like "
            "http://registry:8080/apis/ccompat/v7."
        )
    return url


def _needed(around: Surroundings, named: str | None) -> str:
    url = _url(around, named)
    if url is None:
        raise bad_use(f"Which registry? Name it with --registry URL or in {REGISTRY_VARIABLE}.")
    return url


def _all_ready(found: Sequence[Subject], problem: str) -> None:
    wrong = [one.name for one in found if not one.ready]
    if wrong:
        raise Failure(
            ExitCode.FAILED,
            f"{count_text(len(wrong), 'subject is', 'subjects are')} {problem}: "
            f"{', '.join(wrong)}.",
        )


def _show(around: Surroundings, found: Sequence[Subject], as_json: bool) -> None:
    if as_json:
        for one in found:
            around.emit(_subject_json(one))
    else:
        around.out.print(table(_REGISTERED, map(_subject_row, found)))


def _subject_json(one: Subject) -> JsonObject:
    return {
        "topic": one.topic,
        "subject": one.name,
        "id": one.schema_id,
        "compatibility": one.compatibility,
        "standing": one.standing.value,
        "ready": one.ready,
    }


def _subject_row(one: Subject) -> list[str | Cell]:
    mode = Cell(one.compatibility or "not set", "dim")
    if one.compatibility != COMPATIBILITY[one.topic].value:
        mode = Cell(f"{mode.text}, not {COMPATIBILITY[one.topic].value}", "yellow")
    return [
        one.topic,
        one.name,
        "" if one.schema_id is None else str(one.schema_id),
        mode,
        Cell(one.standing.value, "green" if one.standing is Standing.READY else "yellow"),
    ]
