import hashlib
from pathlib import Path

import pytest

from nocturne.embedded import downloads
from nocturne.embedded.downloads import CountBytes, Jar
from nocturne.embedded.errors import EmbeddedError


def jar(name: str, content: bytes) -> Jar:
    return Jar(f"org.example:{name}:1.0", hashlib.sha256(content).hexdigest(), len(content))


CONTENTS = {"one": b"first jar", "two": b"second jar, longer"}
JARS = tuple(jar(name, content) for name, content in CONTENTS.items())


class Repository:
    """A fake of the place that jars come from: serves contents, counts what was asked."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.asked: list[str] = []

    def download(self, wanted: Jar, scratch: Path, count: CountBytes) -> Path:
        name = wanted.coordinates.split(":")[1]
        self.asked.append(name)
        if name not in self.contents:
            raise RuntimeError(f"Artifact {name} not found")
        scratch.mkdir(parents=True)
        path = scratch / wanted.filename
        path.write_bytes(self.contents[name])
        with count(wanted.filename, wanted.size) as add:
            add(len(self.contents[name]))
        return path


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    fake = Repository(dict(CONTENTS))
    monkeypatch.setattr(downloads, "_download", fake.download)
    return fake


def ensure(folder: Path) -> tuple[Path, ...]:
    return downloads.ensure_jars(folder, JARS, downloads.ignore_progress)


def test_every_jar_comes_in_the_order_of_the_lock(tmp_path: Path, repository: Repository) -> None:
    assert [path.read_bytes() for path in ensure(tmp_path)] == list(CONTENTS.values())


def test_a_complete_cache_asks_nobody(tmp_path: Path, repository: Repository) -> None:
    ensure(tmp_path)
    repository.asked.clear()
    ensure(tmp_path)
    assert repository.asked == []


def test_progress_reaches_the_whole_size(tmp_path: Path, repository: Repository) -> None:
    seen: list[tuple[int, int]] = []
    downloads.ensure_jars(tmp_path, JARS, lambda done, total, _what: seen.append((done, total)))
    total = sum(len(content) for content in CONTENTS.values())
    assert max(seen) == (total, total)


def test_a_jar_that_is_not_what_was_pinned_never_enters(
    tmp_path: Path, repository: Repository
) -> None:
    repository.contents["two"] = b"evil jar"
    with pytest.raises(EmbeddedError, match=r"org\.example:two:1\.0.*expected SHA-256"):
        ensure(tmp_path)
    assert not (tmp_path / "two-1.0.jar").exists()


def test_what_was_fetched_before_a_failure_is_kept(tmp_path: Path, repository: Repository) -> None:
    del repository.contents["two"]
    with pytest.raises(EmbeddedError, match="could not be downloaded"):
        ensure(tmp_path)
    repository.contents["two"] = CONTENTS["two"]
    repository.asked.clear()
    ensure(tmp_path)
    assert repository.asked == ["two"]


def test_a_damaged_cache_is_said_with_the_way_out(tmp_path: Path, repository: Repository) -> None:
    path = ensure(tmp_path)[0]
    path.write_bytes(b"first jax")
    with pytest.raises(EmbeddedError, match=rf"is damaged.*delete the folder {tmp_path}"):
        ensure(tmp_path)


def test_a_missing_jar_is_said_with_the_way_out(tmp_path: Path, repository: Repository) -> None:
    ensure(tmp_path)[1].unlink()
    with pytest.raises(EmbeddedError, match=r"got no file.*delete the folder"):
        ensure(tmp_path)


def test_a_touched_but_whole_cache_is_checked_again_and_used(
    tmp_path: Path, repository: Repository
) -> None:
    paths = ensure(tmp_path)
    repository.asked.clear()
    paths[0].touch()
    assert ensure(tmp_path) == paths
    assert repository.asked == []


@pytest.mark.parametrize("line", ["a:b:c", "a:b:c 00 1", f"a:b:c {'0' * 64} -1", "x y z w"])
def test_a_line_of_another_form_is_refused(line: str) -> None:
    with pytest.raises(EmbeddedError, match="another form"):
        downloads.parse_lock(line)


def test_the_pinned_list_names_one_version_of_each_jar() -> None:
    text = Path(downloads.__file__).with_name("kafka.jars.lock").read_text()
    jars = downloads.parse_lock(text)
    artifacts = [jar.coordinates.rsplit(":", 1)[0] for jar in jars]
    assert len(artifacts) == len(set(artifacts))
    assert "org.apache.kafka:kafka-clients:4.3.1" in {jar.coordinates for jar in jars}
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in jars)
