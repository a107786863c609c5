"""The addresses of a machine's servers, for Prometheus (`http_sd_configs`).

The system chooses the ports of the gateway and of the workers, and a rollout starts a second TorchServe. Each
running server states its addresses in a file of the workspace, which is removed when it ends.
"""

import json
from pathlib import Path
from urllib.parse import urlsplit

Target = dict[str, list[str] | dict[str, str]]


def targets(serving: Path) -> list[Target]:
    """The targets by the records in the folder `serving` of the workspace. A record that is just being
    written or removed is left out."""
    found: list[Target] = []
    for file in sorted(serving.glob("*.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if "gateway_metrics" in record:  # server.json, which has the address of a worker, too
            found.append(_target(record["gateway_metrics"], "churn-gateway"))
        elif "metrics" in record:
            found.append(_target(record["metrics"], "churn-workers"))
    return found


def _target(url: str, job: str) -> Target:
    return {"targets": [urlsplit(url).netloc], "labels": {"job": job}}
