from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from churn.settings import Settings
from core.errors import TrainingError
from training.learn.split import BY_CUSTOMER, BY_TIME, Split, in_share, split_rows


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
    assert len(split.train) + len(split.test) < len(rows)  # rows in the gap are in neither part


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


PARTS = ("train", "test", "inner_train", "inner_validation")


def customers_of(table: pd.DataFrame, split: Split, part: str) -> set[str]:
    return set(table["user_id"].iloc[getattr(split, part)])


def test_a_table_is_split_by_customer_whatever_the_order_of_the_file(small: Settings) -> None:
    table = labelled(20_000)
    shuffled = table.sample(frac=1, random_state=1, ignore_index=True)
    split = split_rows(table, "labelled", small.features.horizon, small.training)
    other = split_rows(shuffled, "labelled", small.features.horizon, small.training)

    for part in PARTS:
        chosen = table.iloc[getattr(split, part)]
        # within four standard errors of the whole table's
        spread = np.sqrt(0.265 * 0.735 / len(chosen))
        assert abs(chosen["churned"].mean() - table["churned"].mean()) < 4 * spread
        assert customers_of(table, split, part) == customers_of(shuffled, other, part)
    # a share of 0.2 drawn for each customer alone: 4,000 give or take 57
    assert abs(len(split.test) - 4_000) < 4 * 57
    assert abs(len(split.inner_validation) - 3_200) < 4 * 51
    assert sorted([*split.train, *split.test]) == list(range(20_000))
    assert sorted([*split.inner_train, *split.inner_validation]) == sorted(split.train)
    assert split.rule == BY_CUSTOMER


@pytest.mark.parametrize("more", [20, 5_000])
def test_more_rows_move_no_row_to_another_part(small: Settings, more: int) -> None:
    """The champion of last month must not be judged on rows that it has learned from."""
    before = labelled(1000)
    added = labelled(more).assign(user_id=[f"new{i}" for i in range(more)])
    after = pd.concat([added.iloc[: more // 2], before, added.iloc[more // 2 :]], ignore_index=True)
    one = split_rows(before, "labelled", small.features.horizon, small.training)
    two = split_rows(after, "labelled", small.features.horizon, small.training)

    for part in PARTS:
        assert customers_of(before, one, part) == customers_of(after, two, part) & set(before["user_id"])


def test_a_row_that_leaves_or_changes_its_label_moves_no_other(small: Settings) -> None:
    before = labelled(1000)
    after = before.drop(index=range(0, 1000, 7)).assign(churned=lambda rows: 1 - rows["churned"])
    one = split_rows(before, "labelled", small.features.horizon, small.training)
    two = split_rows(after, "labelled", small.features.horizon, small.training)

    for part in PARTS:
        assert customers_of(after, two, part) == customers_of(before, one, part) & set(after["user_id"])


def test_test_and_validation_are_drawn_independently(small: Settings) -> None:
    ids = pd.Series([f"u{i}" for i in range(20_000)])
    test = in_share(ids, 0.2, 42, "test")
    validation = in_share(ids, 0.2, 42, "validation")

    assert abs((test & validation).mean() - 0.04) < 4 * np.sqrt(0.04 * 0.96 / 20_000)


def panel(customers: int, moments: list[str], seed: int = 0) -> pd.DataFrame:
    """A row a customer and moment."""
    draw = np.random.default_rng(seed)
    times = pd.to_datetime(moments, utc=True)
    return pd.DataFrame(
        {
            "user_id": np.tile([f"u{i}" for i in range(customers)], len(times)),
            "event_timestamp": np.repeat(times, customers),
            "churned": (draw.random(customers * len(times)) < 0.3).astype("int8"),
        }
    ).sample(frac=1, random_state=seed, ignore_index=True)


def test_a_panel_is_judged_on_its_newest_months(small: Settings) -> None:
    months = [f"2024-{month:02}-01" for month in range(1, 13)]
    table = panel(300, months)
    split = split_rows(table, "labelled", small.features.horizon, small.training)
    month = table["event_timestamp"].dt.month

    # a fifth of twelve months is 2.4, so three judge; a fifth of nine is 1.8, so two choose
    assert sorted(month.iloc[split.test].unique()) == [10, 11, 12]
    assert sorted(month.iloc[split.train].unique()) == list(range(1, 10))
    assert sorted(month.iloc[split.inner_validation].unique()) == [8, 9]
    assert sorted(month.iloc[split.inner_train].unique()) == list(range(1, 8))
    assert len(split.train) + len(split.test) == len(table)
    assert split.rule == BY_TIME


def test_a_time_for_every_row_is_split_at_a_moment(small: Settings) -> None:
    newest_first = pd.date_range("2023-01-01", periods=1000, freq="7h", tz="UTC")[::-1]
    table = labelled(1000).assign(event_timestamp=newest_first)
    split = split_rows(table, "labelled", small.features.horizon, small.training)

    moments = table["event_timestamp"]
    assert len(split.test) == 200
    assert moments.iloc[split.train].max() < moments.iloc[split.test].min()
    assert moments.iloc[split.inner_train].max() < moments.iloc[split.inner_validation].min()


@pytest.mark.parametrize("when", ["2018-06-01", "2020-06-01"])
def test_a_few_stragglers_of_another_day_do_not_make_a_test(small: Settings, when: str) -> None:
    table = labelled(1000)
    dated = table.assign(
        event_timestamp=table["event_timestamp"].where(table.index % 50 > 0, pd.Timestamp(when, tz="UTC"))
    )
    split = split_rows(dated, "labelled", small.features.horizon, small.training)
    undated = split_rows(table, "labelled", small.features.horizon, small.training)

    assert split.rule == BY_CUSTOMER
    assert np.array_equal(split.test, undated.test)


def test_where_the_date_is_that_of_leaving_time_divides_nothing(small: Settings) -> None:
    """Who stays is dated today, who left on the day that she did: no test window would hold both."""
    table = labelled(1000)
    left = pd.Timestamp("2018-06-01", tz="UTC")
    table["event_timestamp"] = table["event_timestamp"].where(table["churned"] == 0, left)

    assert split_rows(table, "labelled", small.features.horizon, small.training).rule == BY_CUSTOMER


def test_the_seed_chooses_the_share(small: Settings) -> None:
    config = small.training.model_copy(update={"seed": small.training.seed + 1})
    one = split_rows(labelled(), "labelled", small.features.horizon, small.training)
    other = split_rows(labelled(), "labelled", small.features.horizon, config)

    assert set(one.test) != set(other.test)


def test_a_single_class_is_refused(small: Settings) -> None:
    with pytest.raises(TrainingError, match="single class"):
        split_rows(labelled().assign(churned=1), "labelled", small.features.horizon, small.training)
