"""Passwords in files: one line each, read whenever one is needed, so that they can be changed.

A file is how container engines hand secrets over; an environment is shown by too many tools.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nocturne.core.errors import NocturneError

SECRET_BYTES_MAX: Final = 4096


class SecretFault(NocturneError):  # noqa: N818
    """A secret's file cannot be used; the message names the file and not what it holds."""


class Secret(str):
    """A text that `repr` does not show, wherever it is put."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def read_secret(path: Path) -> Secret:
    """The one line of a file, without its end. `SecretFault` when it is no such file."""
    try:
        with path.open("rb") as file:
            data = file.read(SECRET_BYTES_MAX + 1)
    except OSError as fault:
        raise SecretFault(f"the secret {path} cannot be read: {fault.strerror}") from fault
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if len(data) > SECRET_BYTES_MAX or not text or not text.isprintable():
        raise SecretFault(
            f"the secret {path}: expected one printable line of 1 to {SECRET_BYTES_MAX} bytes"
        )
    return Secret(text)
