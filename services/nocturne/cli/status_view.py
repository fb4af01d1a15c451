"""What `status` and `up` show: one value seen, as JSON and as tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from nocturne.cli.ledger import REACHABLE
from nocturne.cli.screen import Cell, Column, plain, short_hash, table
from nocturne.cli.words import count_text, time_text
from nocturne.client.results import AppliedThrough, Level
from nocturne.client.results import Status as Totals
from nocturne.core.identifiers import LedgerId, format_hash
from nocturne.core.json_fields import format_time
from nocturne.core.modes import Mode
from nocturne.core.strict_json import JsonValue
from nocturne.embedded.status import Health, ServiceStatus, Status

DEGRADED: Final = Mode.DEGRADED.value
_SERVICES: Final = (
    Column("service", "bold"),
    Column("health"),
    Column("pid", justify="right"),
    Column("port", justify="right"),
    Column("lag", justify="right"),
    Column("restarts", "dim", "right"),
)
_STYLES: Final = {
    Health.HEALTHY: "green",
    Health.UNHEALTHY: "red",
    Health.GIVEN_UP: "red",
    Health.RESTARTING: "yellow",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What `status` found out. `totals` is None when the query service does not answer; `problem`
    says what is wrong, None when nothing is. `lag` counts records, by process.
    """

    home: Path
    status: Status
    lag: Mapping[str, int]
    ledger_id: LedgerId | None
    totals: Totals | None
    problem: str | None
    degraded: tuple[str, ...] = ()
    """What services of the home keep: `command: CONFLICTING_COMMIT_PROOFS: …`."""

    @property
    def running(self) -> bool:
        """Something runs on the home."""
        return self.status.supervisor is not None

    @property
    def warning(self) -> str | None:
        """What a ledger that is ready goes on without; None when everything runs."""
        away = [one.name for one in self.status.services if one.health is not Health.HEALTHY]
        if not self.status.ready or not away:
            return None
        return f"Without {', '.join(away)}: a quorum of the validators goes on."


def level_states(running: bool, totals: Totals | None) -> dict[str, str]:
    """Each finality level: `reached`, `nothing yet`, `unknown`, `not running`, `not configured`."""
    if not running:
        state = "not running"
    elif totals is None:
        state = "unknown"
    else:
        state = "reached" if totals.applied_through.height > 0 else "nothing yet"
    return {
        level.name.lower(): state if level in REACHABLE else "not configured"
        for level in Level
        if level is not Level.UNKNOWN
    }


def status_json(seen: Seen) -> JsonValue:
    """The one object of `status --json`."""
    return {
        "home": str(seen.home),
        "running": seen.running,
        "ready": seen.status.ready,
        "problem": seen.problem,
        "warning": seen.warning,
        "services": _services_json(seen.status, seen.lag),
        "ledgerId": None if seen.ledger_id is None else format_hash(seen.ledger_id),
        "levels": dict(level_states(seen.running, seen.totals)),
        **totals_json(seen.totals),
        **degraded_json(seen.degraded),
    }


def degraded_json(causes: Sequence[str]) -> dict[str, JsonValue]:
    """The mode in the place of the read side's, if there are causes: it knows only what is kept."""
    return {"mode": DEGRADED, "modeCause": causes[0]} if causes else {}


def totals_json(totals: Totals | None) -> dict[str, JsonValue]:
    """What the read side holds."""
    return {
        "appliedThrough": None if totals is None else _applied_json(totals.applied_through),
        "sessions": None if totals is None else totals.sessions,
        "events": None if totals is None else totals.events,
        "receipts": None if totals is None else totals.receipts,
        "records": None if totals is None else totals.records,
        "refusedRecords": {} if totals is None else dict(totals.refused_records),
        "mode": None if totals is None else totals.mode or None,
        "modeCause": None if totals is None else totals.mode_cause or None,
    }


def started_json(home: Path, status: Status, seconds: float) -> JsonValue:
    """The one object of `up --json`, once all is ready."""
    return {
        "home": str(home),
        "ready": status.ready,
        "seconds": round(seconds, 3),
        "services": _services_json(status, {}),
    }


def _services_json(status: Status, lag: Mapping[str, int]) -> list[JsonValue]:
    return [
        {
            "name": service.name,
            "pid": service.pid,
            "port": service.port,
            "health": service.health.value,
            "lag": lag.get(service.name),
            "restarts": service.restarts,
        }
        for service in status.services
    ]


def _applied_json(applied: AppliedThrough) -> JsonValue:
    return {
        "height": applied.height,
        "blockDigest": format_hash(applied.block_digest) if applied.block_digest else None,
        "timestamp": format_time(applied.timestamp),
    }


def status_parts(seen: Seen) -> Iterator[RenderableType]:
    """What a person sees, part by part."""
    if seen.ledger_id is not None:
        yield Text.assemble(("ledger ", "dim"), (format_hash(seen.ledger_id), "bold"))
    if seen.status.services:
        yield table(_SERVICES, (_service_row(seen, one) for one in seen.status.services))
    if seen.warning is not None:
        yield Text(seen.warning, style="yellow")
    for one in seen.degraded:
        yield degraded_text(one)
    yield from totals_parts(seen.totals)
    if seen.running:
        yield levels_text(seen.running, seen.totals)


def totals_parts(totals: Totals | None) -> Iterator[RenderableType]:
    """What the read side holds, line by line."""
    if totals is not None:
        if totals.mode == DEGRADED:
            yield degraded_text(f"query: {totals.mode_cause}")
        yield Text(
            f"{count_text(totals.events, 'event')} and {count_text(totals.receipts, 'receipt')} "
            f"in {count_text(totals.sessions, 'session')}, of "
            f"{count_text(totals.records, 'record')}"
        )
        yield Text(_applied_text(totals.applied_through), style="dim")
        for cause, count in totals.refused_records:
            yield Text(f"{count_text(count, 'record')} refused: {plain(cause)}", style="yellow")


def degraded_text(cause: str) -> Text:
    """The one line that says so, and where to read on."""
    return Text(f"DEGRADED: {plain(cause)}: see the runbook degraded.md", style="bold red")


def _applied_text(applied: AppliedThrough) -> str:
    if applied.height == 0:
        return "no block applied yet"
    at = f"applied through block {applied.height}  {short_hash(applied.block_digest)}"
    return f"{at}  {time_text(applied.timestamp)}"


def _service_row(seen: Seen, service: ServiceStatus) -> list[str | Cell]:
    lag = seen.lag.get(service.name)
    return [
        service.name,
        Cell(service.health.value, _STYLES.get(service.health, "dim")),
        "" if service.pid is None else str(service.pid),
        str(service.port),
        "" if lag is None else Cell(str(lag), "yellow" if lag else "dim"),
        str(service.restarts or ""),
    ]


def levels_text(running: bool, totals: Totals | None) -> Text:
    """`levels  accepted, certified, signed reached · logged, anchored not configured`."""
    grouped: dict[str, list[str]] = {}
    for name, state in level_states(running, totals).items():
        grouped.setdefault(state, []).append(name)
    parts = [f"{', '.join(names)} {state}" for state, names in grouped.items()]
    return Text.assemble(("levels  ", "dim"), Text(" · ".join(parts)))


def started_text(name: str, port: int, seconds: float) -> Text:
    """One service became healthy."""
    return Text.assemble(("✓ ", "green"), f"{name:<12}", (f" {port:>5}  {seconds:4.1f} s", "dim"))


def ready_text(home: Path, seconds: float) -> Text:
    """All is ready, and what to do with it."""
    return Text.assemble(
        ("ready ", "bold green"),
        (f"after {seconds:.1f} s in {home}", "dim"),
        '\n  nocturne submit hello Greeted \'{"name":"world"}\'\n  nocturne events hello',
        "\n  nocturne status",
    )
