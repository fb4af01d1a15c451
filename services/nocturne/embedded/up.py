"""Start, stop and ask an embedded ledger: what `nocturne up`, `down` and `status` call, and with
them `rebuild`.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from nocturne.embedded import downloads, lock, logs, run
from nocturne.embedded import status as statuses
from nocturne.embedded.downloads import Progress, ignore_progress
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import find
from nocturne.embedded.processes import birth
from nocturne.embedded.rebuild import rebuild
from nocturne.embedded.status import Status

__all__ = ["down", "rebuild", "status", "up"]

READY_SECONDS_MAX = 180.0
STOP_SECONDS_MAX = 45.0
POLL_SECONDS = 0.05


def up(
    home: Path | None = None,
    detach: bool = False,
    validators: int | None = None,
    progress: Progress = ignore_progress,
) -> Status:
    """Start the ledger of a home, or continue it.

    In the foreground this returns when the ledger was stopped; detached, once it is ready.
    `validators` is for a home that has no ledger yet; None: as many as usual.
    Raises EmbeddedError: one sentence, and in `details` the last lines of the log that tells why.
    """
    place = find(home, os.environ)
    if not detach:
        run.run(place, validators, progress)
        return status(home)
    place.create()
    if (pid := lock.holder(place.lock)) is not None:
        raise EmbeddedError(
            f"This home is in use by process {pid}: run 'nocturne down' first, or choose another "
            "home with --home."
        )
    # Here, where somebody watches the progress; the supervisor finds them done.
    downloads.ensure_kafka(downloads.cache_folder(os.environ), progress)
    return _detached(place.root, validators)


def down(home: Path | None = None) -> bool:
    """Stop the ledger of a home; False if none ran. EmbeddedError when it does not stop."""
    place = find(home, os.environ)
    pid = lock.holder(place.lock)
    if pid is None:
        return False
    born = birth(pid)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS_MAX
    # It lets the lock go a moment before its process is gone.
    while lock.holder(place.lock) == pid or (born is not None and birth(pid) == born):
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"The supervisor (pid {pid}) did not stop within {STOP_SECONDS_MAX:.0f} s: "
                f"'kill -9 {pid}' ends it and everything it started."
            )
        time.sleep(POLL_SECONDS)
    return True


def status(home: Path | None = None) -> Status:
    """What runs on a home; `supervisor` is None when nothing does."""
    place = find(home, os.environ)
    found = statuses.read(place.status)
    holder = lock.holder(place.lock)
    if found.supervisor == holder and holder is not None:
        return found
    # Written by a run that is over; a new one may be about to write its own.
    stopped = tuple(
        replace(service, pid=None, birth=None, health=statuses.Health.STOPPED)
        for service in found.services
    )
    return replace(found, supervisor=holder, ready=False, services=stopped)


def _detached(home: Path, validators: int | None) -> Status:
    place = find(home, os.environ)
    arguments = ["--home", str(home)]
    if validators is not None:
        arguments += ["--validators", str(validators)]
    with place.log("supervisor").open("ab") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", "nocturne.embedded.run", *arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + READY_SECONDS_MAX
    try:
        while started.poll() is None:
            found = statuses.read(place.status)
            if found.supervisor == started.pid and found.ready:
                return found
            if time.monotonic() > deadline:
                raise EmbeddedError(f"The ledger was not ready within {READY_SECONDS_MAX:.0f} s.")
            time.sleep(POLL_SECONDS)
    except (EmbeddedError, KeyboardInterrupt):
        # What did not become ready, or nobody waits for any more, does not stay behind.
        started.terminate()
        started.wait(STOP_SECONDS_MAX)
        raise
    raise _failure(started.pid, place.status, place.log("supervisor"))


def _failure(pid: int, status_file: Path, log: Path) -> EmbeddedError:
    found = statuses.read(status_file)
    if found.supervisor == pid and found.error is not None:
        return EmbeddedError(found.error, found.details)
    return EmbeddedError(
        f"The supervisor ended before the ledger was ready: see {log}.", logs.tail(log)
    )
