"""Ports that running ledgers keep for themselves, also while one of their processes is down.

A port whose process was just killed is free for a moment. Another ledger of the same user that
starts just then would take it, and each would ask the other's process for its health. So whoever
chooses ports holds a lock (flock) on one empty file a port, for as long as its process lives.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from nocturne.embedded import ports
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.lock import take

ATTEMPTS_MAX = 10
"""Each is lost only to another process that ends in the very moment."""


def usual_folder() -> Path:
    """Where the files are: one folder a user of this machine."""
    return Path(tempfile.gettempdir()) / f"nocturne-ports-{os.getuid()}"


class Reservations:
    """Ports taken by this process until it ends, or `close`."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = usual_folder() if folder is None else folder
        self._held: dict[int, int] = {}
        """Port to the descriptor of its locked file. Not inherited by what is started."""

    def take(self, port: int) -> bool:
        """Whether the port is free, nobody else has reserved it, and it is reserved now.
        EmbeddedError when the folder cannot be used.
        """
        if port in self._held or not ports.is_free(port):
            return False
        try:
            descriptor = self._locked(port)
        except OSError as error:
            raise EmbeddedError(
                f"Ports cannot be reserved in {self._folder} ({error.strerror}): set TMPDIR to a "
                "folder that can be written."
            ) from error
        if descriptor is None:
            return False
        self._held[port] = descriptor
        return True

    def close(self) -> None:
        """Let all of them go, and leave nothing behind that nobody else uses."""
        while self._held:
            port, descriptor = self._held.popitem()
            # While it is locked: whoever has it open by now sees that it is gone.
            (self._folder / str(port)).unlink(missing_ok=True)
            os.close(descriptor)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _locked(self, port: int) -> int | None:
        """The descriptor of the port's file, locked; None when another has it."""
        path = self._folder / str(port)
        for _ in range(ATTEMPTS_MAX):
            try:
                with contextlib.suppress(FileExistsError):
                    self._folder.mkdir(mode=0o700)
                if self._folder.lstat().st_uid != os.getuid():
                    raise EmbeddedError(
                        f"{self._folder} belongs to another user: remove it, or set TMPDIR to a "
                        "folder of your own."
                    )
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                # Whoever left last took the folder away in between.
                continue
            if not take(descriptor):
                os.close(descriptor)
                return None
            if _is_still(path, descriptor):
                return descriptor
            os.close(descriptor)
        return None


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one at `path`: not one that its holder has removed."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
