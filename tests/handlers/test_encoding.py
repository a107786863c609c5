"""Feature columns are converted to numbers and codes of categories."""

import numpy as np
import pytest

from handlers.scoring.encoding import encode

VOCABULARY = {"segment": ("gold", "silver"), "city": ("Bern",)}


def test_missing_and_unknown_values_are_encoded() -> None:
    columns = {
        "spend": [1, None, 2.5],
        "orders": np.array([1, 2, 3]),
        "segment": ["silver", None, "lead"],
        "city": np.array(["Bern", float("nan"), "Bern"], dtype=object),
        "ignored": ["a", "b", "c"],
    }

    numbers, codes = encode(columns, ("orders", "spend"), VOCABULARY)

    assert numbers.dtype == np.float64
    assert codes.dtype == np.int64
    np.testing.assert_array_equal(numbers, [[1, 1], [2, np.nan], [3, 2.5]])
    assert codes.tolist() == [[2, 1], [0, 0], [0, 1]]


def test_missing_categories_of_the_training_data_differ_from_unknown_ones() -> None:
    columns = {"segment": ["silver", None, "lead", float("nan")]}

    codes = encode(columns, (), {"segment": ("gold", "silver", None)})[1]

    assert codes[:, 0].tolist() == [2, 3, 0, 3]


def test_numbers_or_categories_may_be_absent() -> None:
    numbers, codes = encode({"spend": [1.0, 2.0]}, ("spend",), {})
    assert numbers.shape == (2, 1)
    assert codes.shape == (2, 0)

    numbers, codes = encode({"city": ["Bern"]}, (), {"city": ("Bern",)})
    assert numbers.shape == (1, 0)
    assert codes.tolist() == [[1]]


def test_the_error_names_an_absent_column() -> None:
    with pytest.raises(KeyError, match="spend"):
        encode({"city": ["Bern"]}, ("spend",), {"city": ("Bern",)})


def test_text_in_a_numeric_column_is_an_error() -> None:
    with pytest.raises(ValueError, match="many"):
        encode({"spend": ["many"]}, ("spend",), {})
