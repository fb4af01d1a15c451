"""Every metric that the services register, asked from the registries themselves.

`python -m tests.metrics` prints the tables of docs/guides/metrics.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from nocturne.command.service import Counters
from nocturne.consensus.measures import Measures as ConsensusMeasures
from nocturne.consensus.peer_stream import PeerMeasures
from nocturne.projection.service import Measures as ProjectionMeasures
from nocturne.query.service import Measures as QueryMeasures
from nocturne.runtime.degraded import measure
from nocturne.runtime.telemetry import Metrics, ProcessMetrics
from nocturne.runtime.vitals import Vitals
from nocturne.signing.service import Measures as SigningMeasures

SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}
RUNTIME = Path(__file__).resolve().parents[1] / "services/nocturne/runtime"
SECURITY = tuple(RUNTIME / name for name in ("security.py", "guard.py", "handshakes.py"))
SECURED = ("command", "consensus", "signing", "projection", "query")
"""Services whose gRPC can speak TLS and ask who calls."""
ROTATION = RUNTIME / "rotation.py"
ON_KAFKA = ("command", "consensus", "signing", "projection")
"""Services that Kafka can ask for a certificate."""
# Of the target: Kubernetes adds the namespace, Compose has none.
SCRAPED = frozenset({"job", "instance", "namespace"})
"""Labels that whoever scrapes adds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it is registered. `name` as documents have it: a counter's with `_total`."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names that it has in expressions."""
        base = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return tuple(base + suffix for suffix in SUFFIXES[self.kind])


def registries() -> dict[str, CollectorRegistry]:
    """The registry of each service, and what every process has beside it under `process`."""
    command = Metrics("command")
    Counters(command, lambda: 0.0)
    consensus, signing = Metrics("consensus"), Metrics("signing")
    ConsensusMeasures(consensus)
    PeerMeasures(consensus)
    SigningMeasures(signing)
    projection, query, process = Metrics("projection"), Metrics("query"), Metrics("any")
    for one in (command, signing):
        measure(one, lambda: None)
    ProjectionMeasures(projection)
    QueryMeasures(query)
    ProcessMetrics(process, "any", Vitals())
    return {
        "process": process.registry,
        "command": command.registry,
        "consensus": consensus.registry,
        "signing": signing.registry,
        "projection": projection.registry,
        "query": query.registry,
    }


def registered() -> dict[str, list[Metric]]:
    """The metrics of each service, those included that it has only with TLS or an access file."""
    return {
        name: sorted(
            [*_metrics(registry), *secured(name)],
            key=lambda metric: metric.name,
        )
        for name, registry in registries().items()
    }


def secured(service: str) -> list[Metric]:
    """What a service registers when its settings ask for TLS, Kafka's included, or an access file:
    read from the source, for making it takes certificates, and the process's stderr.
    """
    paths = (SECURITY if service in SECURED else ()) + ((ROTATION,) if service in ON_KAFKA else ())
    return [metric for path in paths for metric in _declared(service, path)]


def _declared(service: str, path: Path) -> Iterator[Metric]:
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in SUFFIXES
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "metrics"
        ):
            name, text, *labels = [ast.literal_eval(argument) for argument in node.args]
            kind = node.func.attr
            suffix = "_total" if kind == "counter" else ""
            found = tuple(labels[0]) if labels else ()
            yield Metric(f"nocturne_{service}_{name}{suffix}", kind, found, text)


def all_series() -> dict[str, frozenset[str]]:
    """Every name that an expression may use, with the labels that it has there."""
    found: dict[str, frozenset[str]] = {
        # Of prometheus_client's ProcessCollector, and of Prometheus itself.
        **dict.fromkeys(PROCESS, SCRAPED),
        "up": SCRAPED,
    }
    for metrics in registered().values():
        for metric in metrics:
            for name in metric.series:
                le = {"le"} if name.endswith("_bucket") else set()
                found[name] = SCRAPED | le | set(metric.labels)
    return found


PROCESS = (
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
)


def table(metrics: list[Metric]) -> str:
    """As the document has it."""
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} "
        f"| {one.text} |"
        for one in metrics
    ]
    head = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows]) + "\n"


def _metrics(registry: CollectorRegistry) -> list[Metric]:
    collectors: list[Any] = list(registry._collector_to_names)
    return sorted(
        (
            Metric(
                one._name + ("_total" if one._type == "counter" else ""),
                one._type,
                tuple(one._labelnames),
                one._documentation,
            )
            for one in collectors
            if hasattr(one, "_labelnames")
        ),
        key=lambda metric: metric.name,
    )


if __name__ == "__main__":
    for service, metrics in registered().items():
        print(f"\n## {service}\n\n{table(metrics)}", end="")
