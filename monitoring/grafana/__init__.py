"""Grafana's dashboards as code: `python -m monitoring.grafana` writes the JSON files of `dashboards/`."""
