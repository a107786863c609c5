"""All dashboards, and the files that Grafana reads."""

import json
from pathlib import Path

from monitoring.grafana.findings import DRIFT, QUALITY
from monitoring.grafana.panels import dashboard_json
from monitoring.grafana.rollouts import ROLLOUTS
from monitoring.grafana.serving import SERVING

FOLDER = Path(__file__).with_name("dashboards")
DASHBOARDS = (SERVING, QUALITY, DRIFT, ROLLOUTS)


def files() -> dict[str, str]:
    """Name of the file -> its JSON."""
    return {
        f"{dashboard.uid}.json": json.dumps(dashboard_json(dashboard), indent=2, ensure_ascii=False) + "\n"
        for dashboard in DASHBOARDS
    }
