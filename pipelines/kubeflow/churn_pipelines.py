"""Two pipelines for Kubeflow, made from pipelines/graph.json. Every task is one `churn` command.

- `churn-daily`: the drift check, then the governor; a recurring run at 02:00 UTC.
- `churn-training`: the steps of the training as tasks.

`python pipelines/kubeflow/churn_pipelines.py` writes both as YAML beside this file. KFP has an environment of
its own (`make kubeflow-env`), since its packages exclude some of ours. On a cluster a task runs in the image
churn-train, with the workspace on a volume that all tasks mount.
"""

import json
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

FOLDER = Path(__file__).parent
GRAPH: dict[str, Any] = json.loads((FOLDER.parent / "graph.json").read_text("utf-8"))
IMAGE = "churn-train"
CLAIM, WORKSPACE = "churn-workspace", "/workspace"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def churn(command: list, flags: list, forced: list, force: bool) -> str:
    """Run one command; the last line of its output. A command that fails, fails the task."""
    import subprocess

    words = ["churn", *command, *flags, *(forced if force else [])]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)  # noqa: T201
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}")
    return (done.stdout.strip().splitlines() or [""])[-1]


def add_tasks(nodes: list[dict[str, Any]], flags: Any, force: Any) -> None:
    """One task for each node, after those that it needs. Nothing is cached: the commands themselves skip what
    has not changed, and they know what lies behind a path."""
    tasks: dict[str, Any] = {}
    for node in nodes:
        task = churn(command=node["command"], flags=flags, forced=node["forced"], force=force)
        task.set_display_name(node["title"]).set_caching_options(False).set_retry(node["retries"])
        kubernetes.mount_pvc(task, pvc_name=CLAIM, mount_path=WORKSPACE)
        task.after(*(tasks[need] for need in node["needs"]))
        tasks[node["name"]] = task


@dsl.pipeline(name="churn-daily", description="Drift check, then a training if the governor grants it")
def daily(flags: list = ["--profile", "production"], force_retrain: bool = False) -> None:  # noqa: B006
    add_tasks(GRAPH["daily"], flags, force_retrain)


@dsl.pipeline(name="churn-training", description="The steps from the source to a registered challenger")
def training(flags: list = ["--profile", "production"]) -> None:  # noqa: B006
    add_tasks(GRAPH["training"], flags, False)


def compile_all(folder: Path) -> None:
    """Write each pipeline as YAML into `folder`."""
    for pipeline in (daily, training):
        compiler.Compiler().compile(pipeline, str(folder / f"{pipeline.name}.yaml"))


if __name__ == "__main__":
    compile_all(FOLDER)
