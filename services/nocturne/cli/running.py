"""up · down · status: the embedded ledger of a home."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from nocturne.cli import surroundings, trust
from nocturne.cli.asking import ask, within
from nocturne.cli.deployment import Deployment, deployment_of
from nocturne.cli.deployment_status import look
from nocturne.cli.deployment_view import deployment_json, deployment_parts
from nocturne.cli.failures import ExitCode, Failure
from nocturne.cli.ledger import Ledger
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.screen import bytes_text
from nocturne.cli.status_view import (
    Seen,
    ready_text,
    started_json,
    started_text,
    status_json,
    status_parts,
)
from nocturne.cli.surroundings import Machine, Surroundings
from nocturne.cli.validators import ANSWER_SECONDS_MAX
from nocturne.cli.words import count_text
from nocturne.client.results import Status as Totals
from nocturne.core.errors import NocturneError
from nocturne.core.identifiers import LedgerId
from nocturne.deploy.contributions import VALIDATORS_MAX, weakness
from nocturne.embedded.home import Home
from nocturne.embedded.services import VALIDATORS_DEFAULT
from nocturne.embedded.status import Health, Status
from nocturne.runtime.degraded import load

STATUS_SECONDS_MAX: Final = 5.0
"""A status is for when something is wrong: it does not wait long for what may not answer."""
WATCH_SECONDS: Final = 0.1


def up(
    context: typer.Context,
    validators: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=VALIDATORS_MAX,
            help="How many certify a ledger that is founded now; four tolerate one liar. "
            f"[default: {VALIDATORS_DEFAULT}]",
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Return once the ledger is ready, and leave it running."),
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Start the ledger of a home with everything it needs, or continue it."""
    around = surroundings.of(context)
    machine = around.machine()
    place = around.home(home).root
    note = _validators_note(trust.founding_of(around.home(home)), validators)
    if note is not None:
        around.say(note)
    watch = Watch(around, machine, place, as_json)
    with watch.beside(), _downloads(around) as progress:
        found = machine.up(place, detach, validators, progress)
    if not detach:
        around.say(f"Stopped; 'nocturne up' goes on with the ledger in {place}.")
    elif not found.ready:
        raise Failure(
            ExitCode.UNAVAILABLE,
            f"The ledger in {place} did not become ready: 'nocturne status' shows what runs.",
        )


def _validators_note(founding: trust.Founding | None, asked: int | None) -> str | None:
    """What to know of the number of validators before the start; None: nothing."""
    if founding is None:
        return weakness(VALIDATORS_DEFAULT if asked is None else asked)
    own = len(founding.genesis.validators)
    if asked in (None, own):
        return None
    return (
        f"This ledger was founded with {count_text(own, 'validator')} and keeps its number: "
        f"--validators {asked} changes nothing. Another home is another ledger."
    )


def down(context: typer.Context, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Stop the ledger of a home; its data stays."""
    around = surroundings.of(context)
    place = around.home(home).root
    stopped = around.machine().down(place)
    if as_json:
        around.emit({"home": str(place), "stopped": stopped})
    elif stopped:
        around.out.print(Text.assemble(("✓ ", "green"), f"stopped; its data stays in {place}"))
    else:
        around.say(f"Nothing runs in {place}.")


def status(context: typer.Context, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Show what runs, how far it is, and what was refused."""
    around = surroundings.of(context)
    deployment = deployment_of(around.environment)
    if deployment is not None:
        _deployment_status(around, deployment, as_json)
        return
    seen = _look(around, home)
    if as_json:
        around.emit(status_json(seen))
    else:
        for part in status_parts(seen):
            around.out.print(part)
    if not seen.running:
        raise Failure(
            ExitCode.UNAVAILABLE, f"Nothing runs in {seen.home}: 'nocturne up --detach' starts it."
        )
    if seen.problem is not None:
        raise Failure(ExitCode.UNAVAILABLE, seen.problem, seen.status.details)


def _deployment_status(around: Surroundings, deployment: Deployment, as_json: bool) -> None:
    """Of a ledger that runs elsewhere: what its services say."""
    found = asyncio.run(look(deployment, STATUS_SECONDS_MAX))
    if deployment.control:
        found = replace(found, degraded=_passing(around, around.home(None)))
    if as_json:
        around.emit(deployment_json(found))
    else:
        for part in deployment_parts(found):
            around.out.print(part)
    if found.problem is not None:
        raise Failure(ExitCode.UNAVAILABLE, found.problem)


def _look(around: Surroundings, home: Path | None) -> Seen:
    place = around.home(home)
    found = around.machine().status(place.root)
    founding = trust.founding_of(place)
    ledger_id = None if founding is None else founding.ledger_id
    kept = _kept(place, found, ledger_id)
    if found.supervisor is None:
        return Seen(place.root, found, {}, ledger_id, None, None, kept)
    if ledger_id is not None and not kept:
        # What passes is in no file: the validators say it while it lasts.
        kept = _passing(around, place)
    totals, problem = _totals(around, home)
    if not found.ready:
        problem = found.error or problem or "Not everything is healthy yet."
    return Seen(place.root, found, around.lag(place), ledger_id, totals, problem, kept)


def _passing(around: Surroundings, place: Home) -> tuple[str, ...]:
    try:
        cause = around.validators(place, ANSWER_SECONDS_MAX).passing
    except NocturneError:
        # It is stopped this moment, or begins: the services say so themselves.
        return ()
    return () if cause is None else (f"validators: {cause}",)


def _kept(place: Home, found: Status, ledger_id: LedgerId | None) -> tuple[str, ...]:
    """What services of the home keep of a ledger that is DEGRADED."""
    if ledger_id is None:
        return ()
    kept = [(one.name, load(place.data(one.name), ledger_id).kept) for one in found.services]
    return tuple(f"{name}: {why}" for name, why in kept if why is not None)


def _totals(around: Surroundings, home: Path | None) -> tuple[Totals | None, str | None]:
    """What the projection holds; or what stands in the way."""

    async def question(ledger: Ledger) -> Totals:
        return await within(ledger.status(), STATUS_SECONDS_MAX)

    try:
        return ask(around, home, question, STATUS_SECONDS_MAX), None
    except NocturneError as fault:
        return None, str(fault)


# What is shown while it starts -----------------------------------------------------------------


@contextmanager
def _downloads(around: Surroundings) -> Iterator[Callable[[int, int, str], None]]:
    """A bar with sizes where there is a terminal; elsewhere one line at the beginning."""
    columns = (
        TextColumn("downloading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[what]}", style="dim"),
    )
    shown = around.err.is_terminal
    with Progress(*columns, console=around.err, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=None, visible=False, what="")
        said = False

        def progress(done: int, total: int, what: str) -> None:
            nonlocal said
            if not shown and not said:
                around.say(f"Downloading {bytes_text(total)}, once; it is kept for the next time.")
            said = True
            bar.update(task, completed=done, total=total, what=what, visible=done < total)

        yield progress


class Watch:
    """Says, from a thread beside the start, what becomes healthy, and when all is ready."""

    def __init__(
        self, around: Surroundings, machine: Machine, home: Path, as_json: bool = False
    ) -> None:
        self._around = around
        self._machine = machine
        self._home = home
        self._as_json = as_json
        self._began = around.now_ms()
        self._before = machine.status(home).supervisor
        self._said: set[str] = set()
        self._over = threading.Event()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Watch for the length of a block, or until all is ready."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        over = False
        while not over:
            # One look more after the end: a detached start returns the moment it is ready.
            over = self._over.wait(WATCH_SECONDS)
            if self._look(self._machine.status(self._home)):
                return

    def _look(self, found: Status) -> bool:
        """Tell what is new; True when all is told."""
        if found.supervisor in (None, self._before):
            return False
        seconds = (self._around.now_ms() - self._began) / 1000
        for service in found.services:
            if service.health is Health.HEALTHY and service.name not in self._said:
                self._said.add(service.name)
                self._around.err.print(started_text(service.name, service.port, seconds))
        if found.ready and self._as_json:
            self._around.emit(started_json(self._home, found, seconds))
        elif found.ready:
            self._around.err.print(ready_text(self._home, seconds))
        return found.ready
