"""Alert rules and dashboard: PromQL that is right, about metrics that exist, each with a section in the runbook."""

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from pipeline.metrics import Metrics
from tests.deploy.tools import DEPLOY, program, read, run

RULES = DEPLOY / "prometheus" / "resadapt.rules.yml"
TESTS = DEPLOY / "prometheus" / "resadapt.test.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "resadapt.json").read_text())
RUNBOOK = (DEPLOY / "OPERATIONS.md").read_text()
ALERTS = {rule["alert"]: rule for group in read(RULES)["groups"] for rule in group["rules"]}
OF_PROMETHEUS = {"up", "ALERTS"}
MUST_BE_SHOWN = {
    "streams up": "resadapt_stream_up",
    "lag": "resadapt_hop_seconds_bucket",
    "drops by reason": "resadapt_hops_skipped_total",
    "tokens": "resadapt_mllm_tokens_total",
    "ladder": "resadapt_ladder_step",
    "MLLM latency": "resadapt_mllm_seconds_bucket",
    "event latency": "resadapt_event_seconds_bucket",
    "sink backlog": "resadapt_sink_pending",
    "cost per watch": "resadapt_tokens_prefilled_total",
}


def samples() -> set[str]:
    """The names under which Prometheus finds the metrics of the code."""
    metrics, names = Metrics(), set()
    metrics.watch_mllm(lambda: {"refused": 1})
    for family in metrics.registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def panels() -> Iterator[tuple[str, str]]:
    """Title and expression of everything that the dashboard asks for."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"]["query"])


def plain(expression: str) -> str:
    """An expression of a panel with what Grafana puts into it."""
    return expression.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$stream", ".*")


def named(expression: str) -> set[str]:
    """The metrics that an expression names."""
    return set(re.findall(r"\b(?:resadapt_\w+|up|ALERTS)\b(?=[{\[ )]|$)", re.sub(r'"[^"]*"', '""', expression)))


EXPRESSIONS = [*panels(), *((name, rule["expr"]) for name, rule in ALERTS.items())]


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS, ids=[title for title, _ in EXPRESSIONS])
def test_an_expression_names_metrics_that_exist(title: str, expression: str) -> None:
    assert named(expression)
    assert named(expression) - samples() - OF_PROMETHEUS == set()


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS, ids=[title for title, _ in EXPRESSIONS])
def test_an_expression_asks_for_labels_that_the_metric_has(title: str, expression: str) -> None:
    metrics = Metrics()
    of_scraping = {"instance", "job", "le", "alertname", "alertstate"}
    for name, matchers in re.findall(r"\b(resadapt_\w+)\{([^}]*)\}", expression):
        family = re.sub(r"_(total|bucket|sum|count)$", "", name)
        known = next(labels for one, labels in metrics.labels.items() if one in (family, name))
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert asked - set(known) - of_scraping == set(), name


def test_prometheus_takes_the_rules() -> None:
    checked = run(program("promtool", "apt-get install prometheus"), "check", "rules", "--lint-fatal", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path) -> None:
    rules = [{"record": f"panel:{number}", "expr": plain(expr)} for number, (_, expr) in enumerate(panels())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = run(program("promtool", "apt-get install prometheus"), "check", "rules", "--lint=none", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


def test_each_alert_fires_where_all_is_wrong_and_none_where_all_is_well() -> None:
    tested = run(program("promtool", "apt-get install prometheus"), "test", "rules", TESTS)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    wrong, well = read(TESTS)["tests"]
    fired = {re.search(r'alertname="(\w+)"', one["labels"])[1] for one in wrong["promql_expr_test"][0]["exp_samples"]}  # type: ignore[index]
    assert fired == set(ALERTS)
    assert well["promql_expr_test"][0]["exp_samples"] == []


def test_each_alert_has_a_severity_a_summary_and_a_section_in_the_runbook() -> None:
    assert set(re.findall(r"^### (Resadapt\w+)$", RUNBOOK, re.MULTILINE)) == set(ALERTS)
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]


def test_the_dashboard_shows_what_an_operator_looks_for() -> None:
    shown = {name for _, expression in panels() for name in named(expression)}
    assert {what for what, name in MUST_BE_SHOWN.items() if name not in shown} == set()
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(titles) == len(set(titles))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(titles)


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_what_grafana_is_given_leads_to_the_dashboard_and_to_prometheus() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    compose = read(DEPLOY / "compose.yaml")["services"]["grafana"]
    (provider,) = read(provisioning / "dashboards" / "resadapt.yaml")["providers"]
    assert any(one.endswith(f":{provider['options']['path']}/resadapt.json:ro") for one in compose["volumes"])
    (source,) = read(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
