"""How Kafka and PostgreSQL are met: what fits together, what is refused, what is never shown."""

from __future__ import annotations

import logging
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, KafkaError
from pydantic import ValidationError
from tests.certificates import CLIENT, Authority, Made

from nocturne.core.errors import NocturneError, Unavailable
from nocturne.runtime import kafka
from nocturne.runtime.certificates import CertificateFault
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import Doorkeeper, consumer_config, producer_config
from nocturne.runtime.postgres import Database, check_dsn
from nocturne.runtime.secrets import SECRET_BYTES_MAX, SecretFault, read_secret
from nocturne.runtime.settings import ClusterSettings, DatabaseSettings

PASSWORD = "corRect-horse"
AUTHORITY = Authority()


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "kafka-command"
    path.write_text(PASSWORD + "\n")
    return path


def refusals(settings: type[ClusterSettings] | type[DatabaseSettings], **given: object) -> str:
    with pytest.raises(ValidationError) as fault:
        settings.model_validate(given)
    return "\n".join(
        f"{'_'.join(map(str, error['loc']))}: {error['msg']}"
        for error in fault.value.errors(include_url=False, include_input=False)
    )


# Secrets ---------------------------------------------------------------------------------------


def test_a_secret_is_the_one_line_of_its_file_and_repr_does_not_show_it(
    password_file: Path,
) -> None:
    secret = read_secret(password_file)
    assert secret == PASSWORD
    assert PASSWORD not in repr(secret)
    assert PASSWORD not in repr({"sasl.password": secret})


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"a\nthere\n", b"\xff\xfe", b"tab\there", b"x" * (SECRET_BYTES_MAX + 1)]
)
def test_a_file_that_is_no_one_line_is_no_secret(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(data)
    with pytest.raises(SecretFault, match="expected one printable line") as fault:
        read_secret(path)
    assert "there" not in str(fault.value)


def test_a_secret_whose_file_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretFault, match="gone cannot be read: No such file"):
        read_secret(tmp_path / "gone")


# Kafka -----------------------------------------------------------------------------------------


def test_a_plain_cluster_is_met_with_its_address_alone() -> None:
    assert Cluster("broker:1").connection() == {
        "bootstrap.servers": "broker:1",
        "security.protocol": "plaintext",
    }


def test_a_cluster_with_users_is_met_with_the_password_of_the_moment(password_file: Path) -> None:
    cluster = Cluster("b:1", "sasl_plaintext", user="command", password_file=password_file)
    assert cluster.connection()["sasl.password"] == PASSWORD
    password_file.write_text("another")
    found = cluster.connection()
    assert found["sasl.password"] == "another"
    assert found["sasl.username"] == "command"
    assert found["sasl.mechanism"] == "SCRAM-SHA-512"


def test_over_tls_the_name_of_the_broker_is_checked() -> None:
    found = Cluster("b:1", "ssl").connection()
    assert found["ssl.endpoint.identification.algorithm"] == "https"
    assert not [name for name in found if "pem" in name or "location" in name]


def cluster_with_files(folder: Path, made: Made, authority: Authority) -> Cluster:
    certificate, key = made.write(folder, "client")
    ca_file = authority.write(folder / "ca.crt")
    return Cluster("b:1", "ssl", ca_file=ca_file, cert_file=certificate, key_file=key)


def test_over_tls_what_is_in_the_files_is_used_and_shown_to_nobody(tmp_path: Path) -> None:
    authority = Authority()
    made = authority.make("command", use=CLIENT)
    cluster = cluster_with_files(tmp_path, made, authority)
    found = cluster.connection()
    assert found["ssl.ca.pem"].encode() == authority.certificate
    assert found["ssl.certificate.pem"].encode() == made.certificate
    assert found["ssl.key.pem"].encode() == made.key
    for shown in (cluster.read_tls(), consumer_config(cluster, "group")):
        assert "BEGIN" not in repr(shown)
    held = cluster.read_tls()
    authority.make("command").write(tmp_path, "client")
    assert cluster.connection(held) == found
    assert cluster.connection() != found


def test_files_that_do_not_fit_together_are_no_connection(tmp_path: Path) -> None:
    authority = Authority()
    cluster = cluster_with_files(tmp_path, authority.make("command"), authority)
    (tmp_path / "client.key").write_bytes(authority.make("other").key)
    with pytest.raises(CertificateFault, match="is not the one of the certificate in"):
        cluster.connection()
    with pytest.raises(Unavailable, match="not asked for the partitions of x: the key in"):
        kafka.partition_count(cluster, "x")


def test_no_client_settings_show_the_password(password_file: Path) -> None:
    cluster = Cluster("b:1", "sasl_plaintext", user="command", password_file=password_file)
    for shown in (cluster, producer_config(cluster), consumer_config(cluster, "group")):
        assert PASSWORD not in repr(shown)
        assert PASSWORD not in str(shown)


@pytest.mark.parametrize(
    "given,says",
    [
        ({"kafka_security_protocol": "tls"}, "kafka_security_protocol: "),
        ({"kafka_security_protocol": "sasl_ssl"}, "kafka_user: Value error, is needed with"),
        (
            {"kafka_security_protocol": "sasl_ssl", "kafka_user": "x"},
            "kafka_password_file: Value error, is needed with",
        ),
        ({"kafka_user": "x"}, "kafka_user: Value error, is of no use with the security protocol"),
        ({"kafka_password_file": "/p"}, "kafka_password_file: Value error, is of no use with"),
        ({"kafka_ca_file": "/ca"}, "kafka_ca_file: Value error, is of no use with"),
        (
            {"kafka_security_protocol": "ssl", "kafka_cert_file": "/c"},
            "kafka_key_file: Value error, certificate and key are given together",
        ),
        (
            {"kafka_security_protocol": "ssl", "kafka_key_file": "/k"},
            "kafka_key_file: Value error, certificate and key are given together",
        ),
        ({"kafka_sasl_mechanism": "GSSAPI"}, "kafka_sasl_mechanism: "),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(given: dict[str, object], says: str) -> None:
    assert says in refusals(ClusterSettings, kafka_bootstrap="b:1", **given)


def test_settings_become_the_cluster_that_they_describe(password_file: Path) -> None:
    settings = ClusterSettings.model_validate(
        {
            "kafka_bootstrap": "b:1",
            "kafka_security_protocol": "sasl_ssl",
            "kafka_user": "command",
            "kafka_password_file": password_file,
            "kafka_ca_file": "/ca",
        }
    )
    assert settings.cluster == Cluster(
        "b:1", "sasl_ssl", user="command", password_file=password_file, ca_file=Path("/ca")
    )


# Being refused ---------------------------------------------------------------------------------


class Client:
    """Takes a password, as librdkafka's clients do."""

    def __init__(self) -> None:
        self.given: list[tuple[str, str]] = []

    def set_sasl_credentials(self, user: str, password: str) -> None:
        self.given.append((user, password))


def test_a_refusal_is_said_once_it_has_lasted_and_names_who_asked(password_file: Path) -> None:
    cluster = Cluster("b:1", "sasl_plaintext", user="command", password_file=password_file)
    doorkeeper = Doorkeeper(cluster)
    doorkeeper.check(0)
    doorkeeper.heard(KafkaError(KafkaError._TRANSPORT, "away"))
    doorkeeper.check(0)
    doorkeeper.heard(KafkaError(KafkaError._AUTHENTICATION, "invalid credentials"))
    doorkeeper.check(60)
    with pytest.raises(Unavailable, match=r"b:1 and the user 'command' .*: invalid cred") as fault:
        doorkeeper.check(0)
    assert PASSWORD not in str(fault.value)
    doorkeeper.let_in()
    doorkeeper.check(0)


def test_a_refusal_that_did_not_come_again_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is let in and has nothing to read hears nothing more."""
    now = 100.0
    monkeypatch.setattr(kafka.time, "monotonic", lambda: now)
    doorkeeper = Doorkeeper(Cluster("b:1", "ssl"))
    doorkeeper.check()
    doorkeeper.heard(KafkaError(KafkaError._SSL, "handshake failed"))
    now += kafka.REFUSED_SECONDS_MAX
    doorkeeper.check()
    for _ in range(int(kafka.REFUSED_SECONDS_MAX) + 1):
        doorkeeper.heard(KafkaError(KafkaError._SSL, "handshake failed"))
        now += 1.0
    with pytest.raises(Unavailable, match="a client without a name do not accept each other"):
        doorkeeper.check()


def test_after_a_refusal_the_client_is_given_the_password_of_the_moment(
    password_file: Path,
) -> None:
    cluster = Cluster("b:1", "sasl_plaintext", user="command", password_file=password_file)
    client, refused = Client(), KafkaError(KafkaError._AUTHENTICATION, "invalid credentials")
    doorkeeper = Doorkeeper(cluster)
    password_file.write_text("changed")
    doorkeeper.give_password(client)  # type: ignore[arg-type]
    assert client.given == []
    doorkeeper.heard(refused)
    doorkeeper.give_password(client)  # type: ignore[arg-type]
    doorkeeper.give_password(client)  # type: ignore[arg-type]
    assert client.given == [("command", "changed")]
    password_file.unlink()
    doorkeeper.heard(refused)
    doorkeeper.give_password(client)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="kafka-command cannot be read"):
        doorkeeper.check(0)


def test_librdkafka_takes_the_settings_of_every_protocol(
    password_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    for cluster in (
        Cluster("127.0.0.1:1"),
        Cluster("127.0.0.1:1", "sasl_plaintext", user="x", password_file=password_file),
        Cluster("127.0.0.1:1", "ssl"),
        Cluster("127.0.0.1:1", "sasl_ssl", "PLAIN", user="x", password_file=password_file),
        cluster_with_files(password_file.parent, AUTHORITY.make("command"), AUTHORITY),
    ):
        Consumer(consumer_config(cluster, "group")).close()


# PostgreSQL ------------------------------------------------------------------------------------


def test_the_password_of_a_database_is_read_for_each_connection(password_file: Path) -> None:
    database = Database("postgresql://nocturne_query@db/nocturne", password_file)
    assert f"password={PASSWORD}" in database.address()
    password_file.write_text("with 'quote")
    assert r"password='with \'quote'" in database.address()
    password_file.unlink()
    with pytest.raises(psycopg.OperationalError, match="cannot be read"):
        database.address()


def test_a_database_shows_no_password() -> None:
    dsn = f"postgresql://x:{PASSWORD}@db/nocturne"
    assert PASSWORD not in repr(Database(dsn))
    assert PASSWORD not in repr(DatabaseSettings.model_validate({"postgres_dsn": dsn}))


@pytest.mark.parametrize(
    "dsn,beside,says",
    [
        (f"password={PASSWORD} and more", None, "expected an address as libpq takes it"),
        ("postgresql://h/?nonsense=1", None, "expected an address as libpq takes it"),
        (f"postgresql://x:{PASSWORD}@db/y", Path("/p"), "no password in it beside a password file"),
    ],
)
def test_an_address_that_is_none_is_refused_without_being_shown(
    dsn: str, beside: Path | None, says: str
) -> None:
    with pytest.raises(NocturneError, match=says) as fault:
        check_dsn(dsn, beside)
    assert PASSWORD not in str(fault.value)
    given = {"postgres_dsn": dsn, "postgres_password_file": beside}
    assert PASSWORD not in refusals(DatabaseSettings, **given)
