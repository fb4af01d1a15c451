"""The health check of a container: yes or no, one sentence, within a bound."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from nocturne.runtime import probe
from nocturne.runtime.http_server import HttpServer
from nocturne.runtime.vitals import Vitals


@pytest.fixture
def vitals() -> Vitals:
    return Vitals()


@pytest.fixture
def port(vitals: Vitals) -> Iterator[int]:
    server = HttpServer(CollectorRegistry(), vitals, "127.0.0.1:0")
    yield server.port
    server.close()


def probed(
    capsys: pytest.CaptureFixture[str], listen: str | None, *arguments: str
) -> tuple[int, str]:
    environment = {} if listen is None else {probe.SETTING: listen}
    code = probe.main(list(arguments), environment)
    said = capsys.readouterr()
    assert (said.err == "") == (code == 0)
    return code, (said.out or said.err)


def test_ready_is_asked_by_default(
    port: int, vitals: Vitals, capsys: pytest.CaptureFixture[str]
) -> None:
    listen = f"127.0.0.1:{port}"
    assert probed(capsys, listen) == (1, "ready: no, starting\n")
    assert probed(capsys, listen, "live") == (0, "live: yes\n")
    vitals.set_serving(True)
    assert probed(capsys, listen) == (0, "ready: yes\n")
    assert probed(capsys, listen, "ready") == (0, "ready: yes\n")
    vitals.halt("two blocks\nat height 7")
    assert probed(capsys, listen) == (1, "ready: no, halted: two blocks at height 7\n")


def test_who_listens_everywhere_is_asked_on_the_loopback(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probed(capsys, f"0.0.0.0:{port}", "live") == (0, "live: yes\n")


@pytest.mark.parametrize("listen", [None, "", "here", "127.0.0.1:", "127.0.0.1:0", "a:99999999"])
def test_without_an_address_the_answer_is_no(
    listen: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = probed(capsys, listen)
    assert code == 1
    assert said.startswith("ready: no, NOCTURNE_METRICS_LISTEN names no address to ask")


def test_when_nobody_answers_it_says_so(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        code, said = probed(capsys, f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 1
    assert "does not answer" in said


def test_an_answer_that_drips_is_given_up_within_the_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "SECONDS_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, said = probed(capsys, f"127.0.0.1:{silent.getsockname()[1]}")
    assert code == 1
    assert said.startswith("ready: no, ")


@pytest.mark.parametrize("arguments", [("alive",), ("ready", "live")])
def test_an_unknown_question_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = probed(capsys, "127.0.0.1:1", *arguments)
    assert (code, said) == (1, "probe: expected 'ready' or 'live'\n")


def test_it_is_a_module_that_needs_nothing_but_the_standard_library(port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nocturne.runtime.probe", "live"],
        env={probe.SETTING: f"127.0.0.1:{port}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "live: yes\n", "")
    code = "import sys, nocturne.runtime.probe; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert {"grpc", "pydantic", "structlog", "asyncio"}.isdisjoint(loaded.stdout.split())
