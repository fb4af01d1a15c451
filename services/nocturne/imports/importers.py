"""Imports of files, put together: `files` reads, a parser makes records, `many` writes them.

Rules: docs/guides/importing.md, as a library.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.client.building import Author
from nocturne.client.client import Client
from nocturne.client.results import Level, Result, Session, Status
from nocturne.core.commands import SignedCommand
from nocturne.core.events import Event
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import AuthorId, LedgerId, SessionId
from nocturne.core.kinds import Kind
from nocturne.core.kinds.text import TEXT
from nocturne.imports import names, tables, text, xes
from nocturne.imports.files import BYTES_MAX, LINE_BYTES_MAX, InputFile
from nocturne.imports.many import DEADLINE_SECONDS, Brought, Target, bring_all
from nocturne.imports.records import Record, SourceFault
from nocturne.imports.tables import Columns

Progress = Callable[[int], None]

_UTF_8: Final = "utf-8"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def unheard(_: int) -> None:
    """Nobody watches."""


# Sources -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class XesFile:
    """An event log of IEEE 1849."""

    file: InputFile
    prefix: str | None = None

    def __post_init__(self) -> None:
        _check_prefix(self.prefix or "")

    def records(self) -> Generator[Record, None, None]:
        """One event of the log after another."""
        prefix = names.prefix_of("xes", self.file.stem) if self.prefix is None else self.prefix
        return xes.records(self.file.chunks(), prefix)


@dataclass(frozen=True, slots=True)
class TextFile:
    """A recorded writing, as the file held it once; `kind` is what folds it."""

    writing: text.Writing
    session: SessionId

    @staticmethod
    def read(file: InputFile, session: SessionId | None = None) -> TextFile:
        """The whole file, within `text.FILE_BYTES_MAX`."""
        with file.opened() as opened:
            data = opened.read(text.FILE_BYTES_MAX + 1)
        own = names.session_of("text/", names.escaped(file.stem))
        return TextFile(text.parse_writing(data), session or own)

    def records(self) -> Generator[Record, None, None]:
        """One transaction after another."""
        return text.records(self.writing, self.session)

    def end_matches(self, kind: Kind, author: AuthorId) -> bool | None:
        """The fold of the records, of one author, is the text that the file ends with; None if it
        names none.
        """
        if self.writing.end is None:
            return None
        return text.folded(kind, self.records(), author) == self.writing.end


@dataclass(frozen=True, slots=True)
class CsvFile:
    """Rows with a header."""

    file: InputFile
    columns: Columns
    delimiter: str = ","
    encoding: str = _UTF_8

    def __post_init__(self) -> None:
        _check_prefix(self.columns.session_prefix)
        if len(self.delimiter) != 1 or self.delimiter in '\r\n"\0':
            raise SourceFault("", f"{self.delimiter!a} is no delimiter: give one character.")
        try:
            # Codecs that do not make text of bytes are none.
            io.TextIOWrapper(io.BytesIO(), encoding=codecs.lookup(self.encoding).name)
        except (LookupError, ValueError) as fault:
            raise SourceFault("", f"{self.encoding[:40]!a} is no text encoding.") from fault

    def records(self) -> Generator[Record, None, None]:
        """One row after another."""
        return tables.csv_records(self._lines(), self.columns, self.delimiter)

    def _lines(self) -> Iterator[str]:
        name = codecs.lookup(self.encoding).name
        encoding = "utf-8-sig" if name == _UTF_8 else name
        number = 0
        with self.file.opened() as opened:
            # What is not of the encoding comes as a lone surrogate, so that its line is known.
            lines = io.TextIOWrapper(opened, encoding, errors="surrogateescape", newline="")
            try:
                while line := lines.readline(LINE_BYTES_MAX):
                    number += 1
                    if len(line) == LINE_BYTES_MAX:
                        raise SourceFault(
                            f"line {number}", f"expected less than {LINE_BYTES_MAX} characters."
                        )
                    if _SURROGATE.search(line):
                        raise self._wrong(number)
                    yield line
            except UnicodeError as fault:
                # Some encodings are read ahead, and say only that something further on is wrong.
                raise self._wrong(number + 1) from fault

    def _wrong(self, number: int) -> SourceFault:
        return SourceFault(
            f"line {number}", f"this is not {self.encoding[:40]!a}: name another --encoding."
        )


@dataclass(frozen=True, slots=True)
class JsonLinesFile:
    """A JSON object a line."""

    file: InputFile
    columns: Columns

    def __post_init__(self) -> None:
        _check_prefix(self.columns.session_prefix)

    def records(self) -> Generator[Record, None, None]:
        """One line after another."""
        return tables.jsonl_records(self.file.lines(), self.columns, LINE_BYTES_MAX)


def _check_prefix(prefix: str) -> None:
    if not names.is_prefix(prefix):
        raise SourceFault(
            "",
            f"{prefix[:120]!a} is no prefix of session ids: use at most "
            f"{names.PREFIX_CHARACTERS_MAX} of the letters, digits and . _ : / @ -.",
        )


# The library -------------------------------------------------------------------------------------


class ClientTarget:
    """A ledger behind an SDK client, as an import writes to it."""

    def __init__(self, client: Client, ledger_id: LedgerId, genesis: Genesis) -> None:
        self._client = client
        self._ledger_id = ledger_id
        self._genesis = genesis

    @staticmethod
    async def of(client: Client) -> ClientTarget:
        """The ledger of a client, which must have the address of a query service."""
        ledger = await client.ledger()
        return ClientTarget(client, ledger.ledger_id, ledger.genesis)

    @property
    def ledger_id(self) -> LedgerId:
        """The hash of the genesis."""
        return self._ledger_id

    @property
    def genesis(self) -> Genesis:
        """Limits and kinds."""
        return self._genesis

    def submit_many(
        self, commands: AsyncIterator[SignedCommand], in_flight_max: int
    ) -> AsyncGenerator[tuple[SignedCommand, Result], None]:
        """Publish in order; each command with its result, once certified."""
        return self._client.submit_many(commands, wait=Level.CERTIFIED, in_flight_max=in_flight_max)

    async def session(self, session: SessionId) -> Session | None:
        """The session as the read side has it."""
        return await self._client.session(session)

    async def status(self) -> Status:
        """How far the read side is."""
        return await self._client.status()

    async def events(self, session: SessionId, from_sequence: int) -> AsyncGenerator[Event, None]:
        """The events of a session that exists."""
        async with aclosing(self._client.events(session, from_sequence)) as events:
            async for event in events:
                yield event


async def import_xes(
    target: Target,
    author: Author,
    path: Path,
    *,
    prefix: str | None = None,
    kind: str = xes.KIND,
    bytes_max: int = BYTES_MAX,
    progress: Progress = unheard,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Brought:
    """One session for each case of an event log, one event for each of its events."""
    source = XesFile(InputFile(path, bytes_max), prefix)
    return await bring_all(target, source, kind, author, progress, deadline_seconds)


async def import_text(
    target: Target,
    author: Author,
    path: Path,
    *,
    session: SessionId | None = None,
    progress: Progress = unheard,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> tuple[Brought, bool | None]:
    """One event for each transaction of a recorded writing; and whether folding them gives the
    text that the file ends with (None if it names none).
    """
    source = TextFile.read(InputFile(path), session)
    brought = await bring_all(target, source, text.KIND, author, progress, deadline_seconds)
    return brought, source.end_matches(TEXT, author.id)


async def import_csv(
    target: Target,
    author: Author,
    path: Path,
    columns: Columns,
    *,
    delimiter: str = ",",
    encoding: str = _UTF_8,
    kind: str = tables.KIND,
    bytes_max: int = BYTES_MAX,
    progress: Progress = unheard,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Brought:
    """One event for each row, in the session that the row names."""
    source = CsvFile(InputFile(path, bytes_max), columns, delimiter, encoding)
    return await bring_all(target, source, kind, author, progress, deadline_seconds)


async def import_jsonl(
    target: Target,
    author: Author,
    path: Path,
    columns: Columns,
    *,
    kind: str = tables.KIND,
    bytes_max: int = BYTES_MAX,
    progress: Progress = unheard,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Brought:
    """One event for each line's JSON object, in the session that it names."""
    source = JsonLinesFile(InputFile(path, bytes_max), columns)
    return await bring_all(target, source, kind, author, progress, deadline_seconds)
