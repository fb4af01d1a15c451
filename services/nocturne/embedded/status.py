"""What a running ledger says of itself: `<home>/run/status.json`, written whole at every change.

{"supervisor": 4711, "ready": true, "error": null, "details": [],
 "services": [{"name": "kafka", "pid": 4712, "birth": 81516,
                   "port": 19092, "health": "healthy", "restarts": 0}]}
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


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


NOTHING = Status(supervisor=None, ready=False, error=None, details=(), services=())


def write(path: Path, status: Status) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(status), indent=1) + "\n")
    fresh.replace(path)


def read(path: Path) -> Status:
    """The last status written, or NOTHING."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return NOTHING
    services = tuple(
        ServiceStatus(
            s["name"], s["pid"], s["birth"], s["port"], Health(s["health"]), s["restarts"]
        )
        for s in found["services"]
    )
    details = tuple(found["details"])
    return Status(found["supervisor"], found["ready"], found["error"], details, services)
