"""Each series and label of rules and dashboards exists in a running stack, and each query of a dashboard has
data.

Gateway, TorchServe, exporter and controller run, the monitor has judged CDNOW, and Debian's Prometheus
scrapes them with the configuration of this repository.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from churn.cli import main
from churn.commands.step import context_of
from churn.settings import load_settings
from monitoring.exporter import Exporter, exporting
from monitoring.findings import Checked, Measurement
from monitoring.grafana.dashboards import DASHBOARDS
from monitoring.performance.intervals import METRICS
from monitoring.stored import MonitorStore
from monitoring.targets import targets
from pipelines.steps.data import join_training_set
from rollout.config import Notify
from rollout.health import Health, Standing, answering
from rollout.notify import notifier
from rollout.store import Store
from support.alert_rules import MONITORING, RULES, expressions, matchers_in, rule_files, rules, series_in
from support.exported_records import fill
from support.file_target import plan
from support.served_bundle import FRESH, ServedBundle, bundle  # noqa: F401
from support.servers.real_prometheus import needs_prometheus, running
from support.servers.stack import Stack, supervisor_of, ticking
from support.waits import within

pytestmark = [pytest.mark.slow, needs_prometheus]
AS_OF = "1998-06-30"
RATE = "10s"
"""In the place of Grafana's interval of a rate."""


@dataclass
class Scraped:
    url: str

    def query(self, expression: str) -> list[Any]:
        answer = httpx.post(f"{self.url}/api/v1/query", data={"query": expression}, trust_env=False).json()
        assert answer["status"] == "success", (expression, answer)
        return list(answer["data"]["result"])


def monitored_workspace(folder: Path) -> str:
    """The URI of a database with a run of the monitor over CDNOW, a rollout and retrainings."""
    overrides = ["--set", f"workspace={folder}"]
    for command in (["ingest"], ["features", "build"], ["features", "materialize"]):
        assert main([*command, *overrides]) == 0
    settings = load_settings(overrides=[f"workspace={folder}"])
    join_training_set(context_of(settings, lambda message: None))
    assert main(["monitor", "--as-of", AS_OF, *overrides]) == 0
    add_performance(MonitorStore(settings.rollout.database))
    fill(settings.rollout.database, plan(), monitors=False)
    return settings.rollout.database


def add_performance(store: MonitorStore) -> None:
    """Performance on labels under the names that the monitor gives it. The workspace has no prediction log,
    to which labels could be joined."""
    run = store.newest("churn")
    assert run is not None and run.checked.measurements
    late = tuple(Measurement(f"late_{name}", 0.5, 300, "all", "v1", 0.4, 0.6) for name in METRICS)
    store.save(replace(run, checked=run.checked + Checked(late)), datetime.now(UTC))


def scrape_configs(exporter: str, controller: str) -> list[dict[str, Any]]:
    """Those of this repository for one machine, at the addresses of this test, and the controller's."""
    text = (MONITORING / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("127.0.0.1:8091", exporter).replace("refresh_interval: 15s", "refresh_interval: 1s")
    configs: list[dict[str, Any]] = yaml.safe_load(text)["scrape_configs"]
    return [*configs, {"job_name": "churn-rollout", "static_configs": [{"targets": [controller]}]}]


def place(url: str) -> str:
    return url.split("/")[2]


@pytest.fixture(scope="module")
def scraped(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:  # noqa: F811
    folder = tmp_path_factory.mktemp("live")
    uri = monitored_workspace(folder / "workspace")
    stack = supervisor_of(bundle, folder, environment={"CHURN_PREDICTION_LOG": str(folder / "log")})
    exporter, notices = Exporter(uri, "churn", 14 * 86_400.0), notifier(Notify())
    exporter.refresh(datetime.now(UTC))
    over = threading.Event()
    clients = threading.Thread(target=ask, args=(stack, over))
    with ExitStack() as opened:
        opened.enter_context(stack.supervisor)
        opened.enter_context(ticking(stack.supervisor))
        clients.start()
        opened.callback(clients.join)
        opened.callback(over.set)
        machine = lambda: targets(stack.files.serving)  # noqa: E731
        metrics = opened.enter_context(exporting(exporter, "127.0.0.1:0", machine))
        standing = Standing(Store(uri), "churn", Health(), notices)
        controller = opened.enter_context(answering("127.0.0.1:0", standing, 60))
        configs = scrape_configs(place(metrics), place(controller))
        more = {"rule_files": [str(RULES / "*.yml")]}
        url = opened.enter_context(running(folder / "prometheus", configs, every_ms=1000, more=more))
        found = Scraped(url)
        ready = "churn:gateway_slow:ratio_rate6h and on () churn:model_slow:ratio_rate6h"
        within(60, lambda: found.query(ready), "no rule has a value")
        within(60, lambda: found.query(f"sum(rate(churn_requests_total[{RATE}])) > 0"), "no requests")
        yield found
    notices.close()


def ask(stack: Stack, over: threading.Event) -> None:
    """Requests of a client until `over` is set; one in ten is wrong."""
    number = 0
    while not over.wait(0.05):
        number += 1
        user = {"user_id": FRESH[number % len(FRESH)]} if number % 10 else {"nothing": 1}
        stack.post("/predictions/churn", json=user)


def test_prometheus_scrapes_all_and_evaluates_each_rule(scraped: Scraped) -> None:
    up = {one["metric"]["job"]: one["value"][1] for one in scraped.query("up")}
    assert up == dict.fromkeys(("churn-gateway", "churn-workers", "churn-monitor", "churn-rollout"), "1")
    answer = httpx.get(f"{scraped.url}/api/v1/rules", trust_env=False).json()["data"]["groups"]
    evaluated = [rule for group in answer for rule in group["rules"]]
    assert [rule["name"] for rule in evaluated if rule["health"] != "ok"] == []
    assert len(evaluated) == sum(1 for file in rule_files() for _ in rules(file))


def test_each_series_and_label_of_rules_and_dashboards_is_scraped(scraped: Scraped) -> None:
    """Without those of `churn stream`, which does not run here: tests/stream asks for its own."""
    every = [one for one in expressions().values() if "churn_stream_" not in one]
    named = {name for expression in every for name in series_in(expression)}
    selected = {(name, label) for expression in every for name, label, _ in matchers_in(expression)}
    queries = [*named, *(f'{name}{{{label}!=""}}' for name, label in selected)]
    missing = [query for query in queries if not scraped.query(f"count({query})")]
    assert missing == []


def test_each_query_of_a_dashboard_has_data(scraped: Scraped) -> None:
    empty = [
        (dashboard.uid, query)
        for dashboard in DASHBOARDS
        for query in dashboard.queries
        if not scraped.query(query.replace("$__rate_interval", RATE))
    ]
    assert empty == []
    print(f"{sum(len(dashboard.queries) for dashboard in DASHBOARDS)} queries have data")


def test_a_healthy_stack_has_no_alert_about_serving(scraped: Scraped) -> None:
    firing = {one["metric"]["alertname"] for one in scraped.query('ALERTS{alertstate="firing"}')}
    assert not {name for name in firing if name.startswith(("ChurnGateway", "ChurnModelE", "ChurnModelL"))}
    assert "ChurnExporterDown" not in firing
