"""One thing that was checked, and running a program that checks it within its time."""

from __future__ import annotations

import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

OUTPUT_LINES_MAX: Final = 60
"""Of a program that failed: its last lines have the reason."""


@dataclass(frozen=True, slots=True)
class Result:
    """A line of `make proofs`. `detail`: what was found, or why it is not what it must be."""

    name: str
    holds: bool
    detail: str
    seconds: float = 0.0

    def line(self) -> str:
        verdict = "ok    " if self.holds else "FAILED"
        return f"{verdict} {self.name:<44} {self.seconds:5.1f} s  {self.detail}"


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program said. `code` is None when its time ran out."""

    code: int | None
    output: str
    seconds: float

    def tail(self) -> str:
        ended = "its time ran out" if self.code is None else f"exit code {self.code}"
        return "\n".join((ended, *self.output.splitlines()[-OUTPUT_LINES_MAX:]))


def run(argv: list[str], folder: Path, seconds_max: int) -> Finished:
    """Run a program in `folder`; standard output and errors together."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds_max,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        said = late.output.decode(errors="replace") if isinstance(late.output, bytes) else ""
        return Finished(None, said, time.monotonic() - began)
    return Finished(done.returncode, done.stdout, time.monotonic() - began)


def processor_seconds() -> float:
    """What the programs that have ended took, of all processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
