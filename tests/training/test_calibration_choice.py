from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from churn.settings import Settings
from support.fits import fit_settings
from training.learn import calibration_choice
from training.learn.calibration_choice import choose_calibration, platt_if_better
from training.train import prepare


def judged(slope: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `slope` times too large."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=4000)
    return slope * truth, (draw.random(4000) < expit(truth)).astype(np.int64)


def test_what_helps_on_the_next_judge_is_taken_from_the_newest() -> None:
    found = platt_if_better(judged(2.0, 0), judged(2.5, 1), judged(2.5, 1))
    assert float(found.slope) == pytest.approx(0.4, abs=0.05)


def test_what_harms_on_the_next_judge_is_left_out() -> None:
    assert platt_if_better(judged(3.0, 0), judged(1.0, 1), judged(1.0, 1)).is_identity


def test_it_is_chosen_for_all_members_and_forward_in_time(
    small: Settings, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = small.training.model_copy(update={"calibration": "auto"})
    settings = fit_settings(small, training=training)
    ordered, split = prepare(rows, settings)
    fits = []

    class Fitted:
        def score(self, some: pd.DataFrame) -> np.ndarray:
            fits[-1].append(some["event_timestamp"])
            return np.full(len(some), 0.5)

    def fit(train: pd.DataFrame, *configs: Any) -> Fitted:
        fits.append([train["event_timestamp"], configs[1].model])
        return Fitted()

    monkeypatch.setattr(calibration_choice, "fit", fit)
    choose_calibration(ordered, split, settings, lambda message: None)

    newest_training = ordered.iloc[split.train]["event_timestamp"].max()
    assert fits[0][2].max() == newest_training
    for learned, model, scored in fits:
        assert model.seeds == small.model.seeds
        assert learned.max() + small.features.horizon <= scored.min()
