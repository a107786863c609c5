"""The program that ships computes the combination of paths that was chosen, whatever paths there are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

import training.learn.fit
from churn.settings import Settings
from features.spec import Feature, FeaturesConfig
from model.config import ModelConfig
from model.export import export_program, load_program
from model.wide import Combination, Wide
from support.fits import fit_settings
from training.config import TrainingConfig
from training.learn.boosting import grow_forest
from training.learn.encoded import tensors
from training.learn.fit import Task, assemble
from training.learn.paths import StackingChoice
from training.learn.resolved import FitSettings
from training.learn.trainer import prepared
from training.trees.growth import Growth

SPEC = FeaturesConfig(
    features=(
        Feature(name="spend", dtype="float64"),
        Feature(name="visits", dtype="float64"),
        Feature(name="segment", dtype="string"),
    )
)
EXPORTED_EACH = 40


def a_log(draw: np.random.Generator) -> pd.DataFrame:
    customers = int(draw.integers(40, 90))
    rows = pd.DataFrame({"user_id": np.repeat([f"u{i:03}" for i in range(customers)], 3)})
    count = len(rows)
    months = pd.date_range("2021-01-01", periods=3, freq="MS", tz="UTC")
    return rows.assign(
        event_timestamp=np.tile(months, customers),
        spend=np.where(draw.random(count) < 0.2, np.nan, draw.lognormal(size=count)),
        visits=draw.poisson(3.0, count).astype(float),
        segment=draw.choice(["a", "b", "c"], count),
        churned=(draw.random(count) < draw.uniform(0.2, 0.8)).astype("int8"),
    )


SHAPES = (
    Growth(4, 0.1),
    Growth(8, 0.1, randomised=True, from_line=True),
    Growth(8, 0.1, symmetric=True, from_line=True),
)


def a_stack(draw: np.random.Generator) -> StackingChoice:
    def weight() -> float:
        return 0.0 if draw.random() < 0.2 else float(draw.uniform(0.05, 1.5))

    trees = draw.random() < 0.5
    drawn = draw.permutation(3)[: draw.integers(1, 4)]
    shapes = [SHAPES[place] for place in drawn]
    forest = tuple((1 / len(shapes), replace(one, iterations=int(draw.integers(1, 6)))) for one in shapes)
    combination = Combination(weight(), weight() if trees else 0.0, weight(), float(draw.normal()))
    return StackingChoice(1, float(draw.choice([1.0, 10.0, 100.0])), combination, forest if trees else ())


def stacked_by_hand(task: Task, chosen: StackingChoice, rows: pd.DataFrame) -> np.ndarray:
    """Each path, computed again from the rows, and their weighted sum."""
    contract = task.contract
    inputs, sizes = contract.inputs, contract.inputs.cardinalities
    learned = tensors(rows, inputs, contract.program.preprocessing)
    line, trees = Wide(learned[0].shape[1], sizes), Wide(learned[0].shape[1], sizes).trees
    line.solve(*learned, penalty=chosen.penalty)
    with torch.inference_mode():
        logit = chosen.combination.line * line.line(learned[0], learned[1]).double().numpy()
        if chosen.forest:
            of_line = line.line(learned[0], learned[1]).double().numpy()
            grow_forest(trees, learned, chosen.forest, contract.training.seed, sizes, of_line)
            logit += chosen.combination.trees * trees(learned[0], learned[1]).numpy()
        members = [member(learned[0], learned[1]).double().numpy() for member in contract.program.members]
    return logit + chosen.combination.deep * np.mean(members, axis=0) + chosen.combination.shift


@pytest.mark.parametrize("stacks", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_random_stacks(stacks: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    training = TrainingConfig(epochs=1, baselines=())
    model = ModelConfig(hidden=(4,), submodels=2, bins=4)
    for number in range(stacks):
        rows, chosen = a_log(draw), a_stack(draw)
        shape = "transactions" if draw.random() < 0.5 else "labelled"
        with prepared(training):
            task = assemble(rows, None, FitSettings(shape, SPEC, model, training), chosen)
            program = task.contract.program.eval()
            expected = stacked_by_hand(task, chosen, rows)
        numeric, codes = (torch.from_numpy(part) for part in task.contract.inputs.encode(rows))
        with torch.inference_mode():
            assert np.abs(program.logit(numeric, codes).numpy() - expected).max() < 1e-5, chosen
        if number % EXPORTED_EACH == 0:
            export_program(program, tmp_path / "model.pt2")
            scores = load_program(tmp_path / "model.pt2")(numeric, codes).numpy()
            assert np.abs(scores - expit(expected)).max() < 1e-6, chosen


def test_a_small_log_fits_line_and_deep_path_as_one_logit(small: Settings, rows: pd.DataFrame) -> None:
    """Both paths are nearly equal on a log: their sum without weights would be twice the logit."""
    model = small.model.model_copy(update={"wide": None, "seeds": (0,)})
    config = small.training.model_copy(update={"epochs": 2})
    settings = fit_settings(small, model=model, training=config)
    fitted = training.learn.fit.fit(rows.iloc[:6000], None, settings)

    assert fitted.settings.model.wide
    scores, churned = fitted.score(rows.iloc[:6000]), rows.iloc[:6000]["churned"]
    slope = np.polyfit(scores, churned, 1)[0]
    assert 0.85 < slope < 1.2
    weights = [fitted.record.cross_fit[f"weight_{name}"] for name in ("line", "deep")]
    assert fitted.program.wide is not None
    assert fitted.program.wide.shares.tolist() == pytest.approx([weights[0], 0.0])
