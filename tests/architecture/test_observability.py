"""What the person who is paged at night relies on: metrics that exist, alerts with pages, and a
dashboard that can be read.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.rpc import code_pb2
from tests.metrics import SCRAPED, all_series, registered, registries, table

from nocturne.core.receipts import Reason
from nocturne.embedded.services import services_of

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "grafana/prometheus/alerts.yml"
DASHBOARD = ROOT / "grafana/dashboards/nocturne.json"
RUNBOOKS = ROOT / "docs/runbooks"
CASES = ROOT / "tests/integration/alerts_test.yml"
"""What Prometheus' own program tries, in tests/integration/test_alert_rules.py."""
BY_HAND = {"README", "rebuild"}
"""Pages that no alert leads to."""
SECTIONS = ["What it means", "Impact", "Look first", "Do", "Verify", "Escalate"]
# Okabe and Ito's, which people with any common kind of colour blindness tell apart.
COLOURS = {
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
}
SERVICES = services_of(4)
SERIES = all_series()
REASONS = {one.name.lower() for one in Reason}
VALUES = {
    "component": {service.component for service in SERVICES},
    # Of commands; and of files that are read again.
    "outcome": {"events", "gap", "undecided", "repeated", "taken", "refused"} | REASONS,
    "code": set(code_pb2.Code.keys()),
    "job": {"nocturne"},
}
"""The values that an expression may name, of labels whose values are known."""


# PromQL, as far as names and labels go ---------------------------------------------------------

_STRING = r'"(?:[^"\\]|\\.)*"'
_SELECTOR = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{{((?:[^{{}}\"]|{_STRING})*)\}}")
_MATCHER = re.compile(rf"([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*({_STRING})")
_REPLACED = re.compile(rf"({_STRING}),\s*({_STRING}),\s*{_STRING},\s*{_STRING}\s*\)")
"""The end of a label_replace: label and value."""
_CLAUSE = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_NAME = re.compile(r"(?<![\w$:.])([a-zA-Z_:][a-zA-Z0-9_:]*)(?![\w:])(?!\s*\()")
_WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "bool", "offset", "inf"}


@dataclass(frozen=True)
class Asked:
    """What an expression names."""

    metrics: frozenset[str]
    matchers: tuple[tuple[str, str, str], ...]
    """(metric, label, value)"""
    clauses: frozenset[str]
    """Labels that it aggregates or joins by."""

    @property
    def labels(self) -> frozenset[str]:
        """Labels that the result can have."""
        if self.clauses:
            return self.clauses
        named = (SERIES.get(one, frozenset()) for one in self.metrics)
        return frozenset().union(*named)


def asked_by(expression: str) -> Asked:
    """Read an expression."""
    metrics, matchers = set(), []
    for name, inside in _SELECTOR.findall(expression):
        metrics.add(name)
        matchers += [(name, label, value[1:-1]) for label, _, value in _MATCHER.findall(inside)]
    rest = _SELECTOR.sub(" ", expression)
    clauses = {
        label.strip()
        for _, labels in _CLAUSE.findall(rest)
        for label in labels.split(",")
        if label.strip()
    }
    rest = re.sub(_STRING, " ", re.sub(r"\[[^\]]*\]", " ", _CLAUSE.sub(" ", rest)))
    metrics |= set(_NAME.findall(rest)) - _WORDS
    return Asked(frozenset(metrics), tuple(matchers), frozenset(clauses))


def faults_of(expression: str) -> list[str]:
    """What it names and does not exist."""
    asked = asked_by(expression)
    found = [f"no metric {one}" for one in sorted(asked.metrics - set(SERIES))]
    if not asked.metrics:
        found.append("names no metric")
    for metric, label, value in asked.matchers:
        if label not in SERIES.get(metric, {label}):
            found.append(f"{metric} has no label {label}")
        known = VALUES.get(label)
        found += [
            f"{label} is never {one}" for one in value.split("|") if known and one not in known
        ]
    for label, value in _REPLACED.findall(expression):
        if value[1:-1] not in VALUES.get(label[1:-1], {value[1:-1]}):
            found.append(f"{label[1:-1]} is never {value[1:-1]}")
    for label in sorted(asked.clauses):
        if not any(label in SERIES.get(metric, frozenset()) for metric in asked.metrics):
            found.append(f"no metric of it has the label {label}")
    if "histogram_quantile" in expression and "le" not in asked.clauses:
        found.append("a quantile without le")
    return found


@pytest.mark.parametrize(
    "expression, fault",
    [
        ("sum(rate(nocturne_command_commands_answered[5m]))", "no metric"),
        ('nocturne_process_ready{service="query"}', "has no label service"),
        ('nocturne_process_ready{component="gateway"}', "component is never gateway"),
        ("sum by (shard) (nocturne_consensus_height)", "the label shard"),
        ('up{job="other"}', "job is never other"),
        ('label_replace(up, "component", "gateway", "", "")', "component is never gateway"),
        ("vector(1) > 0", "names no metric"),
        ("histogram_quantile(0.9, rate(nocturne_command_outcome_seconds_bucket[5m]))", "le"),
        ("max(nocturne_consensus_height) - max(nocturne_signing_hight)", "nocturne_signing_hight"),
    ],
)
def test_an_expression_that_names_what_does_not_exist_is_found(expression: str, fault: str) -> None:
    assert any(fault in one for one in faults_of(expression)), faults_of(expression)


def test_names_and_labels_of_an_expression_are_read() -> None:
    asked = asked_by(
        'sum by (code) (rate(nocturne_query_requests_total{method="A", code=~"B|C"}[5m])) / 2 > 1e3'
        " and on (code) time() - min(up offset 5m) > 30"
    )
    assert asked.metrics == {"nocturne_query_requests_total", "up"}
    assert asked.clauses == {"code"}
    assert asked.matchers == (
        ("nocturne_query_requests_total", "method", "A"),
        ("nocturne_query_requests_total", "code", "B|C"),
    )


# Metrics ---------------------------------------------------------------------------------------


def test_the_document_has_every_metric_as_it_is_registered() -> None:
    document = (ROOT / "docs/guides/metrics.md").read_text()
    for service, metrics in registered().items():
        section = document.split(f"\n## {service}\n")[1].split("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("|")]
        assert "\n".join(rows) + "\n" == table(metrics), f"{service}: python -m tests.metrics"


def test_the_document_names_no_other_metric_and_has_no_other_section() -> None:
    document = (ROOT / "docs/guides/metrics.md").read_text()
    known = {metric.name for metrics in registered().values() for metric in metrics}
    assert set(re.findall(r"\bnocturne_\w+", document)) == known
    assert re.findall(r"^## (\w+)$", document, re.M) == list(registered())


def test_no_metric_is_made_in_the_source_that_tests_metrics_does_not_know() -> None:
    """The tables ask registries by name: a module with metrics of its own would be in none."""
    known = {metric.name for metrics in registered().values() for metric in metrics}
    short = {re.sub(r"^nocturne_[a-z]+_|_total$", "", name) for name in known}
    made = {
        re.sub(r"^nocturne_[a-z]+_|_total$", "", call.args[0].value)
        for path in (ROOT / "services").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
        and re.search(r"(?i)\b(counter|gauge|histogram)$", ast.unparse(call.func))
    }
    assert len(made) > 30
    assert made - short == set()


def test_metrics_are_named_by_the_conventions() -> None:
    for service, metrics in registered().items():
        for metric in metrics:
            assert re.fullmatch(rf"nocturne_{service}_[a-z][a-z0-9_]*[a-z]", metric.name)
            assert metric.text
            assert not metric.text.endswith(".")
            assert SCRAPED.isdisjoint(metric.labels)
            assert {"session", "author", "command", "trace_id"}.isdisjoint(metric.labels)
            assert not re.search(r"_(ms|millis|minutes|kb|mb|percent)(_|$)", metric.name)


# Alerts ----------------------------------------------------------------------------------------


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def slug_of(alert: str) -> str:
    """NocturneNoBlocks → no-blocks."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", alert.removeprefix("Nocturne")).lower()


def test_what_an_alert_waits_to_increase_is_there_from_the_beginning() -> None:
    """A series that begins with 1 never increases: what happens for the first time pages nobody."""
    there = {
        sample.name: sample.labels
        for registry in registries().values()
        for metric in registry.collect()
        for sample in metric.samples
    }
    asked = {
        name
        for rule in alerts()
        for name in re.findall(r"\bincrease\((\w+)", rule["expr"])
        # Of doors, which are made only with certificates: their own tests look.
        if not name.endswith(("_tls_reads_total", "_access_reads_total"))
    }
    assert len(asked) > 3
    assert sorted(asked - there.keys()) == []


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_what_exists_and_says_what_a_person_needs(rule: dict[str, Any]) -> None:
    assert faults_of(rule["expr"]) == []
    assert rule["alert"].startswith("Nocturne")
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["runbook_url"] == f"docs/runbooks/{slug_of(rule['alert'])}.md"
    labels = set(re.findall(r"\$labels\.(\w+)", notes["summary"] + notes["description"]))
    assert labels <= asked_by(rule["expr"]).labels


def test_each_alert_is_named_once() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert sorted(set(names)) == sorted(names)
    assert len(names) > 10


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_is_tried_where_it_fires_and_where_it_is_quiet(rule: dict[str, Any]) -> None:
    assert missing_of(rule, yaml.safe_load(CASES.read_text())["tests"]) == set()


def missing_of(rule: dict[str, Any], cases: list[dict[str, Any]]) -> set[str]:
    """Of `fires` and `is quiet`, what no case shows of this alert. It is quiet without its metrics
    too: that shows nothing.
    """
    shown = set()
    for case in cases:
        there = {one["series"].partition("{")[0] for one in case["input_series"]}
        for asked in case["alert_rule_test"]:
            if asked["alertname"] == rule["alert"] and asked_by(rule["expr"]).metrics & there:
                shown.add("fires" if asked["exp_alerts"] else "is quiet")
    return {"fires", "is quiet"} - shown


def test_an_alert_that_is_not_tried_both_ways_is_found() -> None:
    rule = {"alert": "A", "expr": "nocturne_signing_height > 1"}
    quiet = {"eval_time": "1m", "alertname": "A", "exp_alerts": []}
    fires = {"eval_time": "1m", "alertname": "A", "exp_alerts": [{}]}

    def case(series: str, *asked: dict[str, Any]) -> dict[str, Any]:
        given = {"series": series, "values": "1x9"}
        return {"input_series": [given], "alert_rule_test": list(asked)}

    own, other = 'nocturne_signing_height{instance="a"}', "up"
    assert missing_of(rule, []) == {"fires", "is quiet"}
    assert missing_of(rule, [case(own, fires)]) == {"is quiet"}
    assert missing_of(rule, [case(own, fires), case(other, quiet)]) == {"is quiet"}
    assert missing_of(rule, [case(own, fires, quiet | {"alertname": "B"})]) == {"is quiet"}
    assert missing_of(rule, [case(own, fires, quiet)]) == set()


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - BY_HAND
    assert pages == {slug_of(rule["alert"]) for rule in alerts()}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_a_runbook_leads_from_the_alert_to_its_end(rule: dict[str, Any]) -> None:
    page = (RUNBOOKS / f"{slug_of(rule['alert'])}.md").read_text()
    assert page.startswith(f"# {rule['alert']}\n\nSeverity: {rule['labels']['severity']}. ")
    parts = re.split(r"^## (.+)$", page, flags=re.M)
    assert parts[1::2] == SECTIONS
    assert all(part.strip() for part in parts[2::2])
    index = (RUNBOOKS / "README.md").read_text()
    severity = rule["labels"]["severity"]
    assert f"[{rule['alert']}]({slug_of(rule['alert'])}.md) | {severity} |" in index


def test_metrics_and_pages_that_runbooks_name_exist() -> None:
    names = set()
    for path in RUNBOOKS.glob("*.md"):
        text = path.read_text()
        names |= set(
            re.findall(
                r"\bnocturne_(?:process|command|consensus|signing|projection|query)_\w+", text
            )
        )
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
        for target in re.findall(r"`((?:docs|grafana)/[^`* ]+)`", text):
            assert (ROOT / target.rstrip(".,")).exists(), f"{path.name}: {target}"
    assert names
    assert names <= set(SERIES)


# Prometheus and Grafana ------------------------------------------------------------------------


def test_prometheus_scrapes_every_service_on_its_metrics_port() -> None:
    config = yaml.safe_load((ROOT / "grafana/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["job_name"] in VALUES["job"]
    (static,) = job["static_configs"]
    assert set(static["targets"]) == {f"{service.name}:7500" for service in SERVICES}
    assert [Path(name).name for name in config["rule_files"]] == [ALERTS.name]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    return [one for one in dashboard()["panels"] if one["type"] != "row"]


def test_grafana_finds_its_data_source_and_its_dashboard() -> None:
    provisioning = ROOT / "grafana/provisioning"
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())
    assert {one["uid"] for one in sources["datasources"]} == {"prometheus"}
    providers = yaml.safe_load((provisioning / "dashboards/nocturne.yml").read_text())["providers"]
    assert [one["type"] for one in providers] == ["file"]
    used = {one["datasource"]["uid"] for one in panels()}
    used |= {target["datasource"]["uid"] for one in panels() for target in one["targets"]}
    assert used == {"prometheus"}


def test_the_dashboard_is_whole() -> None:
    board = dashboard()
    assert board["uid"] == "nocturne"
    assert board["title"]
    assert board["description"]
    assert board["schemaVersion"] >= 39
    numbers = [one["id"] for one in board["panels"]]
    assert sorted(set(numbers)) == sorted(numbers)


def _place(panel: dict[str, Any]) -> tuple[int, int, int, int]:
    at = panel["gridPos"]
    return at["x"], at["y"], at["x"] + at["w"], at["y"] + at["h"]


def test_no_panel_covers_another() -> None:
    for one, other in combinations(dashboard()["panels"], 2):
        left, top, right, bottom = _place(one)
        x, y, x_end, y_end = _place(other)
        assert right <= x or x_end <= left or bottom <= y or y_end <= top, (
            one["title"],
            other["title"],
        )
    for one in dashboard()["panels"]:
        left, top, right, _ = _place(one)
        assert 0 <= left < right <= 24
        assert top >= 0


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_a_panel_says_what_it_shows_and_asks_for_what_exists(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        assert faults_of(target["expr"]) == []
        legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert legend <= asked_by(target["expr"]).labels
    for slug in re.findall(r"Runbooks?: ([a-z, -]+)\.", panel["description"]):
        for name in slug.split(", "):
            assert (RUNBOOKS / f"{name}.md").exists(), name


def test_every_panel_is_of_the_ledger_that_is_chosen() -> None:
    (chosen,) = dashboard()["templating"]["list"]
    assert (chosen["name"], chosen["allValue"]) == ("namespace", ".*")
    assert faults_of(chosen["definition"].removeprefix("label_values(").split(",")[0]) == []
    for panel in panels():
        for target in panel["targets"]:
            asked = re.findall(r"\b(?:nocturne|process)_\w+(\{[^}]*\})?", target["expr"])
            assert asked
            for selector in asked:
                assert 'namespace=~"$namespace"' in selector, target["expr"]


def _colours(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("color", "fixedColor") and isinstance(inner, str):
                yield inner
            else:
                yield from _colours(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _colours(inner)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_a_panel_can_be_read_without_seeing_every_colour(panel: dict[str, Any]) -> None:
    fields = panel["fieldConfig"]
    assert set(_colours(fields)) <= COLOURS
    assert fields["defaults"]["color"]["mode"] in ("fixed", "continuous-viridis")
    if panel["type"] == "timeseries":
        # Lines are told apart by their names and numbers in a table, too.
        assert panel["options"]["legend"]["displayMode"] == "table"
    else:
        assert panel["type"] in ("stat", "bargauge")
        for mapping in fields["defaults"]["mappings"]:
            assert all(state["text"] for state in mapping["options"].values())


def test_the_chart_has_the_same_alerts_byte_for_byte() -> None:
    assert (ROOT / "helm/nocturne/files/alerts.yml").read_bytes() == ALERTS.read_bytes()
