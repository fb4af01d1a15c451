"""The validators of a home that do not answer."""

from pathlib import Path

from nocturne.cli.asking_validators import look
from nocturne.embedded import ceremony, lock, status
from nocturne.embedded.home import Home
from nocturne.embedded.status import Health, ServiceStatus, Status
from nocturne.runtime.lifecycle import CAUSE_CHARACTERS_MAX, HALTED_FILE

PORT_OF_NOBODY = 1


def test_who_has_halted_is_told_with_the_cause_in_its_folder_and_who_is_away_is_not(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "home")
    ceremony.ensure(home.root, 2)
    home.create()
    names = ("consensus-0", "consensus-1")
    gone = (ServiceStatus(name, None, None, PORT_OF_NOBODY, Health.GIVEN_UP, 1) for name in names)
    status.write(home.status, Status(None, False, None, (), tuple(gone)))
    (home.data("consensus-1") / HALTED_FILE).write_text("the log was changed\n" + "x" * 10_000)
    with lock.held(home.lock):
        away, halted = look(home, {}, 2.0).asked
    assert (away.said, away.halted) == (halted.said, False) == (None, False)
    assert halted.halted
    assert halted.problem is not None
    assert halted.problem.startswith("the log was changed\n")
    assert len(halted.problem) <= CAUSE_CHARACTERS_MAX
