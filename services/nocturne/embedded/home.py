"""A home: the folder with everything of one embedded ledger.

keys/<service>/     private, one folder a service     genesis.avro   what the ledger starts from
kafka/ postgres/    the infrastructure's data         <service>/     each service's own state
logs/<name>.log     one log a process                 run/           lock, status, ports
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nocturne.embedded.errors import EmbeddedError


@dataclass(frozen=True, slots=True)
class Home:
    """Names every place in a home; nothing is created before `create`."""

    root: Path

    def keys(self, service: str) -> Path:
        return self.root / "keys" / service

    def data(self, service: str) -> Path:
        return self.root / service

    def log(self, process: str) -> Path:
        return self.root / "logs" / f"{process}.log"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def status(self) -> Path:
        return self.run / "status.json"

    @property
    def ports(self) -> Path:
        return self.run / "ports.json"

    @property
    def peers(self) -> Path:
        """Addresses of validators that genesis does not name."""
        return self.run / "peers"

    def create(self) -> None:
        """Make the folders; keys are closed to everyone else. EmbeddedError when that fails."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / "keys").mkdir(exist_ok=True, mode=0o700)
            for folder in (self.kafka, self.postgres, self.logs, self.run):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise EmbeddedError(
                f"The home {self.root} cannot be used ({error.strerror}): choose another with "
                "--home or NOCTURNE_HOME."
            ) from error


def find(named: Path | None, environment: Mapping[str, str]) -> Home:
    """The home that was named, else NOCTURNE_HOME, else ~/.nocturne."""
    chosen = named or environment.get("NOCTURNE_HOME") or Path.home() / ".nocturne"
    # Not resolved through links: a home is where its owner says it is.
    return Home(Path(os.path.abspath(Path(chosen).expanduser())))  # noqa: PTH100
