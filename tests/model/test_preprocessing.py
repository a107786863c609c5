import numpy as np
import pytest
import torch

from model.preprocessing import Preprocessing

ROWS = np.array([[0.0, 10.0, np.nan], [3.0, 1000.0, 5.0], [8.0, 1e7, 7.0], [1.0, -50.0, 9.0]])


def test_training_rows_are_standardised_with_missing_values_at_the_mean() -> None:
    preprocessing = Preprocessing.fit(ROWS)

    out = preprocessing(torch.from_numpy(ROWS))

    assert out.dtype == torch.float32
    assert out.shape == (4, 4) == (4, preprocessing.outputs)
    assert out[:, :2].mean(dim=0).abs().max() < 1e-6
    assert (out[:, :2].std(dim=0, correction=0) - 1).abs().max() < 1e-6
    assert out[0, 2] == 0.0  # the gap
    assert out[:, 3].tolist() == [1.0, 0.0, 0.0, 0.0]  # its indicator, the only one


def test_log1p_preserves_the_sign_and_is_optional() -> None:
    signed = Preprocessing.fit(ROWS)(torch.from_numpy(ROWS))[:, 1]
    plain = Preprocessing.fit(ROWS, log1p=False)(torch.from_numpy(ROWS))[:, 1]

    assert signed.argsort().tolist() == plain.argsort().tolist() == [3, 0, 1, 2]
    assert plain[2] > 1.7 > signed[2]  # a huge amount does not dominate the others


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_missing_value_never_reaches_the_network(bad: float) -> None:
    row = np.array([[bad, bad, bad]])

    out = Preprocessing.fit(ROWS)(torch.from_numpy(row))

    assert out.tolist() == [[0.0, 0.0, 0.0, 1.0]]  # no indicator: complete in training


def test_constant_and_empty_columns_are_harmless() -> None:
    rows = np.array([[5.0, np.nan], [5.0, np.nan]])

    out = Preprocessing.fit(rows)(torch.from_numpy(rows))

    assert out.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


def test_large_values_are_standardised_in_double_precision() -> None:
    rows = 1e9 + np.arange(8.0)[:, None]  # these values are equal in float32

    out = Preprocessing.fit(rows, log1p=False)(torch.from_numpy(rows))

    assert len(out.unique()) == 8


def test_all_outputs_are_within_ten_standard_deviations() -> None:
    flag = np.zeros((100_000, 1))
    flag[7] = 1.0  # 316 standard deviations
    preprocessing = Preprocessing.fit(flag, log1p=False)

    out = preprocessing(torch.tensor([[0.0], [1.0], [-1e300]], dtype=torch.float64))

    assert out[1:].flatten().tolist() == [10.0, -10.0]
    assert abs(out[0, 0]) < 0.01
