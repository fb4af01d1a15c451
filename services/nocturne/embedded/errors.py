"""What can go wrong on one machine. Every message is one sentence that names the way out."""

from collections.abc import Sequence

from nocturne.core.errors import NocturneError


class EmbeddedError(NocturneError):
    """The embedded ledger cannot start, run or stop as asked; `details` are a log's last lines."""

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)
