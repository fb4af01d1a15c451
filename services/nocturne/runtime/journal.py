"""An append-only journal on disk: what was synced is there after any crash, or the loss is seen.

A directory of segments, `000000000001.seg` and on. A segment is a header and frames; one `sync`
writes everything appended since the last one as ONE frame, so that what one fsync covers is there
whole or not at all.

    header  magic (8) ‖ u32 version ‖ u64 segment ‖ u64 first frame ‖ u32 checksum of the frame
            before it ‖ salt (8) ‖ u16 length, label ‖ u32 CRC-32 of all of these
    frame   salt (8) ‖ u64 frame number ‖ u32 length ‖ u32 CRC-32 (number ‖ length ‖ body) ‖ body
    body    u32 length ‖ record, for each record

Frames are numbered through all segments, and a header repeats the checksum of the frame before
it: a lost segment, frame or tail of an older segment is seen. Only the last frame of the last
segment can be torn by a crash, for every frame is synced before the next one is written: at `open`
a bad frame with no good frame behind it is cut off and reported, any other damage is a `Halt`.
The salt is random for each segment, so nobody's record can pass for a frame that follows.

A journal that lost its newest frames to something else than a crash (an old copy of the disk) looks
whole; whoever owns it must compare it with what it has told others.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from zlib import crc32

from nocturne.core.errors import Halt
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import Key, key_id
from nocturne.runtime.files import sync_folder

FOLDER: Final = "journal"
"""Its name in the directory of the service that owns it."""
SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""A segment that is at least this large is followed by a new one."""
RECORD_BYTES_MAX: Final = 16 * 1024 * 1024
"""More than the largest published block."""
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bounds what one sync writes and what a reader takes for a length."""
LABEL_BYTES_MAX: Final = 1024

_MAGIC: Final = b"NOCTJRN1"
_VERSION: Final = 1
_SALT_BYTES: Final = 8
_SUFFIX: Final = ".seg"
_HEADER: Final = struct.Struct(">8sIQQI8sH")
_FRAME: Final = struct.Struct(">8sQII")
_NUMBERS: Final = struct.Struct(">QI")
_U32: Final = struct.Struct(">I")


class JournalMissing(Exception):  # noqa: N818
    """There is no journal in the directory: it was never created, or all of it is gone."""


class JournalOfAnother(Halt):
    """The journal in the directory was made for another key, or another ledger."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record and the segment it stands in."""

    segment: int
    record: bytes


@dataclass(frozen=True, slots=True)
class _Header:
    segment: int
    first_frame: int
    previous_checksum: int
    salt: bytes
    label: bytes

    def encode(self) -> bytes:
        fixed = _HEADER.pack(
            _MAGIC,
            _VERSION,
            self.segment,
            self.first_frame,
            self.previous_checksum,
            self.salt,
            len(self.label),
        )
        return fixed + self.label + _U32.pack(crc32(fixed + self.label))


@dataclass(frozen=True, slots=True)
class _Scan:
    """The good frames a segment begins with: the next frame's number and the last one's checksum,
    where they end, and whether a good frame stands behind what follows.
    """

    next_frame: int
    checksum: int
    end: int
    size: int
    good_frame_behind: bool


def owner_label(ledger_id: LedgerId, key: Key) -> bytes:
    """The label of the journal of the validator that votes with `key`."""
    return ledger_id + key_id(key)


def create(directory: Path, label: bytes) -> None:
    """Make an empty journal, durably. `label` says whose it is; `open_journal` asks for the same.

    `FileExistsError` when there is one already.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _segments(directory):
        raise FileExistsError(f"{directory}: there is a journal already")
    _write_segment(directory, _Header(1, 1, 0, secrets.token_bytes(_SALT_BYTES), label))
    sync_folder(directory.parent)


def exists(directory: Path) -> bool:
    """Whether any segment is there."""
    return directory.is_dir() and bool(_segments(directory))


def open_journal(directory: Path, label: bytes, *, segment_bytes: int = SEGMENT_BYTES) -> Journal:
    """Check every segment, cut a torn tail off, and return the journal ready to be appended to.

    `JournalMissing` when there is none; `Halt` when it is damaged or another's.
    """
    if not exists(directory):
        raise JournalMissing(f"{directory}: there is no journal")
    for leftover in directory.glob("*.tmp"):
        leftover.unlink()
    return Journal(directory, label, segment_bytes)


class Journal:
    """An open journal. Not for two threads at once, nor two processes: the owner holds a lock."""

    def __init__(self, directory: Path, label: bytes, segment_bytes: int) -> None:
        self._directory = directory
        self._label = label
        self._segment_bytes = segment_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._failure: str | None = None
        self.torn_bytes = 0
        """What `open_journal` cut off: written in part by a crash, never synced."""
        self._segments = _segments(directory)
        self._headers: dict[int, _Header] = {}
        self._whole: dict[int, int] = {}
        """Bytes of each segment that is done with."""
        scan = self._check_segments()
        self._next_frame, self._checksum, self._size = scan.next_frame, scan.checksum, scan.end
        self._file = self._open_last(scan)

    @property
    def segment(self) -> int:
        """The number of the newest segment."""
        return self._segments[-1]

    @property
    def first_segment(self) -> int:
        """The number of the oldest segment that is kept."""
        return self._segments[0]

    @property
    def size_bytes(self) -> int:
        """Of all its segments on disk. Another thread may ask."""
        return sum(list(self._whole.values())) + self._size

    def append(self, records: Sequence[bytes]) -> None:
        """Take records for the next `sync`. `ValueError` for one over RECORD_BYTES_MAX, or when
        more is waiting than one frame holds.
        """
        added = 0
        for record in records:
            if len(record) > RECORD_BYTES_MAX:
                raise ValueError(
                    f"journal record: expected at most {RECORD_BYTES_MAX} bytes, got {len(record)}"
                )
            added += len(record) + _U32.size
        if self._pending_bytes + added > FRAME_BYTES_MAX:
            raise ValueError(f"journal: more than {FRAME_BYTES_MAX} bytes wait for one sync")
        self._pending.extend(records)
        self._pending_bytes += added

    def sync(self) -> int:
        """Make everything appended durable; returns the segment it stands in.

        Ends the process when the disk refuses: after a failed fsync nobody knows what is on disk,
        and a second fsync would say that all is well.
        """
        if self._failure is not None:
            raise SystemExit(self._failure)
        if not self._pending:
            return self.segment
        body = b"".join([_U32.pack(len(one)) + one for one in self._pending])
        try:
            if self._size >= self._segment_bytes:
                self._roll()
            self._write_frame(body)
            os.fdatasync(self._file)
        except OSError as error:
            self._fail(error)
        self._pending.clear()
        self._pending_bytes = 0
        return self.segment

    def read_all(self) -> Iterator[Entry]:
        """Every synced record, oldest first. `Halt` when a segment changed since `open_journal`."""
        for number in tuple(self._segments):
            path = self._path(number)
            with _mapped(path) as data:
                header, position = _read_header(path, data)
                for body in _frames(path, data, header, position):
                    for record in _records(path, body):
                        yield Entry(number, record)

    def drop_before(self, segment: int) -> None:
        """Remove the segments below `segment`, oldest first; the newest always stays."""
        dropped = [number for number in self._segments[:-1] if number < segment]
        for number in dropped:
            # One after the other, each made durable: a crash never leaves a hole in the middle.
            self._path(number).unlink()
            sync_folder(self._directory)
            self._segments.remove(number)
            del self._headers[number]
            del self._whole[number]

    def close(self) -> None:
        """Let go of the file. What was appended and not synced is dropped."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _path(self, number: int) -> Path:
        return self._directory / _name(number)

    def _check_segments(self) -> _Scan:
        previous: _Scan | None = None
        for number in self._segments:
            path = self._path(number)
            with _mapped(path) as data:
                header, position = _read_header(path, data)
                self._check_header(path, number, header, previous)
                scan = _scan(data, header, position)
            self._headers[number] = header
            is_last = number == self._segments[-1]
            if scan.end < scan.size and (not is_last or scan.good_frame_behind):
                raise Halt(
                    f"journal segment {path.name}: damaged at byte {scan.end} of {scan.size}, "
                    f"in frame {scan.next_frame}, which was synced: restore the journal "
                    "from a copy that is not older than the last block it has published"
                )
            if not is_last:
                self._whole[number] = scan.end
            previous = scan
        assert previous is not None
        return previous

    def _check_header(
        self, path: Path, number: int, header: _Header, previous: _Scan | None
    ) -> None:
        if header.segment != number:
            raise Halt(f"journal segment {path.name}: its header says segment {header.segment}")
        if header.label != self._label:
            raise JournalOfAnother(
                f"journal segment {path.name}: it belongs to another key or ledger"
            )
        if previous is None:
            return
        expected = (self._predecessor(number), previous.next_frame, previous.checksum)
        got = (number - 1, header.first_frame, header.previous_checksum)
        if expected != got:
            raise Halt(
                f"journal segment {path.name}: it does not continue the segment before it: "
                f"expected segment, frame and checksum {expected}, got {got}; a segment is lost "
                "or cut short"
            )

    def _predecessor(self, number: int) -> int:
        return self._segments[self._segments.index(number) - 1]

    def _open_last(self, scan: _Scan) -> int:
        path = self._path(self.segment)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if scan.end < scan.size:
            self.torn_bytes = scan.size - scan.end
            os.ftruncate(file, scan.end)
            os.fsync(file)
        return file

    def _write_frame(self, body: bytes) -> None:
        salt = self._headers[self.segment].salt
        checksum = _checksum(self._next_frame, body)
        frame = _FRAME.pack(salt, self._next_frame, len(body), checksum) + body
        _write(self._file, frame)
        self._next_frame += 1
        self._checksum = checksum
        self._size += len(frame)

    def _roll(self) -> None:
        number = self.segment + 1
        header = _Header(
            number,
            self._next_frame,
            self._checksum,
            secrets.token_bytes(_SALT_BYTES),
            self._label,
        )
        path = _write_segment(self._directory, header)
        os.close(self._file)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._whole[self.segment] = self._size
        self._segments.append(number)
        self._headers[number] = header
        self._size = len(header.encode())

    def _fail(self, error: OSError) -> NoReturn:
        self._failure = (
            f"journal {self._directory}: fsync failed ({error.strerror}): the process ends, "
            "for nobody knows what is on the disk"
        )
        raise SystemExit(self._failure) from error


def _name(number: int) -> str:
    return f"{number:012d}{_SUFFIX}"


def _segments(directory: Path) -> list[int]:
    return sorted(int(path.stem) for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdecimal())


def _write_segment(directory: Path, header: _Header) -> Path:
    """A segment with nothing but its header: there whole, or not at all."""
    if len(header.label) > LABEL_BYTES_MAX:
        raise ValueError(f"journal label: expected at most {LABEL_BYTES_MAX} bytes")
    path = directory / _name(header.segment)
    unfinished = path.with_suffix(".tmp")
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write(file, header.encode())
        os.fsync(file)
    finally:
        os.close(file)
    unfinished.replace(path)
    sync_folder(directory)
    return path


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise Halt(f"journal segment {path.name}: it is empty; a segment begins with a header")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read_header(path: Path, data: mmap.mmap) -> tuple[_Header, int]:
    """The segment's header and where its frames begin; `Halt` when it is not one."""
    fixed = data[: _HEADER.size]
    if len(fixed) == _HEADER.size and fixed.startswith(_MAGIC):
        _, version, segment, first_frame, previous, salt, length = _HEADER.unpack(fixed)
        end = _HEADER.size + length
        header = _Header(segment, first_frame, previous, salt, data[_HEADER.size : end])
        checked = data[end : end + _U32.size] == _U32.pack(crc32(data[:end]))
        if checked and version == _VERSION:
            return header, end + _U32.size
        if checked:
            raise Halt(f"journal segment {path.name}: expected version {_VERSION}, got {version}")
    raise Halt(f"journal segment {path.name}: its header is damaged")


def _checksum(number: int, body: bytes) -> int:
    return crc32(body, crc32(_NUMBERS.pack(number, len(body))))


def _frame_at(data: mmap.mmap, position: int, salt: bytes) -> tuple[int, int, bytes] | None:
    """Number, checksum and body of the good frame at `position`, None when there is none."""
    head = data[position : position + _FRAME.size]
    if len(head) < _FRAME.size:
        return None
    found, number, length, checksum = _FRAME.unpack(head)
    start = position + _FRAME.size
    if found != salt or not 0 < length <= FRAME_BYTES_MAX or start + length > len(data):
        return None
    body = data[start : start + length]
    return (number, checksum, body) if _checksum(number, body) == checksum else None


def _scan(data: mmap.mmap, header: _Header, position: int) -> _Scan:
    number, checksum = header.first_frame, header.previous_checksum
    while position < len(data):
        frame = _frame_at(data, position, header.salt)
        if frame is None or frame[0] != number:
            break
        position += _FRAME.size + len(frame[2])
        number, checksum = number + 1, frame[1]
    behind = _good_frame_behind(data, position, header.salt)
    return _Scan(number, checksum, position, len(data), behind)


def _good_frame_behind(data: mmap.mmap, position: int, salt: bytes) -> bool:
    found = data.find(salt, position)
    while found >= 0:
        if _frame_at(data, found, salt) is not None:
            return True
        found = data.find(salt, found + 1)
    return False


def _frames(path: Path, data: mmap.mmap, header: _Header, position: int) -> Iterator[bytes]:
    number = header.first_frame
    while position < len(data):
        frame = _frame_at(data, position, header.salt)
        if frame is None or frame[0] != number:
            raise Halt(f"journal segment {path.name}: damaged at byte {position} after it was read")
        yield frame[2]
        position += _FRAME.size + len(frame[2])
        number += 1


def _records(path: Path, body: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(body):
        (length,) = _U32.unpack_from(body, position)
        position += _U32.size
        if position + length > len(body):
            raise Halt(f"journal segment {path.name}: a record is longer than its frame")
        yield body[position : position + length]
        position += length
