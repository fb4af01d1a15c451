from pathlib import Path

import pytest

from nocturne.embedded import logs


def test_a_log_over_its_bound_is_moved_aside_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES_MAX", 10)
    path = tmp_path / "kafka.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old line that is long\n")
        logs.rotate(tmp_path)
        writer.write(b"new line\n")
    assert path.read_bytes() == b"new line\n"
    assert (tmp_path / "kafka.log.1").read_bytes() == b"old line that is long\n"


def test_a_log_within_its_bound_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kafka.log"
    path.write_bytes(b"line\n")
    logs.rotate(tmp_path)
    assert path.read_bytes() == b"line\n"


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "kafka.log"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    assert logs.tail(path) == tuple(f"line {number}" for number in range(88, 100))


def test_a_log_that_is_not_there_has_no_tail(tmp_path: Path) -> None:
    assert logs.tail(tmp_path / "absent.log") == ()
