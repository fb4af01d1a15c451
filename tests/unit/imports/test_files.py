"""Files that imports read: unpacked in bounded pieces, and every fault with its place."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.imports.files import CHUNK_BYTES, LINE_BYTES_MAX, InputFile
from nocturne.imports.records import SourceFault


def made(folder: Path, data: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@given(data=st.binary(max_size=200_000), is_packed=st.booleans())
def test_plain_and_packed_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, is_packed: bool
) -> None:
    if data.startswith(b"\x1f\x8b"):
        return
    path = made(tmp_path_factory.mktemp("f"), gzip.compress(data) if is_packed else data)
    file = InputFile(path)
    chunks = list(file.chunks())
    assert b"".join(chunks) == data
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)
    assert file.read_bytes <= file.size == path.stat().st_size
    assert b"".join(file.chunks()) == data


def test_lines_are_numbered_and_without_their_ends(tmp_path: Path) -> None:
    file = InputFile(made(tmp_path, b"a\r\n\nb"))
    assert list(file.lines()) == [(1, b"a"), (2, b""), (3, b"b")]


def test_a_line_without_an_end_is_not_collected(tmp_path: Path) -> None:
    file = InputFile(made(tmp_path, b"a\n" + b"x" * (2 * LINE_BYTES_MAX)))
    with pytest.raises(SourceFault, match=r"^line 2: expected at most 1048576 bytes"):
        list(file.lines())


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000), 9)
    assert len(bomb) < 100_000
    file = InputFile(made(tmp_path, bomb), bytes_max=1_000_000)
    taken: list[bytes] = []
    with pytest.raises(SourceFault, match=r"unpacks to more than 1000000 bytes.*--bytes-max"):
        taken.extend(file.chunks())
    assert sum(map(len, taken)) <= 1_000_000


@given(st.integers(0, 300))
def test_a_packed_file_that_was_cut_says_so(
    tmp_path_factory: pytest.TempPathFactory, kept: int
) -> None:
    packed = gzip.compress(os.urandom(200))
    kept = 2 + kept % (len(packed) - 3)
    file = InputFile(made(tmp_path_factory.mktemp("f"), packed[:kept]))
    with pytest.raises(SourceFault, match=r"^byte .* of the content: the packed file"):
        list(file.chunks())


def test_a_packed_file_with_a_changed_byte_says_so(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"night" * 1000))
    packed[-6] ^= 1
    with pytest.raises(SourceFault, match=r"the packed file is damaged"):
        list(InputFile(made(tmp_path, bytes(packed))).chunks())


def test_a_folder_and_a_file_that_is_not_there_are_the_systems_word(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        InputFile(tmp_path)
    with pytest.raises(FileNotFoundError):
        InputFile(tmp_path / "none")


def test_a_device_is_no_file_to_import() -> None:
    with pytest.raises(SourceFault, match=r"no regular file"):
        InputFile(Path("/dev/null"))


def test_a_named_pipe_is_no_file_to_import_and_nobody_waits_for_its_writer(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = (
        "import sys, pathlib; from nocturne.imports.files import InputFile;"
        "InputFile(pathlib.Path(sys.argv[1]))"
    )
    # In a process of its own, which can be ended should it wait.
    done = subprocess.run(
        [sys.executable, "-c", code, str(pipe)], capture_output=True, text=True, timeout=30
    )
    assert "no regular file" in done.stderr


def test_a_file_that_became_a_named_pipe_has_changed(tmp_path: Path) -> None:
    file = InputFile(made(tmp_path, b"a\n"))
    file.path.unlink()
    os.mkfifo(file.path)
    with pytest.raises(SourceFault, match="changed while it was imported"):
        list(file.lines())


def _grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more\n")


def _touched(path: Path) -> None:
    # As long as before, in place: only its time tells.
    path.write_bytes(b"b" * path.stat().st_size)
    os.utime(path, ns=(1, 1))


def _replaced(path: Path) -> None:
    found = path.stat()
    other = made(path.parent, b"c" * found.st_size, "other")
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


def _shortened(path: Path) -> None:
    os.truncate(path, 10)


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("change", [_grown, _touched, _replaced, _shortened])
def test_a_file_that_changed_between_two_readings_is_not_mixed(
    tmp_path: Path, change: Callable[[Path], None], is_packed: bool
) -> None:
    data = b"a" * 1000
    file = InputFile(made(tmp_path, gzip.compress(data) if is_packed else data))
    assert b"".join(file.chunks()) == data
    change(file.path)
    with pytest.raises(SourceFault, match=r"changed while it was imported.*import a copy"):
        next(file.chunks())


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("change", [_grown, _touched, _shortened])
def test_a_file_that_changes_while_it_is_read_gives_nothing_of_the_new(
    tmp_path: Path, change: Callable[[Path], None], is_packed: bool
) -> None:
    data = os.urandom(4 * CHUNK_BYTES)
    file = InputFile(made(tmp_path, gzip.compress(data) if is_packed else data))
    chunks = file.chunks()
    taken = next(chunks)
    change(file.path)
    with pytest.raises(SourceFault, match="changed while it was imported"):
        next(chunks)
    assert taken == data[: len(taken)]


def test_a_file_that_changes_after_its_last_piece_says_so(tmp_path: Path) -> None:
    file = InputFile(made(tmp_path, b"a\n"))
    lines = file.lines()
    assert next(lines) == (1, b"a")
    _touched(file.path)
    with pytest.raises(SourceFault, match="changed while it was imported"):
        next(lines)


@pytest.mark.parametrize(
    "name, stem",
    [
        ("permits.xes.gz", "permits"),
        ("a.b.csv", "a.b"),
        ("LOG.XES", "LOG"),
        ("notes", "notes"),
        (".gz", ".gz"),
    ],
)
def test_a_stem_is_the_name_without_how_it_is_written(tmp_path: Path, name: str, stem: str) -> None:
    assert InputFile(made(tmp_path, b"", name)).stem == stem
