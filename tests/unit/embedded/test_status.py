from pathlib import Path

import pytest

from nocturne.embedded import status
from nocturne.embedded.errors import EmbeddedError
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


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"[" * 2000,
        b'{"supervisor": 1}',
        b'{"supervisor":null,"ready":true,"error":null,"details":[],"services":[{"name":"x"}]}',
    ],
)
def test_a_file_that_says_something_else_is_refused_with_the_way_out(
    tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "status.json").write_bytes(data)
    with pytest.raises(EmbeddedError, match="remove the file"):
        status.read(tmp_path / "status.json")
