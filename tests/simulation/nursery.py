"""Run pytest again and again, each time in a fork of a process that has imported what every run
needs of other packages: that is most of what a short run takes.

A line of JSON on standard input asks for a run (`Asked`), one on standard output answers it
(`Answer`). It ends with its input. Nothing of nocturne is imported before the fork, for each run
has a copy of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import pytest

IMPORTED: Final = (
    "confluent_kafka",
    "fastavro",
    "google.protobuf.descriptor_pool",
    "google.protobuf.internal.python_message",
    "google.rpc.error_details_pb2",
    "grpc.aio",
    "grpc_health.v1.health",
    "grpc_reflection.v1alpha.reflection",
    "hypothesis.strategies",
    "nacl.bindings",
    "prometheus_client",
    "pydantic_settings",
    "structlog",
)
WRONG: Final = 4
"""pytest's own exit code for a run that was set up wrongly."""
LATE: Final = -1
"""Of a run that did not end in time."""
POLL_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Asked:
    """Run pytest with these arguments, with the package in `folder`; what it prints goes to the
    file `output`.
    """

    folder: str
    arguments: Sequence[str]
    environment: dict[str, str]
    output: str
    seconds_max: float


@dataclass(frozen=True, slots=True)
class Answer:
    """pytest's exit code, or `LATE`; and the seconds of a processor."""

    code: int
    seconds: float


def main() -> None:
    """As the module says."""
    for name in IMPORTED:
        importlib.import_module(name)
    assert "nocturne" not in sys.modules
    for line in sys.stdin:
        answer = _forked(Asked(**json.loads(line)))
        print(json.dumps(asdict(answer)), flush=True)


def _forked(asked: Asked) -> Answer:
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(asked)
    code: int | None = None
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            seconds = used.ru_utime + used.ru_stime
            return Answer(os.waitstatus_to_exitcode(status) if code is None else code, seconds)
        if code is None and time.monotonic() - started > asked.seconds_max:
            code = LATE
            os.kill(child, 9)
        time.sleep(POLL_SECONDS)


def _run(asked: Asked) -> None:
    """In the child, which ends here whatever happens."""
    code = WRONG
    try:
        output = os.open(asked.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for file, standard in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(file, standard)
        os.environ.update(asked.environment)
        sys.path.insert(0, asked.folder)
        found = importlib.import_module("nocturne").__file__
        if found is not None and found.startswith(asked.folder):
            code = int(pytest.main(list(asked.arguments)))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
