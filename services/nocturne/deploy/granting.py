"""What the jobs that grant rights have in common: passwords from a folder, and what they say.

A job says what it found and did on stdout, one sentence a line; why it failed on stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from nocturne.runtime.secrets import Secret, read_secret

WAIT_SECONDS: Final = 120
"""A broker on a small machine answers within a minute of its start."""
WaitSeconds = Annotated[int, Field(ge=1, le=3600)]


def sayer(job: str) -> Callable[[str], None]:
    """Says a sentence in a job's name."""
    return lambda sentence: print(f"{job}: {sentence}", flush=True)


def passwords_of(folder: Path | None, wanted: Mapping[str, bool]) -> dict[str, Secret]:
    """The passwords in a folder by the names of their files; none without a folder. `wanted` says
    of each name whether its file may be missing; `SecretFault` when another is.
    """
    if folder is None:
        return {}
    return {
        name: read_secret(folder / name)
        for name, may_be_missing in wanted.items()
        if not may_be_missing or (folder / name).exists()
    }
