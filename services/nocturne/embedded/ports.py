"""Which port each process listens on: remembered in the home, so that addresses stay the same.

A port is the one fixed by setting (NOCTURNE_PORT_<NAME>, as NOCTURNE_PORT_COMMAND), else the one
remembered, else the process's usual one, else any that is free.
"""

import json
import random
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from nocturne.core.errors import Malformed
from nocturne.core.strict_json import parse_json
from nocturne.embedded.errors import EmbeddedError

HOST = "127.0.0.1"
# Below the range from which systems take ports for outgoing connections, so that a remembered port
# is not lost to a passing connection.
SPARE_PORTS = range(20000, 32000)
SPARE_TRIES_MAX = 2000
PORT_DIGITS_MAX = 5
# A dozen names and numbers.
FILE_BYTES_MAX = 64 * 1024

IsFree = Callable[[int], bool]
"""Asked once for a port that is to be used: it may reserve it (`reservations`)."""


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def setting_name(process: str) -> str:
    """`consensus-0` → `NOCTURNE_PORT_CONSENSUS_0`."""
    return f"NOCTURNE_PORT_{process.upper().replace('-', '_')}"


def choose(
    usual: Mapping[str, int],
    remembered: Mapping[str, int],
    environment: Mapping[str, str],
    free: IsFree,
    dice: random.Random,
) -> dict[str, int]:
    """One port for each name in `usual`. EmbeddedError when a fixed one is taken."""
    chosen: dict[str, int] = {}
    fixed = {
        name: environment[setting_name(name)] for name in usual if setting_name(name) in environment
    }
    for name, text in fixed.items():
        chosen[name] = _fixed(name, text, chosen, free)
    for name, usual_port in usual.items():
        if name not in chosen:
            wanted = (remembered[name],) if name in remembered else (usual_port,)
            chosen[name] = _first_free(wanted, chosen, free, dice)
    return {name: chosen[name] for name in usual}


def _fixed(name: str, text: str, chosen: Mapping[str, int], free: IsFree) -> int:
    port = int(text) if text.isdecimal() and len(text) <= PORT_DIGITS_MAX else 0
    if not 0 < port < 65536:
        raise EmbeddedError(
            f"{setting_name(name)} must be a port between 1 and 65535, got {text[:80]!r}."
        )
    if port in chosen.values() or not free(port):
        raise EmbeddedError(
            f"Port {port} for {name} is taken: free it, or change or unset {setting_name(name)}."
        )
    return port


def _first_free(
    wanted: tuple[int, ...], chosen: Mapping[str, int], free: IsFree, dice: random.Random
) -> int:
    spare = (dice.choice(SPARE_PORTS) for _ in range(SPARE_TRIES_MAX))
    for port in (*wanted, *spare):
        if port not in chosen.values() and free(port):
            return port
    raise EmbeddedError("No free port was found on the loopback interface: stop other servers.")


def load(path: Path) -> dict[str, int]:
    """The ports remembered. The file only keeps a preference: without it, or with another than
    `save` wrote, the usual ports are taken.
    """
    try:
        with path.open("rb") as file:
            found = parse_json(file.read(FILE_BYTES_MAX + 1), FILE_BYTES_MAX, 1)
    except (FileNotFoundError, Malformed):
        return {}
    remembered = found.items() if isinstance(found, dict) else ()
    return {name: port for name, port in remembered if type(port) is int and 0 < port < 65536}


def save(path: Path, ports: Mapping[str, int]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(dict(ports), indent=2) + "\n")
    fresh.replace(path)
