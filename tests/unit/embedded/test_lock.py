import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nocturne.embedded import lock
from nocturne.embedded.errors import EmbeddedError

HOLD = """
import sys, time
from pathlib import Path
from nocturne.embedded.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.held(path):
        assert lock.holder(path) == os.getpid()
        with (
            pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}"),
            lock.held(path),
        ):
            pass
    assert lock.holder(path) is None


def test_nobody_holds_a_lock_that_was_never_made(tmp_path: Path) -> None:
    assert lock.holder(tmp_path / "lock") is None


def test_the_lock_of_a_dead_process_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert lock.holder(path) == holder.pid
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with lock.held(path):
        assert lock.holder(path) == os.getpid()
