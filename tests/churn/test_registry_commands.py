"""`churn registry` and `churn gates --override` as a person types them, on a small real model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from churn.settings import CONFIGS

SMALL = (
    "training.epochs=4",
    "training.batch_size=256",
    "training.learning_rate=0.003",
    "training.baselines=[base_rate, logistic_regression]",
    "model.hidden=[32]",
    "model.seeds=[0]",
)
STRICT = "gates.profiles.default.floors.minimum={auroc: 0.97}"


class Person:
    """Types commands about one workspace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        columns = "columns: {user_id: customer, timestamp: when, amount: value}"
        source = f"data.source={{kind: csv, uri: {folder / 'orders.csv'}, {columns}}}"
        self.settings = [f"workspace={folder / 'var'}", source, *SMALL]

    def types(self, *words: str, code: int = 0) -> tuple[str, str]:
        """stdout and stderr of `churn WORDS`, which has to end with `code`."""
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
def person(tmp_path_factory: pytest.TempPathFactory) -> Person:
    """One whose workspace holds a trained model that nobody has judged yet."""
    folder = tmp_path_factory.mktemp("registry")
    write_orders(folder / "orders.csv")
    someone = Person(folder)
    for words in (["ingest"], ["features", "build"], ["features", "materialize"], ["train"]):
        someone.types(*words)
    return someone


def write_orders(file: Path) -> None:
    """The purchases of every eleventh customer of CDNOW, as a shop would export them."""
    from importlib.metadata import distribution

    import pandas as pd

    files = distribution("Lifetimes").files or []
    text = next(name for name in files if name.name == "CDNOW_master.txt").locate()
    names = ["customer", "when", "quantity", "value"]
    log = pd.read_csv(str(text), sep=r"\s+", header=0, names=names, dtype={"when": str})
    log = log[log["customer"] % 11 == 0]
    log["when"] = pd.to_datetime(log["when"], format="%Y%m%d") + pd.to_timedelta(
        log.groupby(["customer", "when"]).cumcount(), unit="s"
    )
    log[["customer", "when", "value"]].to_csv(file, index=False)


def test_the_registry_before_anything_is_there(tmp_path: Path) -> None:
    nobody = Person(tmp_path)
    assert "version" in nobody.types("registry", "list")[0]
    assert "when" in nobody.types("registry", "history")[0]
    assert "there is no challenger" in nobody.types("registry", "promote", "--reason", "x", code=2)[1]
    assert "no version 3" in nobody.types("registry", "promote", "3", "--reason", "x", code=2)[1]
    assert "no previous champion" in nobody.types("registry", "rollback", "--reason", "x", code=2)[1]
    assert not (tmp_path / "var" / "mlflow.db").exists()


@pytest.mark.slow  # two dozen commands, each a process that imports MLflow
def test_from_a_refusal_to_a_champion_and_back(person: Person) -> None:
    # refused: exit code 3, and nothing is packaged
    said = person.types("gates", STRICT, code=3)[1]
    assert "the gates of profile default refuse this model: auroc 0." in said
    person.types("package", STRICT, code=3)

    # overridden: only with a reason, only what failed, and on record
    override = ("gates", STRICT, "--override")
    assert "give a --reason" in person.types(*override, "floors", code=2)[1]
    wrong = person.types(*override, "flors", "--reason", "typo", code=2)[1]
    assert "--override flors: no such failed rule; floors.auroc failed" in wrong
    firm = person.types(*override, "parity", "--reason", "in a hurry", code=2)[1]
    assert "cannot be overridden" in firm
    assert "--reason: no rule is overridden" in person.types("gates", "--reason", "none", code=2)[1]
    assert person.report()["passed"] is False and person.report()["overrides"] == []
    person.types(*override, "floors", "--reason", "a pilot of\ntwo weeks")
    (noted,) = person.report()["overrides"]  # type: ignore[misc]
    assert (noted["rule"], noted["reason"], noted["who"]) == ("floors", "a pilot of two weeks", "ada")
    person.types("package", STRICT)
    assert "overridden" in person.types("registry", "list")[0]

    # promoted, with a reason; asked twice it is done once
    assert "Version 1 is the champion" in person.types("registry", "promote", "--reason", "the first")[0]
    again = person.types("registry", "promote", "1", "--reason", "once more")[0]
    assert "Version 1 was the champion already" in again

    # an honest second version takes its place, and goes again
    person.types("train", "--set", "training.seed=7")
    person.types("gates", "--set", "training.seed=7")
    person.types("package", "--set", "training.seed=7")
    person.types("registry", "promote", "--reason", "better rows")
    listed = person.types("registry", "list")[0]
    assert alias_of(listed, "2") == "champion" and alias_of(listed, "1") == "previous"
    assert (
        "Version 1 is the champion again" in person.types("registry", "rollback", "--reason", "calls rose")[0]
    )
    history = person.types("registry", "history")[0]
    told = [line.split() for line in history.splitlines() if "ada" in line]
    assert [(words[2], words[3]) for words in told] == [
        ("challenge", "1"), ("promote", "1"), ("challenge", "2"), ("promote", "2"), ("rollback", "1"),
    ]  # fmt: skip
    for reason in ("a pilot of two weeks", "the first", "better rows", "calls rose"):
        assert reason in history
    assert "once more" not in history


def alias_of(listed: str, version: str) -> str:
    return next(line.split()[1] for line in listed.splitlines() if line.split()[:1] == [version])
