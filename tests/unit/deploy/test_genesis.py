"""`python -m nocturne.deploy.genesis`: one job, or each member by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from nocturne.core.genesis import decode_genesis
from nocturne.deploy import genesis
from nocturne.deploy.contributions import Role, decode_contribution
from nocturne.runtime import journal
from nocturne.runtime.home import held_alone

Captured = pytest.CaptureFixture[str]


class Job:
    """Runs a step with these settings and nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def run(self, *arguments: str, **settings: object) -> int:
        with self._patch.context() as patch:
            patch.setattr("sys.argv", ["genesis", *arguments])
            for name, value in settings.items():
                patch.setenv(f"NOCTURNE_{name.upper()}", str(value))
            return genesis.main()


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    for name in ("HOME_DIR", "GENESIS_FILE", "VALIDATORS", "KEY_FILE"):
        monkeypatch.delenv(f"NOCTURNE_{name}", raising=False)
    return Job(monkeypatch)


def test_one_job_founds_the_ledger_and_says_which(
    job: Job, tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "genesis" / "genesis.avro"
    settings = {"home_dir": tmp_path, "genesis_file": file, "partitions": 7, "validators": 2}
    assert job.run(**settings) == 0
    said = capsys.readouterr().out
    assert said.startswith("genesis: the ledger sha256-")
    assert decode_genesis(file.read_bytes()).partitions == 7
    assert job.run("found", **settings) == 0
    assert capsys.readouterr().out == said
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {
        "consensus-0",
        "consensus-1",
        "operator",
        "signing",
    }


def test_two_jobs_at_once_do_not_both_found(job: Job, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "genesis" / "genesis.avro"
    with held_alone(file.parent):
        assert job.run(home_dir=tmp_path, genesis_file=file) == 1
    assert "in use by another process" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.key"))
    assert job.run(home_dir=tmp_path, genesis_file=file) == 0


def test_members_that_share_no_folder_found_a_ledger_by_files(job: Job, tmp_path: Path) -> None:
    handed_over = tmp_path / "contributions"
    handed_over.mkdir()
    genesis_file = tmp_path / "genesis.avro"
    members = {
        role: {"role": role, "key_file": tmp_path / role / "key", "home_dir": tmp_path / role}
        for role in ("validator", "authority", "operator")
    }
    for role, member in members.items():
        file = handed_over / f"{role}.json"
        assert job.run("contribute", contribution_file=file, **member) == 0
    composing = {"contributions_dir": handed_over, "genesis_file": genesis_file}
    assert job.run("compose", validators=1, **composing) == 0
    first = genesis_file.read_bytes()
    assert job.run("compose", validators=1, **composing) == 0
    assert genesis_file.read_bytes() == first
    for member in members.values():
        assert job.run("complete", genesis_file=genesis_file, **member) == 0
    assert (tmp_path / "validator" / "journal").is_dir()
    assert not (tmp_path / "authority" / "journal").exists()


def test_a_member_of_a_ledger_hands_nothing_over_again(
    job: Job, tmp_path: Path, capsys: Captured
) -> None:
    assert job.run(home_dir=tmp_path, genesis_file=tmp_path / "genesis.avro") == 0
    key = tmp_path / "keys" / "signing" / "authority.key"
    file = tmp_path / "again.json"
    assert job.run("contribute", role="authority", key_file=key, contribution_file=file) == 0
    assert "belongs to a ledger already" in capsys.readouterr().out
    assert not file.exists()


def test_a_genesis_that_is_there_is_never_composed_anew(
    job: Job, tmp_path: Path, capsys: Captured
) -> None:
    for ledger in ("one", "two"):
        for role in Role:
            folder = tmp_path / ledger
            folder.mkdir(exist_ok=True)
            key = folder / f"{role}.key"
            file = folder / f"{role}.json"
            settings = {"role": role, "key_file": key, "home_dir": folder / "home"}
            assert job.run("contribute", contribution_file=file, **settings) == 0
    file = tmp_path / "genesis.avro"
    assert (
        job.run("compose", validators=1, contributions_dir=tmp_path / "one", genesis_file=file) == 0
    )
    before = file.read_bytes()
    assert (
        job.run("compose", validators=1, contributions_dir=tmp_path / "two", genesis_file=file) == 1
    )
    assert "a genesis is never changed" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_validator_more_is_made_for_a_ledger_that_is_founded(
    job: Job, tmp_path: Path, capsys: Captured
) -> None:
    genesis_file, file = tmp_path / "genesis.avro", tmp_path / "validator.json"
    home = tmp_path / "fifth"
    settings = {
        "home_dir": home,
        "key_file": home / "validator.key",
        "ordinal": 4,
        "contribution_file": file,
        "genesis_file": genesis_file,
    }
    assert job.run("admit", **settings) == 1, "there is no ledger yet"
    assert not home.exists()
    assert job.run(home_dir=tmp_path, genesis_file=genesis_file, validators=2) == 0
    capsys.readouterr()
    for _ in range(2):
        assert job.run("admit", **settings) == 0
        said = capsys.readouterr().out
        assert said.startswith(file.read_text())
        assert "it votes once operators have admitted it" in said
    made = decode_contribution(file.read_bytes())
    assert (made.role, made.ordinal) == (Role.VALIDATOR, 4)
    assert journal.exists(home / journal.FOLDER)
    assert job.run("admit", role="authority", **settings) == 2
    with held_alone(tmp_path / "sixth"):
        busy = {**settings, "home_dir": tmp_path / "sixth", "key_file": tmp_path / "sixth" / "k"}
        assert job.run("admit", **busy) == 1
    assert "in use by another process" in capsys.readouterr().err


def test_a_contribution_that_is_none_is_named(job: Job, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "validator.json").write_text("{}")
    assert (
        job.run("compose", validators=1, contributions_dir=tmp_path, genesis_file=tmp_path / "g")
        == 1
    )
    assert "validator.json: contribution: expected a member key" in capsys.readouterr().err


def test_more_validators_than_a_ledger_has_are_refused_before_anything_is_made(
    job: Job, tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "genesis.avro"
    assert job.run(home_dir=tmp_path / "home", genesis_file=file, validators=32) == 1
    assert "founded with 1 to 31 validators, got 32" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_which_nobody_says_how_many_has_four_validators(
    job: Job, tmp_path: Path
) -> None:
    file = tmp_path / "genesis.avro"
    assert job.run(home_dir=tmp_path / "home", genesis_file=file) == 0
    assert len(decode_genesis(file.read_bytes()).validators) == 4


@pytest.mark.parametrize("asked", [1, 5])
def test_a_founded_ledger_keeps_its_number_of_validators(
    job: Job, tmp_path: Path, capsys: Captured, asked: int
) -> None:
    file = tmp_path / "genesis.avro"
    assert job.run(home_dir=tmp_path / "home", genesis_file=file, validators=4) == 0
    before = file.read_bytes()
    assert job.run(home_dir=tmp_path / "home", genesis_file=file, validators=asked) == 1
    assert f"founded with 4 validators, not {asked}" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert not (tmp_path / "home" / "keys" / "consensus-4").exists()


def test_what_is_not_set_is_named_with_exit_code_2(job: Job, capsys: Captured) -> None:
    assert job.run() == 2
    said = capsys.readouterr().err
    assert "NOCTURNE_GENESIS_FILE: Field required" in said
    assert "NOCTURNE_HOME_DIR: Field required" in said


def test_an_unknown_step_is_refused_with_those_there_are(job: Job, capsys: Captured) -> None:
    assert job.run("bury") == 2
    assert "found, contribute, compose, complete" in capsys.readouterr().err
