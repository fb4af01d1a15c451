"""verify: check an export without any ledger running, and name the first thing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.text import Text

from nocturne.audit.verify import Verdict, verify_export
from nocturne.cli import surroundings, trust
from nocturne.cli.failures import ExitCode
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.screen import plain
from nocturne.core.exports import LINE_BYTES_MAX
from nocturne.core.identifiers import format_hash
from nocturne.core.strict_json import JsonValue


def verify(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    trust_named: Annotated[
        str | None,
        typer.Option(
            "--trust",
            metavar="LEDGER_ID|FILE",
            help="The ledger you trust: its id, or its genesis file.",
            show_default="NOCTURNE_LEDGER's, or the home's",
        ),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Check an export offline: every signature, hash and proof, and that nothing was left out."""
    around = surroundings.of(context)
    trusted = trust.trusted(trust_named, around.home(home), around.environment)
    with file.open("rb") as export:
        verdict = verify_export(_lines(export), trusted)
    if as_json:
        around.emit(_verdict_json(verdict))
    else:
        around.out.print(_verdict_text(verdict))
        if verdict.fault is None and not verdict.identity_checked:
            around.say("Say which ledger you trust: --trust with its id or its genesis file.")
    if not verdict.holds:
        raise typer.Exit(ExitCode.FAILED)


def _lines(export: IO[bytes]) -> Iterator[bytes]:
    """The file's lines; a line beyond the bound comes cut, which the verifier refuses."""
    return iter(lambda: export.readline(LINE_BYTES_MAX + 1), b"")


def _verdict_text(verdict: Verdict) -> Text:
    if verdict.fault is not None:
        return Text.assemble(("✗ ", "red"), plain(verdict.sentence))
    if not verdict.identity_checked:
        return Text.assemble(("? ", "yellow"), plain(verdict.sentence))
    return Text.assemble(("✓ ", "green"), plain(verdict.sentence))


def _verdict_json(verdict: Verdict) -> JsonValue:
    return {
        "holds": verdict.holds,
        "fault": verdict.fault,
        "sentence": verdict.sentence,
        "ledgerId": None if verdict.ledger_id is None else format_hash(verdict.ledger_id),
        "identityChecked": verdict.identity_checked,
        "signed": verdict.signed,
        "sessionId": verdict.session or None,
        "height": verdict.height,
        "events": verdict.events,
        "receipts": verdict.receipts,
        "headHash": None if verdict.head_hash is None else format_hash(verdict.head_hash),
    }
