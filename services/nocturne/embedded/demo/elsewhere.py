"""The demonstration on a ledger that runs elsewhere: `python -m nocturne.embedded.demo.elsewhere`.

The same business case, checks and attacks as `make demo`, on services that somebody else has
started: `docker compose --profile demo run --rm demo`. The ledger must be new, because everything
in it is held against the plan. Left out: the history of a folder, and stopping what runs.

The insiders' attacks need what no service has: Kafka's and PostgreSQL's master passwords. Settings:
docs/guides/settings.md. Exit codes: 0 all held; 1 an attack was not caught, an export did not
verify, or the ledger is not new; 2 settings; 3 something was not available or not in time; 130
interrupted.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from pydantic import ValidationError

from nocturne.cli.failures import ExitCode
from nocturne.client import Client, Credentials
from nocturne.core.errors import NocturneError
from nocturne.embedded.demo.findings import Findings
from nocturne.embedded.demo.options import Options, read_options
from nocturne.embedded.demo.screen import Screen
from nocturne.embedded.demo.show import (
    Phases,
    Place,
    failed,
    interrupt,
    show,
    write_report,
)
from nocturne.runtime.settings import (
    PREFIX,
    Address,
    ClusterSettings,
    DatabaseSettings,
    ProcessSettings,
    read_founding,
    read_settings,
)


class Settings(ProcessSettings, ClusterSettings, DatabaseSettings):
    """Where the ledger runs, and the master passwords for the insiders' attacks."""

    command_address: Address
    query_address: Address
    genesis_file: Path
    ca_file: Path | None = None
    """Whom it trusts: given, TLS is spoken."""
    token_file: Path | None = None
    """A token with the roles submit and audit."""


class NotNew(NocturneError):  # noqa: N818
    """The ledger has been used: what the demonstration finds could not be held to its plan."""


def main() -> int:
    """Run the demonstration and say how it ended."""
    signal.signal(signal.SIGTERM, interrupt)
    options = _options()
    try:
        settings = read_settings(Settings)
    except ValidationError as fault:
        for error in fault.errors(include_url=False, include_input=False):
            variable = PREFIX + "_".join(str(part) for part in error["loc"]).upper()
            print(f"demo: {variable}: {error['msg']}", file=sys.stderr)
        return 2
    screen = Screen.standard()
    try:
        findings = asyncio.run(_run(screen, _place(settings), options))
        return ExitCode.OK if findings.holds else ExitCode.FAILED
    except KeyboardInterrupt:
        screen.failed("interrupted", "the ledger goes on")
        return ExitCode.INTERRUPTED
    except (NocturneError, OSError, TimeoutError, ExceptionGroup) as error:
        return failed(screen, error)


async def _run(screen: Screen, place: Place, options: Options) -> Findings:
    screen.title("Nocturne: a signed event ledger, shown end to end")
    async with Client(
        place.command,
        place.query,
        genesis=place.genesis_bytes,
        credentials=place.credentials,
    ) as client:
        status = await client.status()
    if status.records:
        raise NotNew(
            f"the ledger has {status.records} commands already: the demonstration needs a new one "
            "(docker compose down --volumes removes the old one with all that is in it)"
        )
    findings = await show(screen, Phases(), place, options)
    write_report(findings, options.report)
    screen.summary(findings, options.report)
    return findings


def _place(settings: Settings) -> Place:
    return Place(
        settings.command_address,
        settings.query_address,
        read_founding(settings.genesis_file).data,
        settings.cluster.connection(),
        settings.database.address(),
        None,
        Credentials(ca_file=settings.ca_file, token_file=settings.token_file),
    )


def _options() -> Options:
    return read_options(
        "python -m nocturne.embedded.demo.elsewhere",
        "Show a new ledger that runs elsewhere.",
        report=None,
        keep=True,
    )


if __name__ == "__main__":
    sys.exit(main())
