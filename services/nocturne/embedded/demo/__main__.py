"""`make demo`: a ledger in a temporary home, a company's purchases on it, and every attack.

Exit codes: 0 all held; 1 an attack was not caught or an export did not verify; 3 something was
not available or not in time; 130 interrupted. Whatever happens, what was started is stopped, unless
KEEP=1 asks for it to stay.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from nocturne.cli.failures import ExitCode
from nocturne.core.errors import NocturneError
from nocturne.deploy.contributions import VALIDATORS_MAX
from nocturne.embedded import ports, postgres, services, up
from nocturne.embedded.demo.findings import Findings
from nocturne.embedded.demo.options import Options, read_options
from nocturne.embedded.demo.purchase import order_session
from nocturne.embedded.demo.screen import Screen
from nocturne.embedded.demo.show import (
    Phases,
    Place,
    failed,
    interrupt,
    show,
    write_report,
)
from nocturne.embedded.home import Home
from nocturne.embedded.status import Status

REPORT: Final = Path("demo") / "report.html"


def main() -> int:
    """Run the demonstration and say how it ended."""
    signal.signal(signal.SIGTERM, interrupt)
    options = _options()
    screen = Screen.standard()
    home = Home(Path(tempfile.mkdtemp(prefix="nocturne-demo-")))
    keep = False
    try:
        findings = _run(screen, home, options)
        keep = options.keep
        return ExitCode.OK if findings.holds else ExitCode.FAILED
    except KeyboardInterrupt:
        screen.failed("interrupted", "stopping everything")
        return ExitCode.INTERRUPTED
    except (NocturneError, OSError, TimeoutError, ExceptionGroup) as error:
        return _fail(screen, home, error)
    finally:
        if keep:
            _leave(screen, home)
        else:
            _stop(screen, home)


def _run(screen: Screen, home: Home, options: Options) -> Findings:
    phases = Phases()
    screen.title("Nocturne: a signed event ledger, shown end to end")
    status = _start(screen, phases, home)
    findings = asyncio.run(show(screen, phases, _place(home, status), options))
    write_report(findings, options.report)
    screen.summary(findings, options.report)
    return findings


def _start(screen: Screen, phases: Phases, home: Home) -> Status:
    _take_spare_ports(home)
    with phases.timed("start") as seconds:
        with screen.starting("Kafka, PostgreSQL and the services") as progress:
            status = up.up(home.root, detach=True, progress=progress)
        screen.done("started", f"{len(status.services)} processes on this machine", seconds())
    screen.note("home", str(home.root))
    return status


def _place(home: Home, status: Status) -> Place:
    port = status.service("postgres").port
    server = postgres.Server(home.postgres / "data", port, home.keys("postgres"))
    return Place(
        status.address("command"),
        status.address("query"),
        (home.root / "genesis.avro").read_bytes(),
        {"bootstrap.servers": status.address("kafka")},
        server.dsn(postgres.OWNER),
        home,
    )


def _take_spare_ports(home: Home) -> None:
    """The usual ports are for the ledger that somebody works with, and may start at any moment."""
    dice = random.SystemRandom()
    wanted = {name: dice.choice(ports.SPARE_PORTS) for name in services.usual_ports(VALIDATORS_MAX)}
    home.create()
    ports.save(home.ports, ports.choose(wanted, {}, os.environ, ports.is_free, dice))


def _options() -> Options:
    return read_options(
        "python -m nocturne.embedded.demo",
        "Show a whole ledger on this machine. KEEP=1 leaves it running.",
        report=REPORT,
        keep=os.environ.get("KEEP", "") not in ("", "0"),
    )


def _fail(screen: Screen, home: Home, error: Exception) -> int:
    """What happened, and where the logs of what ran are kept."""
    code = failed(screen, error)
    if home.logs.is_dir():
        kept = Path(tempfile.mkdtemp(prefix="nocturne-demo-logs-"))
        shutil.copytree(home.logs, kept, dirs_exist_ok=True)
        screen.note("logs", str(kept))
    return code


def _leave(screen: Screen, home: Home) -> None:
    """The ledger stays; what to do with it next."""
    program = Path(sys.executable).with_name("nocturne")
    shown = os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program)
    session = order_session(1)
    screen.title("It still runs. Next:")
    screen.say(f"{shown} events {session} --home {home.root}")
    screen.say(f"{shown} export {session} order.jsonl --home {home.root}")
    screen.say(f"{shown} verify order.jsonl --trust {home.root / 'genesis.avro'}")
    screen.say()
    screen.say(f"{shown} down --home {home.root}    # ends it")


def _stop(screen: Screen, home: Home) -> None:
    """Stop what runs and remove the home; a second Ctrl-C does not leave half of it behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        up.down(home.root)
    except NocturneError as error:
        screen.failed("not stopped", str(error))
        return
    shutil.rmtree(home.root, ignore_errors=True)
    screen.note("stopped", "nothing is left running")


if __name__ == "__main__":
    sys.exit(main())
