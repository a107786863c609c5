"""`churn dashboard ...`: Optuna's and MLflow's own pages."""

import time
from argparse import Namespace
from typing import Any

from churn import console
from churn.settings import Settings
from core.errors import ServingError


def optuna(settings: Settings, arguments: Namespace) -> int:
    from churn.dashboards import optuna_dashboard

    server = optuna_dashboard(settings.tuning.storage, settings.files.trial_artifacts)
    return _show(settings, server, arguments.port)


def mlflow(settings: Settings, arguments: Namespace) -> int:
    from churn.dashboards import mlflow_server

    server = mlflow_server(settings.training.tracking_uri, settings.training.artifacts_uri)
    return _show(settings, server, arguments.port)


def _show(settings: Settings, server: Any, port: int) -> int:
    from churn.dashboards import Dashboard

    log = settings.files.root / "dashboards" / f"{server.name}.log"
    with console.err.status(f"starting {server.name}") as shown, Dashboard(server, port, log) as ours:
        shown.stop()
        console.out.print(f"{server.name} until interrupted (Ctrl-C): {ours.url}", soft_wrap=True)
        try:
            while ours.alive:
                time.sleep(0.5)
        except KeyboardInterrupt:
            return 0
    raise ServingError(f"{server.name} ended by itself; see {log}")
