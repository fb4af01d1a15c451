"""Run a rebuild of the read model of a home that is up, with the addresses that its services have.

The rebuild is a process of its own, `python -m nocturne.projection.rebuild`; its log is
`<home>/logs/rebuild.log`, and what it says on stdout is handed on.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nocturne.embedded import logs, postgres, services
from nocturne.embedded import ports as home_ports
from nocturne.embedded.ceremony import GENESIS_FILE
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import Home, find
from nocturne.embedded.lock import holder
from nocturne.embedded.postgres import Server
from nocturne.embedded.processes import launched

LINE_BYTES_MAX = 1 << 20
NAME = "rebuild"


def rebuild(
    home: Path | None, arguments: Sequence[str], hear: Callable[[dict[str, Any]], None]
) -> int:
    """Run one to its end; each object that it says goes to `hear`. Its exit code. EmbeddedError
    when nothing runs on the home.
    """
    place = find(home, os.environ)
    if holder(place.lock) is None:
        raise EmbeddedError(
            f"Nothing runs in {place.root}: 'nocturne up --detach' starts it, and the read model "
            "is rebuilt while it runs."
        )
    with place.log(NAME).open("ab") as errors:
        running = subprocess.Popen(
            launched([sys.executable, "-m", "nocturne.projection.rebuild", *arguments]),
            env=environment(place),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert running.stdout is not None
    with running:
        try:
            while line := running.stdout.readline(LINE_BYTES_MAX):
                hear(json.loads(line))
        except BaseException:
            # Whoever listened is gone: what was rebuilt so far is kept for the next time.
            running.terminate()
            raise
    logs.bound(place.log(NAME))
    return running.returncode


def environment(place: Home) -> dict[str, str]:
    """The settings of a rebuild: the projection's, and the role that owns the schemas."""
    ports = home_ports.load(place.ports)
    server = Server(place.postgres / "data", ports["postgres"], place.keys("postgres"))
    settings = {
        name: value for name, value in os.environ.items() if not name.startswith("NOCTURNE_")
    }
    return {
        **settings,
        "NOCTURNE_GENESIS_FILE": str(place.root / GENESIS_FILE),
        "NOCTURNE_KAFKA_BOOTSTRAP": f"{services.HOST}:{ports['kafka']}",
        "NOCTURNE_POSTGRES_DSN": server.dsn(postgres.OWNER),
    }
