import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nocturne.embedded import reservations
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.reservations import Reservations


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_port_is_reserved_once_even_while_nobody_listens(tmp_path: Path) -> None:
    port = free_port()
    mine, yours = Reservations(tmp_path / "ports"), Reservations(tmp_path / "ports")
    assert mine.take(port)
    assert not yours.take(port)
    assert not mine.take(port)
    mine.close()
    assert yours.take(port)
    yours.close()


def test_a_port_that_somebody_listens_on_is_not_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not Reservations(tmp_path / "ports").take(server.getsockname()[1])


def test_what_a_killed_process_had_reserved_is_free_again(tmp_path: Path) -> None:
    port = free_port()
    program = (
        "import os, sys; from pathlib import Path\n"
        "from nocturne.embedded.reservations import Reservations\n"
        "kept = Reservations(Path(sys.argv[1])); assert kept.take(int(sys.argv[2]))\n"
        "print('taken', flush=True); sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "ports"), str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"taken\n"
        mine = Reservations(tmp_path / "ports")
        assert not mine.take(port)
        other.kill()
        other.wait(10)
        assert mine.take(port)
        mine.close()


def test_what_is_started_does_not_hold_the_reservation_on(tmp_path: Path) -> None:
    port = free_port()
    mine = Reservations(tmp_path / "ports")
    assert mine.take(port)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        mine.close()
        yours = Reservations(tmp_path / "ports")
        assert yours.take(port)
        yours.close()
        child.kill()


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ports").write_text("a file")
    with pytest.raises(EmbeddedError, match="set TMPDIR"):
        Reservations(tmp_path / "ports").take(free_port())


def test_a_link_in_the_place_of_a_ports_file_is_not_followed(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "ports").mkdir()
    (tmp_path / "ports" / str(port)).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EmbeddedError, match="cannot be reserved"):
        Reservations(tmp_path / "ports").take(port)
    assert not (tmp_path / "elsewhere").exists()


def test_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    mine, yours = Reservations(tmp_path / "ports"), Reservations(tmp_path / "ports")
    ports = [free_port(), free_port()]
    assert mine.take(ports[0])
    assert yours.take(ports[1])
    mine.close()
    assert not mine.take(ports[1])
    yours.close()
    assert not (tmp_path / "ports").exists()


def test_a_file_that_its_holder_removed_reserves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder ends between another's opening of the file and its locking it."""
    port = free_port()
    first, second, third = (Reservations(tmp_path / "ports") for _ in range(3))
    assert first.take(port)
    real = reservations.take

    def after_the_first_ended(descriptor: int) -> bool:
        first.close()
        return real(descriptor)

    monkeypatch.setattr(reservations, "take", after_the_first_ended)
    assert second.take(port)
    assert not third.take(port)
    second.close()


def test_a_folder_that_the_last_to_leave_takes_away_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, taken = tmp_path / "ports", list[bool]()
    look = Path.lstat

    def taken_away_once(path: Path) -> object:
        if path == folder and not taken:
            taken.append(True)
            folder.rmdir()
        return look(path)

    monkeypatch.setattr(Path, "lstat", taken_away_once)
    mine = Reservations(folder)
    assert mine.take(free_port())
    assert taken
    mine.close()
