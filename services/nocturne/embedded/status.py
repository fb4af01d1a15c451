"""What a running ledger says of itself: `<home>/run/status.json`, written whole at every change.

{"supervisor": 4711, "ready": true, "error": null, "details": [],
 "services": [{"name": "kafka", "pid": 4712, "birth": 81516,
                   "port": 19092, "health": "healthy", "restarts": 0}]}
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from nocturne.core.errors import Malformed
from nocturne.core.json_fields import Fields
from nocturne.core.strict_json import parse_json
from nocturne.embedded.errors import EmbeddedError

FILE_BYTES_MAX: Final = 1024 * 1024
"""Some dozen services, and the last lines of one log."""
FILE_DEPTH_MAX: Final = 3
SERVICES_MAX: Final = 256
LINES_MAX: Final = 1024
VALIDATORS: Final = "consensus-"
"""What the names of validators begin with; their ordinals follow."""


class Health(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    RESTARTING = "restarting"
    GIVEN_UP = "given up"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One process; `birth` (ticks since boot) tells its pid from the same number given again."""

    name: str
    pid: int | None
    birth: int | None
    port: int
    health: Health
    restarts: int


@dataclass(frozen=True, slots=True)
class Status:
    """`supervisor` is None when nothing runs on this home; then `services` is what ran last."""

    supervisor: int | None
    ready: bool
    error: str | None
    details: tuple[str, ...]
    services: tuple[ServiceStatus, ...]

    def service(self, name: str) -> ServiceStatus:
        return next(service for service in self.services if service.name == name)

    def address(self, name: str) -> str:
        """host:port of a service's listener."""
        return f"127.0.0.1:{self.service(name).port}"


def validators_in(status: Status) -> tuple[str, ...]:
    """The names of the validators among a home's services, by their ordinals."""
    return tuple(one.name for one in status.services if one.name.startswith(VALIDATORS))


NOTHING = Status(supervisor=None, ready=False, error=None, details=(), services=())


def write(path: Path, status: Status) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(status), indent=1) + "\n")
    fresh.replace(path)


def read(path: Path) -> Status:
    """The last status written, or NOTHING. `EmbeddedError` when the file is another's."""
    try:
        with path.open("rb") as file:
            found = parse_json(file.read(FILE_BYTES_MAX + 1), FILE_BYTES_MAX, FILE_DEPTH_MAX)
        return _status_from(Fields.of(found, "status"))
    except FileNotFoundError:
        return NOTHING
    except Malformed as fault:
        raise EmbeddedError(
            f"{path} is not what a ledger writes there ({fault}): stop the ledger if it runs, and "
            "remove the file."
        ) from fault


def _status_from(fields: Fields) -> Status:
    supervisor = fields.optional_natural("supervisor")
    error = None if fields.value("error") is None else fields.text("error")
    details = tuple(fields.texts("details", LINES_MAX))
    services = tuple(_service_from(one) for one in fields.objects("services", SERVICES_MAX))
    return Status(supervisor, fields.boolean("ready"), error, details, services)


def _service_from(fields: Fields) -> ServiceStatus:
    health = fields.text("health")
    if health not in [*Health]:
        raise Malformed(f"health: expected one of {', '.join(Health)}, got {health[:80]!r}")
    return ServiceStatus(
        fields.text("name"),
        fields.optional_natural("pid"),
        fields.optional_natural("birth"),
        fields.natural("port"),
        Health(health),
        fields.natural("restarts"),
    )
