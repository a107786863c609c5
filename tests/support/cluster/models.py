"""Small real models of a small shop, trained and packaged by the commands under the stores of the cluster."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from core.workspace import Workspace
from support.cluster.addresses import Addresses
from support.retraining_runs import FAST, make_log

REPOSITORY = Path(__file__).resolve().parents[3]
NOW = "2024-11-01T12:00:00+00:00"
"""The time in the pods: the shop's log ends here."""
CUSTOMERS = 250
MASK_KEY = "k" * 64


@dataclass(frozen=True)
class Packaged:
    archive: Path
    report: Path

    @property
    def version(self) -> str:
        return self.archive.stem.rpartition("-")[2]


class Commands:
    """The command line of a person, on this machine, with the profile of one cluster's stores."""

    def __init__(self, folder: Path, to: Addresses, namespace: str, target: str) -> None:
        self.folder, self.to, self.namespace = folder, to, namespace
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "log.csv"
        make_log(log, NOW[:10])
        columns = {"user_id": "customer", "timestamp": "when", "amount": "paid"}
        source = {"kind": "csv", "uri": str(log), "columns": columns, "user_id_type": "integer"}
        self.given = (
            f"workspace={folder / 'var'}",
            f"data.source={json.dumps(source)}",
            *FAST,
        )
        stages = [{"weight": w, "min_s": 5, "max_s": 300, "min_requests": 50} for w in (10, 50, 100)]
        self.profile = folder / "cluster.yaml"
        self.profile.write_text(
            yaml.safe_dump(
                {
                    "features": {
                        "online_store": {"type": "redis", "connection_string": to.redis},
                        "registry": {"registry_type": "sql", "path": to.database("feast")},
                        "project": namespace.replace("-", "_"),
                    },
                    "training": self._tracking(),
                    "rollout": {
                        "target": target,
                        "database": to.database(self.rollouts),
                        "store": f"{to.store}/{namespace}",
                        "stages": stages,
                        "watch_s": 45,
                        "ready_timeout_s": 240,  # a node that other programs use too
                        # two small models differ, on purpose; a canary here is judged by errors
                        "rules": {"score_shift": None, "decision_rate": None, "latency": None},
                        "kserve": {"namespace": namespace, "prometheus_url": to.prometheus or None},
                    },
                }
            )
        )

    @property
    def rollouts(self) -> str:
        """The database of this service's rollouts."""
        return f"{self.namespace.replace('-', '_')}_rollout"

    def _tracking(self) -> dict[str, str]:
        """MLflow's server where a pod has to reach it, else files of the workspace."""
        named = {"model_name": self.namespace, "experiment": self.namespace}
        return {**named, "tracking_uri": self.to.mlflow} if self.to.mlflow else named

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.to.aws, "PYTHONPATH": str(REPOSITORY), "CHURN_MASK_KEY": MASK_KEY}

    def line(self, *words: str, given: Sequence[str] = ()) -> list[str]:
        """`given`: settings that replace the others, as `key=value`."""
        flags = [word for value in (*self.given, *given) for word in ("--set", value)]
        return [sys.executable, "-m", "churn", *words, *flags, "--config", str(self.profile)]

    def __call__(self, *words: str, code: int = 0, given: Sequence[str] = ()) -> str:
        """Its output; it has to end with this exit code."""
        ran = subprocess.run(
            self.line(*words, given=given),
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,
            timeout=600,
            check=False,
        )
        assert ran.returncode == code, f"churn {' '.join(words)}: {ran.returncode}: {ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    def prepare(self) -> None:
        for words in (["ingest"], ["features", "build"], ["features", "materialize"]):
            self(*words)

    def package(self, seed: int, given: Sequence[str] = ()) -> Packaged:
        """A model that differs from that of another seed, stored beside those of others."""
        self("train", given=(*given, f"training.seed={seed}"))
        self("gates", given=given)
        self("package", given=given)
        files, folder = Workspace(self.folder / "var"), self.folder / "packaged" / str(seed)
        folder.mkdir(parents=True)
        archive = Path(json.loads(files.archive_record.read_text())["path"])
        for file in (archive, archive.with_name(f"{archive.name}.sig")):
            shutil.copyfile(file, folder / file.name)
        shutil.copytree(files.gate_report.resolve(), folder / "gates")
        return Packaged(folder / archive.name, folder / "gates" / "gate_report.json")

    def deploy(self, model: Packaged, reason: str, code: int = 0, given: Sequence[str] = ()) -> str:
        """`given`: of the plan, which a rollout keeps to its end."""
        words = ("deploy", str(model.archive), "--report", str(model.report), "--reason", reason)
        return self(*words, code=code, given=given)
