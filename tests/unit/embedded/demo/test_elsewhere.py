"""The demonstration on a ledger that somebody else runs: its settings, and that it must be new."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest
from tests.vectors.synthetic import make_genesis

from nocturne.core.genesis import encode_genesis
from nocturne.embedded.demo import elsewhere
from nocturne.embedded.demo.options import Options
from nocturne.embedded.demo.show import Place

ARGUMENTS = ["demo", "--commands=100", "--report=report.html"]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    (tmp_path / "genesis.avro").write_bytes(encode_genesis(make_genesis()))
    (tmp_path / "password").write_text("of the admin")
    given = {
        "COMMAND_ADDRESS": "command:7400",
        "QUERY_ADDRESS": "query:7400",
        "GENESIS_FILE": str(tmp_path / "genesis.avro"),
        "KAFKA_BOOTSTRAP": "kafka:9094",
        "KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_USER": "admin",
        "KAFKA_PASSWORD_FILE": str(tmp_path / "password"),
        "POSTGRES_DSN": "postgresql://nocturne_owner@postgres:5432/nocturne",
        "POSTGRES_PASSWORD_FILE": str(tmp_path / "password"),
    }
    for name, value in given.items():
        monkeypatch.setenv(f"NOCTURNE_{name}", value)
    monkeypatch.setattr("sys.argv", ARGUMENTS)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@dataclasses.dataclass
class UsedLedger:
    """A client of a ledger with records in it."""

    records: int

    async def __aenter__(self) -> UsedLedger:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    async def status(self) -> UsedLedger:
        return self


@pytest.mark.usefixtures("settings")
def test_a_ledger_with_records_is_refused_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def must_not_run(*_: object) -> None:
        raise AssertionError("the business case ran")

    monkeypatch.setattr(elsewhere, "Client", lambda *_, **__: UsedLedger(7))
    monkeypatch.setattr(elsewhere, "show", must_not_run)
    assert elsewhere.main() == 1
    assert "has 7 commands already" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("settings")
def test_the_insiders_are_given_what_the_settings_name(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Place] = []

    async def seen(_: object, place: Place, __: Options) -> object:
        places.append(place)
        raise KeyboardInterrupt

    monkeypatch.setattr(elsewhere, "_run", seen)
    assert elsewhere.main() == 130
    (place,) = places
    assert place.kafka["sasl.username"] == "admin"
    assert place.kafka["sasl.password"] == "of the admin"
    assert "nocturne_owner" in place.dsn
    assert place.home is None


@pytest.mark.usefixtures("settings")
def test_a_missing_setting_is_named_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NOCTURNE_QUERY_ADDRESS")
    assert elsewhere.main() == 2
    assert "NOCTURNE_QUERY_ADDRESS: Field required" in capsys.readouterr().err
