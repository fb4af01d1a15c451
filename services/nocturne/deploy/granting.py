"""What the jobs that grant rights have in common: settings in, sentences out, an exit code.

A job says what it found and did on stdout, one sentence a line; why it failed on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import Field, ValidationError

from nocturne.core.errors import NocturneError
from nocturne.runtime.secrets import Secret, read_secret
from nocturne.runtime.settings import PREFIX, ProcessSettings, read_settings
from nocturne.runtime.telemetry import configure_logs

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2

WAIT_SECONDS: Final = 120
"""A broker on a small machine answers within a minute of its start."""
WaitSeconds = Annotated[int, Field(ge=1, le=3600)]

JobSettings = TypeVar("JobSettings", bound=ProcessSettings)


def run_job(
    name: str,
    kind: type[JobSettings],
    work: Callable[[JobSettings, Callable[[str], None]], None],
) -> int:
    """Read the settings, do the work; the exit code."""
    try:
        settings = read_settings(kind)
    except ValidationError as fault:
        for error in fault.errors(include_url=False, include_input=False):
            variable = PREFIX + "_".join(map(str, error["loc"])).upper()
            print(f"{name}: {variable}: {error['msg']}", file=sys.stderr)
        return EXIT_SETTINGS
    configure_logs(name, settings.log_level)
    try:
        work(settings, lambda sentence: print(f"{name}: {sentence}", flush=True))
    except NocturneError as fault:
        print(f"{name}: {fault}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


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
