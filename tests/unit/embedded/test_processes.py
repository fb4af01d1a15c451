import os
import signal
import subprocess
import sys

import pytest

from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.processes import birth, launched, run_to_end

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


@pytest.mark.parametrize(
    "program, sentence",
    [
        ("print('one'); raise SystemExit('no room')", "It could not be made: no room."),
        ("raise SystemExit(3)", "It could not be made: exit code 3."),
        (LATER, "It could not be made: not done within 2 s; is the machine"),
    ],
)
def test_a_program_that_must_end_says_in_one_sentence_why_it_did_not(
    program: str, sentence: str
) -> None:
    with pytest.raises(EmbeddedError) as caught:
        run_to_end("It could not be made", [sys.executable, "-c", program], os.environ, 2)
    assert str(caught.value).startswith(sentence)


def test_a_program_that_ended_well_says_nothing() -> None:
    run_to_end("It could not be made", [sys.executable, "-c", "print(1)"], os.environ, 30)
