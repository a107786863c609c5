import numpy as np
import pandas as pd
import pytest

from churn.settings import Settings
from core.errors import TrainingError
from model.config import ModelConfig, PurchaseColumns
from support.fits import fit_settings
from training.learn.bg_nbd import BgNbd
from training.learn.fit import fit
from training.learn.inputs import Inputs
from training.learn.purchase_features import learn_process
from training.learn.stacking import customer_folds


def process_of(small: Settings, rows: pd.DataFrame, **config: object):
    model = ModelConfig.model_validate(config)
    numeric = Inputs.learn(rows, small.features).encode(rows)[0]
    return lambda shape, spec=small.features: learn_process(
        rows, numeric, fit_settings(small, shape, spec=spec, model=model)
    )


def test_it_is_fitted_once_on_the_newest_snapshot(small: Settings, rows: pd.DataFrame) -> None:
    newest = rows[rows["event_timestamp"] == rows["event_timestamp"].max()]
    age = newest["tenure_months"].to_numpy() * 30.4375
    repeats = newest["active_days"].to_numpy(dtype=float) - 1
    recency = np.where(repeats > 0, age - newest["recency_days"].to_numpy(), 0.0)
    expected = BgNbd.fit(repeats, recency, age)

    process = process_of(small, rows)("transactions")

    assert process is not None
    np.testing.assert_allclose(process.bg_nbd.numpy(), [*vars(expected).values()], rtol=1e-6)


def test_by_the_rule_a_log_has_one_and_a_table_has_none(small: Settings, rows: pd.DataFrame) -> None:
    without = small.features.model_copy(
        update={"features": tuple(f for f in small.features.features if f.name != "active_days")}
    )

    assert process_of(small, rows)("transactions") is not None
    assert process_of(small, rows)("labelled") is None
    assert process_of(small, rows)("transactions", without) is None
    assert process_of(small, rows, purchase_process=False)("transactions") is None


def test_without_its_columns_the_missing_one_is_named(small: Settings, rows: pd.DataFrame) -> None:
    columns = PurchaseColumns(age="years_known")
    with pytest.raises(TrainingError, match=r"model\.purchase_columns\.age: years_known"):
        process_of(small, rows, purchase_process=True, purchase_columns=columns)("transactions")


def test_the_fitted_config_says_whether_it_is_there(small: Settings, rows: pd.DataFrame) -> None:
    training = small.training.model_copy(update={"epochs": 1})
    model = small.model.model_copy(update={"seeds": (0,)})
    few = rows.iloc[:3000]

    fitted = fit(few, None, fit_settings(small, model=model, training=training))
    without = model.model_copy(update={"purchase_process": False})
    plain = fit(few, None, fit_settings(small, model=without, training=training))

    assert fitted.settings.model.purchase_process
    assert not plain.settings.model.purchase_process
    assert fitted.program.preprocessing.outputs == plain.program.preprocessing.outputs + 3


def test_no_customer_is_on_both_sides_of_a_fold(rows: pd.DataFrame) -> None:
    customers = rows["user_id"].to_numpy()
    folds = list(customer_folds(rows["churned"].to_numpy(dtype=np.float32), customers, seed=1))

    for learned, judged in folds:
        assert not set(customers[learned]) & set(customers[judged])
    if len(folds) > 1:
        assert sorted(np.concatenate([judged for _, judged in folds])) == list(range(len(rows)))
