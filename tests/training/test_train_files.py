import json

import numpy as np
import pandas as pd

from churn.settings import Settings
from core.workspace import Workspace
from model.export import load_program
from model.program import Program, score
from training.learn.inputs import Inputs


def test_training_hands_over_all_that_gates_and_packaging_need(
    trained: Workspace, small: Settings, rows: pd.DataFrame
) -> None:
    scores = pd.read_parquet(trained.training / "test_scores.parquet")
    inputs = Inputs.read(trained.training / "inputs.json")
    metrics = json.loads((trained.training / "metrics.json").read_text())
    baselines = json.loads((trained.training / "baselines.json").read_text())

    assert inputs.numeric == small.features.numeric
    assert list(scores) == [
        "user_id", "event_timestamp", "churned", "score",
        "baseline_base_rate", "baseline_logistic_regression", "baseline_random_forest", "baseline_bg_nbd",
    ]  # fmt: skip
    assert len(scores) == metrics["metrics"]["rows"] == metrics["rows"]["test"]
    assert set(baselines) == set(small.training.baselines)
    test = scores[["user_id", "event_timestamp"]].merge(rows, how="left", validate="one_to_one")
    exported = score(load_program(trained.training / "model.pt2"), *inputs.encode(test))
    eager = score(Program.load(trained.training / "members.ckpt"), *inputs.encode(test))
    assert np.abs(exported - scores["score"]).max() <= 1e-6
    assert np.abs(eager - scores["score"]).max() <= 1e-6


def test_even_a_small_network_is_better_than_its_baselines(trained: Workspace) -> None:
    found = json.loads((trained.training / "metrics.json").read_text())

    assert found["metrics"]["auroc"] > 0.8
    assert found["metrics"]["log_loss"] < min(b["log_loss"] for b in found["baselines"].values())
