"""The file `degraded` in a service's folder: why the ledger is DEGRADED, kept over restarts.

Rules: docs/spec/modes.md §4. It is there or not: only a person removes it. One that cannot be read
does not count as none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import LedgerId
from nocturne.core.modes import (
    DEGRADED_BYTES_MAX,
    Cause,
    Degraded,
    ModeState,
    decode_degraded,
    encode_degraded,
)
from nocturne.runtime.files import write_file
from nocturne.runtime.rpc import RpcServer
from nocturne.runtime.telemetry import Metrics

FILE: Final = "degraded"

log = structlog.get_logger()


def measure(metrics: Metrics, why: Callable[[], Degraded | None]) -> None:
    """Have it in the process's metrics; `why` the ledger is DEGRADED, None: it is not."""
    gauge = metrics.gauge("degraded", "1 while the ledger is DEGRADED, as this process has it")
    gauge.set_function(lambda: float(why() is not None))


async def stay_degraded(server: RpcServer, stopping: asyncio.Event, why: Degraded) -> None:
    """Do nothing more of what would go on with the ledger, and say so until told to stop. Health
    says SERVING: whoever asks is to hear why.
    """
    await server.set_serving(True, why.sentence)
    await stopping.wait()


class LedgerMode:
    """The ledger's mode as one process has it and keeps it in its folder."""

    def __init__(self, home: Path, ledger_id: LedgerId) -> None:
        """`Halt` when what was kept cannot be read."""
        self._home = home
        self._ledger_id = ledger_id
        self._state = load(home, ledger_id)
        if self._state.kept is not None:
            _log(self._state.kept)

    @property
    def kept(self) -> Degraded | None:
        """Why the ledger is DEGRADED without an automatic exit."""
        return self._state.kept

    @property
    def degraded(self) -> Degraded | None:
        """Why the ledger is DEGRADED now."""
        return self._state.degraded

    def keep(self, degraded: Degraded) -> None:
        """Found: written down before anything is said of it."""
        if self._state.kept is None:
            keep(self._home, self._ledger_id, degraded)
            self._state.keep(degraded)
            _log(degraded)

    def want_of_a_quorum(self, text: str | None) -> None:
        """Nothing is certified, in words; None: it is."""
        self._state.passing(None if text is None else Degraded(Cause.WANT_OF_A_QUORUM, text))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every answer."""
        return self._state.metadata()


def _log(degraded: Degraded) -> None:
    log.error("degraded", cause=degraded.cause.name, text=degraded.text)


def load(home: Path, ledger_id: LedgerId) -> ModeState:
    """The mode as it was kept; `Halt` when the file is damaged or another ledger's."""
    path = home / FILE
    try:
        with path.open("rb") as file:
            owner, degraded = decode_degraded(file.read(DEGRADED_BYTES_MAX + 1))
    except FileNotFoundError:
        return ModeState()
    except Malformed as fault:
        raise Halt(
            f"{path}: {fault}: nobody can say any more why the ledger is DEGRADED"
        ) from fault
    if owner != ledger_id:
        raise Halt(f"{path}: it belongs to another ledger")
    return ModeState(degraded)


def keep(home: Path, ledger_id: LedgerId, degraded: Degraded) -> None:
    """Write it down, synced, whole or not at all; nothing takes the place of what is there."""
    path = home / FILE
    if path.exists():
        return
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(path, encode_degraded(ledger_id, degraded))
