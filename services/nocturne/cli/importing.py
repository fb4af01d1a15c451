"""import: bring a history from elsewhere into the ledger, resumable, with a progress bar."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from nocturne.cli import surroundings
from nocturne.cli.asking import ask, each_within
from nocturne.cli.failures import ExitCode, Failure, bad_use
from nocturne.cli.ledger import Ledger
from nocturne.cli.options import DEADLINE_SECONDS as ANSWER_SECONDS
from nocturne.cli.options import HomeOption, JsonOption, session_id
from nocturne.cli.surroundings import Surroundings
from nocturne.cli.words import count_text, refusal
from nocturne.cli.writing import author_named
from nocturne.client.results import Result
from nocturne.core.commands import SignedCommand
from nocturne.core.encoding import HASH_BYTES
from nocturne.core.errors import Unavailable
from nocturne.core.events import Event
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import AuthorId, LedgerId, SessionId
from nocturne.core.kinds.text import TEXT
from nocturne.core.strict_json import JsonValue
from nocturne.imports import git, git_import, git_log, tables, text, xes
from nocturne.imports.files import BYTES_MAX, InputFile
from nocturne.imports.importers import CsvFile, JsonLinesFile, TextFile, XesFile
from nocturne.imports.into import Imported, ImportRefused, until_done
from nocturne.imports.many import (
    DEADLINE_SECONDS,
    Brought,
    ImportStopped,
    NoSuchKind,
    NotThisSource,
    bring_all,
)
from nocturne.imports.records import Source, SourceFault
from nocturne.imports.tables import Columns

imports = typer.Typer(help="Bring a history from elsewhere into the ledger.", no_args_is_help=True)

SILENCE_SECONDS_MAX: Final = 2 * ANSWER_SECONDS
"""The SDK gives up after the deadline without an answer; this is for one that does not."""
NO_MORE: Final[Mapping[str, JsonValue]] = MappingProxyType({})

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]
AsOption = Annotated[
    str | None,
    typer.Option("--as", metavar="KEY", help="Sign with this key.", show_default="default"),
]
KindOption = Annotated[str, typer.Option(metavar="KIND", help="What new sessions are.")]
ProgressDeadlineOption = Annotated[
    float,
    typer.Option(
        "--deadline",
        metavar="SECONDS",
        min=0,
        max=86_400,
        help="Give up when for this long nothing could be written, exit code 3.",
    ),
]
BytesMaxOption = Annotated[
    int,
    typer.Option("--bytes-max", metavar="BYTES", min=1, help="What the file may unpack to."),
]
SessionColumnOption = Annotated[
    str, typer.Option(metavar="COLUMN", help="Names a row's session.", show_default=False)
]
TypeColumnOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Names a row's event type.")
]
TypeOption = Annotated[
    str | None,
    typer.Option(
        "--type", metavar="NAME", help="The type of all events.", show_default=tables.EVENT_TYPE
    ),
]
TimeColumnOption = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="When it happened: ISO 8601, or ms since 1970."),
]
SessionPrefixOption = Annotated[
    str, typer.Option(metavar="TEXT", help="What all session ids begin with.")
]
PayloadColumnsOption = Annotated[
    str | None,
    typer.Option(metavar="A,B,…", help="What goes into the payload.", show_default="the rest"),
]


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
            with _passing():
                async for result in each_within(results, SILENCE_SECONDS_MAX):
                    yield result

    async def events(self, session: SessionId, from_sequence: int) -> AsyncGenerator[Event, None]:
        """The session's events; none when it does not exist."""
        if await self._ledger.session(session) is not None:
            async with aclosing(self._ledger.events(session, from_sequence)) as events:
                with _passing():
                    async for event in each_within(events):
                        yield event


@contextmanager
def _passing() -> Iterator[None]:
    """An answer that came too late is no end: the import asks again."""
    try:
        yield
    except Failure as failure:
        raise Unavailable(str(failure)) from failure


# git -------------------------------------------------------------------------------------------


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
    as_key: AsOption = None,
    deadline: ProgressDeadlineOption = DEADLINE_SECONDS,
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
        with _commits_bar(around, named, opened.commits) as progress:
            return await until_done(
                lambda told: git_import.bring_branch(
                    Written(ledger), opened, named, author, around.environment, told
                ),
                progress,
                deadline,
            )

    with _ends_as_said():
        done = ask(around, home, question)
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
        around.out.print(_summary(named, done.imported, done.skipped, "commit", seconds))


# Files -------------------------------------------------------------------------------------------


@imports.command("xes")
def import_xes(
    context: typer.Context,
    file: FileArgument,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Sessions are named TEXT and the case.", show_default="xes/FILE/"
        ),
    ] = None,
    kind: KindOption = xes.KIND,
    as_key: AsOption = None,
    bytes_max: BytesMaxOption = BYTES_MAX,
    deadline: ProgressDeadlineOption = DEADLINE_SECONDS,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Bring an event log of IEEE 1849 (.xes, .xes.gz) into one session a case, one event each."""
    with _ends_as_said():
        opened = InputFile(file, bytes_max)
        source = XesFile(opened, prefix)
    _import(context, opened, source, kind, as_key, deadline, as_json, home)


@imports.command("text")
def import_text(
    context: typer.Context,
    file: FileArgument,
    session: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Into this session.", show_default="text/FILE"),
    ] = None,
    as_key: AsOption = None,
    deadline: ProgressDeadlineOption = DEADLINE_SECONDS,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Bring a recorded writing (startContent, txns of patches) into a session of kind text."""
    named = session_id(session) if session else None
    with _ends_as_said():
        opened = InputFile(file)
        source = TextFile.read(opened, named)
    # Who signs means nothing to a text.
    matches = source.end_matches(TEXT, AuthorId(bytes(HASH_BYTES)))
    more: dict[str, JsonValue] = {"sessionIds": [source.session], "endMatches": matches}
    _import(context, opened, source, text.KIND, as_key, deadline, as_json, home, more)


@imports.command("csv")
def import_csv(
    context: typer.Context,
    file: FileArgument,
    session_column: SessionColumnOption,
    type_column: TypeColumnOption = None,
    type_name: TypeOption = None,
    time_column: TimeColumnOption = None,
    session_prefix: SessionPrefixOption = "",
    payload_columns: PayloadColumnsOption = None,
    delimiter: Annotated[
        str, typer.Option(metavar="CHARACTER", help="Between fields; 'tab' for a tabulator.")
    ] = ",",
    encoding: Annotated[str, typer.Option(metavar="NAME", help="What the bytes mean.")] = "utf-8",
    kind: KindOption = tables.KIND,
    as_key: AsOption = None,
    bytes_max: BytesMaxOption = BYTES_MAX,
    deadline: ProgressDeadlineOption = DEADLINE_SECONDS,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Bring the rows of a CSV file (.csv, .csv.gz) with a header into sessions, one event a row."""
    columns = _columns(
        session_column, type_column, type_name, time_column, session_prefix, payload_columns
    )
    with _ends_as_said():
        opened = InputFile(file, bytes_max)
        between = "\t" if delimiter in ("tab", "\\t") else delimiter
        source = CsvFile(opened, columns, between, encoding)
    _import(context, opened, source, kind, as_key, deadline, as_json, home)


@imports.command("jsonl")
def import_jsonl(
    context: typer.Context,
    file: FileArgument,
    session_column: SessionColumnOption,
    type_column: TypeColumnOption = None,
    type_name: TypeOption = None,
    time_column: TimeColumnOption = None,
    session_prefix: SessionPrefixOption = "",
    payload_columns: PayloadColumnsOption = None,
    kind: KindOption = tables.KIND,
    as_key: AsOption = None,
    bytes_max: BytesMaxOption = BYTES_MAX,
    deadline: ProgressDeadlineOption = DEADLINE_SECONDS,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Bring JSON lines (.jsonl, .jsonl.gz) into sessions, one event a line. A column is a key, or
    a JSON pointer such as /order/id.
    """
    columns = _columns(
        session_column, type_column, type_name, time_column, session_prefix, payload_columns
    )
    with _ends_as_said():
        opened = InputFile(file, bytes_max)
        source = JsonLinesFile(opened, columns)
    _import(context, opened, source, kind, as_key, deadline, as_json, home)


def _columns(
    session: str,
    event_type: str | None,
    type_name: str | None,
    time: str | None,
    prefix: str,
    payload: str | None,
) -> Columns:
    if event_type is not None and type_name is not None:
        raise bad_use("An event has one type: give --type-column or --type, not both.")
    if type_name is not None and not tables.is_event_type(type_name):
        raise bad_use(
            f"{type_name[:140]!r} is no event type: use 1 to 128 letters, digits and . _ : / -."
        )
    names = None if payload is None else tuple(payload.split(","))
    return Columns(session, event_type, type_name or tables.EVENT_TYPE, time, names, prefix)


def _import(
    context: typer.Context,
    file: InputFile,
    source: Source,
    kind: str,
    as_key: str | None,
    deadline: float,
    as_json: bool,
    home: Path | None,
    more: Mapping[str, JsonValue] = NO_MORE,
) -> None:
    """Bring a source in, show how far it is, and say what was done."""
    around = surroundings.of(context)
    began = around.now_ms()
    author = author_named(around, home, as_key)

    async def question(ledger: Ledger) -> Brought:
        with _file_bar(around, file) as progress:
            return await bring_all(ledger, source, kind, author, progress, deadline)

    with _ends_as_said():
        done = ask(around, home, question)
    seconds = (around.now_ms() - began) / 1000
    if as_json:
        around.emit(
            {
                "imported": done.imported,
                "skipped": done.skipped,
                "sessions": done.sessions,
                "seconds": round(seconds, 3),
                **more,
            }
        )
    else:
        into = f"{file.path.name} into {count_text(done.sessions, 'session')}"
        around.out.print(_summary(into, done.imported, done.skipped, "event", seconds))
        if more.get("endMatches") is False:
            around.say("The text that the events make is not the one that the file ends with.")


@contextmanager
def _ends_as_said() -> Iterator[None]:
    """What stops an import, as a sentence with an exit code."""
    try:
        yield
    except SourceFault as fault:
        raise bad_use(f"{fault}") from fault
    except (NoSuchKind, NotThisSource) as fault:
        raise bad_use(str(fault)) from fault
    except ImportStopped as stopped:
        count = stopped.brought.imported + stopped.brought.skipped
        rest = (
            f"The ledger has the {count_text(count, 'event')} before it, and importing the mended "
            "file goes on there."
        )
        raise bad_use(f"{stopped.fault} {rest if count else 'Nothing was imported.'}") from stopped
    except ImportRefused as refused:
        if refused.refused is None:
            raise Failure(ExitCode.FAILED, f"{refused}.") from refused
        raise Failure(
            ExitCode.FAILED,
            f"The ledger refused event {refused.number} of {refused.session}: "
            f"{refusal(refused.refused.header)}.",
        ) from refused


@contextmanager
def _commits_bar(around: Surroundings, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; nothing elsewhere."""
    with _progress(around, MofNCompleteColumn()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def _file_bar(around: Surroundings, file: InputFile) -> Iterator[Callable[[int], None]]:
    """A bar for how much of the file is read, beside the count of events."""
    with _progress(around, TextColumn("{task.fields[events]}")) as bar:
        task = bar.add_task(file.path.name, total=file.size, events="")
        yield lambda done: bar.update(
            task, completed=file.read_bytes, events=count_text(done, "event")
        )


def _progress(around: Surroundings, count: ProgressColumn) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    shown = around.err.is_terminal
    return Progress(*columns, console=around.err, transient=True, disable=not shown)


def _summary(what: str, imported: int, skipped: int, one: str, seconds: float) -> Text:
    rate = f", {imported / seconds:,.0f}/s".replace(",", " ", 1) if imported else ""
    return Text.assemble(
        ("✓ ", "green"),
        (what, "bold"),
        f"  {count_text(imported, one)} imported, {count_text(skipped, one)} there already",
        (f"  {seconds:.1f} s{rate}", "dim"),
    )
