"""Passwords that are made once and handed each to who needs it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nocturne.deploy import secrets
from nocturne.deploy.secrets import Request, SecretsFault, hand_over, parse_request
from nocturne.runtime.home import held_alone

UID = os.geteuid()


def places(tmp_path: Path, *names: str) -> tuple[Path, Path]:
    home, kept = tmp_path / "home", tmp_path / "kept"
    kept.mkdir()
    for name in names:
        (home / name).mkdir(parents=True)
    return home, kept


def test_one_secret_is_the_same_wherever_it_is_needed_and_no_two_are_alike(tmp_path: Path) -> None:
    home, kept = places(tmp_path, "command", "topics")
    hand_over(
        [Request("one", UID, ("command", "topics")), Request("two", UID, ("topics",))], home, kept
    )
    assert (home / "command/one").read_bytes() == (home / "topics/one").read_bytes()
    assert (home / "topics/one").read_bytes() != (home / "topics/two").read_bytes()
    assert not (home / "command/two").exists()


def test_a_secret_is_one_line_without_an_end_and_its_owner_alone_reads_it(tmp_path: Path) -> None:
    home, kept = places(tmp_path, "command")
    hand_over([Request("one", UID, ("command",))], home, kept)
    for path in (home / "command/one", kept / "one"):
        data = path.read_bytes()
        assert len(data) == 43
        assert not data.split()[1:]
        assert data == data.strip()
        assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    home, kept = places(tmp_path, "command")
    requests = [Request("one", UID, ("command",)), Request("own", UID, ("command",))]
    hand_over(requests, home, kept)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    hand_over(requests, home, kept)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_a_crash_left_out_is_put_there_and_what_was_changed_is_changed_back(
    tmp_path: Path,
) -> None:
    home, kept = places(tmp_path, "command", "topics")
    request = Request("one", UID, ("command", "topics"))
    hand_over([request], home, kept)
    (home / "topics/one").unlink()
    (home / "command/one").chmod(0o600)
    (home / "command/one").write_text("another")
    (home / "topics/.one.new").write_text("half")
    hand_over([request], home, kept)
    assert (home / "topics/one").read_bytes() == (kept / "one").read_bytes()
    assert (home / "command/one").read_bytes() == (kept / "one").read_bytes()
    assert [path.name for path in (home / "topics").iterdir()] == ["one"]


def test_a_secret_that_is_removed_is_made_anew_everywhere(tmp_path: Path) -> None:
    home, kept = places(tmp_path, "command")
    hand_over([Request("one", UID, ("command",))], home, kept)
    before = (home / "command/one").read_bytes()
    (kept / "one").unlink()
    hand_over([Request("one", UID, ("command",))], home, kept)
    assert (home / "command/one").read_bytes() == (kept / "one").read_bytes() != before


def test_a_folder_that_is_nobodys_mount_is_refused(tmp_path: Path) -> None:
    home, kept = places(tmp_path, "command")
    with pytest.raises(SecretsFault, match="there is no folder"):
        hand_over([Request("one", UID, ("comand",))], home, kept)
    assert not (home / "comand").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gives_each_file_and_folder_to_its_reader(tmp_path: Path) -> None:
    home, kept = places(tmp_path, "command", "keys")
    hand_over([Request("one", 10001, ("command",)), Request("own", 10001, ("keys",))], home, kept)
    assert (home / "command/one").stat().st_uid == (home / "keys").stat().st_uid == 10001
    assert (home / "command").stat().st_uid == (kept / "one").stat().st_uid == 0


def test_a_request_is_read_as_it_is_written() -> None:
    assert parse_request("kafka-command:10001=command,topics") == Request(
        "kafka-command", 10001, ("command", "topics")
    )
    assert parse_request("own:0=keys/signing").places == ("keys/signing",)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a=b", "a:1", "a:1=", "a:x=b", "a:1=../b", "a:1=/b", "A:1=b"),
        *("a:70000=b", "a:1=b,,c"),
    ],
)
def test_another_request_is_refused(text: str) -> None:
    with pytest.raises(SecretsFault, match="expected <secret>"):
        parse_request(text)


def test_the_job_says_how_many_and_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, kept = places(tmp_path, "command")
    monkeypatch.setenv("NOCTURNE_HOME_DIR", str(home))
    monkeypatch.setenv("NOCTURNE_SECRETS_DIR", str(kept))
    monkeypatch.setattr("sys.argv", ["secrets", f"one:{UID}=command"])
    assert secrets.main() == 0
    said = capsys.readouterr()
    assert said.out == "secrets: 1 secrets are where they are needed\n"
    monkeypatch.setattr("sys.argv", ["secrets", "nonsense"])
    assert secrets.main() == 1
    assert "expected <secret>" in capsys.readouterr().err
    monkeypatch.delenv("NOCTURNE_SECRETS_DIR")
    assert secrets.main() == 2


def test_two_jobs_at_once_do_not_hand_over_two_secrets_of_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, kept = places(tmp_path, "command")
    monkeypatch.setenv("NOCTURNE_HOME_DIR", str(home))
    monkeypatch.setenv("NOCTURNE_SECRETS_DIR", str(kept))
    monkeypatch.setattr("sys.argv", ["secrets", f"one:{UID}=command"])
    with held_alone(kept):
        assert secrets.main() == 1
    assert "in use by another process" in capsys.readouterr().err
    assert not list((home / "command").iterdir())
    assert secrets.main() == 0


def test_a_secret_is_on_the_disk_before_anybody_is_initialized_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, kept = places(tmp_path, "command")
    synced: list[tuple[str, bool]] = []

    def sync(folder: Path) -> None:
        synced.append((folder.name, (home / "command/one").exists()))

    monkeypatch.setattr(secrets, "sync_folder", sync)
    hand_over([Request("one", UID, ("command",))], home, kept)
    assert synced == [("kept", False), ("command", True)]
