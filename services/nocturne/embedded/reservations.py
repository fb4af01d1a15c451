"""Ports that running ledgers keep for themselves, also while one of their processes is down.

A port whose process was just killed is free for a moment. Another ledger of the same user that
starts just then would take it, and each would ask the other's process for its health. So whoever
chooses ports holds a lock (flock) on one empty file a port, for as long as its process lives.
"""

import os
import tempfile
from pathlib import Path

from nocturne.embedded import ports
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.lock import take


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
        descriptor = self._open(port)
        if not take(descriptor):
            os.close(descriptor)
            return False
        self._held[port] = descriptor
        return True

    def close(self) -> None:
        """Let all of them go."""
        while self._held:
            os.close(self._held.popitem()[1])

    def _open(self, port: int) -> int:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            found = self._folder.lstat()
            if found.st_uid != os.getuid():
                raise EmbeddedError(
                    f"{self._folder} belongs to another user: remove it, or set TMPDIR to a folder "
                    "of your own."
                )
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            return os.open(self._folder / str(port), flags, 0o600)
        except OSError as error:
            raise EmbeddedError(
                f"Ports cannot be reserved in {self._folder} ({error.strerror}): set TMPDIR to a "
                "folder that can be written."
            ) from error
