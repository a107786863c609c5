"""Writes the JSON files of the dashboards anew."""

from monitoring.grafana.dashboards import FOLDER, files

for name, text in files().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
