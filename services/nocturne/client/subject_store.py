"""Subject keys in a folder of their author's or reader's own, closed to everyone else.

`NAME.json` is one key, `{"key":"<64 hex digits>","subjectKey":"9f1c…-…"}`, written once.
Destroying it leaves `destroyed/ID.HASH`, an empty file: it tells an erased payload from one whose
key was never here, and keeps a copy from being taken in again. It says nothing of key or name.

Never in the ledger's services' hands: they carry what is sealed, and cannot open it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nocturne.client.sealing import SubjectKey
from nocturne.core.encoding import domain, sha256
from nocturne.core.errors import Malformed, NocturneError
from nocturne.core.identifiers import format_id, parse_id
from nocturne.core.json_fields import Fields
from nocturne.core.strict_json import canonical_json, parse_json
from nocturne.runtime.files import sync_folder

FILE_BYTES_MAX: Final = 1024
"""A key's file has 131."""
SUBJECTS_MAX: Final = 100_000
"""In one folder: each is a file, and a reader looks at all of them."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}\Z")
_SUFFIX: Final = ".json"
_NEW: Final = ".new"
_DESTROYED: Final = "destroyed"
_NAMED_MAX: Final = 5
"""Files in one sentence."""
_FINGERPRINT: Final = domain("nocturne/destroyed-subject-key/v1")


class SubjectKeyFault(NocturneError):  # noqa: N818
    """A subject key cannot be kept or used; the message says what to do."""


class SubjectStore:
    """The keys of one folder; made with the first key, and not by looking."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[bytes, list[SubjectKey]] | None = None
        self.problems: tuple[str, ...] = ()
        """What was wrong with files that the last look at the folder passed over."""

    def named(self, name: str) -> SubjectKey | None:
        """The key of a subject, None if there is none (any more)."""
        return self._read(self.file(name))

    def every(self) -> list[tuple[str, SubjectKey]]:
        """All subjects by name, but those whose files are named in `problems` from then on."""
        if not self._folder.is_dir():
            return []
        files = sorted(self._folder.glob(f"*{_SUFFIX}"))
        if len(files) > SUBJECTS_MAX:
            raise SubjectKeyFault(
                f"{self._folder}: expected at most {SUBJECTS_MAX} subjects: move those that are no "
                "longer read to another home"
            )
        found: list[tuple[str, SubjectKey]] = []
        problems: list[str] = []
        for file in files:
            try:
                key = self._read(file)
            except SubjectKeyFault as fault:
                # One that cannot be used closes what it sealed, and nothing else.
                problems.append(str(fault))
                continue
            if key is not None:
                found.append((file.name.removesuffix(_SUFFIX), key))
        self.problems = tuple(problems)
        return found

    def keys_of(self, subject_key_id: bytes) -> Sequence[SubjectKey]:
        """See `SubjectKeys`; the folder is read once."""
        if self._known is None:
            self._known = {}
            for _, one in self.every():
                self._known.setdefault(one.id, []).append(one)
        return self._known.get(subject_key_id, ())

    def was_destroyed(self, subject_key_id: bytes) -> bool:
        """See `SubjectKeys`."""
        marks = self._folder / _DESTROYED
        return any(marks.glob(f"{format_id(subject_key_id)}.*"))

    def add(self, name: str, key: SubjectKey) -> SubjectKey:
        """Keep a key under `name`; the one that is there already, if another was faster."""
        file = self.file(name)
        if self._mark(key).exists():
            raise SubjectKeyFault(
                f"The key {format_id(key.id)} was destroyed here, so that what it sealed is erased:"
                " it is not taken in again"
            )
        self._make_folder()
        _clear_unfinished(file)
        with _unfinished(file, print_subject_key(key)) as fresh:
            try:
                # A link, for it never replaces: of two that make one subject's key, both use one.
                os.link(fresh, file)
            except FileExistsError as fault:
                found = self._read(file)
                if found is None:
                    raise SubjectKeyFault(f"{file}: try again: it is being destroyed") from fault
                return found
            except OSError as fault:
                raise SubjectKeyFault(f"{file}: cannot be written ({fault.strerror})") from fault
        sync_folder(self._folder)
        self._known = None
        return key

    def destroy(self, name: str) -> SubjectKey | None:
        """Destroy the key of a subject: everything sealed with it is erased for who has no other
        copy. Cut short anywhere, it is finished by whoever looks next. None if there is no key.
        The same key under other names goes too; `SubjectKeyFault` names files that could not be
        looked into, after all others.
        """
        key = self.named(name)
        if key is None:
            return None
        mark = self._mark(key)
        mark.parent.mkdir(mode=0o700, exist_ok=True)
        mark.touch(mode=0o600)
        sync_folder(mark.parent)
        sync_folder(self._folder)
        _wipe(self.file(name))
        left = self._wipe_copies(key)
        self._known = None
        if left:
            raise SubjectKeyFault(
                f"{', '.join(map(str, left[:_NAMED_MAX]))}: cannot be looked into, and may hold "
                f"the same key (files: {len(left)}): remove them; everywhere else it was destroyed"
            )
        return key

    def file(self, name: str) -> Path:
        """Where the key of a subject is kept. `SubjectKeyFault` when it is no name."""
        if _NAME.match(name) is None:
            raise SubjectKeyFault(
                f"{name[:140]!r} is no name for a subject: use 1 to 128 letters, digits and . _ @ "
                "+ -, and begin with a letter, digit or underscore"
            )
        return self._folder / f"{name}{_SUFFIX}"

    # -------------------------------------------------------------------------------------------

    def _read(self, file: Path) -> SubjectKey | None:
        try:
            with file.open("rb") as opened:
                status = os.fstat(opened.fileno())
                data = opened.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise SubjectKeyFault(f"{file}: cannot be read ({fault.strerror})") from fault
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise SubjectKeyFault(
                f"{file}: expected mode 0600, got {stat.S_IMODE(status.st_mode):04o}: others could "
                "have read it; share a new key, or 'chmod 600' it if nobody did"
            )
        if data and not data.strip(b"\0"):
            _wipe(file)
            return None
        try:
            key = parse_subject_key(data)
        except Malformed as fault:
            raise SubjectKeyFault(f"{file}: not a subject key ({fault})") from fault
        if self._mark(key).exists():
            _wipe(file)
            return None
        return key

    def _wipe_copies(self, key: SubjectKey) -> list[Path]:
        """Wipe what holds `key` under any name; the files for which that failed."""
        left = []
        digits = key.key.hex().encode("ascii")
        for pattern in (f"*{_SUFFIX}", f"*{_SUFFIX}.*{_NEW}"):
            for file in sorted(self._folder.glob(pattern)):
                try:
                    with file.open("rb") as opened:
                        data = opened.read(FILE_BYTES_MAX + 1)
                    if digits in data:
                        _wipe(file)
                except FileNotFoundError:
                    continue
                except OSError:
                    left.append(file)
        return left

    def _mark(self, key: SubjectKey) -> Path:
        fingerprint = sha256(_FINGERPRINT + key.id + key.key).hex()
        return self._folder / _DESTROYED / f"{format_id(key.id)}.{fingerprint}"

    def _make_folder(self) -> None:
        try:
            made = [one for one in (self._folder, *self._folder.parents) if not one.exists()]
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.chmod(0o700)
            for one in made:
                # Or a power cut could take the folder, with the key in it.
                sync_folder(one.parent)
        except OSError as fault:
            raise SubjectKeyFault(
                f"Subject keys cannot be kept in {self._folder} ({fault.strerror}): choose another "
                "home with --home"
            ) from fault


def parse_subject_key(data: bytes) -> SubjectKey:
    """A key's file; `Malformed` on anything that is not written so."""
    fields = Fields.of(parse_json(data, FILE_BYTES_MAX, 2), "subject key")
    try:
        key = SubjectKey(parse_id(fields.text("subjectKey")), bytes.fromhex(fields.text("key")))
    except ValueError as fault:
        raise Malformed("subject key: expected a key of 64 hex digits") from fault
    if print_subject_key(key) != data:
        raise Malformed("subject key: it is not as it was written")
    return key


def print_subject_key(key: SubjectKey) -> bytes:
    """A key's file."""
    return canonical_json({"key": key.key.hex(), "subjectKey": format_id(key.id)})


@contextmanager
def _unfinished(file: Path, data: bytes) -> Iterator[Path]:
    """`data` beside `file` under a name that nothing else ever had, and locked as long as it is
    there: one that is not locked is of a run that ended.
    """
    fresh = file.with_name(f"{file.name}.{secrets.token_hex(8)}{_NEW}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as fault:
        raise SubjectKeyFault(f"{fresh}: cannot be written ({fault.strerror})") from fault
    with os.fdopen(descriptor, "wb") as opened:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened.write(data)
            opened.flush()
            os.fsync(descriptor)
        except OSError as fault:
            fresh.unlink(missing_ok=True)
            raise SubjectKeyFault(f"{fresh}: cannot be written ({fault.strerror})") from fault
        try:
            yield fresh
        finally:
            fresh.unlink(missing_ok=True)


def _clear_unfinished(file: Path) -> None:
    """Remove what runs that ended left beside `file`. One that became the key is the key's own
    file under a second name: that name goes, and its bytes stay.
    """
    for unfinished in file.parent.glob(f"{file.name}.*{_NEW}"):
        try:
            with unfinished.open("r+b") as opened:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(opened.fileno()).st_nlink == 1:
                    opened.write(bytes(os.fstat(opened.fileno()).st_size))
                    opened.flush()
                    os.fsync(opened.fileno())
                unfinished.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            # Another run is at it, or has cleared it away.
            continue
        except OSError as fault:
            raise SubjectKeyFault(f"{unfinished}: cannot be removed ({fault.strerror})") from fault


def _wipe(file: Path) -> None:
    """Zeros over the bytes, then no file: as far as a file system lets go of what it held."""
    for unfinished in file.parent.glob(f"{file.name}.*{_NEW}"):
        # A copy, of a run that ended while it made the key.
        _overwrite(unfinished)
    _overwrite(file)
    sync_folder(file.parent)


def _overwrite(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(bytes(os.fstat(opened.fileno()).st_size))
        opened.flush()
        os.fsync(opened.fileno())
    file.unlink()
