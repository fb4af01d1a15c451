import os
import signal
import subprocess
import sys

from nocturne.embedded.processes import birth, launched

LATER = "import time; time.sleep(60)"


def test_a_living_process_has_one_birth_and_a_dead_one_none() -> None:
    with subprocess.Popen([sys.executable, "-c", LATER]) as process:
        born = birth(process.pid)
        assert born is not None
        assert birth(process.pid) == born
        process.kill()
        process.wait()
    assert birth(process.pid) is None


def test_a_launched_program_keeps_its_pid_and_its_exit_code() -> None:
    done = subprocess.run(
        launched([sys.executable, "-c", "import os; print(os.getppid()); raise SystemExit(7)"]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (7, str(os.getpid()))


def test_a_program_that_does_not_exist_is_said_in_one_line() -> None:
    done = subprocess.run(launched(["/no/such/program"]), capture_output=True, check=False)
    assert done.returncode != 0
    assert done.stderr == b"/no/such/program: No such file or directory\n"


def test_a_launched_program_can_be_ended_by_its_pid() -> None:
    with subprocess.Popen(launched([sys.executable, "-c", LATER])) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
