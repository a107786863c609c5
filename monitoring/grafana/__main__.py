"""Writes the JSON files of the dashboards anew."""

import json
from pathlib import Path

from monitoring.grafana.dashboards import DASHBOARDS
from monitoring.grafana.panels import dashboard_json
