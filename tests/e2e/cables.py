"""A network of its own for one validator, and the cables that tie it to the ledger: a Linux network
namespace, a pair of interfaces to the broker and one to the other validators. A cable that is cut
carries no packet, and nobody is told.

The ledger's addresses are all of the loopback interface, so a relay stands at each end of a cable.
A relay alone needs no rights: paused it holds its connections, and nothing passes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nocturne.embedded.processes import launched

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
ASIDE = "127.0.0.2"
"""Of the same machine, and no service of a ledger listens there."""
# Of RFC 2544's addresses for tests; four a cable.
NETWORK = "198.18"


def are_allowed() -> bool:
    """Whether this machine lets us make network namespaces."""
    try:
        _run("ip", "netns", "add", _name("try"))
    except (OSError, subprocess.CalledProcessError):
        return False
    _run("ip", "netns", "del", _name("try"))
    return True


class Island:
    """A network namespace with its cables; `close` it."""

    def __init__(self) -> None:
        self.name = _name("island")
        self._relays: list[subprocess.Popen[bytes]] = []
        self._cables = 0
        _run("ip", "netns", "add", self.name)
        self._inside("ip", "link", "set", "lo", "up")

    def lay(self, ports: Sequence[int]) -> Cable:
        """A cable over which these ports of the loopback outside are reached from inside."""
        self._cables += 1
        here, there = (f"n{self._cables}{end}{os.getpid() % 10**7}" for end in "ab")
        subnet = f"{NETWORK}.{os.getpid() % 256}.{4 * self._cables}"
        base, _, last = subnet.rpartition(".")
        near, far = f"{base}.{int(last) + 1}", f"{base}.{int(last) + 2}"
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there)
        _run("ip", "link", "set", there, "netns", self.name)
        _run("ip", "address", "add", f"{near}/30", "dev", here)
        _run("ip", "link", "set", here, "up")
        self._inside("ip", "address", "add", f"{far}/30", "dev", there)
        self._inside("ip", "link", "set", there, "up")
        self._relay((), near, LOOPBACK, ports)
        self._relay(self.inside, LOOPBACK, near, ports)
        return Cable(self, there)

    @property
    def inside(self) -> tuple[str, ...]:
        """What comes before a command that is to run inside."""
        return ("ip", "netns", "exec", self.name)

    def close(self) -> None:
        """Take it all away."""
        for relay in self._relays:
            relay.kill()
            relay.wait(10)
        _run("ip", "netns", "del", self.name)

    def _inside(self, *argv: str) -> None:
        _run(*self.inside, *argv)

    def _relay(self, before: Sequence[str], listen: str, to: str, ports: Sequence[int]) -> None:
        self._relays.append(_relay(before, listen, to, ports))


class Cable:
    """One cable of an island."""

    def __init__(self, island: Island, interface: str) -> None:
        self._island = island
        self._interface = interface

    def cut(self) -> None:
        """No packet passes."""
        _run(*self._island.inside, "ip", "link", "set", self._interface, "down")

    def mend(self) -> None:
        """Packets pass again."""
        _run(*self._island.inside, "ip", "link", "set", self._interface, "up")


class Detour:
    """A relay from these ports at `ASIDE` to the same ports of the loopback; `close` it."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._relay = _relay((), ASIDE, LOOPBACK, ports)

    def cut(self) -> None:
        """Connections stay, and nothing passes."""
        self._relay.send_signal(signal.SIGSTOP)

    def mend(self) -> None:
        """What waited passes."""
        self._relay.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Take it away."""
        self.mend()
        self._relay.kill()
        self._relay.wait(10)


def _relay(
    before: Sequence[str], listen: str, to: str, ports: Sequence[int]
) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "tests.e2e.relay", listen, to, *map(str, ports)]
    relay = subprocess.Popen(
        launched([*before, *argv]), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert relay.stdout is not None
    assert relay.stdout.readline(), "the relay listens"
    return relay


def _name(what: str) -> str:
    return f"nocturne-{what}-{os.getpid()}"


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
