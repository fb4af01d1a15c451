"""Sealed payloads on the command line: submit --seal, events, state, and the subjects' keys."""

import json
import stat
from pathlib import Path

import pytest
from tests.unit.cli.memory_ledger import Shell

from nocturne.client.sealing import make_subject_key
from nocturne.client.subject_store import SubjectStore
from nocturne.core.commands import SEALED_CONTENT_TYPE

SECRET = '{"name":"Ada Lovelace"}'


@pytest.fixture
def reader(shell: Shell, tmp_path: Path) -> Shell:
    """Another person with a home of its own, on the same ledger."""
    return Shell(tmp_path / "reader", shell.ledger)


def seal(shell: Shell, kind: str = "document") -> None:
    arguments = ("submit", "people/1", "Told", SECRET, "--kind", kind, "--seal", "ada")
    assert shell.run(*arguments) == 0, shell.err


def share(shell: Shell, reader: Shell, file: Path) -> None:
    """The key of ada, from one to the other."""
    key = reader.json("keys", "new", "reader")["key"]
    assert shell.run("subjects", "share", "ada", str(file), "--with", key) == 0, shell.err
    assert reader.run("subjects", "import", str(file), "--name", "ada") == 0, reader.err


def test_a_payload_is_sealed_before_it_is_signed(shell: Shell) -> None:
    seal(shell)
    (signed,) = shell.ledger.commands
    assert signed.command.events[0].content_type == SEALED_CONTENT_TYPE
    assert b"Lovelace" not in signed.payloads[0].data
    assert "Made the key of ada" in shell.err
    file = shell.home / "keys" / "subjects" / "ada.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shell.run("submit", "people/1", "Told", "{}", "--seal", "ada")
    assert "Made the key of" not in shell.err


def test_who_has_the_key_reads_and_who_has_not_sees_that_it_is_sealed(
    shell: Shell, reader: Shell
) -> None:
    seal(shell)
    (told,) = shell.json_lines("events", "people/1")
    assert (told["sealed"], told["erased"]) == (True, False)
    assert told["unsealed"] == {"contentType": "application/json", "payload": json.loads(SECRET)}
    (other,) = reader.json_lines("events", "people/1")
    assert other["unsealed"] is None
    assert {**told, "unsealed": None} == other
    assert other["payloadBase64"]
    assert other["contentType"] == SEALED_CONTENT_TYPE
    shell.run("events", "people/1")
    assert "Ada Lovelace" in shell.out
    assert "(unsealed)" in shell.out
    reader.run("events", "people/1")
    assert f"(sealed, subject key {told['subjectKey']}, " in reader.out
    assert "Lovelace" not in reader.out


def test_a_plain_payload_is_shown_as_ever(shell: Shell) -> None:
    shell.run("submit", "people/1", "Told", SECRET)
    (told,) = shell.json_lines("events", "people/1")
    assert "sealed" not in told


def test_the_state_is_folded_here_with_the_key_and_says_so(shell: Shell, reader: Shell) -> None:
    seal(shell)
    shell.run("submit", "people/1", "Told", '{"born":1815}')
    told = shell.json("state", "people/1")
    assert told["state"] == {"document": {"name": "Ada Lovelace", "born": 1815}, "skipped": 0}
    assert (told["foldedHere"], told["unsealedPayloads"]) == (True, 1)
    other = reader.json("state", "people/1")
    assert other["state"] == {"document": {"born": 1815}, "skipped": 1}
    assert (other["foldedHere"], other["unsealedPayloads"]) == (False, 0)
    assert told["headHash"] == other["headHash"]
    shell.run("state", "people/1", "--at", "1")
    assert "Folded here, from the session's checked events: 1 sealed payload opened." in shell.err
    assert shell.json("state", "people/1", "--at", "1")["sequenceNumber"] == 1


def test_a_key_is_shared_with_one_reader_through_a_file(
    shell: Shell, reader: Shell, tmp_path: Path
) -> None:
    seal(shell)
    share(shell, reader, tmp_path / "ada.key")
    assert "From the holder of ed25519-" in reader.err
    (told,) = reader.json_lines("events", "people/1")
    assert told["unsealed"]["payload"] == json.loads(SECRET)
    stranger = Shell(tmp_path / "stranger", shell.ledger)
    stranger.run("keys", "new", "eve")
    assert stranger.run("subjects", "import", str(tmp_path / "ada.key")) == 1
    assert "which is no key of this home" in stranger.err


def test_sharing_names_a_public_key_and_never_writes_over_a_file(
    shell: Shell, tmp_path: Path
) -> None:
    seal(shell)
    file = tmp_path / "ada.key"
    author = shell.json_lines("keys", "list")[0]
    assert shell.run("subjects", "share", "ada", str(file), "--with", author["author"]) == 2
    assert "an author id is only the hash" in shell.err
    assert shell.run("subjects", "share", "bob", str(file), "--with", author["key"]) == 2
    assert "There is no key of bob here" in shell.err
    assert shell.run("subjects", "share", "ada", str(file), "--with", "default") == 0
    before = file.read_bytes()
    assert shell.run("subjects", "share", "ada", str(file), "--with", author["key"]) == 2
    assert file.read_bytes() == before
    (shell.home / "keys/subjects/ada.json").rename(tmp_path / "lost")
    assert shell.run("subjects", "import", str(file), "--name", "ada") == 0
    assert "Lovelace" in shell.json_lines("events", "people/1")[0]["unsealed"]["payload"]["name"]


def test_a_destroyed_key_erases_and_the_proofs_stay(
    shell: Shell, reader: Shell, tmp_path: Path
) -> None:
    seal(shell)
    share(shell, reader, tmp_path / "ada.key")
    assert shell.run("subjects", "destroy", "ada", "--yes") == 0
    assert reader.run("subjects", "destroy", "ada", "--yes") == 0
    for one in (shell, reader):
        (told,) = one.json_lines("events", "people/1")
        assert (told["sealed"], told["erased"], told["unsealed"]) == (True, True, None)
        one.run("events", "people/1")
        assert "(erased, its key was destroyed here, " in one.out
        assert one.json("state", "people/1")["foldedHere"] is False
        assert one.json_lines("subjects", "list") == []
    assert reader.run("subjects", "import", str(tmp_path / "ada.key"), "--name", "ada") == 2
    assert "not taken in again" in reader.err
    export = str(tmp_path / "export")
    trust = f"sha256-{shell.ledger.ledger_id.hex()}"
    assert shell.run("export", "people/1", export) == 0
    assert shell.run("verify", export, "--trust", trust) == 0


def test_destroying_asks_first(shell: Shell) -> None:
    seal(shell)
    assert shell.run("subjects", "destroy", "ada") == 2
    assert "Say --yes" in shell.err
    shell.says = "no\n"
    assert shell.run("subjects", "destroy", "ada") == 1
    assert "Nothing was changed" in shell.err
    assert len(shell.json_lines("subjects", "list")) == 1
    shell.says = "yes\n"
    assert shell.run("subjects", "destroy", "ada") == 0
    assert "can ever be read again" in shell.questions[-1]
    assert shell.json_lines("subjects", "list") == []


def test_a_repetition_by_id_seals_the_same_bytes(shell: Shell) -> None:
    arguments = ("submit", "people/1", "Told", SECRET, "--seal", "ada")
    told = shell.json(*arguments)
    again = shell.json(*arguments, "--id", told["commandId"])
    first, second = shell.ledger.commands
    assert first == second
    assert again["repeated"] is True


def test_two_payloads_never_share_a_nonce(shell: Shell) -> None:
    for _ in range(2):
        shell.run("submit", "people/1", "Told", SECRET, "--seal", "ada")
    first, second = (signed.payloads[0].data for signed in shell.ledger.commands)
    assert first != second


def test_a_payload_too_large_once_sealed_is_said_before_it_is_sent(
    shell: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "large.json"
    file.write_text(json.dumps("x" * 300_000))
    assert shell.run("submit", "people/1", "Told", f"@{file}", "--seal", "ada") == 1
    assert "once it is sealed, and this ledger takes" in shell.err
    assert shell.ledger.commands == []


def test_a_kind_that_reads_payloads_refuses_a_sealed_one_in_words(shell: Shell) -> None:
    arguments = ("submit", "people/1", "Told", "{}", "--kind", "balances", "--seal", "ada")
    assert shell.run(*arguments) == 1
    assert "INVARIANT_VIOLATION  payload.plain" in shell.out
    assert "leave --seal away" in shell.out


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-", "é", "x" * 200])
def test_a_subject_that_is_no_name_is_bad_use(shell: Shell, name: str) -> None:
    assert shell.run("submit", "people/1", "Told", "{}", f"--seal={name}") == 2
    assert "no name for a subject" in shell.err
    assert shell.ledger.commands == []


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 5000])
def test_a_file_that_is_no_share_is_one_sentence(
    shell: Shell, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    assert shell.run("subjects", "import", str(file)) == 1
    assert "holds no subject key for this home" in shell.err
    assert shell.err.count("\n") == 1


def test_an_empty_home_has_no_subjects_and_is_not_made_by_looking(shell: Shell) -> None:
    assert shell.run("subjects", "list") == 0
    assert shell.out == ""
    assert not shell.home.exists()


def test_no_subject_key_is_ever_printed(shell: Shell, tmp_path: Path) -> None:
    seal(shell)
    secret = json.loads((shell.home / "keys/subjects/ada.json").read_text())["key"]
    shell.run("keys", "new", "me")
    for command in (
        ["subjects", "list"],
        ["subjects", "list", "--json"],
        ["subjects", "share", "ada", str(tmp_path / "a"), "--with", "me", "--json"],
        ["events", "people/1", "--json"],
        ["subjects", "destroy", "ada", "--yes", "--json"],
    ):
        shell.run(*command)
        assert secret not in shell.out + shell.err


@pytest.mark.parametrize("damage", ["mode", "bytes"])
def test_one_key_file_that_cannot_be_used_stops_nothing_else(shell: Shell, damage: str) -> None:
    seal(shell)
    # The shell's dice fall alike in every run: bob needs a key that is not ada's.
    store = SubjectStore(shell.home / "keys" / "subjects")
    store.add("bob", make_subject_key(bytes(range(48))))
    assert shell.run("submit", "people/1", "Told", "{}", "--seal", "bob") == 0
    file = shell.home / "keys" / "subjects" / "bob.json"
    if damage == "mode":
        file.chmod(0o644)
    else:
        file.write_bytes(b"{}")
    assert shell.run("subjects", "list", "--json") == 1
    assert [json.loads(line)["subject"] for line in shell.out.splitlines()] == ["ada"]
    assert "1 file of subject keys cannot be used" in shell.err
    assert str(file) in shell.err
    first, second = shell.json_lines("events", "people/1")
    assert str(file) in shell.err
    assert first["unsealed"]["payload"] == json.loads(SECRET)
    assert second["unsealed"] is None
    assert shell.json("state", "people/1")["unsealedPayloads"] == 1
    assert str(file) in shell.err


def test_the_folder_of_all_keys_is_closed_with_the_first_subject(shell: Shell) -> None:
    shell.home.mkdir(mode=0o755)
    (shell.home / "keys").mkdir(mode=0o755)
    seal(shell)
    assert stat.S_IMODE((shell.home / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE(shell.home.stat().st_mode) == 0o755
