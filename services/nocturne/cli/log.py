"""log: what the broker has of the certified log, and how operators let a lost log go on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import typer
from rich.text import Text

from nocturne.cli import surroundings
from nocturne.cli.consent import confirm
from nocturne.cli.decisions import (
    Decision,
    KeyOption,
    OutOption,
    ProposalArgument,
    check_operator,
    operating,
    signer_of,
)
from nocturne.cli.failures import ExitCode, Failure, bad_use
from nocturne.cli.ledger import Operators
from nocturne.cli.log_openings import (
    PROPOSAL_BYTES_MAX,
    lost,
    openings_for,
    parse_proposal,
    proposal_of,
)
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.screen import Column, table
from nocturne.cli.surroundings import Surroundings
from nocturne.client.operating import Governance, Governed, LogPartition, LogStands
from nocturne.core.control import cosign_control, decode_control
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import format_hash
from nocturne.core.log_epochs import ACTION, LogOpening, opening_fields
from nocturne.core.strict_json import JsonValue

log = typer.Typer(
    help="See whether Kafka has the certified log, and go on after it lost it.",
    no_args_is_help=True,
)

_DECISION: Final = Decision(ACTION, "log", "log open", "log show", "log")
_STANDS: Final = (
    Column("partition", justify="right"),
    Column("log epoch", justify="right"),
    Column("certified to", justify="right"),
    Column("held beyond", justify="right"),
    Column("Kafka has"),
    Column(""),
)
_OPENINGS: Final = (
    Column("partition", justify="right"),
    Column("log epoch", justify="right"),
    Column("topic"),
    Column("from offset", justify="right"),
)


@log.command("show")
def log_show(context: typer.Context, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Show what is certified of each partition, and what Kafka has of it."""
    around = surroundings.of(context)
    _, stands = _ask(around, home)
    if as_json:
        around.emit(_stands_json(stands))
        return
    around.out.print(table(_STANDS, [_stands_row(stands, one) for one in stands.partitions]))
    _say_cause(around, stands)


@log.command("open")
def log_open(
    context: typer.Context,
    partition: Annotated[
        list[int] | None,
        typer.Option(
            help="Only this partition, whatever Kafka has of it; may be given several times.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="PARTITION=OFFSET",
            help="Where a partition goes on; with the first record that Kafka has when not given.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask. What is left behind stays behind.")
    ] = False,
    key: KeyOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Let the ledger go on with the log that Kafka has now, where it lost the certified one."""
    around = surroundings.of(context)
    signer = signer_of(around, home, key)
    now, stands = _ask(around, home)
    check_operator(now, signer)
    if out is None:
        _DECISION.check_alone(now)
    try:
        openings = openings_for(stands, frozenset(partition or ()), _starts(start or ()))
    except Malformed as fault:
        raise bad_use(f"That cannot be opened: {fault}.") from fault
    if not openings:
        raise Failure(
            ExitCode.FAILED,
            "Kafka has all that is certified: nothing needs a new log epoch. One whose records "
            "were rewritten is named with --partition.",
        )
    if not as_json:
        around.out.print(table(_OPENINGS, map(_opening_row, openings)))
    _explain(around, stands, openings)
    if out is None:
        confirm(around, "From then on the ledger reads that log and no other.", yes)
    records = [
        _DECISION.propose(now, opening_fields(opening), signer, after=place)
        for place, opening in enumerate(openings)
    ]
    if out is None:
        _submit(around, home, records, as_json)
    else:
        _DECISION.hand_over(around, now, proposal_of(records), out)


@log.command("sign")
def log_sign(
    context: typer.Context,
    file: ProposalArgument,
    key: KeyOption = None,
    home: HomeOption = None,
) -> None:
    """Show a proposal that another operator wrote, and add a signature to it."""
    around = surroundings.of(context)
    found = _read(file)
    first, _ = decode_control(found[0][0])
    around.out.print(f"Decisions from {first.number} on of {format_hash(first.ledger_id)}:")
    around.out.print(table(_OPENINGS, [_opening_row(one) for _, one in found]))
    signer = signer_of(around, home, key)
    signed = [cosign_control(record, signer) for record, _ in found]
    _DECISION.replace(around, file, proposal_of(signed), signed[0])


@log.command("submit")
def log_submit(
    context: typer.Context,
    file: ProposalArgument,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Bring a signed proposal into the ledger."""
    around = surroundings.of(context)
    _submit(around, home, [record for record, _ in _read(file)], as_json)


def _submit(
    around: Surroundings, home: Path | None, records: Sequence[bytes], as_json: bool
) -> None:
    async def submit(operators: Operators) -> list[Governed]:
        done = (await operators.governance()).number
        # What an earlier run brought in is not brought again.
        left = [one for one in records if decode_control(one)[0].number > done]
        if not left:
            raise Malformed(f"decision {done} is in the ledger already")
        return [await operators.submit(one) for one in left]

    last = _DECISION.bring(around, home, submit)[-1]
    if as_json:
        around.emit({"height": last.height, "blockDigest": format_hash(last.digest)})
    else:
        around.out.print(
            Text.assemble(
                ("✓ ", "green"), f"in block {last.height}: validators read the log that Kafka has"
            )
        )


def _ask(around: Surroundings, home: Path | None) -> tuple[Governance, LogStands]:
    async def ask(operators: Operators) -> tuple[Governance, LogStands]:
        return await operators.governance(), await operators.log()

    return operating(around, home, ask)


def _starts(texts: Sequence[str]) -> dict[int, int]:
    found = {}
    for text in texts:
        partition, _, offset = text.partition("=")
        if not (partition.isdecimal() and offset.isdecimal() and len(text) < 32):
            raise bad_use(f"--from is PARTITION=OFFSET, like 3=120, not {text[:80]!r}.")
        found[int(partition)] = int(offset)
    return found


def _read(file: Path) -> tuple[tuple[bytes, LogOpening], ...]:
    with file.open("rb") as opened:
        data = opened.read(PROPOSAL_BYTES_MAX + 1)
    try:
        return parse_proposal(data)
    except Malformed as fault:
        raise bad_use(f"{file} is no proposal ({fault}): 'log open … --out' writes one.") from fault


def _explain(around: Surroundings, stands: LogStands, openings: Sequence[LogOpening]) -> None:
    """What is kept and what is left behind."""
    known = {one.partition: one for one in stands.partitions}
    of = [(one, known[one.partition]) for one in openings]
    read = sum(has.end_offset - one.start for one, has in of)
    skipped = sum(one.start - has.first_offset for one, has in of)
    held = sum(has.held_records for _, has in of)
    around.say(f"Kept: every certified record, up to block {stands.height}.")
    around.say(f"Read: {read} records that Kafka has. What was done before is not done again.")
    if skipped:
        around.say(f"Left out: {skipped} records that Kafka has before those offsets.")
    around.say(
        f"Held by the validator that was asked and certified by no block: {held}. Others that were "
        "not certified are gone; whoever sent them may send the same commands again."
    )
    _say_cause(around, stands)


def _say_cause(around: Surroundings, stands: LogStands) -> None:
    if stands.cause:
        around.say(f"The validator takes no records: {stands.cause}.")


def _stands_row(stands: LogStands, one: LogPartition) -> list[str]:
    return [
        str(one.partition),
        str(one.log_epoch),
        str(one.next_offset),
        str(one.held_records),
        f"{one.first_offset} to {one.end_offset}",
        lost(stands, one),
    ]


def _opening_row(opening: LogOpening) -> list[str]:
    return [
        str(opening.partition),
        str(opening.log_epoch),
        str(UUID(bytes=opening.topic_uuid)),
        str(opening.start),
    ]


def _stands_json(stands: LogStands) -> JsonValue:
    return {
        "height": stands.height,
        "cause": stands.cause or None,
        "topic": str(UUID(bytes=stands.topic_uuid)),
        "partitions": [
            {
                "partition": one.partition,
                "logEpoch": one.log_epoch,
                "topic": str(UUID(bytes=one.topic_uuid)),
                "nextOffset": one.next_offset,
                "heldRecords": one.held_records,
                "firstOffset": one.first_offset,
                "endOffset": one.end_offset,
                "lost": lost(stands, one) or None,
            }
            for one in stands.partitions
        ],
    }
