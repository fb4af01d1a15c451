"""Everything a command touches, as one argument: the machine, the ledger, the screen, the clock.

`main` makes the real one; tests make one without processes, network or time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import typer
from rich.console import Console

from nocturne.cli.ledger import Ledger, Operators
from nocturne.cli.screen import json_text, plain, terminal
from nocturne.cli.validators_view import Seen
from nocturne.core.strict_json import JsonValue
from nocturne.embedded.home import Home, find
from nocturne.embedded.status import Status
from nocturne.runtime.clock import now_ms

ANSWER_CHARACTERS_MAX: Final = 80
"""Of what a person types when asked: it is compared with one word."""

Progress = Callable[[int, int, str], None]


class Machine(Protocol):
    """The embedded runtime; the module `nocturne.embedded.up` is one."""

    def up(
        self, home: Path | None, detach: bool, validators: int | None, progress: Progress
    ) -> Status:
        """Start the ledger of a home; detached, return once it is ready."""

    def down(self, home: Path | None) -> bool:
        """Stop it; False if none ran."""

    def status(self, home: Path | None) -> Status:
        """What runs."""

    def rebuild(
        self, home: Path | None, arguments: Sequence[str], hear: Callable[[dict[str, Any]], None]
    ) -> int:
        """Rebuild the read model; each object that it says goes to `hear`. Its exit code."""


class Connect(Protocol):
    """Reaches the ledger of a home, or of the deployment that the environment names."""

    def __call__(self, home: Home, deadline_seconds: float) -> AbstractAsyncContextManager[Ledger]:
        """The ledger while the context lasts; `deadline_seconds` bounds each of its answers."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a command may touch."""

    environment: Mapping[str, str]
    out: Console
    err: Console
    stdin: Callable[[int], bytes]
    now_ms: Callable[[], int]
    random: Callable[[int], bytes]
    machine: Callable[[], Machine]
    connect: Connect
    lag: Callable[[Home], Mapping[str, int]]
    validators: Callable[[Home, float], Seen]
    """What all validators say within so many seconds, of the home's ledger or the deployment's."""
    operate: Callable[[Home], AbstractAsyncContextManager[Operators]]
    answer: Callable[[str], str | None]
    """What the person says when asked; None where nobody can be."""

    def home(self, named: Path | None) -> Home:
        """The home that was named, else NOCTURNE_HOME, else ~/.nocturne."""
        return find(named, self.environment)

    def emit(self, value: JsonValue) -> None:
        """One JSON value on a line of stdout, there at once: a pipe's reader may be following."""
        self.out.file.write(json_text(value) + "\n")
        self.out.file.flush()

    def say(self, message: str) -> None:
        """A note to the person, out of the way of the data."""
        self.err.print(plain(message), style="dim" if self.err.is_terminal else None)


def of(context: typer.Context) -> Surroundings:
    """The surroundings that this run was started with."""
    return cast("Surroundings", cast("Any", context).obj)


def real() -> Surroundings:
    """This process's own."""
    return Surroundings(
        environment=os.environ,
        out=terminal("stdout"),
        err=terminal("stderr"),
        stdin=lambda bytes_max: sys.stdin.buffer.read(bytes_max),
        now_ms=now_ms,
        random=os.urandom,
        machine=_embedded,
        connect=_connect,
        lag=_lag,
        validators=_validators,
        operate=_operate,
        answer=_answer,
    )


# Imported when asked for: 'nocturne verify' needs no broker's client, and answers at once.


def _answer(question: str) -> str | None:
    if not sys.stdin.isatty():
        return None
    sys.stderr.write(plain(question))
    sys.stderr.flush()
    return sys.stdin.readline(ANSWER_CHARACTERS_MAX)


def _embedded() -> Machine:
    from nocturne.embedded import up

    return up


def _connect(home: Home, deadline_seconds: float) -> AbstractAsyncContextManager[Ledger]:
    from nocturne.cli.connection import connect, connect_to
    from nocturne.cli.deployment import deployment_of

    deployment = deployment_of(os.environ)
    if deployment is not None:
        return connect_to(deployment, deadline_seconds)
    return connect(home, deadline_seconds)


def _operate(home: Home) -> AbstractAsyncContextManager[Operators]:
    from nocturne.cli.connection import operate, operate_on
    from nocturne.cli.deployment import deployment_of

    deployment = deployment_of(os.environ)
    return operate(home) if deployment is None else operate_on(deployment)


def _validators(home: Home, seconds_max: float) -> Seen:
    from nocturne.cli.asking_validators import look

    return look(home, os.environ, seconds_max)


def _lag(home: Home) -> Mapping[str, int]:
    from nocturne.cli.lag import read

    return read(home)
