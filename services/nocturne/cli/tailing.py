"""tail: a topic's records as they stand there, each with what can be checked of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from nocturne.cli import surroundings, trust
from nocturne.cli.failures import bad_use
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.screen import Cell, Column, plain, row
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.tail_records import (
    Check,
    Record,
    Told,
    Trust,
    headers_json,
    record_json,
    shown,
    told_of,
)
from nocturne.cli.topic_names import TopicArgument, topic_named
from nocturne.cli.words import time_text
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.genesis import GENESIS_BYTES_MAX, decode_genesis, ledger_id_of
from nocturne.embedded import lock
from nocturne.embedded import status as statuses
from nocturne.embedded.home import Home
from nocturne.runtime.cluster import Cluster

BOOTSTRAP: Final = f"{trust.PREFIX}KAFKA_BOOTSTRAP"
_STYLES: Final = {
    Check.VERIFIED: "green",
    Check.REFUSED: "red",
    Check.UNCHECKED: "yellow",
    Check.UNREADABLE: "red",
}
_COLUMNS: Final = (
    Column("time", "dim", width_min=24),
    Column("at", "dim", "right", 8),
    Column("check", width_min=10),
    Column("record"),
)


def tail(
    context: typer.Context,
    topic: TopicArgument,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the oldest record.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="End after so many records.", show_default="without an end"),
    ] = None,
    bootstrap: Annotated[
        str | None,
        typer.Option(
            "--bootstrap",
            metavar="HOST:PORT",
            help="Another broker than the home's own, met as NOCTURNE_KAFKA_… say.",
            show_default="NOCTURNE_KAFKA_BOOTSTRAP, else the home's own",
        ),
    ] = None,
    genesis: Annotated[
        Path | None,
        typer.Option(
            "--genesis",
            metavar="FILE",
            help="Check against this genesis.",
            show_default="NOCTURNE_LEDGER's file, else the home's",
        ),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Print a topic's records from now on, as they stand there, until Ctrl-C.

    TOPIC: commands, blocks, seals, events, receipts, or a full name.
    """
    around = surroundings.of(context)
    named = topic_named(topic)
    place = around.home(home)
    checked_against = _trust(around, place, genesis)
    named_broker = bootstrap or around.environment.get(BOOTSTRAP)
    cluster = _named(named_broker) if named_broker else Cluster(_broker(place))
    if checked_against is None:
        around.say("No genesis to check against: name one with --genesis FILE.")
    # Imported when asked for, as the broker's client is needed by few commands.
    from nocturne.cli.topic_records import read

    try:
        with closing(read(cluster, named, from_beginning)) as records:
            _print(around, islice(records, limit), checked_against, as_json)
    except KeyboardInterrupt:
        # Ctrl-C is how following ends, not a failure.
        return


def _print(
    around: Surroundings, records: Iterator[Record], against: Trust | None, as_json: bool
) -> None:
    for record in records:
        told = told_of(record, against)
        if as_json:
            around.emit(record_json(record, told))
        else:
            around.out.print(row(_COLUMNS, _row(record, told), around.out.width))
            around.out.print(_below(record, told))


def _row(record: Record, told: Told) -> list[str | Cell]:
    return [
        "" if record.timestamp is None else time_text(record.timestamp),
        f"{record.partition}/{record.offset}",
        Cell(told.check.value, _STYLES[told.check]),
        told.summary,
    ]


def _below(record: Record, told: Told) -> Text:
    """What the check says, then the key and the CloudEvents headers, which anybody may write."""
    headers = headers_json(record.headers)
    named = headers.items() if isinstance(headers, dict) else ()
    claims = [f"key={'(none)' if record.key is None else shown(record.key)}"]
    claims += [f"{name}={value}" for name, value in named]
    if record.headers is None:
        claims.append("(headers that are no UTF-8)")
    return Text.assemble(
        "  ", (plain(told.says), _STYLES[told.check]), "\n  ", (plain(" ".join(claims)), "dim")
    )


def _trust(around: Surroundings, home: Home, genesis: Path | None) -> Trust | None:
    """The named genesis; else that of NOCTURNE_LEDGER, where an id needs the home's to be of it;
    else the home's.
    """
    if genesis is None:
        ledger = trust.ledger_of(around.environment)
        if ledger is not None and ledger[1] is not None:
            return Trust(ledger[0], decode_genesis(ledger[1]))
        founding = trust.founding_of(home)
        if founding is None or (ledger is not None and founding.ledger_id != ledger[0]):
            return None
        return Trust(founding.ledger_id, founding.genesis)
    with genesis.open("rb") as opened:
        data = opened.read(GENESIS_BYTES_MAX + 1)
    try:
        return Trust(ledger_id_of(data), decode_genesis(data))
    except Malformed as fault:
        raise bad_use(f"{genesis} is no genesis ({fault}): name another with --genesis.") from fault


def _named(bootstrap: str) -> Cluster:
    """The cluster at this address, met as the environment says: protocol, user, files."""
    # Imported when asked for: few commands need settings.
    from pydantic import ValidationError

    from nocturne.runtime.settings import ClusterSettings

    try:
        return ClusterSettings.model_validate({"kafka_bootstrap": bootstrap}).cluster
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        variable = trust.PREFIX + "_".join(map(str, first["loc"])).upper()
        raise bad_use(f"{variable}: {first['msg']}: see docs/guides/settings.md.") from fault


def _broker(home: Home) -> str:
    """The address of the home's own broker."""
    found = statuses.read(home.status)
    if lock.holder(home.lock) is None or "kafka" not in {one.name for one in found.services}:
        raise Unavailable(
            f"Nothing runs in {home.root}: 'nocturne up --detach' starts it, or name a broker with "
            f"--bootstrap HOST:PORT or {BOOTSTRAP}."
        )
    return found.address("kafka")
