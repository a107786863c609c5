"""What the out-of-fold choice of a table rests on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from model.wide import stacked
from training.learn.boosting import boosted_logits, fold_rows
from training.learn.paths import standard_error
from training.learn.stacking import customer_folds
from training.trees.growth import Growth

SIZES = (3,)


def drawn(rows: int = 900) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    numeric = draw.normal(size=(rows, 3)).astype(np.float32)
    codes = draw.integers(1, 4, (rows, 1))
    churned = (draw.random(rows) < expit(2 * numeric[:, 0] * numeric[:, 1])).astype(np.float32)
    return torch.from_numpy(numeric), torch.from_numpy(codes), torch.from_numpy(churned)


def test_rows_of_one_customer_count_once() -> None:
    gains = np.random.default_rng(0).normal(size=200)
    alone = standard_error(gains, np.arange(200))

    assert alone == pytest.approx(gains.std() / np.sqrt(200))
    assert standard_error(np.repeat(gains, 5), np.repeat(np.arange(200), 5)) == pytest.approx(alone)


@pytest.mark.parametrize("symmetric", [False, True])
def test_trees_from_the_line_answer_with_it_and_all_folds_have_one_number(symmetric: bool) -> None:
    rows = drawn()
    folds = list(customer_folds(rows[2].numpy(), np.arange(900), seed=0))
    offset = np.linspace(-1, 1, 900)
    encoded = [fold_rows(rows, fold, tuple(offset[part] for part in fold), 0, SIZES) for fold in folds]  # type: ignore[arg-type]
    growth = Growth(4, 0.1, symmetric=symmetric, from_line=True, iterations=60)

    logits, number = boosted_logits(encoded, growth, seed=0)
    again, _ = boosted_logits(encoded, growth, seed=0)
    one_tree, _ = boosted_logits(encoded, replace(growth, rate=1e-6, iterations=1), seed=0)

    judged = np.concatenate([judged for _, judged in folds])
    assert 1 < number <= 60
    assert np.array_equal(logits, again)
    assert np.abs(one_tree - offset[judged]).max() < 1e-4  # hardly a step beyond the line
    truth = rows[2].numpy()[judged]
    assert np.mean(np.logaddexp(0, logits) - truth * logits) < np.mean(
        np.logaddexp(0, offset[judged]) - truth * offset[judged]
    )


def test_the_stack_gives_noise_nothing_and_equal_paths_equal_weights() -> None:
    draw = np.random.default_rng(0)
    logit = draw.normal(size=5000)
    churned = (draw.random(5000) < expit(logit)).astype(np.int64)

    one, other, noise, shift = stacked(
        np.column_stack([logit, logit, -logit + draw.normal(size=5000)]), churned
    )[0]

    assert one == pytest.approx(other, abs=1e-3)
    assert one + other == pytest.approx(1, abs=0.1)
    assert noise < 0.06
    assert abs(shift) < 0.1
