"""Certificates and keys in files: what is told from a good pair before anybody relies on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.certificates import CLIENT, DAY, SERVER, Authority, Made, encrypted

from nocturne.runtime.certificates import (
    PEM_BYTES_MAX,
    CertificateFault,
    Pair,
    expiry_of,
    read_authorities,
    read_pair,
)

AUTHORITY = Authority()
GOOD = AUTHORITY.make("server", "localhost", use=SERVER)


def pair_of(made: Made) -> Pair:
    return Pair(made.certificate, made.key)


def test_a_pair_that_belongs_together_is_read(tmp_path: Path) -> None:
    pair = read_pair(*GOOD.write(tmp_path, "server"))
    assert pair == pair_of(GOOD)
    assert "PRIVATE KEY" not in repr(pair)


def test_a_chain_and_a_key_in_one_file_are_read(tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    file.write_bytes(GOOD.certificate + AUTHORITY.certificate + GOOD.key)
    assert read_pair(file, file).certificate == file.read_bytes()


@pytest.mark.parametrize(
    "certificate, key, sentence",
    [
        (GOOD.certificate, AUTHORITY.make("other").key, "is not the one of the certificate in"),
        (GOOD.certificate[:300], GOOD.key, "expected a certificate and its private key in PEM"),
        (GOOD.certificate, GOOD.key[:100], "expected a certificate and its private key in PEM"),
        (GOOD.key, GOOD.key, "expected a certificate and its private key in PEM"),
        (b"", GOOD.key, "expected PEM, got no -----BEGIN line"),
        (b"\x30\x82", GOOD.key, "expected PEM, got no -----BEGIN line"),
        (GOOD.certificate.ljust(PEM_BYTES_MAX + 1), GOOD.key, "expected at most"),
        (GOOD.certificate, encrypted(GOOD).key, "the key is encrypted"),
        # What is missing in one file is not looked for in the other: gRPC would not find it.
        (GOOD.key, GOOD.certificate, "expected a certificate and its private key in PEM"),
        (
            GOOD.certificate + GOOD.key,
            AUTHORITY.certificate,
            "expected a certificate and its private key in PEM",
        ),
    ],
    # Named, for what is in them differs from run to run.
    ids=[
        "mismatch",
        "half",
        "half key",
        "no certificate",
        "empty",
        "der",
        "too long",
        "encrypted",
        "changed places",
        "key elsewhere",
    ],
)
def test_what_is_no_pair_is_refused_in_words(
    tmp_path: Path, certificate: bytes, key: bytes, sentence: str
) -> None:
    with pytest.raises(CertificateFault, match=sentence) as caught:
        read_pair(*Made(certificate, key).write(tmp_path, "server"))
    assert len(str(caught.value)) < 500


P521 = ec.generate_private_key(ec.SECP521R1())


@pytest.mark.parametrize(
    "key, form, name",
    [
        (ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8, "Ed25519"),
        (ed448.Ed448PrivateKey.generate(), PrivateFormat.PKCS8, "Ed448"),
        (P521, PrivateFormat.PKCS8, "the curve P-521"),
        (P521, PrivateFormat.TraditionalOpenSSL, "the curve P-521"),
    ],
    ids=["ed25519", "ed448", "p521", "p521 of old"],
)
def test_a_key_with_which_no_grpc_client_could_be_met_is_refused(
    tmp_path: Path, key: Any, form: PrivateFormat, name: str
) -> None:
    pem = key.private_bytes(Encoding.PEM, form, NoEncryption())
    with pytest.raises(CertificateFault, match=f"is of {name}, which gRPC does not take"):
        read_pair(*Made(GOOD.certificate, pem).write(tmp_path, "server"))


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256R1()),
    ],
    ids=["rsa", "p384", "p256"],
)
def test_usual_keys_are_not_taken_for_others(tmp_path: Path, key: Any) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    with pytest.raises(CertificateFault, match=r"is not the one of|private key in PEM"):
        read_pair(*Made(GOOD.certificate, pem).write(tmp_path, "server"))


def test_a_bundle_may_have_names_in_any_script_in_its_comments(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_bytes("# Főtanúsítvány\n".encode() + AUTHORITY.certificate)
    assert read_authorities(file) == file.read_bytes()
    half = len(AUTHORITY.certificate) // 2
    file.write_bytes(AUTHORITY.certificate[:half] + b"\xff" + AUTHORITY.certificate[half:])
    with pytest.raises(CertificateFault, match="authorit"):
        read_authorities(file)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    certificate, key = GOOD.write(tmp_path, "server")
    certificate.unlink()
    with pytest.raises(CertificateFault, match=r"server\.crt: cannot be read \(No such file"):
        read_pair(certificate, key)


def test_authorities_are_read_all_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    both = AUTHORITY.certificate + Authority("other").certificate
    file.write_bytes(both)
    assert read_authorities(file) == both
    for bad in (both[:-40], GOOD.key, b"-----BEGIN nothing", b"-----BEGIN \xff"):
        file.write_bytes(bad)
        with pytest.raises(CertificateFault, match="authorit"):
            read_authorities(file)


def test_a_certificate_says_when_it_expires() -> None:
    for made, of_client in (
        (GOOD, False),
        (AUTHORITY.make("client", use=CLIENT), True),
        (AUTHORITY.make("either"), False),
        (AUTHORITY.make("either"), True),
    ):
        said = x509.load_pem_x509_certificate(made.certificate).not_valid_after_utc
        assert expiry_of(pair_of(made), of_client=of_client) == said.timestamp()


@pytest.mark.parametrize(
    "made, of_client, sentence",
    [
        (AUTHORITY.make("s", begins=-2 * DAY, ends=-DAY), False, "has expired"),
        (AUTHORITY.make("s", begins=-2 * DAY, ends=-DAY), True, "has expired"),
        (AUTHORITY.make("s", begins=DAY, ends=2 * DAY), False, "is not valid yet"),
        (AUTHORITY.make("s", use=CLIENT), False, "is not for this use"),
        (AUTHORITY.make("s", use=SERVER), True, "is not for this use"),
    ],
    ids=["expired", "expired client", "early", "client's", "server's"],
)
def test_a_certificate_that_a_peer_would_refuse_is_refused(
    made: Made, of_client: bool, sentence: str
) -> None:
    with pytest.raises(CertificateFault, match=sentence):
        expiry_of(pair_of(made), of_client=of_client)
