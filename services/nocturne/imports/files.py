"""Files that imports read: plain or gzip, in bounded pieces, from the beginning each time.

Rules: docs/guides/importing.md, bounds. What a file unpacks to is bounded as a whole here, and by
line, element or record where it is read.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, cast

from nocturne.imports.records import SourceFault

CHUNK_BYTES: Final = 64 * 1024
BYTES_MAX: Final = 16 * 1024**3
"""What a file may unpack to, unless told otherwise: more than any log that people pass around, and
a bound for one that was made to unpack for ever."""
LINE_BYTES_MAX: Final = 1024 * 1024
"""Four times what the largest event of a usual ledger takes."""

_GZIP: Final = b"\x1f\x8b"


@dataclass
class InputFile:
    """A regular file, which must stay as it is while it is in use: what is read of one that
    changes is neither the old nor the new. `read_bytes` is how much of it was read, of `size`,
    packed or not.
    """

    path: Path
    bytes_max: int = BYTES_MAX
    size: int = field(init=False)
    read_bytes: int = field(init=False, default=0)
    _stood: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        # OSError where there is none, or none that may be read: it names the file itself. Asked
        # before it is opened, which a named pipe would have wait for somebody who writes.
        found = self.path.stat()
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise SourceFault(
                "", f"{self.path} is no regular file: it is read more than once, so save it."
            )
        self.size = found.st_size
        self._stood = _identity(found)
        with _open(self.path) as file:
            self.check_unchanged(file)
            file.read(1)

    def check_unchanged(self, file: IO[bytes]) -> None:
        """`SourceFault` when the open `file` is not, or not any more, what it was at first."""
        if _identity(os.fstat(file.fileno())) != self._stood:
            raise SourceFault(
                "",
                f"{self.path} changed while it was imported: what is there may be neither the old "
                "file nor the new; import a copy that nobody writes to.",
            )

    @property
    def stem(self) -> str:
        """The file's name without what says how it is written: `permits` of `permits.xes.gz`."""
        name = self.path.name
        for ending in (".gz", ".xes", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt"):
            if name.lower().endswith(ending) and len(name) > len(ending):
                name = name[: -len(ending)]
        return name

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """The file's content, unpacked."""
        with _open(self.path) as packed:
            self.check_unchanged(packed)
            is_packed = packed.read(len(_GZIP)) == _GZIP
            packed.seek(0)
            unpacked = gzip.GzipFile(fileobj=packed) if is_packed else packed
            counted = _Counted(self, packed, cast("IO[bytes]", unpacked))
            yield cast("IO[bytes]", io.BufferedReader(counted, CHUNK_BYTES))

    def chunks(self) -> Iterator[bytes]:
        """The content in pieces of at most `CHUNK_BYTES`."""
        with self.opened() as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its number, without what ends it."""
        with self.opened() as file:
            number = 0
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                if len(line) > LINE_BYTES_MAX:
                    raise SourceFault(
                        f"line {number}", f"expected at most {LINE_BYTES_MAX} bytes, got more."
                    )
                yield number, line.removesuffix(b"\n").removesuffix(b"\r")


class _Counted(io.RawIOBase):
    """What is unpacked, counted against its bound; and where the packed file is, for a bar."""

    def __init__(self, owner: InputFile, packed: IO[bytes], unpacked: IO[bytes]) -> None:
        self._owner = owner
        self._packed = packed
        self._unpacked = unpacked
        self._unpacked_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            data = self._unpacked.read(min(len(buffer), CHUNK_BYTES))
        except EOFError as fault:
            raise SourceFault(
                self._place, "the packed file ends too early: it was cut on its way here."
            ) from fault
        except (zlib.error, gzip.BadGzipFile) as fault:
            raise SourceFault(
                self._place, f"the packed file is damaged ({fault}): fetch it again."
            ) from fault
        finally:
            # After each piece and at the end, before anybody makes records of it.
            self._owner.check_unchanged(self._packed)
        self._unpacked_bytes += len(data)
        self._owner.read_bytes = self._packed.tell()
        if self._unpacked_bytes > self._owner.bytes_max:
            raise SourceFault(
                self._place,
                f"the file unpacks to more than {self._owner.bytes_max} bytes: if it is meant to, "
                "say --bytes-max.",
            )
        buffer[: len(data)] = data
        return len(data)

    @property
    def _place(self) -> str:
        return f"byte {self._unpacked_bytes} of the content"


def _open(path: Path) -> IO[bytes]:
    """The file, without waiting should it have become a named pipe meanwhile."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """Which file it is, and as of when: a write to it changes its time or its size."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
