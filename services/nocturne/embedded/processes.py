"""What the supervisor runs: a process's name, command line, environment, and its health."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nocturne.embedded.errors import EmbeddedError

LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Process:
    """One long-running process. `healthy` is asked from a thread and answers within two seconds."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    port: int
    healthy: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds_max: float = 10.0
    # What the kernel sends when the supervisor is gone without a word.
    orphan_signal: signal.Signals = signal.SIGKILL
    # `uid:gid` to run as; None: who we are.
    user: str | None = None
    # Exit codes after which another start would change nothing, and what they mean.
    final_exits: Mapping[int, str] = field(default_factory=dict)


def launched(
    argv: Sequence[str], user: str | None = None, orphan_signal: signal.Signals = signal.SIGKILL
) -> list[str]:
    """`argv` behind the launcher: it dies with this process, and runs as `user` if one is named."""
    options = [str(os.getpid()), str(int(orphan_signal)), user or "-", "--"]
    return [sys.executable, "-I", "-S", str(LAUNCHER), *options, *argv]


def run_to_end(
    what: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    seconds_max: float,
    *,
    folder: str | None = None,
    user: str | None = None,
) -> None:
    """Run a program that must end well within its time, in `folder` (None: ours), as `user`.
    `EmbeddedError`: `what` could not be done, and why: its last line, or the time that it had.
    """
    try:
        done = subprocess.run(
            launched(argv, user),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds_max,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EmbeddedError(
            f"{what}: not done within {seconds_max:g} s; is the machine or its disk overloaded?"
        ) from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise EmbeddedError(f"{what}: {said[-1] if said else f'exit code {done.returncode}'}.")


def grpc_serves(address: str, seconds: float = 1.0) -> bool:
    """Whether the gRPC health service at `address` says SERVING."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # Its types name no methods.
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=seconds)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def birth(pid: int) -> int | None:
    """When a living process was started, in clock ticks since boot; None when it does not live.

    With it a pid names one process for ever: the same number given to another has another birth.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else int(started)
