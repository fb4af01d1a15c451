"""A real schema registry for integration tests: Apicurio, fetched once and run from its package.

`with running(folder) as url:` is Confluent's API of an empty registry, its storage in memory.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.error import URLError

import pytest
from tests.machines import free_ports, started

from nocturne.embedded import downloads, kafka
from nocturne.embedded.downloads import Jar
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.processes import Process

PACKAGE: Final = Jar(
    "io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all",
    "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63",
    158_577_952,
)
# Small, and quick to start: on two cores it answers after five seconds.
JVM_OPTIONS: Final = ("-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The address of a registry that has nothing yet; its log is in `folder`."""
    free = free_ports("registry", "management")
    port = free["registry"]
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    process = Process(
        name="registry",
        argv=[str(kafka.java()), *JVM_OPTIONS, "-jar", str(unpacked() / "quarkus-run.jar")],
        environment={
            "PATH": os.environ["PATH"],
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(port),
            # Left to itself it listens on port 9000 of every address.
            "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
            "QUARKUS_MANAGEMENT_PORT": str(free["management"]),
        },
        port=port,
        healthy=lambda: _answers(url),
    )
    with started(process, folder / "registry.log"):
        yield url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/subjects", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def unpacked() -> Path:
    """The package's folder in the download cache; the test is skipped where it cannot be had."""
    cache = downloads.cache_folder(os.environ) / f"apicurio-{PACKAGE.sha256[:16]}"
    try:
        (package,) = downloads.ensure_jars(cache, (PACKAGE,), downloads.ignore_progress)
    except EmbeddedError as fault:
        if "expected SHA-256" in str(fault):
            raise
        pytest.skip(f"{fault} It is 159 MB, once, and kept in NOCTURNE_CACHE.")
    target = cache / "app"
    if not target.exists():
        scratch = Path(tempfile.mkdtemp(dir=cache))
        with tarfile.open(package) as archive:
            # What the archive holds is pinned by its hash.
            archive.extractall(scratch / "app")
        try:
            (scratch / "app").rename(target)
        except OSError:
            # Another run was first.
            assert target.exists()
        shutil.rmtree(scratch)
    return target
