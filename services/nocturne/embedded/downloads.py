"""The broker's jars: fetched once by coordinates, checked against pinned hashes, then offline.

Other packages of a Maven repository come the same way, such as a test's schema registry.

`kafka.jars.lock` names every jar with its SHA-256 and size. A jar that differs from its line is
never put in the cache, and a jar that is not in the file is never loaded. Once the cache is
complete, neither the network nor the resolver is touched again: a stamp of sizes and times says
that nothing changed since the hashes were checked.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from nocturne.embedded.errors import EmbeddedError

# Bytes done, bytes in all, and what is being fetched.
Progress = Callable[[int, int, str], None]
# Called with a file's name and size, gives a function that is told the bytes as they come.
CountBytes = Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]

DOWNLOADS_AT_ONCE = 6
ATTEMPTS_MAX = 3
TIMEOUT_SECONDS = 30
STAMP = "verified.json"
_JAR = re.compile(r"([\w.-]+:[\w.-]+:[\w.-]+) ([0-9a-f]{64}) (\d{1,12})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned file. Line: `org.apache.kafka:kafka-clients:4.3.1 <sha256 hex> <bytes>`; for what
    is no jar, packaging and classifier follow the version: `…:3.3.3:tar.gz:all`.
    """

    coordinates: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        artifact, version = self.coordinates.split(":")[1:3]
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{artifact}-{version}{suffix}.{self.packaging}"

    @property
    def packaging(self) -> str:
        return (*self.coordinates.split(":")[3:4], "jar")[0]

    @property
    def classifier(self) -> str:
        return (*self.coordinates.split(":")[4:5], "")[0]


def cache_folder(environment: Mapping[str, str]) -> Path:
    """NOCTURNE_CACHE, or ~/.cache/nocturne."""
    named = environment.get("NOCTURNE_CACHE")
    return Path(named).expanduser().resolve() if named else Path.home() / ".cache" / "nocturne"


def ignore_progress(_done: int, _total: int, _what: str) -> None:
    """A progress that shows nothing."""


def ensure_kafka(cache: Path, progress: Progress = ignore_progress) -> tuple[Path, ...]:
    """Return the broker's class path; download what is missing the first time only.

    Raises EmbeddedError when a download fails or a jar in the cache is not what was pinned.
    """
    lock_text = resources.files("nocturne.embedded").joinpath("kafka.jars.lock").read_text()
    jars = parse_lock(lock_text)
    pinned = "".join(f"{jar.coordinates} {jar.sha256}\n" for jar in jars)
    folder = cache / f"kafka-{hashlib.sha256(pinned.encode()).hexdigest()[:16]}"
    return ensure_jars(folder, jars, progress)


def parse_lock(text: str) -> tuple[Jar, ...]:
    """Parse lines of `coordinates sha256 size`; `#` starts a comment line."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return tuple(_jar_of(line) for line in lines)


def _jar_of(line: str) -> Jar:
    found = _JAR.fullmatch(line)
    if found is None:
        raise EmbeddedError(
            f"The list of the broker's jars has a line of another form, {line[:80]!r}: install the "
            "package again."
        )
    return Jar(found[1], found[2], int(found[3]))


def ensure_jars(folder: Path, jars: tuple[Jar, ...], progress: Progress) -> tuple[Path, ...]:
    """Return the jars' paths in `folder`, all of them checked."""
    paths = tuple(folder / jar.filename for jar in jars)
    if _stamp_holds(folder, jars):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if (folder / STAMP).exists():
            _check_complete_cache(folder, jars)
        else:
            _fetch_missing(folder, jars, progress)
        _write_stamp(folder, jars)
    return paths


# ---------------------------------------------------------------- checking


def _stamp_holds(folder: Path, jars: tuple[Jar, ...]) -> bool:
    try:
        stamp = json.loads((folder / STAMP).read_text())
        return all(stamp.get(jar.filename) == _size_and_time(folder / jar.filename) for jar in jars)
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def _write_stamp(folder: Path, jars: tuple[Jar, ...]) -> None:
    stamp = {jar.filename: _size_and_time(folder / jar.filename) for jar in jars}
    fresh = folder / f"{STAMP}.new"
    fresh.write_text(json.dumps(stamp))
    fresh.replace(folder / STAMP)


def _size_and_time(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _check_complete_cache(folder: Path, jars: tuple[Jar, ...]) -> None:
    for jar in jars:
        found = _sha256(folder / jar.filename)
        if found != jar.sha256:
            raise EmbeddedError(
                f"The download cache is damaged ({jar.filename}: expected SHA-256 {jar.sha256}, "
                f"got {found or 'no file'}): delete the folder {folder} and run again."
            )


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return None


# ---------------------------------------------------------------- fetching


class _Meter:
    """Adds up what the download threads receive."""

    def __init__(self, jars: tuple[Jar, ...], progress: Progress) -> None:
        self._done = 0
        self._total = sum(jar.size for jar in jars)
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, count: int, what: str) -> None:
        with self._lock:
            self._done += count
            self._progress(self._done, self._total, what)


def _fetch_missing(folder: Path, jars: tuple[Jar, ...], progress: Progress) -> None:
    missing = tuple(jar for jar in jars if _sha256(folder / jar.filename) != jar.sha256)
    meter = _Meter(missing, progress)
    for leftover in folder.glob("fetch-*"):
        shutil.rmtree(leftover)
    scratch = Path(tempfile.mkdtemp(prefix="fetch-", dir=folder))
    try:
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            for _ in pool.map(lambda jar: _fetch(jar, folder, scratch, meter), missing):
                pass
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch(jar: Jar, folder: Path, scratch: Path, meter: _Meter) -> None:
    problem = "nothing was tried"
    for attempt in range(ATTEMPTS_MAX):
        received = 0

        @contextlib.contextmanager
        def count(_filename: str, _size: int) -> Iterator[Callable[[int], None]]:
            def add(count: int) -> None:
                nonlocal received
                received += count
                if received > jar.size:
                    raise RuntimeError(f"expected {jar.size} bytes, got more")
                meter.add(count, jar.filename)

            yield add

        try:
            fetched = _download(jar, scratch / f"{jar.filename}-{attempt}", count)
        except (OSError, RuntimeError) as error:
            problem = str(error).splitlines()[0]
        else:
            found = _sha256(fetched)
            if found == jar.sha256:
                fetched.replace(folder / jar.filename)
                meter.add(jar.size - received, jar.filename)
                return
            problem = f"expected SHA-256 {jar.sha256}, got {found}"
        meter.add(-received, jar.filename)
    raise EmbeddedError(
        f"{jar.coordinates} could not be downloaded ({problem}): check the network, or name a "
        "mirror in NOCTURNE_JARS_REPOSITORY, and run again (what is already there is kept)."
    )


def _download(jar: Jar, scratch: Path, count: CountBytes) -> Path:
    try:
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise EmbeddedError(
            "The embedded broker needs the extra `embedded`: pip install 'nocturne[embedded]'."
        ) from error
    logging.getLogger("jgo").setLevel(logging.ERROR)
    mirror = os.environ.get("NOCTURNE_JARS_REPOSITORY")
    context = MavenContext(
        resolver=PythonResolver(progress_callback=count),
        repo_cache=scratch,
        remote_repos={"mirror": mirror.rstrip("/")} if mirror else None,
        timeout=TIMEOUT_SECONDS,
    )
    group, artifact, version = jar.coordinates.split(":")[:3]
    component = context.project(group, artifact).at_version(version)
    return Path(component.artifact(jar.classifier, jar.packaging).resolve())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two starts at once: the second waits for the first's downloads."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
