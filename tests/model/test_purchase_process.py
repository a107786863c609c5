from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logit

from model.calibration import Calibration
from model.config import ModelConfig
from model.export import export_program, load_program
from model.network import Network
from model.preprocessing import Preprocessing
from model.program import Program, score
from model.purchase_process import PurchaseProcess
from training.learn.bg_nbd import BgNbd

FITTED = BgNbd(r=0.24, alpha=31.0, a=0.79, b=2.4)
HORIZON = 90.0
MONTH = 30.4375


def rows(count: int = 500) -> NDArray[np.float64]:
    """An amount, days with a purchase, age in months, recency in days; some bought once, some today."""
    draw = np.random.default_rng(3)
    days = 1 + draw.poisson(2.0, count) * (draw.random(count) < 0.7)
    age = draw.uniform(1, 700, count)
    since = np.where(days == 1, age, draw.uniform(0, 1, count) * age)
    return np.column_stack([draw.lognormal(3, 1, count), days, age / MONTH, since])


def process(numeric: NDArray[np.float64]) -> PurchaseProcess:
    return PurchaseProcess.fit(numeric, vars(FITTED), (1, 2, 3), (1.0, MONTH, 1.0), HORIZON)


def test_probabilities_equal_those_of_the_reference() -> None:
    numeric = rows()
    frequency, age = numeric[:, 1] - 1, numeric[:, 2] * MONTH
    recency = np.maximum(age - numeric[:, 3], 0)

    alive, rate, silent = process(numeric).raw(torch.from_numpy(numeric)).numpy().T

    np.testing.assert_allclose(alive, FITTED.alive(frequency, recency, age), atol=1e-12)
    np.testing.assert_allclose(rate, np.log((FITTED.r + frequency) / (FITTED.alpha + age)), atol=1e-12)
    np.testing.assert_allclose(silent, logit(FITTED.churn(frequency, recency, age, HORIZON)), atol=1e-9)


def test_columns_are_standardised_and_a_missing_value_is_the_mean() -> None:
    numeric = rows()
    preprocessing = Preprocessing.fit(numeric, process=process(numeric))
    gaps = numeric[:4].copy()
    gaps[[0, 1, 2], [1, 2, 3]] = np.nan
    gaps[3, 2] = np.inf

    outputs = preprocessing(torch.from_numpy(numeric))[:, -3:].numpy()

    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.std(axis=0), 1, atol=1e-5)
    assert preprocessing.outputs == 4 + 3
    outputs_with_gaps = preprocessing(torch.from_numpy(gaps))[:, -3:].numpy()
    assert (outputs_with_gaps[[0, 1, 3]] == 0).all()
    # the rate does not need the recency
    np.testing.assert_array_equal(outputs_with_gaps[2], [0, outputs[2, 1], 0])


@pytest.mark.parametrize("numeric", [np.zeros((3, 4)), np.full((3, 4), -1e9), np.full((3, 4), 1e9)])
def test_impossible_inputs_give_a_finite_score(numeric: NDArray[np.float64]) -> None:
    outputs = process(rows())(torch.from_numpy(numeric))

    assert torch.isfinite(outputs).all()


def test_the_exported_program_and_the_checkpoint_contain_it(tmp_path: Path) -> None:
    numeric, codes = rows(), np.zeros((500, 0), np.int64)
    config = ModelConfig(
        architecture="mlp", hidden=(8,), dropout=0.0, numeric_embedding="none", wide=False, seeds=(0,)
    )
    preprocessing = Preprocessing.fit(numeric, process=process(numeric))
    program = Program(preprocessing, [Network(7, (), config)], Calibration()).eval()
    export_program(program, tmp_path / "model.pt2")
    program.save(tmp_path / "members.ckpt", (), config)

    expected = score(program, numeric, codes)
    np.testing.assert_allclose(
        score(load_program(tmp_path / "model.pt2"), numeric, codes), expected, atol=1e-6
    )
    np.testing.assert_array_equal(score(Program.load(tmp_path / "members.ckpt"), numeric, codes), expected)
    moved = numeric.copy()
    moved[:, 3] /= 2  # another recency has to change the score, also through the process alone
    assert not np.allclose(score(program, moved, codes), expected)
