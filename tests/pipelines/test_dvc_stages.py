"""dvc.yaml has the steps of the loop; with DVC they run, and an old version of the data comes back."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from churn.settings import load_settings
from pipelines.context import Context
from pipelines.steps import STEPS
from pipelines.steps.graph import slug

ROOT = Path(__file__).resolve().parents[2]
DVC = shutil.which("dvc", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


def names(entries: list[Any]) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def test_the_stages_are_the_steps_with_their_files_and_code() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    settings = load_settings(overrides=["workspace=var"])
    context = Context(settings, datetime(2026, 1, 1, tzinfo=UTC), print)

    def relative(paths: Any) -> set[str]:
        return {path.relative_to(settings.files.root.parent).as_posix() for path in paths}

    assert list(stages) == [slug(step.name) for step in STEPS]
    for step, stage in zip(STEPS, stages.values(), strict=True):
        assert stage["cmd"] == f"churn steps run {slug(step.name)}"
        assert set(stage["deps"]) == {"core", *step.rooms} | relative(step.reads(context))
        outputs = {*names(stage["outs"]), *names(stage.get("metrics", []))}
        written = {"var/data"} if step.name == "ingest" else relative(step.writes(context))
        assert outputs == written
        for entry in (*stage["outs"], *stage.get("metrics", [])):
            assert next(iter(entry.values()))["persist"], "DVC would delete what the step updates"
        assert all((ROOT / file).is_file() for file in names(stage["params"]))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(DVC is None, reason="dvc is not installed; pip install -e '.[dvc]'")
def test_stages_run_once_and_old_data_come_back_from_a_remote(tmp_path: Path) -> None:
    assert DVC is not None
    clone, remote = tmp_path / "clone", tmp_path / "remote"
    paths = [str(Path(sys.executable).parent), str(Path(DVC).parent), os.environ["PATH"]]
    author = {
        f"GIT_{who}_{what}": "a@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    own = {"PYTHONPATH": str(clone), "DVC_NO_ANALYTICS": "1", "CHURN_MASK_KEY": "k" * 40}
    environment = os.environ | author | own | {"PATH": os.pathsep.join(paths)}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=clone, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    stages["stages"]["ingest"]["deps"].append("log.csv")  # as docs/how-to/reproduce.md says
    (clone / "dvc.yaml").write_text(yaml.safe_dump(stages, sort_keys=False))
    log = clone / "log.csv"
    source = {
        "kind": "csv",
        "uri": str(log),
        "columns": {"user_id": "who", "timestamp": "when", "amount": "paid"},
    }
    config = clone / "configs" / "data.yaml"
    config.write_text(
        yaml.safe_dump(yaml.safe_load(config.read_text()) | {"source": source, "expectations": []})
    )

    def deliver(days: int) -> None:
        lines = [
            f"c{customer},{date(2024, 1, 1) + timedelta(days=day)},{5 + day % 7}"
            for day in range(days)
            for customer in range(day % 5, 40, 5)
        ]
        log.write_text("\n".join(["who,when,paid", *lines]) + "\n")

    deliver(200)
    run("dvc", "remote", "add", "-d", "store", str(remote))
    run("dvc", "repro", "features")
    run("git", "add", "--all")
    run("git", "commit", "-qm", "the first delivery")
    run("dvc", "push")
    assert "didn't change" in run("dvc", "repro", "features")
    (first,) = [path.name for path in (clone / "var" / "data").iterdir() if len(path.name) == 64]

    deliver(240)
    run("dvc", "repro", "features")
    run("git", "commit", "-qam", "the second delivery")
    assert len([path for path in (clone / "var" / "data").iterdir() if len(path.name) == 64]) == 2
    shutil.rmtree(clone / "var" / "data" / first)
    run("dvc", "get", "--rev", "HEAD~1", ".", f"var/data/{first}", "-o", f"var/data/{first}")
    assert first[:12] in run("churn", "data", "versions")
