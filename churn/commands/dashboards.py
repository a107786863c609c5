"""`churn dashboard ...`: the web pages of Optuna and MLflow."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import TYPE_CHECKING

from churn import console
from churn.argument_types import port
from churn.command import argument, command
from core.errors import ServingError

if TYPE_CHECKING:
    from churn.dashboards import Server
    from churn.settings import Settings

PORT = argument("--port", type=port, default=0, help="default: a free one, which is printed")


@command(
    "dashboard optuna",
    "studies and trials, with each trial's plot and metrics, in the browser until interrupted",
    examples=("churn dashboard optuna", "churn dashboard optuna --port 8080"),
    arguments=(PORT,),
)
def optuna(settings: Settings, arguments: Namespace) -> int:
    from churn.dashboards import optuna_dashboard

    server = optuna_dashboard(settings.tuning.storage, settings.files.trial_artifacts)
    return _run(settings, server, arguments.port)


@command(
    "dashboard mlflow",
    "runs and registered models in the browser until interrupted",
    examples=("churn dashboard mlflow", "churn dashboard mlflow --port 5000"),
    arguments=(PORT,),
)
def mlflow(settings: Settings, arguments: Namespace) -> int:
    from churn.dashboards import mlflow_server

    server = mlflow_server(settings.training.tracking_uri, settings.training.artifacts_uri)
    return _run(settings, server, arguments.port)


def _run(settings: Settings, server: Server, port: int) -> int:
    from churn.dashboards import Dashboard

    log = settings.files.root / "dashboards" / f"{server.name}.log"
    with console.err.status(f"starting {server.name}") as shown, Dashboard(server, port, log) as dashboard:
        shown.stop()
        console.out.print(f"{server.name} until interrupted (Ctrl-C): {dashboard.url}", soft_wrap=True)
        try:
            while dashboard.alive:
                time.sleep(0.5)
        except KeyboardInterrupt:
            return 0
    raise ServingError(f"{server.name} ended unexpectedly; see {log}")
