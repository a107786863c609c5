"""Two DAGs for Airflow 3, made from pipelines/graph.json. Every task is one `churn` command.

- `churn_daily`: at 02:00 UTC the drift check, then the governor; a manual run has the parameter
  `force_retrain`.
- `churn_training`: the steps of the training as tasks, started by a person.

Airflow has an environment of its own (`make airflow-env`), since its packages exclude some of ours. Two
variables of the workers' environment name ours: CHURN_COMMAND, the path of the command `churn` (default:
`churn` on PATH), and CHURN_FLAGS, flags for each command, for example `--profile production`.

No task depends on the logical date: a manual run in Airflow 3 has none.
"""

import json
import os
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

GRAPH: dict[str, Any] = json.loads(Path(__file__).parents[1].joinpath("graph.json").read_text("utf-8"))
CHURN = [os.environ.get("CHURN_COMMAND", "churn")]
FLAGS = shlex.split(os.environ.get("CHURN_FLAGS", ""))
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def add_tasks(nodes: list[dict[str, Any]]) -> None:
    """One task for each node, after those that it needs. `churn` itself refuses to run twice at once."""
    tasks: dict[str, BashOperator] = {}
    for node in nodes:
        command = shlex.join([*CHURN, *node["command"], *FLAGS])
        if node["forced"]:
            command += f" {{% if params.force_retrain %}}{shlex.join(node['forced'])}{{% endif %}}"
        task = BashOperator(
            task_id=node["name"],
            bash_command=command,
            doc=node["title"],
            append_env=True,
            retries=node["retries"],
            retry_delay=timedelta(minutes=1),
        )
        for need in node["needs"]:
            tasks[need] >> task
        tasks[node["name"]] = task


with DAG(
    "churn_daily",
    description="Drift check, then a training if the governor grants it",
    schedule=GRAPH["schedule"],
    start_date=FIRST,
    catchup=False,
    max_active_runs=1,
    params={"force_retrain": Param(False, type="boolean", description="train whatever the triggers say")},
    tags=["churn"],
):
    add_tasks(GRAPH["daily"])

with DAG(
    "churn_training",
    description="The steps from the source to a registered challenger",
    schedule=None,
    start_date=FIRST,
    catchup=False,
    max_active_runs=1,
    tags=["churn"],
):
    add_tasks(GRAPH["training"])
