"""Ask a service on this machine whether it is ready, or lives: a container's health check.

    python -m nocturne.runtime.probe [ready|live]
        ready (the default) asks /readyz, live asks /livez, both at NOCTURNE_METRICS_LISTEN;
        exit code 0 for yes, 1 for everything else

Rules: docs/guides/observability.md. Only of the standard library: a container starts it every few
seconds, and what a service needs would take longer to import than to ask.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Final, NoReturn

SETTING: Final = "NOCTURNE_METRICS_LISTEN"
SECONDS_MAX: Final = 3.0
"""For all of it. Health checks of containers have time-outs of their own; this one tells why."""
BODY_BYTES_MAX: Final = 4096
PATHS: Final = {"ready": "/readyz", "live": "/livez"}
LOOPBACKS: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}
"""Where to ask a process that listens at every address."""


class Refused(Exception):  # noqa: N818
    """The answer is no, or there is none; the message is one sentence."""


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Ask, say the answer in one sentence, return the exit code."""
    what = arguments[0] if arguments else "ready"
    if len(arguments) > 1 or what not in PATHS:
        print("probe: expected 'ready' or 'live'", file=sys.stderr)
        return 1
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_MAX)
    try:
        ask(PATHS[what], environment.get(SETTING, ""))
    except Refused as fault:
        print(f"{what}: no, {fault}", file=sys.stderr)
        return 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"{what}: yes")
    return 0


def ask(path: str, listen: str) -> None:
    """Return when the process that listens at `listen` says yes; `Refused` otherwise."""
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdecimal() or not 0 < int(port[:6]) < 65536:
        raise Refused(f"{SETTING} names no address to ask: {listen[:80]!r}")
    host = host.strip("[]")
    connection = http.client.HTTPConnection(
        LOOPBACKS.get(host, host), int(port), timeout=SECONDS_MAX
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(BODY_BYTES_MAX)
    except (OSError, http.client.HTTPException) as fault:
        raise Refused(f"{listen} does not answer: {str(fault) or type(fault).__name__}") from fault
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise Refused(_why(body) or f"{listen} answered {answer.status} to {path}")


def _why(body: bytes) -> str:
    try:
        told = json.loads(body)
    except ValueError:
        return ""
    why = told.get("why") if isinstance(told, dict) else None
    return " ".join(why.split()) if isinstance(why, str) else ""


def _too_late(_: int, __: FrameType | None) -> NoReturn:
    raise Refused(f"no answer within {SECONDS_MAX:.0f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
