"""import: bring a history from elsewhere into the ledger, resumable, with a progress bar."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from nocturne.cli import surroundings
from nocturne.cli.asking import ask, each_within
from nocturne.cli.failures import ExitCode, Failure
from nocturne.cli.ledger import Ledger
from nocturne.cli.options import DEADLINE_SECONDS, HomeOption, JsonOption, session_id
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.words import count_text, refusal
from nocturne.cli.writing import author_named
from nocturne.client.results import Result
from nocturne.core.commands import SignedCommand
from nocturne.core.events import Event
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import LedgerId, SessionId
from nocturne.imports import git, git_import, git_log
from nocturne.imports.into import Imported, ImportRefused

imports = typer.Typer(help="Bring a history from elsewhere into the ledger.", no_args_is_help=True)

SILENCE_SECONDS_MAX: Final = 2 * DEADLINE_SECONDS
"""The SDK gives up after the deadline without an answer; this is for one that does not."""


class Written:
    """The ledger as an import sees it: every wait bounded, and a session not there has no event."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @property
    def ledger_id(self) -> LedgerId:
        """The hash of the genesis."""
        return self._ledger.ledger_id

    @property
    def genesis(self) -> Genesis:
        """Limits and kinds."""
        return self._ledger.genesis

    async def submit_all(
        self, commands: Iterable[SignedCommand], in_flight_max: int
    ) -> AsyncGenerator[Result, None]:
        """Publish in order; results, once certified, in the same order."""
        async with aclosing(self._ledger.submit_all(commands, in_flight_max)) as results:
            async for result in each_within(results, SILENCE_SECONDS_MAX):
                yield result

    async def events(self, session: SessionId, from_sequence: int) -> AsyncGenerator[Event, None]:
        """The session's events; none when it does not exist."""
        if await self._ledger.session(session) is not None:
            async with aclosing(self._ledger.events(session, from_sequence)) as events:
                async for event in each_within(events):
                    yield event


@imports.command("git")
def import_git(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", show_default=False)],
    branch: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="This branch.", show_default="the one checked out"),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Into this session.", show_default="git/FOLDER/BRANCH"),
    ] = None,
    as_key: Annotated[
        str | None,
        typer.Option("--as", metavar="KEY", help="Sign with this key.", show_default="default"),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Bring a git branch into a session, one event a commit. Run again, it adds what is new."""
    around = surroundings.of(context)
    began = around.now_ms()
    opened = git_log.open_branch(path, branch, around.environment)
    named = session_id(session) if session else git.session_of(opened.repository, opened.name)
    author = author_named(around, home, as_key)
    if opened.shallow:
        around.say("This clone is shallow: its older commits are not here, and not imported.")

    async def question(ledger: Ledger) -> Imported:
        with _bar(around, named, opened.commits) as progress:
            return await git_import.bring_branch(
                Written(ledger), opened, named, author, around.environment, progress
            )

    try:
        done = ask(around, home, question)
    except ImportRefused as refused:
        raise Failure(
            ExitCode.FAILED,
            f"The ledger refused event {refused.number} of {refused.session}: "
            f"{refusal(refused.refused.header)}.",
        ) from refused
    seconds = (around.now_ms() - began) / 1000
    if as_json:
        around.emit(
            {
                "imported": done.imported,
                "skipped": done.skipped,
                "sessions": 1,
                "seconds": round(seconds, 3),
                "sessionIds": [named],
                "branch": opened.name,
                "commit": opened.tip,
                "shallow": opened.shallow,
            }
        )
    else:
        around.out.print(_summary(named, done, seconds))


@contextmanager
def _bar(around: Surroundings, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    shown = around.err.is_terminal
    with Progress(*columns, console=around.err, transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _summary(session: str, done: Imported, seconds: float) -> Text:
    rate = f", {done.imported / seconds:,.0f}/s".replace(",", " ", 1) if done.imported else ""
    return Text.assemble(
        ("✓ ", "green"),
        (session, "bold"),
        f"  {count_text(done.imported, 'commit')} imported, "
        f"{count_text(done.skipped, 'commit')} there already",
        (f"  {seconds:.1f} s{rate}", "dim"),
    )
