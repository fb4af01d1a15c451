from pathlib import Path

from nocturne.embedded import status
from nocturne.embedded.status import Health, ServiceStatus, Status


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    told = Status(
        supervisor=4711,
        ready=False,
        error="kafka was given up.",
        details=("last line",),
        services=(ServiceStatus("kafka", None, None, 19092, Health.GIVEN_UP, 20),),
    )
    status.write(tmp_path / "status.json", told)
    assert status.read(tmp_path / "status.json") == told
    assert told.address("kafka") == "127.0.0.1:19092"


def test_a_home_that_never_ran_has_nothing_to_say(tmp_path: Path) -> None:
    assert status.read(tmp_path / "status.json") == status.NOTHING
