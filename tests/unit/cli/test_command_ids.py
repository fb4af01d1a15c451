"""What a sealed payload's salt and nonce hang on: the subject key, and nothing that outlives it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.memory_ledger import Shell

from nocturne.cli import authors, command_ids
from nocturne.client.sealing import make_subject_key
from nocturne.client.subject_store import SubjectStore
from nocturne.core.encoding import domain, sha256, variable
from nocturne.core.identifiers import CommandId
from nocturne.core.keys import signatures_bytes
from nocturne.embedded.home import Home

IDENTITY = CommandId(bytes(16))
KEY = make_subject_key(bytes(range(48)))
OTHER = make_subject_key(bytes(range(16)) + bytes(32))


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_they_are_the_same_only_for_the_same_payload_and_key(first: bytes, second: bytes) -> None:
    for derive in (command_ids.sealed_salt, command_ids.sealed_nonce):
        made = derive(IDENTITY, "people/1", first, KEY)
        assert made == derive(IDENTITY, "people/1", first, KEY)
        assert (made == derive(IDENTITY, "people/1", second, KEY)) == (first == second)
        assert made != derive(IDENTITY, "people/2", first, KEY)
        # Both have one id, or the id alone would tell them apart.
        assert OTHER.id == KEY.id
        assert made != derive(IDENTITY, "people/1", first, OTHER)
    salt = command_ids.sealed_salt(IDENTITY, "people/1", first, KEY)
    assert not salt.startswith(command_ids.sealed_nonce(IDENTITY, "people/1", first, KEY))


def test_the_bytes_are_as_the_specification_says() -> None:
    place = variable(KEY.key) + IDENTITY + variable(b"people/1") + KEY.id + sha256(b"{}")
    salt = sha256(domain("nocturne/submit-sealed-salt/v1") + place)
    nonce = sha256(domain("nocturne/submit-sealed-nonce/v1") + place)[:24]
    assert command_ids.sealed_salt(IDENTITY, "people/1", b"{}", KEY) == salt
    assert command_ids.sealed_nonce(IDENTITY, "people/1", b"{}", KEY) == nonce


def test_the_authors_key_tests_no_guess_of_what_was_sealed(shell: Shell) -> None:
    assert shell.run("submit", "people/1", "Told", "{}", "--seal", "ada") == 0
    (signed,) = shell.ledger.commands
    signer = authors.load(Home(shell.home), "default").signer
    guessed = command_ids.salt(signed.command.command_id, "people/1", b"{}", signer)
    assert signed.payloads[0].salt != guessed
    place = signed.command.command_id + variable(b"people/1")
    key = SubjectStore(shell.home / "keys" / "subjects").named("ada")
    assert key is not None
    tag = domain("nocturne/submit-nonce/v1")
    signature = signatures_bytes(signer.sign(tag, place + key.id + sha256(b"{}")))
    assert sha256(tag + signature)[:24] not in signed.payloads[0].data
