"""State and archives of an earlier release, served, continued and taken back by this one.

The earlier release is a commit from before rooms moved, and before monitors and retraining wrote into the
database. It runs with the libraries of this environment; its features stay those of its own file.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.waits import within

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HERE = Path(__file__).resolve().parents[2]
EARLIER = "b28f1a78e742d5181eb579fd83ad62c1b654fe92"
NOW = "1998-07-01"
"""The newest features of the CDNOW log; by a clock at this moment they are fresh."""
SMALL = (
    "tuning.trials=0",
    "model.seeds=[0]",
    "model.trees=false",
    "training.epochs=1",
    "training.baselines=[base_rate, logistic_regression]",
    "rollout.rehearsal.watch_s=2",
    "rollout.rehearsal.requests_per_s=50",
    "gateway.port=0",
)


@dataclass
class Release:
    """The commands of one tree on one workspace."""

    tree: Path
    workspace: Path
    flags: Sequence[str] = ()

    def command(self, *words: str) -> list[str]:
        given = [part for one in (*SMALL, f"workspace={self.workspace}") for part in ("--set", one)]
        return [sys.executable, "-m", "churn", *words, *given, *self.flags]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.tree), "PYTHONSAFEPATH": "1", "COLUMNS": "200"}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), cwd=self.tree, env=self.environment, capture_output=True, text=True,
            check=False, timeout=900,
        )  # fmt: skip

    def succeed(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[None]:
        log, record = self.workspace / "serve.log", self.workspace / "serving" / "server.json"
        with log.open("w") as output:
            process = subprocess.Popen(
                self.command("serve", "--as-of", NOW), cwd=self.tree, env=self.environment,
                stdout=output, stderr=output,
            )  # fmt: skip

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return record.is_file() and json.loads(record.read_text()).get("pid") == process.pid

        try:
            within(120, is_ready, log.read_text, ignored=ValueError)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def scores(self, customers: Sequence[str]) -> list[float]:
        answers = json.loads(self.succeed("predict", *customers, "--json"))
        assert {answer["status"] for answer in answers} == {"ok"}
        return [answer["churn_probability"] for answer in answers]

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.workspace / "run.json").read_text())
        return found


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """What a `churn run` of the earlier release left."""
    tree = tmp_path_factory.mktemp("earlier")
    packed = subprocess.run(["git", "archive", EARLIER], cwd=HERE, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip("the history of git is not here: git fetch --unshallow")
    subprocess.run(["tar", "-x", "-C", tree], input=packed.stdout, check=True)
    release = Release(tree, tmp_path_factory.mktemp("state") / "var")
    release.succeed("run")
    return release


@pytest.fixture(scope="module")
def present(earlier: Release, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """This release on that workspace, with the features of the earlier one as a team would keep them."""
    features = yaml.safe_load((earlier.tree / "configs" / "features.yaml").read_text())
    overlay = tmp_path_factory.mktemp("overlay") / "features.yaml"
    overlay.write_text(yaml.safe_dump({"features": features}))
    return Release(HERE, earlier.workspace, ("--config", str(overlay)))


def test_the_archive_and_the_stores_of_the_earlier_release_are_served_and_give_its_scores(
    earlier: Release, present: Release
) -> None:
    answers = earlier.record["answers"]
    with present.serving():
        found = present.scores([answer["user_id"] for answer in answers])
    assert found == pytest.approx([answer["churn_probability"] for answer in answers], rel=0, abs=1e-12)


def test_a_run_goes_on_from_the_earlier_state_and_its_model_replaces_the_earlier_one_and_back(
    earlier: Release, present: Release
) -> None:
    before, answers = earlier.record["archive"]["version"], earlier.record["answers"]
    customers = [answer["user_id"] for answer in answers]
    scores = [answer["churn_probability"] for answer in answers]
    listed = earlier.succeed("registry", "list")
    # another seed, since the same one gives the earlier model again, bit for bit
    replace(present, flags=(*present.flags, "--set", "model.seeds=[1]")).succeed("run", "--no-rollout")
    after = present.record["archive"]["version"]
    now_listed = present.succeed("registry", "list")
    assert after != before and before in listed and before in now_listed and after in now_listed
    with present.serving():
        present.succeed("rollout", "start", "--reason", "the new release")
        promote = ("rollout", "promote", "--reason", "a drill")
        within(300, lambda: present.run(*promote).returncode == 0, "the canary is not ready")
        present.succeed("rollout", "watch")
        newer = present.scores(customers)
        assert newer != pytest.approx(scores, rel=0, abs=1e-6)
        present.succeed("rollback", "--reason", "a drill")
        assert present.scores(customers) == pytest.approx(scores, rel=0, abs=1e-12)
    assert "a drill" in present.succeed("rollout", "history", "--all")
