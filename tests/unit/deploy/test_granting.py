"""The jobs that grant: passwords from a folder, and how wrong settings end them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nocturne.deploy import database, topics
from nocturne.deploy.granting import passwords_of
from nocturne.runtime.secrets import SecretFault

WANTED = {"kafka-command": False, "kafka-consumer": True}


def test_without_a_folder_there_are_no_passwords() -> None:
    assert passwords_of(None, WANTED) == {}


def test_a_password_that_may_be_missing_may_and_another_may_not(tmp_path: Path) -> None:
    with pytest.raises(SecretFault, match="kafka-command cannot be read"):
        passwords_of(tmp_path, WANTED)
    (tmp_path / "kafka-command").write_text("one\n")
    assert passwords_of(tmp_path, WANTED) == {"kafka-command": "one"}
    (tmp_path / "kafka-consumer").write_text("two\n")
    assert passwords_of(tmp_path, WANTED) == {"kafka-command": "one", "kafka-consumer": "two"}
    (tmp_path / "kafka-consumer").write_text("")
    with pytest.raises(SecretFault, match="kafka-consumer: expected one printable line"):
        passwords_of(tmp_path, WANTED)


def test_wrong_settings_are_named_one_a_line_and_end_the_jobs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["job"])
    monkeypatch.setenv("NOCTURNE_TOPIC_REPLICAS", "1")
    monkeypatch.setenv("NOCTURNE_TOPIC_MIN_INSYNC_REPLICAS", "2")
    monkeypatch.setenv("NOCTURNE_KAFKA_ACLS", "all")
    monkeypatch.setenv("NOCTURNE_WAIT_SECONDS", "0")
    assert (topics.main(), database.main()) == (2, 2)
    said = capsys.readouterr().err
    for name in ("KAFKA_BOOTSTRAP", "GENESIS_FILE", "KAFKA_ACLS", "WAIT_SECONDS"):
        assert f"topics: NOCTURNE_{name}: " in said
    assert "topics: NOCTURNE_TOPIC_MIN_INSYNC_REPLICAS: Value error, expected at most 1" in said
    assert "database: NOCTURNE_POSTGRES_DSN: " in said
