"""The command line, put together: which word runs what."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from nocturne.cli import (
    checking,
    importing,
    keys,
    log,
    members,
    policy,
    reading,
    rebuilding,
    running,
    schemas,
    subjects,
    tailing,
    validators,
    writing,
)

app = typer.Typer(
    name="nocturne",
    help="A signed event ledger: every state is a replay, every refusal has a receipt, and anyone "
    "can check it all offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_RUN = "Run a ledger"
_WRITE = "Write"
_READ = "Read"
_CHECK = "Check"

app.command(rich_help_panel=_RUN)(running.up)
app.command(rich_help_panel=_RUN)(running.down)
app.command(rich_help_panel=_RUN)(running.status)
app.add_typer(validators.validators, name="validators", rich_help_panel=_RUN)
app.add_typer(policy.policy, name="policy", rich_help_panel=_RUN)
app.add_typer(log.log, name="log", rich_help_panel=_RUN)
app.command(rich_help_panel=_RUN)(rebuilding.rebuild)
app.add_typer(keys.keys, name="keys", rich_help_panel=_WRITE)
app.command(rich_help_panel=_WRITE)(writing.submit)
app.command(rich_help_panel=_WRITE)(members.members)
app.command(rich_help_panel=_WRITE)(members.close)
app.add_typer(subjects.subjects, name="subjects", rich_help_panel=_WRITE)
app.add_typer(importing.imports, name="import", rich_help_panel=_WRITE)
app.command(rich_help_panel=_READ)(reading.sessions)
app.command(rich_help_panel=_READ)(reading.events)
app.command(rich_help_panel=_READ)(reading.receipts)
app.command(rich_help_panel=_READ)(reading.state)
app.command(rich_help_panel=_READ)(reading.export)
app.command(rich_help_panel=_READ)(tailing.tail)
app.add_typer(schemas.schemas, name="schemas", rich_help_panel=_RUN)
app.command(rich_help_panel=_CHECK)(checking.verify)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nocturne {version('nocturne')}")
        raise typer.Exit


@app.callback()
def nocturne(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """A signed event ledger: every state is a replay, every refusal has a receipt, and anyone can
    check it all offline.
    """
