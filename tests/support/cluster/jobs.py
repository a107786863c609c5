"""The components of jobs and streams in a namespace of their own, on a workspace that nodes and this machine
share."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cluster import certificate
from support.cluster.addresses import Addresses
from support.cluster.inventory import done, found, kubectl
from support.cluster.models import REPOSITORY
from support.cluster.namespaces import remove_namespace
from support.retraining_runs import FAST, make_log

USER = 1000
"""Of the pods."""
KEY = "k" * 64
DATABASES = ("feast", "optuna", "rollout", "stream")
IMAGE = os.environ.get("CHURN_CLUSTER_TRAIN_IMAGE", "registry.example.com/churn-train:1.0.0")
"""The train image as the nodes know it, made of this code: the steps that are done depend on the code."""
COLUMNS = {"transaction_id": "id", "user_id": "customer", "timestamp": "when", "amount": "paid"}


def workspaces() -> Path:
    """CHURN_CLUSTER_WORKSPACES: a folder that this machine and the nodes have at the same path."""
    given = os.environ.get("CHURN_CLUSTER_WORKSPACES")
    if not given:
        pytest.skip(
            "cluster: CHURN_CLUSTER_WORKSPACES not set: a folder that the nodes have at the same path"
        )
    return Path(given)


class Jobs:
    """`more`: settings of this test, laid over the production profile in the pods and here."""

    def __init__(self, folder: Path, to: Addresses, namespace: str, kafka: str = "none:9092") -> None:
        self.folder, self.to, self.namespace, self.kafka = folder, to, namespace, kafka
        self.var = folder / "var"
        self.var.mkdir(parents=True)
        self.log = self.var / "log.csv"
        self.settings = folder / "settings.yaml"
        self._write_log("2024-11-01")
        self._make_databases()

    def _write_log(self, until: str) -> None:
        import pandas as pd

        make_log(self.log, until)
        rows = pd.read_csv(self.log)
        rows.insert(0, "id", [f"t{number}" for number in range(len(rows))])
        rows.to_csv(self.log, index=False)

    def more_purchases(self) -> None:
        """Three months have passed."""
        self._write_log("2025-02-01")

    def database(self, name: str) -> str:
        return self.to.database(self._name(name))

    def _name(self, database: str) -> str:
        return f"{self.namespace.replace('-', '_')}_{database}"

    def _make_databases(self) -> None:
        self.to.administer(*(f"CREATE DATABASE {self._name(name)}" for name in DATABASES))

    def variables(self, root: str) -> dict[str, str]:
        """Of the production profile, for a workspace at `root`."""
        return {
            "CHURN_WORKSPACE": root,
            "CHURN_SOURCE": "none",
            "CHURN_DATA_STORE": f"{root}/versions",
            "CHURN_REDIS": self.to.redis,
            "CHURN_FEAST_REGISTRY": self.database("feast"),
            "CHURN_MASK_KEY": KEY,
            # a file of the workspace: an empty database in PostgreSQL would take MLflow half a minute
            "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db",
            "CHURN_ARTIFACTS": f"file://{root}/mlartifacts",
            "CHURN_MLFLOW_DATABASE": "none",
            "CHURN_OPTUNA_STORAGE": self.database("optuna"),
            # there is no service: the rollout that a retraining begins is recorded, and that is all
            "CHURN_ROLLOUT_TARGET": "envoy",
            "CHURN_ROLLOUT_DATABASE": self.database("rollout"),
            "CHURN_MODEL_STORE": f"{root}/models",
            "CHURN_PROMETHEUS": self.to.prometheus,
            "CHURN_PREDICTION_TOPIC": f"{self.kafka}/predictions",
            "CHURN_STREAM_BROKERS": self.kafka,
            "CHURN_STREAM_STATE": self.database("stream"),
            "CHURN_BACKUP": f"{root}/backup",
        }

    def configure(self, log: str, experiment: str, **tuning: Any) -> Path:
        """Writes settings.yaml, with the source at the path `log`."""
        content: dict[str, Any] = {
            "data": {"source": {"kind": "csv", "uri": log, "columns": COLUMNS}},
            "training": {"experiment": experiment},
            "tuning": tuning,
            "features": {"project": self.namespace.replace("-", "_")},
            "stream": {"group": self.namespace, "topic": self.namespace,
                       "dead_letters": f"{self.namespace}.dead"},
        }  # fmt: skip
        self.settings.write_text(yaml.safe_dump(content))
        return self.settings

    def __call__(self, *words: str) -> str:
        """`churn` on this machine, with the same profile and settings as in the pods."""
        flags = [word for value in FAST for word in ("--set", value)]
        return self._run(
            "-m", "churn", *words, "--profile", "production", "--config", str(self.settings), *flags
        )

    def _run(self, *words: str) -> str:
        ran = subprocess.run(
            [sys.executable, *words], cwd=self.folder,
            capture_output=True, text=True, timeout=900, check=False,
            env={**os.environ, **self.to.aws, "PYTHONPATH": str(REPOSITORY), **self.variables(str(self.var))},
        )  # fmt: skip
        assert ran.returncode == 0, f"{' '.join(words)[:200]}: {ran.returncode}: {ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    def record_first_model(self) -> None:
        """The packaged model is what is stable, as `churn serve` or `churn deploy` would record it."""
        code = (
            "import sys; from datetime import UTC, datetime; from pathlib import Path;"
            "from churn.settings import load_settings; from pipelines.adopt import record_stable;"
            "from pipelines.candidates import stored; from pipelines.live import archive_record;"
            "from pipelines.rollout import open_store;"
            "s = load_settings('production', [Path(sys.argv[1])], sys.argv[2:]); a = archive_record(s.files);"
            "c = stored(s, Path(a['path']), a['sha256']);"
            "record_stable(open_store(s), s.serving.model_name, c, 'test', 'the first', datetime.now(UTC))"
        )
        self._run("-c", code, str(self.settings), *FAST)

    def hand_over(self) -> None:
        """The workspace belongs to the user of the pods from now on."""
        for path in [self.var, *self.var.rglob("*")]:
            os.chown(path, USER, USER, follow_symlinks=False)

    def apply(self, **patches: Any) -> None:
        """Secrets, ConfigMap, volume and the components, with pods that fit a node of two cores."""
        done("create", "namespace", self.namespace)
        pods = self.variables("/workspace")
        secrets = {
            "churn-features": {
                "online": pods.pop("CHURN_REDIS"),
                "registry": pods.pop("CHURN_FEAST_REGISTRY"),
            },
            "churn-mask-key": {"key": pods.pop("CHURN_MASK_KEY")},
            "churn-rollout": {
                "database": pods.pop("CHURN_ROLLOUT_DATABASE"),
                "tracking-uri": pods.pop("MLFLOW_TRACKING_URI"),
            },
        }
        pods.pop("CHURN_WORKSPACE")
        secrets["churn-production"] = pods | self.to.aws
        for name, content in secrets.items():
            literals = [f"--from-literal={key}={value}" for key, value in content.items()]
            done("create", "secret", "generic", name, "-n", self.namespace, *literals)
        self.update_settings()
        certificate.make(self.to.certificate, self.namespace)
        own = self.folder / "own"
        own.mkdir()
        components = [
            os.path.relpath(REPOSITORY / "kserve" / "components" / one, own) for one in ("jobs", "stream")
        ]
        name, _, tag = IMAGE.rpartition(":")
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": self.namespace},
            "spec": {
                "capacity": {"storage": "50Gi"},
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(self.var)},
                "claimRef": {"name": "churn-workspace", "namespace": self.namespace},
            },
        }
        (own / "volume.yaml").write_text(yaml.safe_dump(volume))
        small = [
            {"op": "replace", "path": "/spec/jobTemplate/spec/template/spec/containers/0/resources/requests",
             "value": {"cpu": "300m", "memory": "500Mi"}},
        ]  # fmt: skip
        three = [
            {"op": "replace", "path": f"/spec/jobTemplate/spec/{key}", "value": 3}
            for key in ("completions", "parallelism")
        ]
        container = {"name": "churn", "env": [{"name": "PARTS", "value": "3"}]}
        parts = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "churn-score"},
            "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [container]}}}}},
        }
        claim = [{"op": "add", "path": "/spec/storageClassName", "value": ""},
                 {"op": "add", "path": "/spec/volumeName", "value": self.namespace}]  # fmt: skip
        # a flag after the settings' file: the tiny models of the tests
        flags = [word for value in FAST if not value.startswith("tuning.trials") for word in ("--set", value)]
        tiny = [
            {"op": "add", "path": "/spec/jobTemplate/spec/template/spec/containers/0/args/-", "value": word}
            for word in flags
        ]
        trusted = certificate.mounted(self.to.certificate, "/spec/jobTemplate/spec/template/spec")
        paused = [{"op": "replace", "path": "/spec/replicas", "value": 0},
                  {"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests",
                   "value": {"cpu": "200m", "memory": "500Mi"}}]  # fmt: skip
        paused += certificate.mounted(self.to.certificate, "/spec/template/spec")
        paused += [
            {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": word} for word in flags
        ]
        content = {
            "namespace": self.namespace,
            "resources": ["volume.yaml"],
            "components": components,
            "images": [{"name": "registry.example.com/churn-train", "newName": name, "newTag": tag}],
            "patches": [
                {"target": {"kind": "CronJob"}, "patch": yaml.safe_dump(small + tiny + trusted)},
                {"target": {"kind": "CronJob", "name": "churn-tune"}, "patch": yaml.safe_dump(three)},
                {"target": {"kind": "CronJob", "name": "churn-score"}, "patch": yaml.safe_dump(three)},
                {"patch": yaml.safe_dump(parts)},
                {"target": {"kind": "PersistentVolumeClaim"}, "patch": yaml.safe_dump(claim)},
                {"target": {"kind": "Deployment", "name": "churn-stream"}, "patch": yaml.safe_dump(paused)},
            ],
        }
        (own / "kustomization.yaml").write_text(yaml.safe_dump(content))
        for _ in range(2):  # an apply may be repeated
            done("apply", "--server-side", "-k", str(own))

    def update_settings(self) -> None:
        made = done(
            "create", "configmap", "churn-settings", "-n", self.namespace, "--dry-run=client", "-o", "yaml",
            f"--from-file=settings.yaml={self.settings}",
        )  # fmt: skip
        done("apply", "--server-side", "--force-conflicts", "-f", "-", body=made)

    def start(self, name: str, *more: str) -> str:
        """`kubectl create job --from=cronjob/NAME`, with further arguments of the command; the Job's name."""
        job = f"{name}-{int(time.time()) % 100_000}"
        made = json.loads(
            done(
                "create",
                "job",
                job,
                f"--from=cronjob/{name}",
                "-n",
                self.namespace,
                "--dry-run=client",
                "-o",
                "json",
            )
        )
        made["spec"]["template"]["spec"]["containers"][0]["args"] += more
        done("create", "-f", "-", body=json.dumps(made))
        return job

    def pods(self, job: str) -> list[Any]:
        return list(found("pods", "-n", self.namespace, "-l", f"job-name={job}")["items"])

    def complete(self, job: str, within_s: float = 600) -> Any:
        """The Job's status when it is complete."""
        deadline = time.monotonic() + within_s
        while True:
            status = found("job", job, "-n", self.namespace)["status"]
            conditions = {one["type"] for one in status.get("conditions", []) if one["status"] == "True"}
            if "Complete" in conditions:
                return status
            assert "Failed" not in conditions and time.monotonic() < deadline, self.words(job)
            time.sleep(2)

    def words(self, job: str) -> str:
        """The last lines of the Job's pods."""
        return "\n".join(
            f"{pod['metadata']['name']} {pod['status']['phase']}: "
            + kubectl("logs", "-n", self.namespace, pod["metadata"]["name"], "--tail=15").stdout
            for pod in self.pods(job)
        )

    def remove(self) -> None:
        if found("namespace", self.namespace) is not None:
            remove_namespace(self.namespace)
        done("delete", "persistentvolume", self.namespace, "--ignore-not-found")
        self.to.administer(
            *(f"DROP DATABASE IF EXISTS {self._name(name)} WITH (FORCE)" for name in DATABASES)
        )
