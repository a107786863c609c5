from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from churn.settings import Settings
from data.errors import TrainingError
from training.split import split_rows


def test_training_ends_a_horizon_before_the_test_begins(small: Settings, rows: pd.DataFrame) -> None:
    horizon = small.features.horizon
    split = split_rows(rows, "transactions", horizon, small.training)
    moments = rows["event_timestamp"]

    def at(part: str) -> list[str]:
        return sorted({moment.strftime("%y-%m") for moment in moments.iloc[getattr(split, part)]})

    assert at("test") == ["98-02", "98-03", "98-04"]
    assert at("train") == [f"97-{month:02}" for month in range(4, 12)]
    assert at("inner_validation") == ["97-11"]
    assert at("inner_train") == [f"97-{month:02}" for month in range(4, 9)]
    assert moments.iloc[split.train].max() + horizon <= moments.iloc[split.test].min()
    assert moments.iloc[split.inner_train].max() + horizon <= moments.iloc[split.inner_validation].min()
    assert len(split.train) + len(split.test) < len(rows)  # the gap belongs to nobody


def test_a_log_that_is_too_short_is_refused_with_a_remedy(small: Settings, rows: pd.DataFrame) -> None:
    with pytest.raises(TrainingError, match=r"13 labelled snapshots are too few.*features\.horizon_days"):
        split_rows(rows, "transactions", timedelta(days=200), small.training)


def labelled(number: int = 1000) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user_id": [f"u{i:05}" for i in draw.permutation(number)],
            "event_timestamp": pd.Timestamp("2019-01-01", tz="UTC"),
            "churned": (draw.random(number) < 0.265).astype("int8"),
        }
    )


def test_a_table_is_split_by_class_whatever_the_order_of_the_file(small: Settings) -> None:
    table = labelled()
    shuffled = table.sample(frac=1, random_state=1, ignore_index=True)
    split = split_rows(table, "labelled", small.features.horizon, small.training)
    other = split_rows(shuffled, "labelled", small.features.horizon, small.training)

    rate = table["churned"].mean()
    for part in ("train", "test", "inner_train", "inner_validation"):
        chosen = table.iloc[getattr(split, part)]
        assert abs(chosen["churned"].mean() - rate) < 0.005
        assert set(chosen["user_id"]) == set(shuffled["user_id"].iloc[getattr(other, part)])
    assert len(split.test) == 200
    assert not set(split.train) & set(split.test)
    assert set(split.train) == set(split.inner_train) | set(split.inner_validation)
    assert not set(split.inner_train) & set(split.inner_validation)


def test_the_seed_chooses_the_share(small: Settings) -> None:
    config = small.training.model_copy(update={"seed": small.training.seed + 1})
    one = split_rows(labelled(), "labelled", small.features.horizon, small.training)
    other = split_rows(labelled(), "labelled", small.features.horizon, config)

    assert set(one.test) != set(other.test)


def test_a_single_class_is_refused(small: Settings) -> None:
    with pytest.raises(TrainingError, match="single class"):
        split_rows(labelled().assign(churned=1), "labelled", small.features.horizon, small.training)
