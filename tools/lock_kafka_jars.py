"""Write services/nocturne/embedded/kafka.jars.lock: the jars of a broker, resolved once, pinned.

Run it only to move to another Kafka version. The logging bridge is fetched by itself: naming it
among the coordinates to resolve silently pulls an older kafka-clients, and the broker then dies.
"""

import hashlib
import sys
import tempfile
import tomllib
from pathlib import Path

import jgo
from jgo.maven import MavenContext

KAFKA_VERSION = "4.3.1"
RESOLVED = ("kafka_2.13", "kafka-tools", "kafka-clients")
ALONE = ("org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",)

TARGET = Path(__file__).resolve().parent.parent / "services/nocturne/embedded/kafka.jars.lock"
HEADER = f"""\
# Every jar of the embedded broker (Apache Kafka {KAFKA_VERSION}): coordinates, SHA-256, bytes.
# `python tools/lock_kafka_jars.py` writes this file; nothing that is not in it is ever loaded.
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        coordinates = {*_resolve(Path(folder)), *ALONE}
        context = MavenContext(repo_cache=Path(folder) / "repository")
        lines = [_line(context, name) for name in sorted(coordinates, key=_kafka_first)]
    TARGET.write_text(HEADER + "".join(lines))
    print(f"{len(lines)} jars pinned in {TARGET.name}")
    return 0


def _resolve(folder: Path) -> set[str]:
    endpoint = "+".join(f"org.apache.kafka:{name}:{KAFKA_VERSION}" for name in RESOLVED)
    environment = jgo.build(endpoint, cache_dir=str(folder / "environment"))
    lock = tomllib.loads((Path(environment.path) / "jgo.lock.toml").read_text())
    return {f"{d['groupId']}:{d['artifactId']}:{d['version']}" for d in lock["dependencies"]}


def _line(context: MavenContext, coordinates: str) -> str:
    group, artifact, version = coordinates.split(":")
    content = context.project(group, artifact).at_version(version).artifact().resolve().read_bytes()
    return f"{coordinates} {hashlib.sha256(content).hexdigest()} {len(content)}\n"


def _kafka_first(coordinates: str) -> tuple[bool, str]:
    return (not coordinates.startswith("org.apache.kafka:"), coordinates)


if __name__ == "__main__":
    sys.exit(main())
