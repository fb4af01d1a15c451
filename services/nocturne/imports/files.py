"""Files that imports read: plain or gzip, in bounded pieces, from the beginning each time.

Rules: docs/guides/importing.md, bounds. What a file unpacks to is bounded as a whole here, and by
line, element or record where it is read.
"""

from __future__ import annotations

import gzip
import io
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
    """A regular file; `read_bytes` is how much of it was read, of `size`, packed or not."""

    path: Path
    bytes_max: int = BYTES_MAX
    size: int = field(init=False)
    read_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        # OSError where there is none, or none that may be read: it names the file itself.
        with self.path.open("rb") as file:
            mode = self.path.stat()
            if not stat.S_ISREG(mode.st_mode):
                raise SourceFault(
                    "", f"{self.path} is no regular file: it is read more than once, so save it."
                )
            self.size = mode.st_size
            file.read(1)

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
        with self.path.open("rb") as packed:
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
