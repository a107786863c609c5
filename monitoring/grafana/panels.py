"""Parts of a Grafana dashboard as plain data (the JSON model of Grafana 10 and later, schema version 39)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 24, 8
"""Of a dashboard, and of a panel, in Grafana's units."""
SOURCE = {"type": "prometheus", "uid": "${source}"}
TABLE_COLUMNS = {"Time": True, "Value": True, "__name__": True, "instance": True, "job": True}
"""Columns that a table of labels leaves out."""


@dataclass(frozen=True)
class Query:
    expression: str
    """PromQL."""
    legend: str = ""
    """Text of a line, with labels as `{{label}}`."""


@dataclass(frozen=True)
class Panel:
    title: str
    queries: tuple[Query, ...]
    meaning: str
    """What a reader learns from it, and which value is good."""
    unit: str = "short"
    """Grafana's name of the unit: `s`, `reqps`, `percentunit`, `dateTimeFromNow`."""
    kind: str = "timeseries"
    """Or `stat` for the newest values, `table` for labels."""
    width: int = 12
    limit: float | None = None
    """A line of the objective."""


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    meaning: str
    panels: tuple[Panel, ...]

    @property
    def queries(self) -> list[str]:
        """The PromQL of all panels."""
        return [query.expression for panel in self.panels for query in panel.queries]


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana reads it. The data source is chosen in the page."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.meaning,
        "tags": ["churn"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "graphTooltip": 1,
        "links": [
            {
                "type": "dashboards",
                "title": "Churn",
                "tags": ["churn"],
                "asDropdown": True,
                "icon": "dashboard",
            }
        ],
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": list(_placed(dashboard.panels)),
    }


def _placed(panels: Iterable[Panel]) -> Iterable[dict[str, Any]]:
    """Panels from left to right, in rows of equal height."""
    x, y = 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > WIDTH:
            x, y = 0, y + HEIGHT
        yield _panel_json(panel, number, {"x": x, "y": y, "w": panel.width, "h": HEIGHT})
        x += panel.width


def _panel_json(panel: Panel, number: int, place: Mapping[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": query.expression,
            "legendFormat": query.legend or "__auto",
            "instant": panel.kind != "timeseries",
            "range": panel.kind == "timeseries",
            **({"format": "table"} if panel.kind == "table" else {}),
        }
        for index, query in enumerate(panel.queries)
    ]
    made = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": SOURCE,
        "gridPos": dict(place),
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel.kind),
        "targets": targets,
    }
    if panel.kind == "table":
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": TABLE_COLUMNS}}]
    return made


def _field(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    field: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        line = "line" if panel.limit is not None else "off"
        field["custom"] = {"lineWidth": 1, "fillOpacity": 5, "thresholdsStyle": {"mode": line}}
    return field


def _options(kind: str) -> dict[str, Any]:
    calculated = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    choices: Mapping[str, dict[str, Any]] = {
        "timeseries": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi"},
        },
        "stat": {"reduceOptions": calculated, "textMode": "value_and_name", "colorMode": "value"},
        "table": {"showHeader": True},
    }
    return choices[kind]


def queries(*parts: str | tuple[str, str]) -> tuple[Query, ...]:
    """Queries from PromQL, or from PromQL and legend."""
    return tuple(Query(part) if isinstance(part, str) else Query(*part) for part in parts)
