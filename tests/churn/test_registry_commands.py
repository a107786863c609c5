"""`churn registry` and `churn gates --override`, on a small real model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from churn.cli import main
from churn.settings import CONFIGS
from support.cdnow import cdnow_log

SMALL = (
    "training.epochs=4",
    "training.batch_size=256",
    "training.learning_rate=0.003",
    "training.baselines=[base_rate, logistic_regression]",
    "model.hidden=[32]",
    "model.seeds=[0]",
)
STRICT = "gates.profiles.default.floors.minimum={auroc: 0.97}"


class Shell:
    """Runs commands in one workspace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        columns = "columns: {user_id: customer, timestamp: when, amount: value}"
        source = f"data.source={{kind: csv, uri: {folder / 'orders.csv'}, {columns}}}"
        self.settings = [f"workspace={folder / 'var'}", source, *SMALL]

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        """stdout and stderr of `churn WORDS`, whose exit code has to be `code`."""
        flags = [word for setting in self.settings for word in ("--set", setting)]
        strict = [word for word in words if word == STRICT]
        words = tuple(word for word in words if word != STRICT)
        flags += [word for setting in strict for word in ("--set", setting)]
        done = subprocess.run(
            [sys.executable, "-m", "churn", *words, *flags],
            cwd=CONFIGS.parent, env=os.environ | {"COLUMNS": "250", "LOGNAME": "ada"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        if code:
            lines = [line for line in done.stderr.splitlines() if line.startswith("churn: ")]
            assert len(lines) == 1, done.stderr
        return done.stdout, done.stderr

    def report(self) -> dict[str, object]:
        file = self.folder / "var" / "gates" / "current" / "gate_report.json"
        content: dict[str, object] = json.loads(file.read_text())
        return content


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A workspace with a trained model that the gates have not judged."""
    folder = tmp_path_factory.mktemp("registry")
    write_orders(folder / "orders.csv")
    shell = Shell(folder)
    for words in (["ingest"], ["features", "build"], ["features", "materialize"], ["train"]):
        shell.run(*words)
    return shell


def write_orders(file: Path) -> None:
    """The purchases of every eleventh customer of CDNOW, as a shop would export them."""
    log = cdnow_log().rename(columns={"amount": "value"})
    log = log.assign(customer=log["customer"].astype(int))[log["customer"].astype(int) % 11 == 0]
    nth = log.groupby(["customer", "timestamp"]).cumcount()
    log["when"] = log["timestamp"].dt.tz_localize(None) + pd.to_timedelta(nth, unit="s")
    log[["customer", "when", "value"]].to_csv(file, index=False)


def test_the_empty_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    flags = [word for setting in Shell(tmp_path).settings for word in ("--set", setting)]

    def printed(*words: str, code: int = 0) -> str:
        assert main(["registry", *words, *flags]) == code
        return "".join(capsys.readouterr())

    assert "version" in printed("list")
    assert "when" in printed("history")
    assert "there is no challenger" in printed("promote", "--reason", "x", code=2)
    assert "no version 3" in printed("promote", "3", "--reason", "x", code=2)
    assert "no previous champion" in printed("rollback", "--reason", "x", code=2)
    assert not (tmp_path / "var" / "mlflow.db").exists()


@pytest.mark.slow  # two dozen commands, each a process that imports MLflow
def test_from_a_refusal_to_a_champion_and_back(shell: Shell) -> None:
    # refused: exit code 3, and nothing is packaged
    error = shell.run("gates", STRICT, code=3)[1]
    assert "the gates of profile default refuse this model: auroc 0." in error
    shell.run("package", STRICT, code=3)

    # overridden: only with a reason, only a failed rule, and the report contains it
    override = ("gates", STRICT, "--override")
    assert "give a --reason" in shell.run(*override, "floors", code=2)[1]
    wrong = shell.run(*override, "flors", "--reason", "typo", code=2)[1]
    assert "--override flors: no such failed rule; floors.auroc failed" in wrong
    refused = shell.run(*override, "parity", "--reason", "in a hurry", code=2)[1]
    assert "cannot be overridden" in refused
    assert "--reason: no rule is overridden" in shell.run("gates", "--reason", "none", code=2)[1]
    assert shell.report()["passed"] is False and shell.report()["overrides"] == []
    shell.run(*override, "floors", "--reason", "a pilot of\ntwo weeks")
    (noted,) = shell.report()["overrides"]  # type: ignore[misc]
    assert (noted["rule"], noted["reason"], noted["who"]) == ("floors", "a pilot of two weeks", "ada")
    shell.run("package", STRICT)
    assert "overridden" in shell.run("registry", "list")[0]

    # promoted, with a reason; a second request changes nothing
    assert "Version 1 is the champion" in shell.run("registry", "promote", "--reason", "the first")[0]
    again = shell.run("registry", "promote", "1", "--reason", "once more")[0]
    assert "Version 1 was the champion already" in again

    # a second version becomes champion, and is rolled back
    shell.run("train", "--set", "training.seed=7")
    shell.run("gates", "--set", "training.seed=7")
    shell.run("package", "--set", "training.seed=7")
    shell.run("registry", "promote", "--reason", "better rows")
    listed = shell.run("registry", "list")[0]
    assert alias_of(listed, "2") == "champion" and alias_of(listed, "1") == "previous"
    assert "Version 1 is the champion again" in shell.run("registry", "rollback", "--reason", "calls rose")[0]
    history = shell.run("registry", "history")[0]
    decisions = [line.split() for line in history.splitlines() if "ada" in line]
    assert [(words[2], words[3]) for words in decisions] == [
        ("challenge", "1"), ("promote", "1"), ("challenge", "2"), ("promote", "2"), ("rollback", "1"),
    ]  # fmt: skip
    for reason in ("a pilot of two weeks", "the first", "better rows", "calls rose"):
        assert reason in history
    assert "once more" not in history


def alias_of(listed: str, version: str) -> str:
    return next(line.split()[1] for line in listed.splitlines() if line.split()[:1] == [version])
