"""What an exit code means, and the one sentence that goes with it.

0 ok · 1 a check failed or a command was refused · 2 bad use · 3 unavailable or deadline.
A sentence says what is wrong and names the way out; nobody is shown a traceback.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import IntEnum

from nocturne.core.errors import Halt, NocturneError, PeerFault, Unavailable
from nocturne.embedded.errors import EmbeddedError


class ExitCode(IntEnum):
    """What the shell is told."""

    OK = 0
    FAILED = 1
    BAD_USE = 2
    UNAVAILABLE = 3
    INTERRUPTED = 130
    """128 + SIGINT, as shells have it."""


class Failure(NocturneError):  # noqa: N818
    """Ends a command with a sentence and an exit code; `details` are lines below it."""

    def __init__(self, code: ExitCode, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.details = tuple(details)


def bad_use(message: str) -> Failure:
    """The command line itself is wrong."""
    return Failure(ExitCode.BAD_USE, message)


def as_failure(error: Exception) -> Failure:
    """Any exception as the failure that is shown for it."""
    match error:
        case Failure():
            return error
        case EmbeddedError():
            return Failure(ExitCode.UNAVAILABLE, str(error), error.details)
        case Unavailable() | TimeoutError():
            message = str(error) or "The deadline came first."
            return Failure(ExitCode.UNAVAILABLE, message)
        case Halt():
            return Failure(
                ExitCode.FAILED,
                f"{error}: the ledger's own data contradicts itself, so this halts.",
            )
        case PeerFault():
            return Failure(ExitCode.FAILED, f"What was read is not what it must be: {error}.")
        case NocturneError():
            return Failure(ExitCode.FAILED, str(error))
        case OSError():
            return _of_system(error)
        case _:
            return Failure(
                ExitCode.FAILED,
                f"This is a bug in nocturne ({type(error).__name__}: {error}): please report it "
                "with the command line that led here.",
            )


def _of_system(error: OSError) -> Failure:
    reason = error.strerror or str(error)
    place = "" if error.filename is None else f" {os.fsdecode(error.filename)}"
    match error:
        case FileNotFoundError() | IsADirectoryError() | NotADirectoryError() | FileExistsError():
            return bad_use(f"{reason}:{place}; name another file.")
        case PermissionError():
            return bad_use(f"{reason}:{place}; choose a file that you may use.")
        case _:
            return Failure(ExitCode.UNAVAILABLE, f"The system refused ({reason}{place}).")
