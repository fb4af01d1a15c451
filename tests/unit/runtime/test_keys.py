"""Key files: made once, closed to others, read back the same."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from nocturne.core.keys import Ed25519Signer, format_key
from nocturne.runtime.keys import KeyFileFault, create_key_file, load_signer, public_file


def test_a_key_is_read_back_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    made = create_key_file(path)
    assert load_signer(path).key == made.key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_file(path).read_text() == format_key(made.key[0]) + "\n"


def test_two_keys_differ(tmp_path: Path) -> None:
    assert create_key_file(tmp_path / "a").key != create_key_file(tmp_path / "b").key


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    made = create_key_file(path)
    with pytest.raises(KeyFileFault, match="not written over"):
        create_key_file(path)
    assert load_signer(path).key == made.key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "alice.key"
    create_key_file(path)
    path.chmod(mode)
    with pytest.raises(KeyFileFault, match=f"{mode:04o}"):
        load_signer(path)


def test_the_documented_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    seed = bytes(range(32))
    path.write_text(json.dumps({"suite": "ed25519", "seed": seed.hex()}) + "\n")
    path.chmod(0o600)
    assert load_signer(path).key == Ed25519Signer(seed).key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "nonsense",
        '{"suite": "ed25519", "seed": "00"}\n',
        '{"suite": "other", "seed": "' + "00" * 32 + '"}\n',
        '{"seed": "' + "00" * 32 + '", "suite": "ed25519"}\n',
        '{"suite": "ed25519", "seed": "' + "AB" * 32 + '"}\n',
        '{"suite": "ed25519", "seed": 5}\n',
        "[" * 4000,
    ],
)
def test_anything_else_is_no_key_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "alice.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileFault, match="not a key file"):
        load_signer(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileFault, match=r"nobody\.key"):
        load_signer(tmp_path / "nobody.key")
    with pytest.raises(KeyFileFault, match="cannot be written"):
        create_key_file(tmp_path / "no" / "folder.key")


def test_the_seed_is_not_what_a_fault_says(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    path.write_text('{"suite": "other", "seed": "' + "5e" * 32 + '"}\n')
    path.chmod(0o600)
    with pytest.raises(KeyFileFault) as caught:
        load_signer(path)
    assert "5e5e" not in str(caught.value)
