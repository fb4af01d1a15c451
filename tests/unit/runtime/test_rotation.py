"""When Kafka's clients change over to other certificates, and when not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.certificates import CLIENT, DAY, SERVER, Authority, Made

from nocturne.core.errors import Unavailable
from nocturne.runtime import rotation
from nocturne.runtime.certificates import Pair
from nocturne.runtime.cluster import Cluster, TlsFiles
from nocturne.runtime.rotation import Fault, Rotation, Rotations, Said, Standing, judged
from nocturne.runtime.telemetry import Metrics

AUTHORITY = Authority()


def files_of(made: Made, authorities: bytes = AUTHORITY.certificate) -> TlsFiles:
    return TlsFiles(authorities, Pair(made.certificate, made.key))


# Deciding --------------------------------------------------------------------------------------

OLD, NEW = files_of(AUTHORITY.make("a")), files_of(AUTHORITY.make("a"))


def test_other_files_that_are_good_are_taken() -> None:
    assert judged(Standing(OLD), NEW) == (Standing(NEW), Said.TAKEN)


def test_a_fault_is_said_once_and_again_after_another_one() -> None:
    first, second = Fault("half written"), Fault("another key")
    standing, said = judged(Standing(OLD), first)
    assert (standing, said) == (Standing(OLD, first), Said.REFUSED)
    assert judged(standing, Fault("half written", "in other words")) == (standing, None)
    standing, said = judged(standing, second)
    assert said is Said.REFUSED
    assert judged(standing, first)[1] is Said.REFUSED


def test_after_a_fault_the_same_files_are_nothing_new_and_the_fault_is_over() -> None:
    same = TlsFiles(OLD.authorities, OLD.pair)
    standing, said = judged(Standing(OLD, Fault("half written")), same)
    assert (standing, said) == (Standing(OLD), None)
    assert standing.files is OLD
    assert judged(standing, Fault("half written"))[1] is Said.REFUSED


# Looking ---------------------------------------------------------------------------------------


class Place:
    """Files on a disk, and a cluster that lets in whom it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        certificate, key = AUTHORITY.make("command", use=CLIENT).write(folder, "client")
        ca_file = AUTHORITY.write(folder / "ca.crt")
        self.cluster = Cluster("b:1", "ssl", ca_file=ca_file, cert_file=certificate, key_file=key)
        self.answer: Callable[[], str | None] = lambda: None
        self.tried: list[TlsFiles] = []
        self.metrics = Metrics("command")
        self.rotations = Rotations(self.lets_in)
        self.rotations.measure(self.cluster, self.metrics)
        self.rotation = Rotation(
            self.cluster,
            self.cluster.read_tls(),
            self.lets_in,
            self.rotations._measures[self.cluster],
        )
        self.first = self.rotation.files

    def lets_in(self, cluster: Cluster, files: TlsFiles) -> str | None:
        assert cluster == self.cluster
        self.tried.append(files)
        return self.answer()

    def counted(self, outcome: str) -> float:
        name = "nocturne_command_kafka_tls_reads_total"
        found = self.metrics.registry.get_sample_value(name, {"outcome": outcome})
        assert found is not None
        return found

    @property
    def expires(self) -> float | None:
        name = "nocturne_command_kafka_tls_certificate_expires_timestamp_seconds"
        return self.metrics.registry.get_sample_value(name)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_files_that_did_not_change_are_the_same_object_and_nobody_is_asked(place: Place) -> None:
    AUTHORITY.write(place.folder / "ca.crt")
    place.rotation.look()
    assert place.rotation.files is place.first
    assert place.tried == []
    assert (place.counted("taken"), place.counted("refused")) == (0, 0)


def test_a_whole_new_pair_that_the_cluster_lets_in_is_taken(place: Place) -> None:
    before = place.expires
    fresh = AUTHORITY.make("command", ends=3 * DAY, use=CLIENT)
    fresh.write(place.folder, "client")
    place.rotation.look()
    assert place.rotation.files == place.tried[0] == files_of(fresh)
    assert (place.counted("taken"), place.counted("refused")) == (1, 0)
    assert before is not None
    assert place.expires == pytest.approx(before + 2 * 86400, abs=60)


def test_other_authorities_alone_are_taken(place: Place) -> None:
    both = AUTHORITY.certificate + Authority("next").certificate
    (place.folder / "ca.crt").write_bytes(both)
    place.rotation.look()
    assert place.rotation.files == TlsFiles(both, place.first.pair)


BROKEN: dict[str, Callable[[Place], object]] = {
    "key": lambda p: (p.folder / "client.key").write_bytes(AUTHORITY.make("x").key),
    "half": lambda p: (p.folder / "client.crt").write_bytes(AUTHORITY.make("x").certificate[:200]),
    "gone": lambda p: (p.folder / "ca.crt").unlink(),
    "empty": lambda p: (p.folder / "ca.crt").write_bytes(b""),
    "expired": lambda p: AUTHORITY.make("x", begins=-2 * DAY, ends=-DAY).write(p.folder, "client"),
    "of a server": lambda p: AUTHORITY.make("x", use=SERVER).write(p.folder, "client"),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_replace_nothing_and_are_said_and_counted_once(
    place: Place, spoil: Callable[[Place], object]
) -> None:
    spoil(place)
    with capture_logs() as said:
        for _ in range(3):
            place.rotation.look()
    assert place.rotation.files is place.first
    assert place.tried == []
    assert [one["event"] for one in said] == ["kafka_tls_refused"]
    assert "KEY" not in repr(said)
    assert place.counted("refused") == 1
    AUTHORITY.write(place.folder / "ca.crt")
    AUTHORITY.make("command", use=CLIENT).write(place.folder, "client")
    place.rotation.look()
    assert place.rotation.files is not place.first
    assert place.counted("taken") == 1


def test_files_that_the_cluster_refuses_are_tried_again_and_said_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("nocturne.runtime.rotation.time.monotonic", lambda: now)
    AUTHORITY.make("command", use=CLIENT).write(place.folder, "client")
    numbers = iter(range(10))
    place.answer = lambda: f"alert unknown ca (after {next(numbers)} ms)"
    place.rotation.look()
    place.rotation.look()
    assert len(place.tried) == 1
    now += rotation.TRIES_APART_SECONDS
    place.rotation.look()
    assert len(place.tried) == 2
    assert place.rotation.files is place.first
    assert place.counted("refused") == 1
    place.answer = lambda: None
    now += rotation.TRIES_APART_SECONDS
    place.rotation.look()
    assert place.rotation.files == place.tried[-1]


def test_a_cluster_that_is_away_says_nothing_of_the_files(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("nocturne.runtime.rotation.time.monotonic", lambda: now)
    AUTHORITY.make("command", use=CLIENT).write(place.folder, "client")

    def away() -> str | None:
        raise Unavailable("away")

    place.answer = away
    place.rotation.look()
    assert place.rotation.files is place.first
    assert place.counted("refused") == 0
    place.answer = lambda: None
    now += rotation.TRIES_APART_SECONDS
    place.rotation.look()
    assert place.counted("taken") == 1


# Those who take part ---------------------------------------------------------------------------


def test_clients_of_one_cluster_change_over_to_the_same_files_and_are_told(place: Place) -> None:
    told: list[str] = []
    first = place.rotations.join(place.cluster, place.first, lambda: told.append("first"))
    second = place.rotations.join(place.cluster, place.cluster.read_tls())
    assert first.files is second.files is place.first
    # What is on the disk counts for nobody before it is taken.
    AUTHORITY.make("command", use=CLIENT).write(place.folder, "client")
    first._rotation.end()
    assert place.rotations.files_of(place.cluster) is place.first
    first._rotation.look()
    assert first.files is second.files is place.rotations.files_of(place.cluster)
    assert first.files is not place.first
    assert told == ["first"]
    first.leave()
    first.leave()
    assert second._rotation.members == [second]
    second.leave()
    assert place.rotations.files_of(place.cluster) == second.files
    assert place.rotations._rotations == {}


def test_a_cluster_without_files_has_nothing_to_look_at_and_no_measures() -> None:
    plain = Cluster("b:1", "ssl")
    metrics = Metrics("command")
    rotations = Rotations(lambda *_: None)
    rotations.measure(plain, metrics)
    assert metrics.registry.get_sample_value("nocturne_command_kafka_tls_reads_total") is None
    member = rotations.join(plain, plain.read_tls())
    assert member.files == TlsFiles(None, None)
    member.leave()
