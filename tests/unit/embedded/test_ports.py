import random
import socket
from pathlib import Path

import pytest

from nocturne.embedded import ports
from nocturne.embedded.errors import EmbeddedError

USUAL = {"kafka": 19092, "command": 17401}


def choose(
    remembered: dict[str, int] | None = None,
    environment: dict[str, str] | None = None,
    taken: frozenset[int] = frozenset(),
) -> dict[str, int]:
    return ports.choose(
        USUAL,
        remembered or {},
        environment or {},
        lambda port: port not in taken,
        random.Random(1),
    )


def test_the_usual_ports_are_taken_when_they_are_free() -> None:
    assert choose() == USUAL


def test_a_remembered_port_comes_before_the_usual_one() -> None:
    assert choose(remembered={"kafka": 25000})["kafka"] == 25000


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    chosen = choose(remembered={"kafka": 25000}, taken=frozenset({25000}))
    assert chosen["kafka"] in ports.SPARE_PORTS
    assert chosen["kafka"] != 25000
    assert chosen["command"] == USUAL["command"]


def test_a_fixed_port_comes_before_all_others() -> None:
    chosen = choose(remembered={"kafka": 25000}, environment={"NOCTURNE_PORT_KAFKA": "9092"})
    assert chosen["kafka"] == 9092


def test_a_fixed_port_that_is_taken_is_said_and_not_replaced() -> None:
    with pytest.raises(EmbeddedError, match=r"Port 9092 for kafka is taken.*NOCTURNE_PORT_KAFKA"):
        choose(environment={"NOCTURNE_PORT_KAFKA": "9092"}, taken=frozenset({9092}))


def test_one_port_fixed_for_two_processes_is_refused() -> None:
    with pytest.raises(EmbeddedError, match="taken"):
        choose(environment={"NOCTURNE_PORT_KAFKA": "9092", "NOCTURNE_PORT_COMMAND": "9092"})


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", ""])
def test_a_fixed_port_that_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(EmbeddedError, match="between 1 and 65535"):
        choose(environment={"NOCTURNE_PORT_KAFKA": text})


def test_a_usual_port_fixed_for_another_process_is_left_to_it() -> None:
    chosen = choose(environment={"NOCTURNE_PORT_COMMAND": "19092"})
    assert chosen["command"] == 19092
    assert chosen["kafka"] != 19092


def test_ports_are_remembered(tmp_path: Path) -> None:
    ports.save(tmp_path / "ports.json", USUAL)
    assert ports.load(tmp_path / "ports.json") == USUAL


def test_without_a_readable_memory_nothing_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text('{"kafka": 19')
    assert ports.load(tmp_path / "torn.json") == {}
    assert ports.load(tmp_path / "absent.json") == {}


@pytest.mark.parametrize(
    "data", [b"\xff", b"[" * 2000, b"[]", b'{"kafka": null}', b'{"kafka": 70000}', bytes(100_000)]
)
def test_a_memory_that_is_none_is_forgotten(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ports.json").write_bytes(data)
    assert ports.load(tmp_path / "ports.json") == {}


def test_a_listening_port_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
    assert ports.is_free(port)
