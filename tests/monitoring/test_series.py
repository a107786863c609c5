"""Rules and dashboards name only series that workers, exporter and controller export, and labels that these
have. The names come from the programs. tests/monitoring/test_series_live.py asks a running stack, Envoy
included."""

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from handlers.telemetry import torchserve_metrics
from monitoring.exporter import Exporter
from monitoring.grafana.dashboards import DASHBOARDS, FOLDER, files
from rollout.config import Notify
from rollout.health import Health, Standing
from rollout.notify import notifier
from rollout.store import Store
from stream.measures import Measures
from support.alert_rules import expressions, matchers_in, rule_files, rules, series_in
from support.exported_records import NOW, fill
from support.file_target import plan

RECORDED = {rule["record"] for file in rule_files() for rule in rules(file) if "record" in rule}
LIVE = ("envoy_", "churn_measured_")
"""Envoy's, and what the monitor measured: only a running stack has them."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Series -> its labels, of workers, exporter, controller and stream."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('series')}/rollout.db"
    fill(uri, plan())
    exporter = Exporter(uri, "churn", 14 * 86_400.0)
    exporter.refresh(NOW)
    notices = notifier(Notify())
    registry = CollectorRegistry()
    registry.register(Standing(Store(uri), "churn", Health(), notices))
    found = {one["name"]: set(one["dimensions"]) for kind in torchserve_metrics().values() for one in kind}
    Measures(registry)
    for family in (*exporter.collect(), *registry.collect()):
        found |= _series(family)
    notices.close()
    return found


def _series(family: Metric) -> dict[str, set[str]]:
    return {sample.name: set(sample.labels) for sample in family.samples}


@pytest.mark.parametrize("place", expressions())
def test_each_series_is_exported_with_the_labels_that_are_selected(
    place: str, exported: dict[str, set[str]]
) -> None:
    expression = expressions()[place]
    named = series_in(expression)
    assert named, expression
    for name in named:
        assert name in RECORDED or name in exported or name.startswith(LIVE), name
    for name, label, _ in matchers_in(expression):
        assert not name.startswith("churn_") or label in exported[name], (name, label)


def test_each_series_of_the_exporter_is_shown_or_judged(exported: dict[str, set[str]]) -> None:
    """A number that no rule and no dashboard reads is exported for nobody."""
    used = set().union(*map(series_in, expressions().values()))
    unused = {
        name for name in exported if name.startswith(("churn_monitor", "churn_retraining", "churn_exporter"))
    }
    assert unused - used == set()


def test_the_files_of_the_dashboards_are_those_of_the_code() -> None:
    written = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir()}
    assert written == files(), "run `python -m monitoring.grafana`"


def test_each_panel_says_what_it_shows_and_has_a_place_of_its_own() -> None:
    for dashboard in DASHBOARDS:
        panels = json.loads(files()[f"{dashboard.uid}.json"])["panels"]
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            assert panel["title"] and panel["description"]
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"]) for x in range(place["w"])}
            assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
            taken |= cells
    assert len({dashboard.uid for dashboard in DASHBOARDS}) == len(DASHBOARDS)


def test_grafana_is_provisioned_with_the_dashboards_and_their_source() -> None:
    provisioning = FOLDER.parent / "provisioning"
    assert sorted(file.parent.name for file in provisioning.rglob("*.yml")) == ["dashboards", "datasources"]
    assert isinstance(FOLDER, Path) and {file.suffix for file in FOLDER.iterdir()} == {".json"}
