"""What `status` shows of a ledger that runs elsewhere: what its services say, one value. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from nocturne.cli.screen import Cell, Column, table
from nocturne.cli.status_view import (
    degraded_json,
    degraded_text,
    level_states,
    levels_text,
    totals_json,
    totals_parts,
)
from nocturne.client.results import Status as Totals
from nocturne.core.identifiers import LedgerId, format_hash
from nocturne.core.strict_json import JsonValue

SERVING: Final = "serving"
NOT_SERVING: Final = "not serving"
UNREACHABLE: Final = "unreachable"

_SERVICES: Final = (Column("service", "bold"), Column("health"), Column("address"))
_STYLES: Final = {SERVING: "green", NOT_SERVING: "yellow", UNREACHABLE: "red"}


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """One service, as it says itself; `cause` is why it says nothing."""

    name: str
    address: str
    health: str
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class DeploymentSeen:
    """What could be found out from here; `totals` is None when the query service does not say."""

    services: tuple[ServiceSeen, ...]
    ledger_id: LedgerId
    totals: Totals | None
    problem: str | None
    degraded: tuple[str, ...] = ()
    """Why nothing is certified now, as the validators say that were named."""

    @property
    def reached(self) -> bool:
        """Any service answers."""
        return any(one.health != UNREACHABLE for one in self.services)

    @property
    def ready(self) -> bool:
        """Every service that was named serves."""
        return all(one.health == SERVING for one in self.services)


def deployment_json(seen: DeploymentSeen) -> JsonValue:
    """The one object of `status --json`: as of a home, with addresses in the place of processes."""
    return {
        "home": None,
        "running": seen.reached,
        "ready": seen.ready,
        "problem": seen.problem,
        "services": [
            {"name": one.name, "address": one.address, "health": one.health, "cause": one.cause}
            for one in seen.services
        ],
        "ledgerId": format_hash(seen.ledger_id),
        "levels": dict(level_states(seen.reached, seen.totals)),
        **totals_json(seen.totals),
        **degraded_json(seen.degraded),
    }


def deployment_parts(seen: DeploymentSeen) -> Iterator[RenderableType]:
    """What a person sees, part by part."""
    yield Text.assemble(("ledger ", "dim"), (format_hash(seen.ledger_id), "bold"))
    yield table(
        _SERVICES,
        ([one.name, Cell(one.health, _STYLES[one.health]), one.address] for one in seen.services),
    )
    for one in seen.degraded:
        yield degraded_text(one)
    yield from totals_parts(seen.totals)
    if seen.reached:
        yield levels_text(seen.reached, seen.totals)
